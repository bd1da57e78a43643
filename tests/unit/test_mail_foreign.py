"""Hosts that somebody else configured: what the audit says of them is true, and it changes nothing.

A case is a folder of tests/mail/foreign: main.cf and master.cf as they were found (FOLDER stands for the folder),
what else is read on a host, and findings.yml, which has every verdict that is not compliant with why it is one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit import Expected, Reading, audit
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables
from ansible_collections.isp.hardening.plugins.modules.mta_audit import Host, tables_named
from tests.unit.mail_hosts import MAIL

CASES = [
    pytest.param(path.parent, side, id=f"{path.parent.name}-{side}")
    for path in sorted(MAIL.glob("foreign/*/findings.yml"))
    for side in ("inbound", "outbound")
]


@pytest.fixture(autouse=True)
def _postfix() -> None:
    if not shutil.which("postconf"):
        pytest.skip("Postfix is not installed")


def expected(side: str) -> Expected:
    """The policy's wish: a host of its own for each side, where one host does both."""
    return Expected(
        "mail",
        side,
        ("example.net",),
        {"residential": ("198.51.100.0/25",)},
        26214400,
        relays=("192.0.2.21",),
        addresses=("192.0.2.25",),
        dnsbl_zone="zen.spamhaus.org",
        name="mail.example.net",
        outbound=("mail.example.net", "192.0.2.25"),
    )


def copied(case: Path, folder: Path) -> Path:
    target = folder / case.name
    shutil.copytree(case, target)
    for path in target.iterdir():
        path.write_text(path.read_text().replace("FOLDER", str(target)))
    return target


def reading_of(case: Path) -> tuple[Host, Reading]:
    host = Host(str(case))
    postfix = host.postfix()
    assert postfix, host.unreadable
    reading = Reading(
        postfix,
        Tables(),
        dumps={table: host.dump(table) for table in tables_named(postfix)},
        rspamd=json.loads(host.file(str(case / "rspamd.json")) or "null"),
        clamd=host.file(str(case / "clamd.conf")),
        resolv=host.file(str(case / "resolv.conf")),
        unbound=host.file(str(case / "unbound.conf")),
        redis={"127.0.0.1:6379": True},
        sources={4: "192.0.2.25"},
        unreadable={"rspamd": "rspamadm is not installed"},
    )
    return host, reading


def digest(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*"))}


def told(case: Path, side: str, version: str) -> list[dict[str, Any]]:
    """The rows of findings.yml for the Postfix of this machine."""
    rows = yaml.safe_load((case / "findings.yml").read_text())[side]
    known = [int(part) for part in version.split(".")[:2]]
    return [row for row in rows if "before" not in row or known < [int(part) for part in row["before"].split(".")]]


@pytest.mark.parametrize(("case", "side"), CASES)
def test_the_findings_are_true_and_nothing_is_changed(case: Path, side: str, tmp_path: Path) -> None:
    folder = copied(case, tmp_path)
    before = digest(folder)
    host, reading = reading_of(folder)
    found = audit(reading, expected(side))
    while host.ask(reading.tables):
        found = audit(reading, expected(side))
    wrong = [one for one in found if one.verdict != COMPLIANT]
    rows = told(case, side, reading.postfix.effective()["mail_version"] if reading.postfix else "")
    assert [(one.control, one.attachment, one.pool, one.verdict) for one in wrong] == [
        (row["control"], row["place"], row.get("pool", ""), row.get("verdict", "violated")) for row in rows
    ]
    for one, row in zip(wrong, rows, strict=True):
        assert row["says"] in one.reason
        assert row["why"]
    assert digest(folder) == before
