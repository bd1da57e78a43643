# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Configurations that nobody here wrote, judged as an independent verifier judged them.

A row of verdicts-dev.tsv is (file, list, question): is some packet permitted, is some denied. What the questions left
open beside the ports of their names was found out from the rows: source, destination and TCP flags are free
(lists of `established` lines permit port 25 there, which a SYN alone would not), and so are TOS and TTL; the packets
are whole IPv4 ones. Rows without trust=yes are not relied on. A row is looked at on the platforms that exist.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    UNKNOWN,
    Configuration,
    Entry,
    NotThisPlatform,
)
from ansible_collections.isp.hardening.plugins.module_utils.packets import Match, exactly, span, union
from ansible_collections.isp.hardening.plugins.module_utils.search import Question, Search

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PLATFORMS = {  # the rows' names
    "ios": "cisco_ios", "eos": "arista_eos", "junos": "juniper_junos", "xr": "cisco_iosxr", "nxos": "cisco_nxos",
}  # fmt: skip
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the foreign configurations in ../shared/data are absent")

WHOLE: Match = {"fragment": exactly(0, 2), "undetermined": exactly(0, 1)}
TCP, UDP = exactly(6, 8), exactly(17, 8)
NETBIOS = union(exactly(135, 16), span(137, 139, 16), exactly(445, 16))
QUESTIONS: dict[str, Match] = {
    "q_smtp_up": {"protocol": TCP, "destination_port": exactly(25, 16)},
    "q_smtp_return": {"protocol": TCP, "source_port": exactly(25, 16)},
    "q_netbios_tcp": {"protocol": TCP, "destination_port": NETBIOS},
    "q_netbios_udp": {"protocol": UDP, "destination_port": NETBIOS},
    "q_593": {"protocol": TCP, "destination_port": exactly(593, 16)},
    "q_dns": {"protocol": UDP, "destination_port": exactly(53, 16)},
    "q_submission": {"protocol": TCP, "destination_port": exactly(587, 16)},
    "q_submissions": {"protocol": TCP, "destination_port": exactly(465, 16)},
    "q_all": {},
}
YES_NO = {True: "yes", False: "no", None: "unknown"}


def _rows(name: str, column: str) -> list[dict[str, str]]:
    """The rows of this platform; skips the test when it has no parser."""
    platform = PLATFORMS[column]
    if platform not in platforms.names():
        pytest.skip(f"there is no platforms/{platform}.py")
    with (DATA / name).open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines, delimiter="\t") if row["platform"] == column]


def _parse(column: str, path: str) -> Configuration:
    text = (DATA / path).read_text(encoding="utf-8", errors="replace")
    configuration = platforms.load(PLATFORMS[column]).parse(text)
    assert isinstance(configuration, Configuration)
    return configuration


@pytest.mark.parametrize("column", PLATFORMS)
def test_verdicts_agree_with_the_verifier(column: str) -> None:
    files = defaultdict(list)
    for row in _rows("verdicts-dev.tsv", column):
        files[row["path"]].append(row)
    told, lines = Counter[str](), Counter[str]()
    differing = []
    for path, rows in files.items():
        configuration = _parse(column, path)
        search = Search(configuration, 4)
        lines["all"] += configuration.filter_lines
        unread = {entry.line for one in configuration.filters.values() for entry in one.entries if _not_read(entry)}
        lines["in doubt"] += len(unread | {doubt.line for doubt in configuration.doubts})
        for row in rows:
            if row["question"] not in QUESTIONS:  # the verifier could not read the list
                told["not asked"] += 1
                continue
            if (4, row["acl"]) not in configuration.filters:
                found = ("no such list", "no such list")
            else:
                scope = ({**WHOLE, **QUESTIONS[row["question"]]},)
                answers = search.ask([row["acl"]], [Question(PERMIT, scope), Question(DENY, scope)])
                found = (YES_NO[answers[0].found], YES_NO[answers[1].found])
            expected = (row["permit_exists"], row["deny_exists"])
            told[f"trust={row['trust']}, {'same' if found == expected else 'other'}"] += 1
            if found != expected and row["trust"] == "yes":
                differing.append(f"{path} {row['acl']} {row['question']}: {found}, not {expected} ({row['note']})")
    understood = lines["all"] - lines["in doubt"]
    print(f"\n{PLATFORMS[column]}: {understood} / {lines['all']} filter lines understood, {dict(sorted(told.items()))}")
    assert not differing, "\n".join(differing[:40])


def _not_read(entry: Entry) -> bool:
    """Unknown, or in doubt for a reason other than what the vendor's documents leave open."""
    return entry.action == UNKNOWN or (bool(entry.doubt) and "not documented" not in entry.doubt)


@pytest.mark.parametrize("column", PLATFORMS)
def test_bindings_agree_with_the_verifier(column: str) -> None:
    rows = _rows("bindings-dev.tsv", column)
    read = {path: _parse(column, path) for path in {row["path"] for row in rows}}
    missing = []
    for row in rows:
        # The verifier compiles zone firewalls into lists of its own, which stand in no configuration.
        if row["kind"] != "binding" or row["acl"].startswith("~"):
            continue
        wanted = (row["interface"], row["direction"], row["acl"])
        bound = {(one.attachment, one.direction, name) for one in read[row["path"]].bindings for name in one.filters}
        if wanted not in bound:
            missing.append(f"{row['path']}: {' '.join(wanted)}")
    print(f"\n{PLATFORMS[column]}: {len(rows) - len(missing)} of {len(rows)} rows")
    assert not missing, "\n".join(missing[:40])


@pytest.mark.parametrize("column", PLATFORMS)
def test_what_is_bound_and_not_defined_has_a_filter(column: str) -> None:
    """The files bind lists that do not exist: each has a filter that says what the vendor does then."""
    for path in sorted({row["path"] for row in _rows("bindings-dev.tsv", column)}):
        configuration = _parse(column, path)
        for binding in configuration.bindings:
            for name in binding.filters:
                assert (binding.family, name) in configuration.filters, f"{path}:{binding.line}: {name}"


@pytest.mark.parametrize("platform", platforms.names())
def test_no_foreign_file_crashes_a_parser(platform: str) -> None:
    """Every file, of its own vendor or another's: a configuration, or the statement that it is none."""
    parse = platforms.load(platform).parse
    read = 0
    for path in sorted((DATA / "configs").rglob("*")):
        if path.is_file():
            try:
                parse(path.read_text(encoding="utf-8", errors="replace"))
                read += 1
            except NotThisPlatform:
                pass
    print(f"\n{platform}: {read} files hold something of it")
    if not read and platform not in PLATFORMS.values():
        pytest.skip(f"none of the files is of {platform}")
    assert read
