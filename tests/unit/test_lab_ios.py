# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's IOS-XE router: what it prints, takes, refuses and does to packets."""

from __future__ import annotations

from pathlib import Path

import pytest

import lab
from lab.judge import judge
from lab.routers.cisco_ios import Device

CONFIGS = Path(lab.__file__).parent / "configs"
SMALL = """\
hostname r1
!
archive
 path bootflash:r1
!
interface GigabitEthernet0/0/0
 no ip address
!
interface GigabitEthernet0/0/0.7
 encapsulation dot1Q 7
 ip address 198.51.100.1 255.255.255.0
 ipv6 address 2001:DB8:7::1/64
!
end
"""
ATTACHMENT = "GigabitEthernet0/0/0.7"


@pytest.fixture
def router() -> Device:
    return Device("r1", SMALL)


def configure(router: Device, *lines: str) -> str:
    """Type the lines in configuration mode; all that was printed for them."""
    router.execute("configure terminal")
    printed = "".join(router.execute(line) for line in lines)
    router.execute("end")
    return printed


def tcp(router: Device, destination_port: int, **fields: object) -> str:
    """What happens to a TCP packet from the subscriber."""
    packet: dict[str, object] = {
        "family": 4, "source": "198.51.100.7", "destination": "203.0.113.9", "protocol": 6, "source_port": 50000,
        "destination_port": destination_port, "tcp_flags": 2,
    }  # fmt: skip
    return judge(router, ATTACHMENT, str(fields.pop("direction", "up")), packet | fields)


def test_the_configuration_is_printed_as_it_was_loaded() -> None:
    text = (CONFIGS / "bng1.cfg").read_text(encoding="utf-8")
    router = Device.load("bng1", CONFIGS)
    assert router.snapshot() == f"Building configuration...\n\nCurrent configuration : {len(text)} bytes\n{text}\n"


def test_every_list_entry_of_the_configuration_is_what_the_router_would_print() -> None:
    router = Device.load("bng1", CONFIGS)
    typed = [
        (block.line, child.line)
        for block in router.running.root.children
        if router.running.dialect(block.line)
        for child in block.children
    ]
    assert len(typed) > 150
    fresh = Device("fresh", "end\n")
    for header, line in typed:
        assert configure(fresh, header, line) == ""
    printed = fresh.snapshot().splitlines()
    assert [line for _, line in typed if f" {line}" not in printed] == []


TYPED = [
    ("permit tcp any any eq 25", "10 permit tcp any any eq smtp"),
    ("7 DENY UDP any any eq 135", "7 deny udp any any eq 135"),
    ("deny tcp any any eq 135", "10 deny tcp any any eq msrpc"),
    ("deny tcp any any range 137 139", "10 deny tcp any any range 137 139"),
    ("deny udp any any range 137 139", "10 deny udp any any range netbios-ns netbios-ss"),
    ("deny 6 any any", "10 deny tcp any any"),
    ("permit ip 198.51.100.77 0.0.0.63 any", "10 permit ip 198.51.100.64 0.0.0.63 any"),
    ("permit ip 198.51.100.0 255.255.255.128 any", "10 permit ip 0.0.0.0 255.255.255.128 any"),
    ("permit ip 192.0.2.1 0.0.0.0 0.0.0.0 255.255.255.255", "10 permit ip host 192.0.2.1 any"),
    ("permit icmp any any 3 4", "10 permit icmp any any packet-too-big"),
    ("permit tcp any eq 25 465 any gt 1023 established", "10 permit tcp any eq smtp 465 any gt 1023 established"),
    ("deny ip any any fragments log", "10 deny ip any any fragments log"),
    ("permit tcp any any match-all +syn -ack", "10 permit tcp any any match-all +syn -ack"),
    ("remark P1  two spaces", "10 remark P1  two spaces"),
]


@pytest.mark.parametrize(("typed", "printed"), TYPED)
def test_an_entry_is_printed_as_the_vendor_does(router: Device, typed: str, printed: str) -> None:
    assert configure(router, "ip access-list extended X", typed) == ""
    assert f"ip access-list extended X\n {printed}\n" in router.snapshot()


TYPED6 = [
    ("permit tcp any host 2001:db8:ffff::25 eq smtp", "sequence 10 permit tcp any host 2001:DB8:FFFF::25 eq smtp"),
    ("sequence 900 deny ipv6 any any undetermined-transport", "sequence 900 deny ipv6 any any undetermined-transport"),
    ("permit ipv6 2001:db8:100::1/40 any", "sequence 10 permit ipv6 2001:DB8:100::/40 any"),
    ("permit icmp any any 2", "sequence 10 permit icmp any any packet-too-big"),
    ("permit icmp any any nd-ns", "sequence 10 permit icmp any any nd-ns"),
]


@pytest.mark.parametrize(("typed", "printed"), TYPED6)
def test_an_ipv6_entry_is_printed_as_the_vendor_does(router: Device, typed: str, printed: str) -> None:
    assert configure(router, "ipv6 access-list X", typed) == ""
    assert f"ipv6 access-list X\n {printed}\n!\n" in router.snapshot()


REFUSED = [
    ("permit tpc any any", "tpc"),
    ("permit tcp any any eq 70000", "70000"),
    ("permit ip any any eq 25", "eq"),
    ("permit tcp any any range 30 20", "20"),
    ("permit udp any any established", "established"),
    ("permit tcp any 198.51.100.0/24", "198.51.100.0/24"),
    ("permit tcp any any eq 25 fragments", "fragments"),
]


@pytest.mark.parametrize(("line", "word"), REFUSED)
def test_a_wrong_word_is_pointed_at(router: Device, line: str, word: str) -> None:
    router.execute("configure terminal")
    router.execute("ip access-list extended X")
    caret, words, *_ = router.execute(line).splitlines()
    assert caret.index("^") - len(router.prompt) == line.rindex(word)
    assert words == "% Invalid input detected at '^' marker."
    assert "extended X\n!" in router.snapshot()


@pytest.mark.parametrize(
    "line", ["permit tcp any", "permit tcp any any eq", "permit ip 192.0.2.0", "permit", "no permit"]
)
def test_a_line_that_ends_too_early_is_incomplete(router: Device, line: str) -> None:
    assert configure(router, "ip access-list extended X", line) == "% Incomplete command.\n\n"


@pytest.mark.parametrize(
    ("modes", "line"),
    [
        ((), "access-group X in"),
        ((), "ip acces-list extended X"),
        ((), "interface GigabitEthernet0/9/9"),
        ((f"interface {ATTACHMENT}",), "ip access-group X both"),
        ((f"interface {ATTACHMENT}",), "ip access-grp X in"),
        ((f"interface {ATTACHMENT}",), "ip access-group X in out"),
        (("ipv6 access-list Y",), "permit ipv6 any any undetermined-transport"),
        (("ipv6 access-list Y",), "10 permit ipv6 any any"),
    ],
)
def test_what_the_router_does_not_know_changes_nothing(router: Device, modes: tuple[str, ...], line: str) -> None:
    configure(router, *modes)
    before = router.snapshot()
    assert "% Invalid input" in configure(router, *modes, line)
    assert router.snapshot() == before


def test_a_number_that_is_taken_is_refused_and_the_same_entry_again_is_not(router: Device) -> None:
    lines = ("ip access-list extended X", "10 permit tcp any any eq 25", "20 deny tcp any any")
    assert configure(router, *lines) == ""
    assert "Duplicate sequence number" in configure(router, "ip access-list extended X", "10 permit udp any any")
    before = router.snapshot()
    assert configure(router, "ip access-list extended X", "30 permit tcp any any eq smtp") == ""
    assert router.snapshot() == before


def test_entries_come_and_go_by_number_and_by_words(router: Device) -> None:
    configure(router, "ip access-list extended X", "deny tcp any any eq 25", "permit ip any any", "15 deny udp any any")
    configure(router, "ip access-list extended X", "no 10", "no permit ip any any", "remark last")
    assert "ip access-list extended X\n 15 deny udp any any\n 25 remark last\n!" in router.snapshot()


def test_two_families_cannot_share_a_name(router: Device) -> None:
    configure(router, "ip access-list extended X")
    assert configure(router, "ipv6 access-list X").startswith("% ")
    assert "ipv6 access-list X" not in router.snapshot()


def test_lists_stand_in_the_order_of_their_names_and_bindings_behind_the_addresses(router: Device) -> None:
    configure(
        router, "ip access-list extended B", "ip access-list extended A", "ipv6 access-list D", "ipv6 access-list C"
    )
    configure(
        router, f"interface {ATTACHMENT}", "ipv6 traffic-filter D out", "ip access-group B out", "ip access-group A in",
        "ipv6 traffic-filter C in",
    )  # fmt: skip
    text = router.snapshot()
    assert "ip access-list extended A\nip access-list extended B\n!\n" in text
    assert "ipv6 access-list C\n!\nipv6 access-list D\n!\n" in text
    assert (
        " ip address 198.51.100.1 255.255.255.0\n ip access-group A in\n ip access-group B out\n"
        " ipv6 address 2001:DB8:7::1/64\n ipv6 traffic-filter C in\n ipv6 traffic-filter D out\n!"
    ) in text


def test_a_missing_list_permits_and_the_first_line_of_it_denies_the_rest(router: Device) -> None:
    verdicts: list[tuple[str, str]] = []
    router.on_change(lambda: verdicts.append((tcp(router, 25), tcp(router, 80))))
    configure(
        router, f"interface {ATTACHMENT}", "ip access-group X in", "ip access-list extended X",
        "deny tcp any any eq 25", "permit ip any any", "no ip access-list extended X",
    )  # fmt: skip
    assert verdicts == [
        ("permit", "permit"),  # bound to nothing
        ("permit", "permit"),  # empty
        ("deny", "deny"),  # one line and the implicit end
        ("deny", "permit"),
        ("permit", "permit"),  # deleted, and still bound
    ]


JUDGED = [
    # entries, fields of a TCP packet to port 25, verdict
    (("permit tcp any any established", "deny tcp any any eq 25"), {"tcp_flags": 16}, "permit"),
    (("permit tcp any any established", "deny tcp any any eq 25"), {"tcp_flags": 2}, "deny"),
    (("deny tcp any any eq 25", "permit ip any any"), {"fragment": 1}, "deny"),
    (("deny tcp any any eq 25", "permit ip any any"), {"fragment": 2}, "permit"),
    (("permit tcp any any eq 80", "deny ip any any"), {"fragment": 2}, "permit"),
    (("permit udp any any eq 53", "deny ip any any"), {"fragment": 2}, "deny"),
    (("deny tcp any any", "permit ip any any"), {"fragment": 2}, "deny"),
    (("deny ip any any fragments", "permit ip any any"), {"fragment": 2}, "deny"),
    (("deny ip any any fragments", "permit ip any any"), {"fragment": 1}, "permit"),
    (("deny tcp any any eq 25", "permit ip any any"), {"undetermined": 1}, "permit"),
    (("deny tcp any 0.0.0.9 255.255.255.0 eq 25", "permit ip any any"), {}, "deny"),
    (("deny tcp any 0.0.0.8 255.255.255.0 eq 25", "permit ip any any"), {}, "permit"),
    (("deny tcp any any neq 80", "permit ip any any"), {}, "deny"),
    (("deny tcp any any lt 25", "permit ip any any"), {}, "permit"),
    (("deny tcp any any match-all +syn -ack", "permit ip any any"), {"tcp_flags": 18}, "permit"),
    (("permit icmp any any",), {"protocol": 1}, "permit"),
    (("permit icmp any any echo",), {"protocol": 1, "icmp_type": 3, "icmp_code": 4}, "deny"),
    (("permit icmp any any packet-too-big",), {"protocol": 1, "icmp_type": 3, "icmp_code": 4}, "permit"),
    (("permit ip any any dscp ef",), {"tos": 0xB8}, "permit"),
    (("remark nothing but words",), {}, "permit"),
]


@pytest.mark.parametrize(("entries", "fields", "verdict"), JUDGED)
def test_packets_are_judged_by_the_rules_of_the_vendor(
    router: Device, entries: tuple[str, ...], fields: dict[str, object], verdict: str
) -> None:
    assert (
        configure(router, f"interface {ATTACHMENT}", "ip access-group X in", "ip access-list extended X", *entries)
        == ""
    )
    assert tcp(router, 25, **fields) == verdict
    assert tcp(router, 25, direction="down", **fields) == "permit"


def test_neighbour_discovery_passes_the_implicit_end_and_no_explicit_one(router: Device) -> None:
    configure(router, f"interface {ATTACHMENT}", "ipv6 traffic-filter X in", "ipv6 access-list X", "permit tcp any any")
    packet = {"family": 6, "source": "fe80::1", "destination": "ff02::1:ff00:1", "protocol": 58, "icmp_type": 135}
    assert judge(router, ATTACHMENT, "up", packet) == "permit"
    assert judge(router, ATTACHMENT, "up", packet | {"icmp_type": 128}) == "deny"
    configure(router, "ipv6 access-list X", "deny ipv6 any any")
    assert judge(router, ATTACHMENT, "up", packet) == "deny"


def test_a_group_stands_for_its_addresses(router: Device) -> None:
    configure(
        router, "object-group network MAIL", "host 203.0.113.9", "203.0.113.64 255.255.255.192",
        "range 203.0.113.1 203.0.113.3", f"interface {ATTACHMENT}", "ip access-group X in", "ip access-list extended X",
        "permit tcp any object-group MAIL eq 25",
    )  # fmt: skip
    inside = ("203.0.113.9", "203.0.113.100", "203.0.113.2")
    assert [tcp(router, 25, destination=address) for address in inside] == ["permit"] * 3
    assert tcp(router, 25, destination="203.0.113.10") == "deny"


def test_strict_reverse_path_checks_only_what_comes_in(router: Device) -> None:
    configure(
        router, f"interface {ATTACHMENT}", "ip verify unicast source reachable-via rx",
        "ip route 203.0.113.0 255.255.255.128 198.51.100.9",
    )  # fmt: skip
    assert tcp(router, 80) == "permit"
    assert tcp(router, 80, source="203.0.113.5") == "permit"
    assert tcp(router, 80, source="203.0.113.200") == "deny"
    assert tcp(router, 80, source="203.0.113.200", direction="down") == "permit"


def test_the_timer_takes_back_what_nobody_confirmed(router: Device) -> None:
    before = router.snapshot()
    assert "Backing up current running config to bootflash:r1-Nov-23-" in router.execute(
        "configure terminal revert timer 5"
    )
    router.execute(f"interface {ATTACHMENT}")
    router.execute("ip access-group X in")
    router.execute("end")
    router.clock.advance(299)
    assert "access-group" in router.snapshot()
    router.clock.advance(1)
    assert "access-group" not in router.snapshot()
    assert router.running.root.find("interface GigabitEthernet0/0/0.7") is not None
    assert router.snapshot().splitlines()[3:] == before.splitlines()[3:]


def test_a_confirmed_change_stays(router: Device) -> None:
    router.execute("configure terminal revert timer 5")
    router.execute("hostname r2")
    router.execute("end")
    assert "Timer value: 5 min" in router.execute("show archive config rollback timer")
    assert router.execute("configure confirm") == ""
    router.clock.advance(10000)
    assert router.prompt == "r2#"
    assert router.execute("configure confirm") == "%No Rollback Confirmed Change pending\n"


def test_revert_now_does_not_wait(router: Device) -> None:
    router.execute("configure terminal revert timer 120")
    router.execute("hostname r2")
    router.execute("end")
    assert "Rollback Done" in router.execute("configure revert now")
    assert router.prompt == "r1#"


def test_no_timer_without_an_archive_nor_beside_another() -> None:
    router = Device("r1", "hostname r1\nend\n")
    assert router.execute("configure terminal revert timer 5").startswith("%")
    assert router.prompt == "r1#"
    configure(router, "archive", "path bootflash:x")
    assert router.execute("configure terminal revert timer 0").endswith("% Invalid input detected at '^' marker.\n\n")
    assert "Enter configuration commands" in router.execute("configure terminal revert timer 5")
    router.execute("end")
    assert router.execute("configure terminal revert timer 5").startswith("%")


def test_the_prompt_tells_the_mode(router: Device) -> None:
    router.execute("conf t")
    prompts = []
    for line in (
        "interface gi0/0/0",
        f"interface {ATTACHMENT}",
        "ip access-list extended X",
        "ipv6 access-list Y",
        "archive",
        "exit",
    ):
        router.execute(line)
        prompts.append(router.prompt)
    assert prompts == [
        "r1(config-if)#", "r1(config-subif)#", "r1(config-ext-nacl)#", "r1(config-ipv6-acl)#", "r1(config-archive)#",
        "r1(config)#",
    ]  # fmt: skip


def test_the_enable_secret_opens_the_privileged_mode() -> None:
    router = Device("r1", SMALL, enable_secret="opensesame")
    assert router.prompt == "r1>"
    assert "% Invalid input" in router.execute("show running-config")
    assert "% Invalid input" in router.execute("configure terminal")
    router.execute("enable")
    assert router.prompt == "Password: "
    router.execute("wrong")
    router.execute("wrong")
    assert router.execute("wrong") == "% Bad secrets\n\n"
    assert router.prompt == "r1>"
    router.execute("enable")
    router.execute("opensesame")
    assert router.prompt == "r1#"
    assert "opensesame" not in router.console.lines


def test_what_is_saved_is_what_starts_next_time(router: Device) -> None:
    configure(router, "hostname r2")
    assert "hostname r1\n" in router.execute("show startup-config")
    assert router.execute("write memory") == "Building configuration...\n[OK]\n"
    assert "hostname r2\n" in router.execute("show startup-config")


def test_pipes_filter_what_is_shown(router: Device) -> None:
    assert router.execute("show running-config | include ^interface") == (
        "interface GigabitEthernet0/0/0\ninterface GigabitEthernet0/0/0.7\n"
    )
    assert router.execute("show run | section archive") == "archive\n path bootflash:r1\n"
    assert router.execute("show run | begin 2001").startswith(" ipv6 address")
    assert router.execute("show run | count address") == "Number of lines which match regexp = 3\n"
