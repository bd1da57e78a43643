# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines that could go: what is said of them holds for every packet, and nothing of it is a finding."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils import platforms, search
from ansible_collections.isp.hardening.plugins.module_utils.difference import Side, difference
from ansible_collections.isp.hardening.plugins.module_utils.filters import Configuration, Filter
from ansible_collections.isp.hardening.plugins.module_utils.hygiene import hygiene
from ansible_collections.isp.hardening.plugins.module_utils.policy import Attachment, Policy, read_policy
from ansible_collections.isp.hardening.plugins.module_utils.report import html, json, read
from ansible_collections.isp.hardening.plugins.module_utils.report.summary import summary
from lab.__main__ import INVENTORY
from tests.unit import report_samples as samples
from tests.unit.test_search import configurations

POLICY = Path(INVENTORY / "group_vars" / "all" / "policy.yml")
IOS = """hostname r
interface Virtual-Template1
 ip unnumbered Loopback0
 ip access-group UP in
!
ip access-list extended UP
 10 deny tcp any any range 135 139
 20 deny udp any any eq 445
 30 deny tcp any any eq 137
 40 permit tcp host 198.51.100.140 any eq smtp
 50 deny tcp any any eq smtp
 60 permit tcp 198.51.100.128 0.0.0.31 any eq www
 70 permit ip 198.51.100.128 0.0.0.63 any
 80 deny ip any any log
end
"""


def policy() -> Policy:
    found, problems = read_policy(yaml.safe_load(POLICY.read_text())["isp_policy"], datetime.date(2026, 11, 23))
    assert found, problems
    return found


def told(text: str, platform: str = "cisco_ios", place: str = "Virtual-Template1") -> dict[str, list[tuple[str, str]]]:
    configuration = platforms.load(platform).parse(text, [place])
    found: dict[str, list[tuple[str, str]]] = {}
    for note in hygiene(configuration, policy(), [Attachment(place, ("fibre",))]):
        found.setdefault(note.control, []).extend((text, reason) for _, text, reason in note.lines)
    return found


def test_each_kind_of_line_and_no_other() -> None:
    assert told(IOS) == {
        "H1": [("30 deny tcp any any eq 137", "hidden by line 7")],
        "H2": [("60 permit tcp 198.51.100.128 0.0.0.31 any eq www", "")],
        "H3": [("40 permit tcp host 198.51.100.140 any eq smtp", "the exception of 198.51.100.140/32 has ended")],
    }


def test_a_line_that_an_exception_in_force_needs_too_is_kept() -> None:
    tree = yaml.safe_load(POLICY.read_text())["isp_policy"]
    ended = {"prefix": "198.51.100.140/30", "owner": "A", "reason": "own MX", "until": "2026-06-30"}
    still = {"prefix": "198.51.100.140/32", "owner": "A", "reason": "own MX", "until": "2026-12-31"}
    found = {}
    for exceptions in ([ended], [ended, still]):
        chosen, problems = read_policy(tree | {"exceptions": exceptions}, datetime.date(2026, 11, 23))
        assert chosen, problems
        configuration = platforms.load("cisco_ios").parse(IOS, ["Virtual-Template1"])
        notes = hygiene(configuration, chosen, [Attachment("Virtual-Template1", ("fibre",))])
        found[len(exceptions)] = [note.control for note in notes]
    assert found == {1: ["H1", "H2", "H3"], 2: ["H1", "H2"]}


def test_a_line_in_doubt_hides_nothing_and_is_not_called_needless() -> None:
    found = told(IOS.replace(" 10 deny tcp any any range 135 139", " 10 deny tcp any any range 135 139 frobnicate"))
    assert "H1" not in found
    assert [text for text, _ in found["H2"]] == ["60 permit tcp 198.51.100.128 0.0.0.31 any eq www"]


def test_counters_of_nftables() -> None:
    text = """table inet filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "subs100" tcp dport 25 counter packets 0 bytes 0 drop
        iifname "subs100" counter packets 17 bytes 1020 accept
    }
}
"""
    configuration = platforms.load("linux_nftables").parse(text, ["subs100"])
    [note] = hygiene(configuration, policy(), [Attachment("subs100", ("residential",))])
    assert note.control == "H4"
    assert [(line, reason) for line, _, reason in note.lines] == [(4, "")]


def test_lists_that_are_too_hard_say_so() -> None:
    lines = "".join(f" {10 * number} permit ip any any dscp {number % 64}\n" for number in range(1, 4001))
    text = IOS.replace(" 10 deny tcp any any range 135 139\n", lines)
    search.EFFECT_LIMIT, limit = 10_000, search.EFFECT_LIMIT
    try:
        [(_, reason)] = told(text)["H1"]
    finally:
        search.EFFECT_LIMIT = limit
    assert "overlap too much" in reason


@settings(max_examples=60, deadline=None)
@given(configurations(), st.sampled_from(["first", "second"]))
def test_without_all_of_them_nothing_changes(configuration: Configuration, name: str) -> None:
    chosen = configuration.filters[4, name]
    entries = tuple(replace(entry, line=number) for number, entry in enumerate(chosen.entries, 10))
    numbered = Configuration({**configuration.filters, (4, name): replace(chosen, entries=entries)})
    effect = search.Search(numbered, 4).without_effect(name)
    assert effect
    hidden, needless = effect
    kept = tuple(entry for entry in entries if entry.line not in hidden and entry.line not in needless)
    shorter = Configuration({**configuration.filters, (4, name): Filter(name, 4, kept, chosen.default, 1)})
    sides = (Side(numbered, (name,), "a"), Side(shorter, (name,), "a"))
    assert not [box for box in difference(*sides, 4, unchanged=True).boxes if box.change != "unknown"]


def test_the_report_tells_them_and_counts_none() -> None:
    report = read(samples.run(samples.munich()))
    assert report.hosts[0].verdict == "compliant"
    assert report.totals["violated"] == 0
    assert "13 lines of filters on 1 hosts could go as well" in summary(report, colour=False)
    assert "hidden by line 90" in html.document(report)
    assert '"control": "H1", "filter": "SUB-IN4"' in json.document(report)
