"""What rspamd really prints of the role spam_filter's configuration (tests/mail/rspamd), with a fault each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT
from ansible_collections.isp.hardening.plugins.module_utils.mail import rspamd
from tests.unit.mail_hosts import MAIL
from tests.unit.test_mail_audit import findings, reading_of

VERSIONS = ("3.4", "3.12")  # Debian 12, Debian 13
Tree = dict[str, Any]


def verdicts(tree: Tree) -> dict[str, str]:
    """The verdicts on rspamd that are not compliant, by control, with the reason."""
    reading = replace(reading_of(MAIL / "outbound", {}), rspamd=tree)
    found = [one for one in findings(reading, "outbound") if one.attachment == "rspamd"]
    assert {one.control for one in found} == {"M6", "M7", "M10", "M11"}
    return {one.control: one.reason for one in found if one.verdict != COMPLIANT}


def printed(version: str) -> Tree:
    tree = json.loads((MAIL / "rspamd" / f"rspamd-{version}.json").read_text())
    assert isinstance(tree, dict)
    return tree


def proxy(tree: Tree) -> Tree:
    return next(worker["rspamd_proxy"] for worker in tree["worker"] if "rspamd_proxy" in worker)


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        ("127.0.0.1", ["127.0.0.1:6379"]),
        ("one,two.example.net:6380", ["one:6379", "two.example.net:6380"]),
        ("127.0.0.1:6380:10;[2001:db8::1]:6381:1", ["127.0.0.1:6380", "[2001:db8::1]:6381"]),
        ("master-slave:127.0.0.1,[::1]", ["127.0.0.1:6379", "[::1]:6379"]),
        ("/run/redis/redis.sock", ["/run/redis/redis.sock"]),
        ("service=sentinel+redis.local", ["service=sentinel+redis.local"]),
        (["127.0.0.1:6379", "::1"], ["127.0.0.1:6379", "::1"]),
    ],
)
def test_upstreams_are_read(servers: object, found: list[str]) -> None:
    assert rspamd.redis_servers({"redis": {"servers": servers}}, "ratelimit") == found


FAULTS: dict[str, tuple[str, str, Callable[[Tree], object]]] = {
    "no soft reject": ("M7", "CLAM_VIRUS_FAIL", lambda tree: tree["force_actions"].clear()),
    "a failure is accepted": (
        "M7",
        "CLAM_VIRUS_FAIL",
        lambda tree: tree["force_actions"]["rules"]["SCANNER_DOWN"].update(action="no action"),
    ),
    "the scan outlasts rspamd": (
        "M7",
        "soft_reject_on_timeout",
        lambda tree: tree["options"].update(soft_reject_on_timeout=False, task_timeout=8.0),
    ),
    "a hit is a header": ("M6", "CLAM_VIRUS", lambda tree: tree["antivirus"]["clamav"].update(action="add header")),
    "a hit is put away": ("M6", "CLAM_VIRUS", lambda tree: tree["antivirus"]["clamav"].update(action="quarantine")),
    "a refusal is swallowed": ("M6", "discard_on_reject", lambda tree: proxy(tree).update(discard_on_reject=True)),
    "a refusal is put away": ("M6", "quarantine_on_reject", lambda tree: proxy(tree).update(quarantine_on_reject=True)),
    "no scanner": ("M6", "no scanner", lambda tree: tree["antivirus"].clear()),
    "parts alone": ("M6", "scan_mime_parts", lambda tree: tree["antivirus"]["clamav"].update(scan_mime_parts=True)),
    "the scanner's limit": ("M6", "max_size", lambda tree: tree["antivirus"]["clamav"].update(max_size=20_000_000)),
    "rspamd's limit": ("M6", "max_message", lambda tree: tree["options"].update(max_message=10_000_000)),
    "users go unscanned": (
        "M6",
        "symbols_disabled",
        lambda tree: tree["settings"].update(
            users={"authenticated": True, "apply": {"symbols_disabled": ["CLAM_VIRUS"]}}
        ),
    ),
    "users get everything": (
        "M6",
        "want_spam",
        lambda tree: tree["settings"].update(users={"authenticated": True, "want_spam": True}),
    ),
    "a network goes unscanned": (
        "M6",
        "multimap.ours.action = accept",
        lambda tree: tree.update(multimap={"ours": {"type": "ip", "map": "/m", "action": "accept", "prefilter": True}}),
    ),
    "no Redis": ("M10", "Redis", lambda tree: tree["redis"].pop("servers")),
    "no limits": ("M10", "counts no user", lambda tree: tree["ratelimit"].pop("rates")),
    "rspamd's own exemptions": (
        "M10",
        "postmaster",
        lambda tree: tree["ratelimit"].update(whitelisted_rcpts="postmaster,mailer-daemon"),
    ),
    "signing is off": ("M11", "dkim_signing", lambda tree: tree["dkim_signing"].update(enabled=False)),
    "users go unsigned": ("M11", "dkim_signing", lambda tree: tree["dkim_signing"].update(sign_authenticated=False)),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_role_writes_holds(version: str) -> None:
    assert verdicts(printed(version)) == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_nothing_else(version: str, fault: str) -> None:
    control, word, change = FAULTS[fault]
    tree = printed(version)
    change(tree)
    found = verdicts(tree)
    assert list(found) == [control]
    assert word in found[control]


def test_a_map_that_marks_exempts_nobody() -> None:
    tree = printed("3.12")
    tree["multimap"] = {
        "freemail": {"type": "from", "map": "/m", "symbol": "FREEMAIL"},
        "bad": {"type": "ip", "map": "/m", "action": "reject", "prefilter": True},
        "off": {"type": "ip", "map": "/m", "action": "accept", "prefilter": True, "enabled": False},
    }
    assert verdicts(tree) == {}
