# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's Junos router: what it says, when it commits, and how it judges packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import junos_tree
from lab.judge import judge
from lab.routers.base import Cut, Faults
from lab.routers.juniper_junos import Device, JunosSession
from lab.server import serve

CONFIGS = Path(__file__).parents[2] / "lab" / "configs"


@pytest.fixture
def core1() -> Device:
    router = Device.load("core1", CONFIGS)
    assert isinstance(router, Device)
    return router


def typed(router: Device, *lines: str) -> str:
    """The output of the last line."""
    return [router.execute(line) for line in lines][-1]


def test_the_configuration_comes_back_as_it_was_written(core1: Device) -> None:
    text = (CONFIGS / "core1.cfg").read_text()
    assert core1.execute("show configuration") == text
    assert len(text.splitlines()) > 300
    assert list(junos_tree.check(core1.active)) == []


def test_set_lines_rebuild_the_configuration(core1: Device) -> None:
    lines = core1.execute("show configuration | display set").splitlines()
    core1.execute("configure exclusive")
    for section in core1.active.children:
        core1.execute(f"delete {section}")
    for line in lines:
        assert core1.execute(line) == "", line
    core1.execute("commit")
    assert sorted(core1.execute("run show configuration | display set").splitlines()) == sorted(lines)


MARK = "audit@core1# set "


@pytest.mark.parametrize(
    ("mode", "line", "expected"),
    [
        ("", "foo", "             ^\nunknown command.\n"),
        ("", "show foo", "                  ^\nsyntax error, expecting <command>.\n"),
        ("", "set cli screen-length 0", "Screen length set to 0\n"),
        ("configure", "set firewal family", f"{'':{len(MARK)}}^\nsyntax error.\n"),
        ("configure", "set firewall family inet filter", f"{'':{len(MARK) + 27}}^\nmissing argument.\n"),
        ("configure", "frobnicate", f"{'':{len(MARK) - 4}}^\nunknown command.\n"),
        (
            "configure",
            "set firewall family inet filter X term a from destination-port 70000",
            "error: Value 70000 is not within range (0..65535)\n",
        ),
        (
            "configure",
            "set firewall family inet6 filter X term a from source-address 192.0.2.0/24",
            "error: invalid ip address or hostname: 192.0.2.0/24\n",
        ),
        ("configure", "set firewall family inet filter X term a from payload-protocol tcp", "syntax error.\n"),
        ("configure", "delete firewall family inet filter NONE", "warning: statement not found\n"),
        ("configure", "commit check", "configuration check succeeds\n"),
    ],
)
def test_what_it_says(core1: Device, mode: str, line: str, expected: str) -> None:
    output = typed(core1, *filter(None, [mode, line]))
    assert output == expected or (expected == "syntax error.\n" and output.endswith("^\n" + expected))
    assert core1.candidate.children.keys() == core1.active.children.keys()
    assert not core1.differs()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("set interfaces ge-0/0/1 unit 100 family inet filter input NONE", "Referenced filter 'NONE' is not defined"),
        (
            'set dynamic-profiles RES interfaces pp0 unit "$junos-interface-unit" family inet6 filter output NONE',
            "'NONE'",
        ),
        ("set firewall family inet filter RES-UP4 term smtp filter NONE", "Referenced filter 'NONE' is not defined"),
        ("set firewall family inet filter RES-UP4 term x from source-prefix-list NONE", "prefix-list 'NONE'"),
        ("delete firewall family inet filter RES-UP4", "Referenced filter 'RES-UP4' is not defined"),
        ("delete policy-options prefix-list SMARTHOSTS6", "prefix-list 'SMARTHOSTS6' is not defined"),
    ],
)
def test_commit_refuses_references_to_nothing(core1: Device, line: str, message: str) -> None:
    before = core1.snapshot()
    assert typed(core1, "configure", line) == ""
    for command in ("commit check", "commit", "commit confirmed 5"):
        output = core1.execute(command)
        assert message in output
        assert output.endswith("error: configuration check-out failed\n")
    assert core1.snapshot() == before


def test_show_compare(core1: Device) -> None:
    typed(core1, "configure", "set firewall family inet filter NEW term smtp from protocol tcp destination-port 25")
    lines = [
        "set firewall family inet filter NEW term smtp from protocol tcp",
        "set firewall family inet filter NEW term smtp from destination-port [ 25 587 ]",
        "set firewall family inet filter NEW term smtp then discard",
        "set interfaces ge-0/0/1 unit 100 family inet filter input NEW",
        "delete firewall family inet filter BUS-DOWN4 term windows from destination-port 445",
    ]
    assert typed(core1, *lines) == ""
    assert core1.execute("show | compare").splitlines() == [
        "[edit interfaces ge-0/0/1 unit 100 family inet filter]",
        "-   input RES-UP4;",
        "+   input NEW;",
        "[edit firewall family inet]",
        "+   filter NEW {",
        "+       term smtp {",
        "+           from {",
        "+               protocol tcp;",
        "+               destination-port [ 25 587 ];",
        "+           }",
        "+           then discard;",
        "+       }",
        "+   }",
        "[edit firewall family inet filter BUS-DOWN4 term windows from]",
        "-   destination-port [ 135 137-139 445 ];",
        "+   destination-port [ 135 137-139 ];",
    ]
    assert typed(core1, "rollback 0", "show | compare") == ""


REBIND = (
    "set firewall family inet filter NEW term rest then accept",
    "set interfaces ge-0/0/1 unit 100 family inet filter input NEW",
)
SMTP = {
    "family": 4, "source": "198.51.100.9", "destination": "203.0.113.200", "protocol": 6, "source_port": 40000,
    "destination_port": 25, "tcp_flags": 2,
}  # fmt: skip


def test_an_unconfirmed_commit_rolls_back(core1: Device) -> None:
    changes: list[str] = []
    core1.on_change(lambda: changes.append(judge(core1, "ge-0/0/1.100", "up", SMTP)))
    before = core1.execute("show configuration firewall")
    output = typed(core1, "configure exclusive", *REBIND, "commit confirmed 5")
    assert (
        output == "commit confirmed will be automatically rolled back in 5 minutes unless confirmed\ncommit complete\n"
    )
    assert "# commit confirmed will be rolled back in 5 minutes" in core1.prompt
    core1.clock.advance(299)
    assert changes == ["permit"]
    core1.clock.advance(2)
    assert changes == ["permit", "deny"]
    assert core1.execute("run show configuration firewall") == before
    assert "automatic rollback" in core1.execute("run show system commit")


@pytest.mark.parametrize(("confirmation", "commits"), [("commit", 2), ("commit check", 1)])
def test_a_fresh_login_confirms(core1: Device, confirmation: str, commits: int) -> None:
    typed(core1, "configure exclusive", *REBIND, "commit confirmed 1", "exit")
    other = core1.login()
    other.execute("configure exclusive")
    assert "error" not in str(other.execute(confirmation))
    core1.clock.advance(3600)
    assert judge(core1, "ge-0/0/1.100", "up", SMTP) == "permit"
    assert other.execute(f"rollback {commits}") == "load complete\n"
    assert other.execute("commit") == "commit complete\n"
    assert judge(core1, "ge-0/0/1.100", "up", SMTP) == "deny"


def test_exclusive_means_alone(core1: Device) -> None:
    core1.execute("configure exclusive")
    other = core1.login()
    refusal = str(other.execute("configure exclusive"))
    assert refusal.startswith("error: configuration database locked by:\n  audit terminal")
    assert "exclusive [edit]" in refusal
    assert "> " in other.prompt
    typed(core1, *REBIND)
    core1.console.hang_up()
    assert not core1.differs()
    assert "Entering configuration mode" in str(other.execute("configure exclusive"))


def test_leaving_with_changes_is_asked(core1: Device) -> None:
    assert typed(core1, "configure exclusive", *REBIND, "exit").startswith("The configuration has been changed but not")
    assert core1.prompt == "Discard uncommitted changes? [yes,no] (yes) "
    assert core1.execute("no") == ""
    assert core1.differs()
    assert core1.execute("exit") != ""
    assert core1.execute("yes").endswith("Exiting configuration mode\n")
    assert not core1.differs()
    assert core1.prompt == "\naudit@core1> "


def test_edit_levels(core1: Device) -> None:
    typed(core1, "configure", "edit firewall family inet filter RES-UP4 term smtp")
    assert "[edit firewall family inet filter RES-UP4 term smtp]" in core1.prompt
    assert core1.execute("show from").splitlines() == ["protocol tcp;", "destination-port smtp;"]
    assert typed(core1, "set from destination-port 26", "up", "show | compare").splitlines()[1:] == [
        "-   destination-port smtp;",
        "+   destination-port [ smtp 26 ];",
    ]
    assert typed(core1, "top", "insert firewall family inet filter RES-UP4 term smtp before term dhcp") == ""
    assert next(iter(core1.candidate.below("firewall", "family", "inet", "filter", "RES-UP4", "term")))[0] == "smtp"


def test_load_from_the_terminal(core1: Device) -> None:
    assert typed(core1, "configure", "load set terminal") == "[Type ^D at a new line to end input]\n"
    assert typed(core1, *REBIND, "set firewall fmly", "\x04").splitlines() == [
        "terminal:3:(13) syntax error: fmly",
        "load complete (1 errors)",
    ]
    assert typed(core1, "rollback", "load replace terminal") == "[Type ^D at a new line to end input]\n"
    text = "firewall { family inet { replace: filter BUS-DOWN4 { term all { then accept; } } } }"
    assert typed(core1, text, "\x04") == "load complete\n"
    assert core1.execute("show firewall family inet filter BUS-DOWN4").splitlines() == [
        "term all {", "    then accept;", "}",
    ]  # fmt: skip
    assert "filter RES-UP4 {" in core1.execute("show firewall")
    assert core1.execute("load override terminal") != ""
    assert typed(core1, "system { host-name x; } }", "\x04").endswith("load complete (1 errors)\n")


def test_faults(core1: Device) -> None:
    core1.faults = Faults(reject_at=2)
    core1.execute("configure exclusive")
    assert [core1.execute(line).endswith("syntax error.\n") for line in REBIND] == [False, True]
    core1.faults = Faults(cut_after=1)
    with pytest.raises(Cut):
        core1.execute("commit confirmed 5")
    assert core1.pending is not None


# --- The judge, in small configurations


def filtered(terms: str, family: str = "inet", more: str = "") -> Device:
    """A router whose ge-0/0/0.0 has a filter of these terms for subscribers' packets."""
    return Device(
        "r",
        f"""
        {more}
        policy-options {{
            prefix-list NONE;
            prefix-list SMART {{ 192.0.2.25/32; 2001:db8::25/128; }}
        }}
        interfaces {{ ge-0/0/0 {{ unit 0 {{ family {family} {{ filter {{ input F; }} }} }} }} }}
        firewall {{ family {family} {{
            filter F {{ {terms} }}
            filter G {{ term g {{ from {{ port 80; }} then discard; }} }}
        }} }}
        """,
    )


V4 = {"family": 4, "source": "198.51.100.9", "destination": "192.0.2.1", "protocol": 6, "tcp_flags": 2}
V6 = {"family": 6, "source": "2001:db8:1::9", "destination": "2001:db8::1", "protocol": 6, "tcp_flags": 2}
REST = "term rest { then accept; }"


def drop(conditions: str) -> str:
    return f"term a {{ from {{ {conditions} }} then discard; }} {REST}"


@pytest.mark.parametrize(
    ("terms", "packet", "expected"),
    [
        # The end of a filter, terms without an action, actions that end nothing.
        ("", {}, "deny"),
        ("term a { from { protocol udp; } then accept; }", {}, "deny"),
        ("term a { from { protocol tcp; } }", {}, "permit"),
        ("term a { from { protocol tcp; } then count x; } term b { then discard; }", {}, "permit"),
        ("term a { then next term; } term b { then discard; }", {}, "deny"),
        ("inactive: term a { then discard; } " + REST, {}, "permit"),
        (drop("inactive: protocol udp;"), {}, "deny"),
        ("term a { then { count x; reject; } }", {}, "deny"),
        # Nested filters discard nothing at their end.
        ("term n { filter G; } " + REST, {"destination_port": 80}, "deny"),
        ("term n { filter G; } " + REST, {"destination_port": 81}, "permit"),
        # Addresses and prefix lists: the longest match decides, 0/0 except ends every list.
        (drop("source-address { 198.51.100.0/24; }"), {}, "deny"),
        (drop("source-address { 198.51.100.0/24; 198.51.100.9/32 except; }"), {}, "permit"),
        (drop("source-address { 198.51.100.9/32 except; }"), {}, "permit"),
        (
            drop("destination-address { 0.0.0.0/0; } destination-prefix-list { SMART except; }"),
            {},
            "deny",
        ),
        (
            drop("destination-address { 0.0.0.0/0; } destination-prefix-list { SMART except; }"),
            {"destination": "192.0.2.25"},
            "permit",
        ),
        (drop("source-prefix-list { NONE; }"), {}, "permit"),
        (drop("prefix-list { SMART; }"), {"source": "192.0.2.25"}, "deny"),
        # Ports.
        (drop("destination-port [ 20 25-30 ];"), {"destination_port": 27}, "deny"),
        (drop("destination-port smtp;"), {"source_port": 25}, "permit"),
        (drop("port smtp;"), {"source_port": 25}, "deny"),
        (drop("destination-port-except 25;"), {"destination_port": 25}, "permit"),
        (drop("destination-port 25;"), {"destination_port": 25, "fragment": 2}, "permit"),
        # Fragments.
        (drop("is-fragment;"), {"fragment": 1}, "permit"),
        (drop("is-fragment;"), {"fragment": 2}, "deny"),
        (drop("first-fragment;"), {"fragment": 1}, "deny"),
        (drop("fragment-offset 1-8191;"), {"fragment": 2}, "deny"),
        (drop("fragment-offset 0;"), {"fragment": 2}, "permit"),
        # TCP flags.
        (drop("protocol tcp; tcp-established;"), {"tcp_flags": 16}, "deny"),
        (drop("protocol tcp; tcp-established;"), {"tcp_flags": 2}, "permit"),
        (drop("protocol tcp; tcp-initial;"), {"tcp_flags": 18}, "permit"),
        (drop('protocol tcp; tcp-flags "(syn & !ack) | fin";'), {"tcp_flags": 17}, "deny"),
        (drop('protocol tcp; tcp-flags "syn & !ack";'), {"tcp_flags": 18}, "permit"),
        # ICMP.
        (drop("protocol icmp; icmp-type unreachable; icmp-code 4;"),
         {"protocol": 1, "icmp_type": 3, "icmp_code": 4}, "deny"),
        (drop("protocol icmp; icmp-type [ 0-2 8 ];"), {"protocol": 1, "icmp_type": 3}, "permit"),
    ],
)  # fmt: skip
def test_judge_ipv4(terms: str, packet: dict[str, object], expected: str) -> None:
    assert judge(filtered(terms), "ge-0/0/0.0", "up", {**V4, **packet}) == expected
    assert judge(filtered(terms), "ge-0/0/0.0", "down", {**V4, **packet}) == "permit"


@pytest.mark.parametrize(
    ("condition", "packet", "expected"),
    [
        ("next-header tcp; destination-port 25;", {}, "deny"),
        ("next-header tcp; destination-port 25;", {"extension": 4}, "permit"),
        ("next-header tcp; destination-port 25;", {"fragment": 1}, "permit"),
        ("payload-protocol tcp; destination-port 25;", {"extension": 4}, "deny"),
        ("payload-protocol tcp; destination-port 25;", {"undetermined": 1}, "permit"),
        ("extension-header dstopts;", {"extension": 4}, "deny"),
        ("next-header [ hop-by-hop routing fragment dstopts ];", {"extension": 1}, "deny"),
        ("payload-protocol icmp6; icmp-type neighbor-solicit;", {"protocol": 58, "icmp_type": 135}, "deny"),
        ("source-address { 2001:db8:1::/48; }", {}, "deny"),
    ],
)
def test_judge_ipv6(condition: str, packet: dict[str, object], expected: str) -> None:
    router = filtered(drop(condition), "inet6")
    assert judge(router, "ge-0/0/0.0", "up", {**V6, "destination_port": 25, **packet}) == expected


def test_an_input_list_is_one_long_filter() -> None:
    router = Device(
        "r",
        """
        interfaces { ge-0/0/0 { unit 0 { family inet { filter { input-list [ A B ]; } } } } }
        firewall { family inet {
            filter A { term a { from { source-address { 203.0.113.0/24; } } then discard; } }
            filter B { term b { from { destination-port 80; } then accept; } }
        } }
        """,
    )
    verdicts = [judge(router, "ge-0/0/0.0", "up", {**V4, "destination_port": port}) for port in (80, 81)]
    assert verdicts == ["permit", "deny"]
    assert judge(router, "ge-0/0/0.0", "up", {**V4, "source": "203.0.113.1", "destination_port": 80}) == "deny"


def test_an_attachment_that_is_not_there(core1: Device) -> None:
    for name in ("ge-0/0/9.1", "dynamic-profiles NONE interfaces pp0 unit $junos-interface-unit"):
        with pytest.raises(KeyError):
            judge(core1, name, "up", SMTP)


RES = "dynamic-profiles RES interfaces pp0 unit $junos-interface-unit"
ESTABLISHED = {**SMTP, "tcp_flags": 16}
SMTP6 = {
    "family": 6, "source": "2001:db8:100::9", "destination": "2001:db8:aaaa::9", "protocol": 6, "source_port": 40000,
    "destination_port": 25, "tcp_flags": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("attachment", "direction", "packet", "expected"),
    [
        ("ge-0/0/1.100", "up", SMTP, "deny"),
        ("ge-0/0/1.100", "up", {**SMTP, "destination": "192.0.2.26"}, "permit"),
        ("ge-0/0/1.100", "up", SMTP6, "deny"),
        ("ge-0/0/1.100", "up", {**SMTP6, "extension": 4}, "permit"),  # planted: next-header
        ("ge-0/0/1.200", "up", {**SMTP, "source": "198.51.100.140", "destination_port": 445}, "permit"),  # planted
        ("ge-0/0/1.200", "up", {**SMTP, "destination_port": 80}, "deny"),
        (
            "ge-0/0/1.200",
            "down",
            {**SMTP, "source": "203.0.113.200", "destination": "198.51.100.140"},
            "permit",
        ),  # planted
        (
            "ge-0/0/2.300",
            "up",
            {**SMTP, "source": "203.0.113.9", "destination": "192.0.2.7", "destination_port": 587},
            "deny",
        ),
        (RES, "up", SMTP, "deny"),
        (RES, "up", ESTABLISHED, "permit"),  # planted: established above
        (RES, "down", {**SMTP6, "source": "2001:db8:aaaa::9", "destination": "2001:db8:100::9"}, "permit"),  # planted
    ],
)
def test_core1_judges(core1: Device, attachment: str, direction: str, packet: dict[str, object], expected: str) -> None:
    assert judge(core1, attachment, direction, packet) == expected


def test_netmiko_logs_in_reads_changes_and_leaves(core1: Device) -> None:
    netmiko = pytest.importorskip("netmiko", reason="netmiko is a dependency of the connection plugin, absent here")
    with serve([core1]) as lab:
        connection = netmiko.ConnectHandler(
            device_type="juniper_junos",
            host="127.0.0.1",
            port=lab.ports["core1"],
            username="audit",
            password="lab-only",
        )
        try:
            assert connection.send_command("show configuration | no-more").strip() + "\n" == core1.snapshot()
            connection.send_config_set(REBIND, config_mode_command="configure exclusive", exit_config_mode=False)
            connection.commit(confirm=True, confirm_delay=5)
            assert "commit complete" in connection.commit()
            connection.exit_config_mode()
        finally:
            connection.disconnect()
    assert judge(core1, "ge-0/0/1.100", "up", SMTP) == "permit"
    assert isinstance(core1.sessions[0], JunosSession)
