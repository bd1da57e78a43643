"""Mail hosts with a fault each, found with what gets through; a sound one of each kind, where nothing is found.

tests/mail/inbound and tests/mail/outbound are the sound ones (see mail_hosts.py). tests/mail/mutants.yml changes
them, as it would a real host, and tells every verdict that is not compliant.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit import Expected, Reading, audit
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit.running import room
from ansible_collections.isp.hardening.plugins.module_utils.mail.postfix import Postfix
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables, is_table
from tests.unit.mail_hosts import MAIL, answer_questions, entries, postfix_of, text_of

MUTANTS = [
    pytest.param(row["side"], row, id=f"{row['side']}-{row['name']}".replace(" ", "_"))
    for row in yaml.safe_load((MAIL / "mutants.yml").read_text())
]
KEY = "abcdefghijklmnopqrstuvwxyz"


def expected(side: str) -> Expected:
    own = {"inbound": "192.0.2.10", "outbound": "192.0.2.25"}[side]
    return Expected(
        "host1",
        side,
        ("example.net",),
        {"residential": ("198.51.100.0/25",)},
        26214400,
        relays=("192.0.2.10",),
        addresses=(own,),
        dnsbl_key=KEY,
        name={"inbound": "mx1.example.net", "outbound": "out1.example.net"}[side],
        outbound=("out1.example.net", "192.0.2.25"),
    )


def mutate(side: str, mutant: Mapping[str, Any], folder: Path) -> Path:
    """The sound host's folder, copied and changed. What is in /etc/postfix on a host is a table here."""
    case = folder / side
    shutil.copytree(MAIL / side, case)
    (case / "tables").mkdir(exist_ok=True)
    edit = mutant.get("edit", {})
    added = {
        "postconf": edit.get("postconf", []),
        "overrides": [" = ".join(line.split("=", 1)) for line in edit.get("master", [])],
        "services": edit.get("services", []),
    }
    for name, lines in added.items():
        text = "".join(f"{line}\n" for line in lines).replace("/etc/postfix/", "TABLES/")
        path = case / name
        path.write_text((path.read_text() if path.exists() else "") + text)
    for place, text in edit.get("files", {}).items():
        path = Path(place)
        if path.parent.name == "unbound.conf.d":
            text = (case / "unbound.conf").read_text() + text
            path = Path("unbound.conf")
        if path.parent.name == "override.d":
            override(case / "rspamd.json", path.stem, json.loads(f"{{{text}}}"))
        else:
            (case / ("tables" if path.parent.name == "postfix" else "") / path.name).write_text(text)
    return case


def override(path: Path, section: str, keys: dict[str, Any]) -> None:
    """What a file of rspamd's override.d does to its tree."""
    tree = json.loads(path.read_text())
    if section == "worker-proxy":
        next(one["rspamd_proxy"] for one in tree["worker"] if "rspamd_proxy" in one).update(keys)
    else:
        tree[section] = tree.get(section, {}) | keys
    path.write_text(json.dumps(tree))


def reading_of(case: Path, mutant: Mapping[str, Any]) -> Reading:
    postfix = postfix_of(case)
    return Reading(
        postfix,
        Tables(),
        dumps={table: tuple(entries(table.partition(":")[2])) for table in named(postfix)},
        rspamd=json.loads(text_of(case, "rspamd.json", "null")),
        clamd=text_of(case, "clamd.conf"),
        clamav_milter=text_of(case, "clamav-milter.conf"),
        resolv=text_of(case, "resolv.conf"),
        unbound=text_of(case, "unbound.conf"),
        redis={"127.0.0.1:6379": "redis-server" not in mutant.get("edit", {}).get("stop", [])},
        keys=dict.fromkeys(mutant.get("edit", {}).get("remove", []), False),
    )


def named(postfix: Postfix) -> set[str]:
    values = [*postfix.parameters.values(), *(text for one in postfix.services for text in one.overrides.values())]
    words = {word.strip(",") for value in values for word in value.split()}
    tables = {word for word in words if is_table(word) and re.match(r"(texthash|cidr|regexp):/\S+/tables/", word)}
    return {table for table in tables if Path(table.partition(":")[2]).exists()}


def findings(reading: Reading, side: str) -> list[Finding]:
    found = audit(reading, expected(side))
    while answer_questions(reading.tables):
        found = audit(reading, expected(side))
    return found


@pytest.mark.parametrize(("side", "mutant"), MUTANTS)
def test_what_is_wrong_is_found_and_nothing_else(side: str, mutant: dict[str, Any], tmp_path: Path) -> None:
    found = findings(reading_of(mutate(side, mutant, tmp_path), mutant), side)
    wrong = [one for one in found if one.verdict != COMPLIANT]
    assert [row_of(one) for one in wrong] == [
        row_of(one) | {"verdict": "violated", "pool": "", "packet": ""} | row
        for row, one in zip(mutant["findings"], wrong, strict=False)
    ] + [{"missing": row} for row in mutant["findings"][len(wrong) :]]
    for one in wrong:
        assert one.reason
    assert KEY not in repr(found)


def row_of(finding: Finding) -> dict[str, str]:
    return {
        "control": finding.control,
        "place": finding.attachment,
        "pool": finding.pool,
        "verdict": finding.verdict,
        "packet": finding.packet,
    }


def test_every_control_is_told_of() -> None:
    told = {one.control for side in ("inbound", "outbound") for one in findings(reading_of(MAIL / side, {}), side)}
    assert told == {f"M{number}" for number in range(1, 14)}


def test_what_cannot_be_read_is_unknown() -> None:
    reading = Reading(None, Tables(), unreadable={"postconf": "postconf is not installed"})
    found = audit(reading, expected("inbound"))
    assert {one.verdict for one in found} == {UNKNOWN}
    assert {one.control for one in found} == {f"M{number}" for number in (*range(1, 14), 15)}
    assert all("postconf is not installed" in one.reason for one in found)


def test_a_table_that_fails_leaves_the_answer_open(tmp_path: Path) -> None:
    case = mutate("inbound", {}, tmp_path)
    (case / "postconf").write_text(
        (case / "postconf").read_text()
        + "smtpd_relay_restrictions = check_client_access ldap:/etc/postfix/clients.cf, reject_unauth_destination\n"
    )
    reading = reading_of(case, {})
    reading.tables.broken["ldap:/etc/postfix/clients.cf"] = "connection refused"
    (relaying,) = [one for one in findings(reading, "inbound") if one.control == "M2"]
    assert relaying.verdict == UNKNOWN
    assert "connection refused" in relaying.reason


def test_a_table_that_cannot_be_listed_may_let_anybody_in(tmp_path: Path) -> None:
    case = mutate("inbound", {}, tmp_path)
    for line in (
        "smtpd_relay_restrictions = check_client_access ldap:/etc/postfix/clients.cf, reject_unauth_destination",
        "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nmynetworks = mysql:/etc/my.cf",
    ):
        (case / "postconf").write_text((case / "postconf").read_text() + line + "\n")
        reading = reading_of(case, {})
        for _ in range(3):
            (relaying,) = [one for one in audit(reading, expected("inbound")) if one.control == "M2"]
            reading.tables.answers |= dict.fromkeys(reading.tables.take()[0], "")  # asked, and nobody is in it
        assert relaying.verdict == UNKNOWN
        assert "its entries cannot be listed" in relaying.reason


def test_other_instances_are_not_taken_for_audited(tmp_path: Path) -> None:
    case = mutate("inbound", {"edit": {"postconf": ["multi_instance_directories = /etc/postfix-out"]}}, tmp_path)
    (other,) = [one for one in findings(reading_of(case, {}), "inbound") if one.verdict != COMPLIANT]
    assert (other.control, other.attachment, other.verdict) == ("M2", "Postfix", UNKNOWN)
    assert "/etc/postfix-out" in other.reason


def test_an_mx_that_a_policy_service_may_make_of_an_outbound_host_is_unknown(tmp_path: Path) -> None:
    edit = {
        "postconf": ["relay_domains = example.net", "smtpd_relay_restrictions = check_policy_service unix:x, reject"]
    }
    found = findings(reading_of(mutate("outbound", {"edit": edit}, tmp_path), {}), "outbound")
    verdicts = {one.verdict for one in found if one.control == "M1" and one.attachment == "smtp (smtpd)"}
    assert verdicts == {UNKNOWN}


@pytest.mark.parametrize(
    ("free", "limit", "minfree", "said"),
    [
        (40_000_000, 26_214_400, 0, ""),
        (39_321_599, 26_214_400, 0, "39321599 bytes are free, Postfix wants 39321600: it refuses all mail"),
        (40_000_000, 26_214_400, 50_000_000, "40000000 bytes are free, Postfix wants 50000000"),
    ],
)
def test_a_full_queue_is_told(free: int, limit: int, minfree: int, said: str) -> None:
    assert room(free, limit, minfree).startswith(said)
    assert bool(room(free, limit, minfree)) == bool(said)


def test_what_is_down_at_this_moment_is_told(tmp_path: Path) -> None:
    down = {"clamd": "It does not run.", "queue": ""}
    reading = replace(reading_of(mutate("outbound", {}, tmp_path), {}), down=down)
    found = {one.attachment: one for one in audit(reading, expected("outbound")) if one.control == "M15"}
    assert (found["clamd"].verdict, found["queue"].verdict) == (VIOLATED, COMPLIANT)
    assert found["clamd"].reason == "It does not run."
