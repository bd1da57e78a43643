"""Mail hosts with a fault each, found with what gets through; a sound one of each kind, where nothing is found.

tests/mail/inbound and tests/mail/outbound are the sound ones (see mail_hosts.py). Their mutants.yml changes lines of
their files and tells every verdict that is not compliant.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, UNKNOWN, Finding
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit import Expected, Reading, audit
from ansible_collections.isp.hardening.plugins.module_utils.mail.postfix import Postfix
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables, is_table
from tests.unit.mail_hosts import MAIL, answer_questions, entries, postfix_of, text_of

MUTANTS = [
    pytest.param(side, mutant, id=f"{side}-{mutant['name']}".replace(" ", "_"))
    for side in ("inbound", "outbound")
    for mutant in yaml.safe_load((MAIL / side / "mutants.yml").read_text())
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
    )


def mutate(side: str, mutant: Mapping[str, Any], folder: Path) -> Path:
    """The sound host's folder, copied and changed."""
    case = folder / side
    shutil.copytree(MAIL / side, case)
    for name in ("postconf", "overrides"):
        if name in mutant:
            path = case / name
            path.write_text((path.read_text() if path.exists() else "") + str(mutant[name]))
    for name in ("resolv.conf", "clamd.conf", "clamav-milter.conf"):
        if name in mutant:
            (case / name).write_text(mutant[name])
    for name, text in mutant.get("tables", {}).items():
        (case / "tables" / name).write_text(text)
    return case


def reading_of(case: Path, mutant: Mapping[str, Any]) -> Reading:
    postfix = postfix_of(case)
    tree = json.loads(text_of(case, "rspamd.json", "null"))
    return Reading(
        postfix,
        Tables(),
        dumps={table: tuple(entries(table.partition(":")[2])) for table in named(postfix)},
        rspamd=tree | mutant.get("rspamd", {}) if tree else None,
        clamd=text_of(case, "clamd.conf"),
        clamav_milter=text_of(case, "clamav-milter.conf"),
        resolv=text_of(case, "resolv.conf"),
        redis={"127.0.0.1:6379": mutant.get("redis", True)},
    )


def named(postfix: Postfix) -> set[str]:
    values = [*postfix.parameters.values(), *(text for one in postfix.services for text in one.overrides.values())]
    words = {word.strip(",") for value in values for word in value.split()}
    return {word for word in words if is_table(word) and re.match(r"(texthash|cidr|regexp):/\S+/tables/", word)}


def findings(reading: Reading, side: str) -> list[Finding]:
    found = audit(reading, expected(side))
    while answer_questions(reading.tables):
        found = audit(reading, expected(side))
    return found


@pytest.mark.parametrize(("side", "mutant"), MUTANTS)
def test_what_is_wrong_is_found_and_nothing_else(side: str, mutant: dict[str, Any], tmp_path: Path) -> None:
    found = findings(reading_of(mutate(side, mutant, tmp_path), mutant), side)
    wrong = [one for one in found if one.verdict != COMPLIANT]
    if mutant["name"] == "users log in here":  # it has no rspamd whose configuration could be read
        wrong = [one for one in wrong if one.control == "M1"]
    assert [
        {"control": one.control, "pool": one.pool, "verdict": one.verdict, "packet": one.packet} for one in wrong
    ] == [
        {"pool": "", "verdict": "violated"} | {key: value for key, value in row.items() if key != "place"}
        for row in mutant["findings"]
    ]
    for one, row in zip(wrong, mutant["findings"], strict=True):
        assert one.reason
        assert one.attachment == row.get("place", one.attachment)
    assert KEY not in repr(found)


def test_every_control_is_told_of() -> None:
    told = {one.control for side in ("inbound", "outbound") for one in findings(reading_of(MAIL / side, {}), side)}
    assert told == {f"M{number}" for number in range(1, 14)}


def test_what_cannot_be_read_is_unknown() -> None:
    reading = Reading(None, Tables(), unreadable={"postconf": "postconf is not installed"})
    found = audit(reading, expected("inbound"))
    assert {one.verdict for one in found} == {UNKNOWN}
    assert {one.control for one in found} == {f"M{number}" for number in range(1, 14)}
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
