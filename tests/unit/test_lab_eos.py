# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's EOS switch: sessions, their timer, what it prints and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import lab
from lab.judge import judge
from lab.routers.arista_eos import Device

CONFIGS = Path(lab.__file__).parent / "configs"
SMALL = """\
hostname e1
!
interface Ethernet3
   no switchport
!
interface Ethernet3.7
   encapsulation dot1q vlan 7
   ip address 198.51.100.1/24
   ipv6 address 2001:db8:7::1/64
!
end
"""
CHANGE = (
    "ip access-list X",
    "deny tcp any any eq 25",
    "permit ip any any",
    "interface Ethernet3.7",
    "ip access-group X in",
)


@pytest.fixture
def switch() -> Device:
    return Device("e1", SMALL)


def type_in(switch: Device, *lines: str) -> str:
    """All that is printed for the lines."""
    return "".join(switch.execute(line) for line in lines)


def smtp(switch: Device, **fields: object) -> str:
    """What happens to a SYN to port 25 from the subscriber."""
    packet = {
        "family": 4, "source": "198.51.100.7", "destination": "203.0.113.9", "protocol": 6, "source_port": 50000,
        "destination_port": 25, "tcp_flags": 2,
    }  # fmt: skip
    return judge(switch, "Ethernet3.7", "up", packet | fields)


def test_the_configuration_is_printed_as_it_was_loaded() -> None:
    text = (CONFIGS / "edge1.cfg").read_text(encoding="utf-8")
    assert Device.load("edge1", CONFIGS).snapshot() == f"! Command: show running-config\n{text}"


def test_every_list_entry_of_the_configuration_is_what_the_switch_would_print() -> None:
    loaded = Device.load("edge1", CONFIGS).running
    typed = [
        (block.line, child.line)
        for block in loaded.root.children
        if loaded.dialect(block.line)
        for child in block.children
    ]
    assert len(typed) > 150
    fresh = Device("fresh", "end\n")
    fresh.execute("configure terminal")
    for header, line in typed:
        assert type_in(fresh, header, line) == ""
    printed = fresh.snapshot().splitlines()
    assert [line for _, line in typed if f"   {line}" not in printed] == []


TYPED = [
    ("permit tcp any any eq 25", "10 permit tcp any any eq smtp"),
    ("permit tcp any any eq 25 443 445", "10 permit tcp any any eq smtp https 445"),
    ("permit ip 198.51.100.0 0.0.0.127 any", "10 permit ip 198.51.100.0/25 any"),
    ("permit ip 198.51.100.7/32 198.51.100.9/25", "10 permit ip host 198.51.100.7 198.51.100.0/25"),
    ("permit ip 198.51.100.0 255.255.255.128 any", "10 permit ip 0.0.0.0 255.255.255.128 any"),
    ("deny udp any any range 135 139 log", "10 deny udp any any range 135 netbios-ss log"),
    ("counters per-entry", "counters per-entry"),
]


@pytest.mark.parametrize(("typed", "printed"), TYPED)
def test_an_entry_is_printed_as_the_vendor_does(switch: Device, typed: str, printed: str) -> None:
    assert type_in(switch, "configure terminal", "ip access-list X", typed) == ""
    assert f"ip access-list X\n   {printed}\n!\n" in switch.snapshot()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("permit tpc any any", "% Invalid input (at token 1: 'tpc')\n"),
        ("10 permit ip any any eq 25", "% Invalid input (at token 5: 'eq')\n"),
        ("permit tcp any", "% Incomplete command (at token 2: 'any')\n"),
    ],
)
def test_a_wrong_word_is_named(switch: Device, line: str, words: str) -> None:
    assert type_in(switch, "configure session s", "ip access-list X", line) == words


def test_a_session_acts_at_once_and_only_when_it_is_committed(switch: Device) -> None:
    verdicts: list[str] = []
    switch.on_change(lambda: verdicts.append(smtp(switch)))
    assert type_in(switch, "configure session isp1", *CHANGE) == ""
    assert switch.prompt == "e1(config-s-isp1-if-Et3.7)#"
    assert verdicts == []
    assert smtp(switch) == "permit"
    assert switch.execute("commit") == ""
    assert switch.prompt == "e1#"
    assert verdicts == ["deny"]


def test_the_differences_are_shown_before_the_commit(switch: Device) -> None:
    type_in(switch, "configure session isp1", *CHANGE)
    shown = switch.execute("show session-config diffs").splitlines()
    assert shown[:2] == ["--- system:/running-config", "+++ session:/isp1-session-config"]
    assert [line for line in shown[2:] if line[0] in "+-"] == [
        "+   ip access-group X in",
        "+!",
        "+ip access-list X",
        "+   10 deny tcp any any eq smtp",
        "+   20 permit ip any any",
    ]


def test_the_timer_takes_back_what_nobody_confirmed(switch: Device) -> None:
    before = switch.snapshot()
    type_in(switch, "configure session isp1", *CHANGE)
    assert switch.execute("commit timer 00:05:00") == ""
    assert "isp1 pendingCommitTimer" in switch.execute("show configuration sessions detail")
    switch.clock.advance(299)
    assert smtp(switch) == "deny"
    switch.clock.advance(1)
    assert switch.snapshot() == before
    assert switch.execute("configure session isp1 commit").startswith("% Cannot commit")


def test_a_confirmed_session_stays(switch: Device) -> None:
    type_in(switch, "configure session isp1", *CHANGE, "commit timer 00:05:00")
    assert switch.execute("configure session isp1 commit") == ""
    switch.clock.advance(10000)
    assert smtp(switch) == "deny"


def test_an_abort_takes_back_a_commit_that_has_a_timer(switch: Device) -> None:
    before = switch.snapshot()
    type_in(switch, "configure session isp1", *CHANGE, "commit timer 00:05:00")
    assert switch.execute("configure session isp1 abort") == ""
    assert switch.snapshot() == before


def test_a_session_waits_for_its_owner_and_is_forgotten_by_abort(switch: Device) -> None:
    type_in(switch, "configure session isp1", *CHANGE, "end")
    type_in(switch, "configure session isp1", "hostname e2")
    assert "+hostname e2" in switch.execute("show session-config diffs")
    assert "+ip access-list X" in switch.execute("show session-config diffs")
    assert switch.execute("abort") == ""
    assert switch.prompt == "e1#"
    type_in(switch, "configure session isp1")
    assert switch.execute("show session-config diffs") == ""


@pytest.mark.parametrize("line", ["commit timer", "commit timer 5", "commit now"])
def test_a_commit_that_is_not_understood_commits_nothing(switch: Device, line: str) -> None:
    type_in(switch, "configure session isp1", *CHANGE)
    assert switch.execute(line).startswith("% In")
    assert smtp(switch) == "permit"
    assert switch.prompt.startswith("e1(config-s-isp1")


def test_one_timer_at_a_time_and_five_sessions(switch: Device) -> None:
    type_in(switch, "configure session isp1", *CHANGE, "commit timer 00:05:00")
    type_in(switch, "configure session isp2", "hostname e2")
    assert switch.execute("commit").startswith("% Cannot commit session isp2")
    switch.execute("end")
    assert (
        type_in(switch, *(line for number in range(3, 7) for line in (f"configure session isp{number}", "end"))) == ""
    )
    assert switch.execute("configure session isp7").startswith("% Maximum number of pending sessions")


def test_ports_do_not_match_later_fragments(switch: Device) -> None:
    type_in(switch, "configure terminal", "ip access-list X", "permit tcp any any eq 25", "deny ip any any")
    type_in(switch, "interface Ethernet3.7", "ip access-group X in")
    assert smtp(switch) == "permit"
    assert smtp(switch, fragment=2) == "deny"


def test_extension_headers_are_matched_by_number(switch: Device) -> None:
    type_in(switch, "configure terminal", "ipv6 access-list X", "deny 60 any any", "permit tcp any any")
    type_in(switch, "interface Ethernet3.7", "ipv6 access-group X in")
    packet = {
        "family": 6,
        "source": "2001:db8:7::7",
        "destination": "2001:db8::9",
        "protocol": 6,
        "destination_port": 80,
    }
    assert judge(switch, "Ethernet3.7", "up", packet) == "permit"
    assert judge(switch, "Ethernet3.7", "up", packet | {"extension": 4}) == "deny"
    assert judge(switch, "Ethernet3.7", "up", packet | {"extension": 1}) == "permit"


def test_the_lists_are_shown(switch: Device) -> None:
    type_in(switch, "configure terminal", *CHANGE, "end")
    assert switch.execute("show ip access-lists") == (
        "IP Access List X\n        10 deny tcp any any eq smtp\n        20 permit ip any any\n\n"
    )


def test_the_enable_secret_opens_the_privileged_mode() -> None:
    switch = Device("e1", SMALL, enable_secret="opensesame")
    assert switch.execute("show running-config").startswith("% Invalid input")
    type_in(switch, "enable", "opensesame")
    assert switch.prompt == "e1#"
