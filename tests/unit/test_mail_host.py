"""What mta_audit reads on a host, with the Postfix of this machine: directories of our own, and nothing runs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.mail.postfix import Postfix
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables
from ansible_collections.isp.hardening.plugins.modules.mta_audit import Host, answers, no_milter, wrong
from tests.conftest import ROOT
from tests.unit.mail_hosts import answer_questions, entries, text_of
from tests.unit.test_mail_audit import MUTANTS, expected, mutate, reading_of

# Not here: a table that is to fail, and an address that this machine does not have.
EDITS = [
    row
    for row in MUTANTS
    if {"postconf", "master", "services"} & set(row.values[1]["edit"])
    and not str(row.id).endswith(("that_fails", "by_inet_interfaces"))
]
# These hold $names for somebody else than postconf, or a list that another release makes longer.
_RAW = {"default_rbl_reply", "forward_path", "process_id", "proxy_read_maps"}


@pytest.fixture(autouse=True)
def _postfix() -> None:
    if not shutil.which("postconf"):
        pytest.skip("Postfix is not installed")


def install(case: Path) -> Path:
    """The case's folder with a main.cf and a master.cf that say the same."""
    (case / "main.cf").write_text(text_of(case, "postconf"))
    lines = text_of(case, "services").splitlines()
    for row in text_of(case, "overrides").splitlines():
        place, _, value = row.partition(" =")
        service, kind, name = place.split("/")
        at = next(at for at, line in enumerate(lines) if line.split()[:2] == [service, kind])
        lines[at] += f"\n  -o {{ {name} = {value.strip()} }}"
    (case / "master.cf").write_text("\n".join(lines) + "\n")
    return case


def read(case: Path) -> tuple[Host, Postfix]:
    host = Host(str(install(case)))
    postfix = host.postfix()
    assert postfix, host.unreadable
    return host, postfix


@pytest.mark.parametrize("side", ["inbound", "outbound"])
def test_values_are_expanded_as_postconf_does(side: str, tmp_path: Path) -> None:
    host, postfix = read(mutate(side, {}, tmp_path))
    effective = postfix.effective()
    expanded = host.run("postconf", *host.directory, "-x").splitlines()
    assert len(expanded) > 500
    for line in expanded:
        name, _, value = line.partition(" =")
        if name not in _RAW and not name.endswith(("_expansion_filter", "_reject_footer")):
            assert effective[name].split() == value.split(), name


@pytest.mark.parametrize(("side", "mutant"), EDITS)
def test_the_real_postconf_and_postmap_lead_to_the_same_verdicts(
    side: str, mutant: dict[str, Any], tmp_path: Path
) -> None:
    """The mutants of test_mail_audit.py once more, through main.cf, master.cf, postconf and postmap."""
    case = mutate(side, mutant, tmp_path)
    host, postfix = read(case)
    recorded = reading_of(case, mutant)
    reading = type(recorded)(
        postfix,
        Tables(),
        {table: host.dump(table) for table in recorded.dumps},
        recorded.rspamd,
        recorded.clamd,
        recorded.clamav_milter,
        resolv=recorded.resolv,
        unbound=recorded.unbound,
        redis=recorded.redis,
    )
    real = audit(reading, expected(side))
    while host.ask(reading.tables):
        real = audit(reading, expected(side))
    assert not reading.tables.broken

    wrong_ones = [(one.control, one.pool, one.packet) for one in real if one.verdict != COMPLIANT]
    assert wrong_ones == [(row["control"], row.get("pool", ""), row.get("packet", "")) for row in mutant["findings"]]


def test_tables_answer_as_the_tests_do_without_postfix(tmp_path: Path) -> None:
    files = {"/etc/postfix/names": "/\\.pool\\./ OK\n", "/etc/postfix/nets": "198.51.100.0/25 inside\n"}
    case = mutate("inbound", {"edit": {"files": files}}, tmp_path)
    host, _ = read(case)
    questions = [
        (f"texthash:{case}/tables/users", "abuse@example.net"),
        (f"texthash:{case}/tables/users", "nobody@example.net"),
        (f"regexp:{case}/tables/names", "a.pool.example.net"),
        (f"cidr:{case}/tables/nets", "198.51.100.7"),
        (f"cidr:{case}/tables/nets", "203.0.113.7"),
        ("static:{reject now}", "x"),
        ("inline:{<>=REJECT}", "<>"),
    ]
    real, ours = Tables(), Tables()
    for tables in (real, ours):
        for table, key in questions:
            tables.get(table, key)
    host.ask(real)
    answer_questions(ours)
    assert real.answers == ours.answers
    assert sum(map(bool, real.answers.values())) == 5
    assert host.dump(f"texthash:{case}/tables/users") == tuple(entries(f"{case}/tables/users"))


def test_a_broken_table_is_told(tmp_path: Path) -> None:
    host, _ = read(mutate("inbound", {}, tmp_path))
    tables = Tables()
    tables.get("texthash:/nonexistent/table", "x")
    host.ask(tables)
    assert "nonexistent" in tables.broken["texthash:/nonexistent/table"]


def test_a_configuration_that_postconf_refuses_is_unknown(tmp_path: Path) -> None:
    host = Host(str(tmp_path / "nothing"))
    assert host.postfix() is None
    assert "nothing" in host.unreadable["postconf"]


def test_another_encoding_is_no_obstacle(tmp_path: Path) -> None:
    case = install(mutate("inbound", {}, tmp_path))
    with open(case / "main.cf", "ab") as file:
        file.write("smtpd_reject_footer = Universität\n".encode("latin-1"))
    (case / "names").write_bytes("example.com REJECT für immer\n".encode("latin-1"))
    host = Host(str(case))
    postfix = host.postfix()
    assert postfix
    assert postfix.parameters["smtpd_reject_footer"].startswith("Universit")
    assert host.dump(f"texthash:{case}/names")[0][0] == "example.com"


@pytest.mark.parametrize(("level", "jailed"), [("0", True), ("3.6", False)])
def test_what_the_chroot_column_leaves_open_depends_on_the_compatibility_level(
    level: str, jailed: bool, tmp_path: Path
) -> None:
    (tmp_path / "main.cf").write_text(f"compatibility_level = {level}\n")
    (tmp_path / "master.cf").write_text("smtp inet n - - - - smtpd\nsmtp unix - - y - - smtp\n")
    postfix = Host(str(tmp_path)).postfix()
    assert postfix
    assert [one.chroot for one in postfix.services] == [jailed, True]


def test_milters_are_found_by_every_kind_of_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "milter.sock"))
        listener.listen()
        assert no_milter("local:milter.sock", str(tmp_path)) == ""
    assert "Connection refused" in no_milter("inet:127.0.0.1:tcpmux", "")
    assert "no kind of milter" in no_milter("none", "")


def test_no_redis_no_answer(tmp_path: Path) -> None:
    assert not answers(str(tmp_path / "redis.sock"))
    assert not answers("127.0.0.1:1")


def test_the_module_runs_as_ansible_runs_it(tmp_path: Path) -> None:
    case = install(mutate("inbound", {}, tmp_path))
    given = {
        "name": "mx1",
        "side": "inbound",
        "domains": ["example.net"],
        "pools": {"residential": ["198.51.100.0/25"]},
        "message_size_limit": 26214400,
        "outbound": ["192.0.2.25"],
        "dnsbl_key": "abcdefghijklmnopqrstuvwxyz",
        "config_directory": str(case),
        "_ansible_check_mode": True,
    }
    module = ROOT / ".collections/ansible_collections/isp/hardening/plugins/modules/mta_audit.py"
    done = subprocess.run(
        [sys.executable, module],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
        env={"PYTHONPATH": str(ROOT / ".collections"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(done.stdout)
    assert result["changed"] is False
    assert {
        one["verdict"] for one in result["findings"] if one["control"] in ("M1", "M2", "M3", "M5", "M12", "M13")
    } == {"compliant"}
    assert "abcdefghijklmnopqrstuvwxyz" not in json.dumps(result["findings"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pools": {"homes": "198.51.100.0/25"}}, "pools is to be a list"),
        ({"pools": {"homes": ["198.51.100.7/25"]}}, "has host bits set"),
        ({"relays": ["mx1.example.net"]}, "relays: 'mx1.example.net' does not appear to be"),
        ({"domains": []}, "domains is empty"),
        ({}, ""),
    ],
)
def test_parameters_are_checked(change: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"pools": {}, "addresses": ["192.0.2.10"], "relays": [], "domains": ["example.net"]}
    told = wrong(given | change)
    assert said in told
    assert bool(said) == bool(told)
