# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Junos: what is rendered means the rules, both forms mean the same, and no text is too broken to be told so.

Single statements are in tests/platforms/juniper_junos/parse-*.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    Configuration,
    NotThisPlatform,
    evaluate,
)
from ansible_collections.isp.hardening.plugins.module_utils.packets import PROTOCOLS, address_value
from ansible_collections.isp.hardening.plugins.module_utils.plan import same_in_force
from ansible_collections.isp.hardening.plugins.module_utils.platforms import juniper_junos
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "platforms" / "juniper_junos"
TEMPLATE = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    (ROOT / "roles" / "edge_filter" / "templates" / "juniper_junos.j2").read_text()
)
ROUTER = """\
system {
    host-name mx1;
}
interfaces {
    ge-0/0/0 {
        unit 100 {
            family inet {
                filter {
                    input-list [ FOREIGN OTHER ];
                }
                address 198.51.100.1/25;
            }
        }
    }
}
policy-options {
    prefix-list TRUSTED {
        192.0.2.0/24;
    }
}
firewall {
    family inet {
        filter FOREIGN {
            term trusted {
                from {
                    source-prefix-list {
                        TRUSTED;
                    }
                }
                then accept;
            }
            term nested {
                filter INNER;
            }
        }
        filter INNER {
            term smtp {
                from {
                    protocol tcp;
                    destination-port [ 25 465 ];
                }
                then discard;
            }
        }
        filter OTHER {
            term rest {
                then accept;
            }
        }
        filter ISP-UP4-00000000 {
            term rest {
                then accept;
            }
        }
    }
}
"""
UNIT = "ge-0/0/0.100"
DYNAMIC = "dynamic-profiles RES interfaces pp0 unit $junos-interface-unit"


def rendered(change: Change) -> str:
    return TEMPLATE.render(juniper_junos.fields(change))


def committed(running: str, lines: list[str]) -> str:
    (text,) = juniper_junos.apply(running, lines)
    return text


# --- What is rendered means the rules

PREFIXES = {
    4: ["198.51.100.0/24", "198.51.100.128/25", "192.0.2.25/32", "0.0.0.0/0"],
    6: ["2001:db8:100::/40", "2001:db8:100:8000::/49", "2001:db8:ffff::25/128", "::/0"],
}
ADDRESSES = {
    4: ["198.51.100.7", "198.51.100.200", "192.0.2.25", "203.0.113.9"],
    6: ["2001:db8:100::7", "2001:db8:100:8000::7", "2001:db8:ffff::25", "2001:db8:eeee::9"],
}
PORTS = [24, 25, 26, 135, 137, 139, 445, 49152]
RANGES = st.lists(
    st.tuples(st.sampled_from(PORTS), st.integers(0, 3)).map(lambda ends: (ends[0], ends[0] + ends[1])), max_size=3
).map(tuple)


def rules(family: int) -> st.SearchStrategy[Rule]:
    prefixes = st.lists(st.sampled_from(PREFIXES[family]), max_size=2, unique=True).map(tuple)
    common: dict[str, Any] = {
        "action": st.sampled_from([PERMIT, DENY]),
        "sources": prefixes,
        "destinations": prefixes,
        "comment": st.sampled_from(["", "P1 port 25 egress", "P4 NetBIOS, SMB, RPC: exception"]),
    }
    codes = st.lists(st.tuples(st.sampled_from([0, 3, 128]), st.sampled_from([None, 0, 4])), min_size=1, max_size=4)
    kinds = [
        st.builds(Rule, protocol=st.sampled_from(["", "esp", "tcp", "gre"]), **common),
        st.builds(
            Rule, protocol=st.sampled_from(["tcp", "udp"]), source_ports=RANGES, destination_ports=RANGES, **common
        ),
        st.builds(Rule, protocol=st.just("icmp" if family == 4 else "icmp6"), icmp=codes.map(tuple), **common),
    ]
    if family == 4:
        kinds.append(st.builds(Rule, protocol=st.sampled_from(["", "tcp"]), later_fragments=st.just(True), **common))
    return st.one_of(kinds)


RULE_SETS = st.sampled_from([4, 6]).flatmap(
    lambda family: st.builds(
        lambda found, last: RuleSet(f"ISP-UP{family}-0a1b2c3d", family, "up", (*found, Rule(last, comment="rest"))),
        st.lists(rules(family), max_size=6),
        st.sampled_from([PERMIT, DENY]),
    )
)


def packets(family: int) -> st.SearchStrategy[dict[str, int]]:
    addresses = st.sampled_from(ADDRESSES[family]).map(lambda text: address_value(text, family))
    return st.fixed_dictionaries(
        {
            "protocol": st.sampled_from([1, 6, 17, 47, 50, 58]),
            "source": addresses,
            "destination": addresses,
            "source_port": st.sampled_from(PORTS),
            "destination_port": st.sampled_from(PORTS),
            "icmp_type": st.sampled_from([0, 3, 128]),
            "icmp_code": st.sampled_from([0, 1, 4]),
            "fragment": st.sampled_from([0, 0, 1, 2, 3]),
            "undetermined": st.sampled_from([0, 0, 0, 1]),
            "tcp_flags": st.integers(0, 255),
            "extension": st.integers(0, 5 if family == 6 else 0),
            "state": st.just(0),
            "tos": st.just(0),
            "ttl": st.just(64),
            "length": st.just(60),
            "options": st.just(0),
        }
    )


def says(rule: Rule, family: int, packet: dict[str, int]) -> bool:
    """Does the rule match? Straight from the words of rules.Rule."""

    def within(address: int, prefixes: tuple[str, ...]) -> bool:
        one = ipaddress.ip_address(address.to_bytes(4 if family == 4 else 16, "big"))
        return not prefixes or any(one in ipaddress.ip_network(text) for text in prefixes)

    def among(port: int, ranges: tuple[tuple[int, int], ...]) -> bool:
        return not ranges or any(low <= port <= high for low, high in ranges)

    if rule.protocol and packet["protocol"] != PROTOCOLS[rule.protocol]:
        return False
    if not within(packet["source"], rule.sources) or not within(packet["destination"], rule.destinations):
        return False
    if rule.later_fragments and not packet["fragment"] & 2:
        return False
    if rule.source_ports or rule.destination_ports or rule.icmp:
        if packet["fragment"] & 2 or packet["undetermined"]:
            return False
        kind = (packet["icmp_type"], packet["icmp_code"])
        if rule.icmp and not any(kind[0] == one and code in (None, kind[1]) for one, code in rule.icmp):
            return False
    return among(packet["source_port"], rule.source_ports) and among(packet["destination_port"], rule.destination_ports)


@settings(max_examples=200)
@given(data=st.data(), rule_set=RULE_SETS)
def test_what_is_rendered_means_the_rules(data: st.DataObject, rule_set: RuleSet) -> None:
    change = Change((rule_set,), (Bind(UNIT, "up", rule_set.family, rule_set.name),))
    configuration = juniper_junos.parse(rendered(change))
    assert configuration.doubts == ()
    (binding,) = configuration.bindings
    assert (binding.attachment, binding.direction, binding.filters) == (UNIT, "in", (rule_set.name,))
    for packet in data.draw(st.lists(packets(rule_set.family), min_size=1, max_size=20)):
        expected = next(rule.action for rule in rule_set.rules if says(rule, rule_set.family, packet))
        assert evaluate(configuration, rule_set.family, rule_set.name, packet)[0] == {expected}


@pytest.mark.parametrize(
    ("rule", "family", "told"),
    [
        (Rule(DENY, undetermined=True, comment="strict"), 6, "no condition for it"),
        (Rule(DENY, "tcp", later_fragments=True), 6, "no condition for it"),
        (Rule(DENY, destination_ports=((25, 25),)), 4, "set its protocol to tcp or udp"),
        (Rule(DENY, "tcp", icmp=((3, 4),)), 4, "set its protocol to icmp"),
    ],
)
def test_a_rule_that_junos_cannot_express_is_refused(rule: Rule, family: int, told: str) -> None:
    chosen = RuleSet("ISP-UP4-0a1b2c3d", family, "up", (rule, Rule(PERMIT)))
    with pytest.raises(ValueError, match=told):
        rendered(Change((chosen,), ()))


@pytest.mark.parametrize("attachment", ["ge-0/0/0", "RES pp0", "ge-0/0/0.x", ""])
def test_an_attachment_without_its_unit_is_refused(attachment: str) -> None:
    chosen = RuleSet("ISP-UP4-0a1b2c3d", 4, "up", (Rule(PERMIT),))
    with pytest.raises(ValueError, match="name it with its unit"):
        rendered(Change((chosen,), (Bind(attachment, "up", 4, chosen.name),)))


def test_tcp_and_udp_share_a_term_and_denials_are_counted() -> None:
    netbios = ((135, 135), (137, 139), (445, 445))
    rows = [
        Rule(DENY, protocol, destination_ports=netbios, comment="P4 NetBIOS, SMB, RPC") for protocol in ("tcp", "udp")
    ]
    chosen = RuleSet("ISP-UP4-0a1b2c3d", 4, "up", (*rows, *rows, Rule(PERMIT, comment="everything else")))
    *found, last = juniper_junos.lines(rendered(Change((chosen,), (Bind(DYNAMIC, "up", 4, chosen.name),))))
    path = "set firewall family inet filter ISP-UP4-0a1b2c3d"
    assert found == [
        f"{path} interface-specific",
        f"{path} term P4-NetBIOS-SMB-RPC from protocol [ tcp udp ]",
        f"{path} term P4-NetBIOS-SMB-RPC from destination-port [ 135 137-139 445 ]",
        f"{path} term P4-NetBIOS-SMB-RPC then count P4-NetBIOS-SMB-RPC",
        f"{path} term P4-NetBIOS-SMB-RPC then discard",
        f"{path} term P4-NetBIOS-SMB-RPC-2 from protocol [ tcp udp ]",
        f"{path} term P4-NetBIOS-SMB-RPC-2 from destination-port [ 135 137-139 445 ]",
        f"{path} term P4-NetBIOS-SMB-RPC-2 then count P4-NetBIOS-SMB-RPC-2",
        f"{path} term P4-NetBIOS-SMB-RPC-2 then discard",
        f"{path} term everything-else then accept",
    ]
    unit = 'dynamic-profiles RES interfaces pp0 unit "$junos-interface-unit"'
    assert last == f"set {unit} family inet filter input ISP-UP4-0a1b2c3d"


def test_a_filter_for_a_logical_system_is_defined_in_it() -> None:
    chosen = RuleSet("ISP-DOWN6-0a1b2c3d", 6, "down", (Rule(PERMIT),))
    place = "logical-systems LS1 interfaces ge-0/0/5 unit 0"
    configuration = juniper_junos.parse(rendered(Change((chosen,), (Bind(place, "down", 6, chosen.name),))))
    (binding,) = configuration.bindings
    assert (binding.attachment, binding.filters) == (place, (f"{chosen.name} in logical-systems LS1",))
    assert configuration.filters[6, binding.filters[0]].entries[0].action == PERMIT
    assert juniper_junos.remove([(6, binding.filters[0])]) == [
        f"delete logical-systems LS1 firewall family inet6 filter {chosen.name}"
    ]


# --- Both forms mean the same

CONDITIONS = [
    "protocol tcp", "protocol [ tcp udp ]", "destination-port 25", "destination-port [ smtp 137-139 ]", "port 445",
    "source-port-except 1024-65535", "tcp-established", "tcp-initial", 'tcp-flags "syn & !ack"', "is-fragment",
    "source-address 198.51.100.0/24", "destination-address 192.0.2.25/32", "icmp-type echo-request", "dscp ef",
    "source-prefix-list TRUSTED", "forwarding-class best-effort", "ttl 1", "fragment-offset 0", "no-such-condition 1",
]  # fmt: skip
ACTIONS = ["accept", "discard", "reject", "count seen", "next term", "policer slow", "log", "invented"]
TERMS = st.tuples(
    st.sampled_from(["", "inactive: "]),
    st.lists(st.sampled_from(CONDITIONS), max_size=4, unique_by=lambda text: text.split()[0]),
    st.lists(st.sampled_from(ACTIONS), max_size=3, unique=True),
)
FILTERS = st.dictionaries(st.sampled_from(["A", "B", "C"]), st.lists(TERMS, max_size=4), min_size=1)


def brace_form(filters: dict[str, Any], indent: str) -> Iterator[str]:
    yield "firewall { family inet {"
    for name, terms in filters.items():
        yield f"{indent}filter {name} {{"
        for number, (mark, conditions, actions) in enumerate(terms):
            yield f"{indent * 2}{mark}term t{number} {{"
            if conditions:
                yield f"{indent * 3}from {{"
                yield from (f"{indent * 4}{condition};" for condition in conditions)
                yield f"{indent * 3}}}"
            if len(actions) == 1:
                yield f"{indent * 3}then {actions[0]};"
            elif actions:
                yield f"{indent * 3}then {{ {' '.join(f'{action};' for action in actions)} }}"
            yield f"{indent * 2}}}"
        yield f"{indent}}}"
    yield "} }"


def set_form(filters: dict[str, Any]) -> Iterator[str]:
    for name, terms in filters.items():
        path = f"firewall family inet filter {name}"
        yield f"set {path}"
        for number, (mark, conditions, actions) in enumerate(terms):
            yield f"set {path} term t{number}"
            yield from (f"set {path} term t{number} from {condition}" for condition in conditions)
            yield from (f"set {path} term t{number} then {action}" for action in actions)
            if mark:
                yield f"deactivate {path} term t{number}"


def meaning(configuration: Configuration) -> dict[Any, Any]:
    """The filters without their line numbers."""
    return {
        key: (
            one.default,
            [(entry.action, entry.matches, entry.target, entry.text, entry.doubt) for entry in one.entries],
        )
        for key, one in configuration.filters.items()
    }


@settings(max_examples=200)
@given(filters=FILTERS, indent=st.sampled_from(["    ", "\t", " "]))
def test_both_forms_mean_the_same(filters: dict[str, Any], indent: str) -> None:
    lists = "policy-options { prefix-list TRUSTED { 192.0.2.0/24; } }\n"
    braces = juniper_junos.parse(lists + "\n".join(brace_form(filters, indent)))
    commands = juniper_junos.parse(lists + "\n".join(set_form(filters)))
    assert meaning(braces) == meaning(commands)
    assert braces.doubts == commands.doubts == ()


@settings(max_examples=100)
@given(filters=FILTERS)
def test_spaces_and_line_ends_mean_nothing(filters: dict[str, Any]) -> None:
    lines = list(brace_form(filters, "  "))
    expected = meaning(juniper_junos.parse("\n".join(lines)))
    assert meaning(juniper_junos.parse(" ".join(lines))) == expected
    assert meaning(juniper_junos.parse("\r\n".join(lines))) == expected
    assert meaning(juniper_junos.parse("\n/* remark { */\n".join(lines) + " # }")) == expected


# --- Any text

WHOLE = [ROUTER, *(path.read_text() for path in sorted(CASES.glob("parse-*/running.cfg")))]
CORE1 = (ROOT / "lab" / "configs" / "core1.cfg").read_text()


def depth(text: str) -> int:
    """How many braces are open at the end, not counting those in strings and remarks."""
    bare = re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|#.*', "", text, flags=re.DOTALL if "/*" in text else 0)
    return bare.count("{") - bare.count("}")


def test_a_whole_configuration_is_complete() -> None:
    assert juniper_junos.incomplete(ROUTER) == ""
    assert juniper_junos.incomplete(CORE1) == ""
    assert juniper_junos.incomplete("{master}\n" + ROUTER + "\n{master}[edit]\n") == ""
    assert juniper_junos.incomplete("!RANCID-CONTENT-TYPE: juniper\n!\n" + ROUTER) == ""
    assert juniper_junos.incomplete(ROUTER + "diameter {\n}\npolicy-options {\n    /* OMITTED */\n};\n") == ""
    commands = committed("", ["set system host-name mx1", "set interfaces ge-0/0/0 unit 100 family inet"])
    assert juniper_junos.incomplete(commands) == ""


@settings(max_examples=300)
@given(data=st.data())
def test_a_text_that_was_cut_off_says_so(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ROUTER) - 1))
    cut = ROUTER[:at]
    # Between two sections nothing shows; the end of the last one is missing then.
    assume(depth(cut) > 0 or not cut.rstrip().endswith("}"))
    assert juniper_junos.incomplete(cut)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no configuration"),
        (ROUTER.replace("mx1", "mx\x1b[7m1"), "a control character (terminal escape?) in line 2"),
        (ROUTER.replace("interfaces {", "---(more 12%)---\ninterfaces {"), "the pager stopped the output in line 4"),
        ("!\nversion 15.2\nhostname r1\n! end\n", "another platform's configuration: 'hostname r1'"),
        ("set interfaces ethernet eth0 address 192.0.2.1/24\n", "another platform's configuration"),
        ("table inet isp_edge {\n}\n", "another platform's configuration"),
        ("error: could not open configuration\n", "ends in the middle of a statement (line 2)"),
        ("system {\n    host-name mx1;\n}\n", "no section 'interfaces'"),
        (ROUTER + "}\n", "a '}' that closes nothing"),
        (ROUTER.replace("host-name mx1;", "host-name mx1"), "a statement without its ';' (line 3)"),
        (ROUTER + "nonsense {\n}\n", "'nonsense' is no section of a Junos configuration"),
        (ROUTER.replace("address 198.51.100.1/25;", "/* ACCESS-DENIED */"), "the router left something out (line 11)"),
    ],
)
def test_what_is_no_whole_configuration_is_told(text: str, told: str) -> None:
    assert told in juniper_junos.incomplete(text)


@settings(max_examples=300)
@given(data=st.data())
def test_no_text_is_too_broken(data: st.DataObject) -> None:
    """Pieces of configurations, cut, doubled, and mixed with signs: a configuration or NotThisPlatform, no more."""
    pieces = data.draw(
        st.lists(
            st.one_of(
                st.text(max_size=20),
                st.sampled_from(
                    ['"', "{", "}", "[", "]", ";", "/*", "*/", "#", "set ", "\n", "insert firewall before x", "delete "]
                ),
                st.tuples(st.sampled_from(WHOLE), st.integers(0, 4000), st.integers(1, 400)).map(
                    lambda cut: cut[0][cut[1] : cut[1] + cut[2]]
                ),
            ),
            max_size=12,
        )
    )
    text = "".join(pieces)
    juniper_junos.incomplete(text)
    try:
        configuration = juniper_junos.parse(text)
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


REPEATED = [
    "system {",
    "a { ",
    '"',
    "[ ",
    "/* ",
    "inactive: ",
    "(((",
    "x " * 50 + "\n",
    "apply-groups G;\n",
    "interfaces { a { apply-groups G; } }\n",
    "set interfaces x unit 0 apply-groups G\n",
    "set firewall family inet filter F term T from protocol tcp\n",
    "insert firewall family inet filter F term A before term B\n",
    "ge-[1/[2",
    "firewall { /* OMITTED */ };\n",
    "set interfaces interface-range R member ge-0/[0-9,0-9]/*\n",
    'set policy-options prefix-list P apply-path "interfaces <*> unit <*>"\nset interfaces x unit 0\n',
]


@pytest.mark.parametrize("unit", REPEATED)
def test_the_time_is_linear(unit: str) -> None:
    """Ten times the text takes no more than thirty times as long, whatever repeats in it."""

    def taken(text: str) -> float:
        begin = time.process_time()
        juniper_junos.incomplete(text)
        with contextlib.suppress(NotThisPlatform):
            juniper_junos.parse(text)
        return time.process_time() - begin

    begin = "groups { G { interfaces { <*> { unit 0; } } } }\n"
    short, long = begin + unit * 2_000, begin + unit * 20_000
    assert taken(long) < 30 * max(taken(short), 0.02)


# --- Changes


def test_a_change_replaces_the_list_and_goes_back() -> None:
    chosen = RuleSet("ISP-UP4-0a1b2c3d", 4, "up", (Rule(DENY, "tcp", destination_ports=((25, 25),)), Rule(PERMIT)))
    lines = juniper_junos.lines(rendered(Change((chosen,), (Bind(UNIT, "up", 4, chosen.name),))))
    lines += juniper_junos.remove([(4, "ISP-UP4-00000000")])
    assert not any(line.startswith("#") for line in lines)
    after = committed(ROUTER, lines)
    before, now = juniper_junos.parse(ROUTER), juniper_junos.parse(after)
    assert [binding.filters for binding in before.bindings] == [(f"{UNIT}-i",)]
    assert [binding.filters for binding in now.bindings] == [(chosen.name,)]
    assert (4, "ISP-UP4-00000000") not in now.filters
    back = juniper_junos.restore(after, ROUTER, [UNIT])
    again = juniper_junos.parse(committed(after, back))
    assert same_in_force(again, before)
    assert (4, chosen.name) not in again.filters
    assert juniper_junos.restore(ROUTER, ROUTER, [UNIT]) == []
    assert juniper_junos.restore(after, ROUTER, []) == []


def test_a_backup_brings_back_what_was_deleted_and_changed() -> None:
    lost = [
        "delete firewall family inet filter FOREIGN",
        "delete firewall family inet filter INNER term smtp from destination-port 465",
        "delete policy-options prefix-list TRUSTED",
        "delete interfaces ge-0/0/0 unit 100 family inet filter",
    ]
    running = committed(ROUTER, lost)
    back = juniper_junos.restore(running, ROUTER, [UNIT])
    assert same_in_force(juniper_junos.parse(committed(running, back)), juniper_junos.parse(ROUTER))


@pytest.mark.parametrize(
    "line", ["", "set", "set firewall", "show version", "set nonsense a b", "commit", "} firewall x"]
)
def test_an_unknown_line_is_no_change(line: str) -> None:
    with pytest.raises(ValueError, match="no command that changes a Junos configuration"):
        committed(ROUTER, [line])


@pytest.mark.parametrize(
    ("output", "rejected"),
    [
        ("                     ^\nsyntax error.\n", True),
        ("           ^\nunknown command.\n", True),
        ("                ^\nmissing argument.\n", True),
        ("error: configuration database locked by:\n", True),
        ("[edit interfaces]\n  'ge-0/0/0'\n    x\nerror: configuration check-out failed\n", True),
        ("configuration check succeeds\n", False),
        ("warning: uncommitted changes will be discarded on exit\nEntering configuration mode\n", False),
        ("warning: statement not found\n", False),
        ("commit confirmed will be automatically rolled back in 5 minutes unless confirmed\ncommit complete\n", False),
    ],
)
def test_rejections_are_recognised(output: str, rejected: bool) -> None:
    assert any(re.search(pattern, output, re.MULTILINE) for pattern in juniper_junos.REJECTED) is rejected
