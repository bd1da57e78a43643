# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nftables: what is read, what is rendered, and a push to a real router. What rules mean: test_kernel_nftables.py."""

from __future__ import annotations

import ipaddress
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils import packets
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    Configuration,
    NotThisPlatform,
    evaluate,
)
from ansible_collections.isp.hardening.plugins.module_utils.packets import PROTOCOLS, contains, prefix
from ansible_collections.isp.hardening.plugins.module_utils.platforms import linux_nftables
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from ansible_collections.isp.hardening.plugins.module_utils.search import Question, Search
from lab.netns import tool
from lab.routers.linux_nftables import Device, Link

TEMPLATE = Path(__file__).parents[2] / "roles" / "edge_filter" / "templates" / "linux_nftables.j2"
ADDRESSES = """1: lo    inet 127.0.0.1/8 scope host lo
2: wan0    inet 203.0.113.1/29 brd 203.0.113.7 scope global wan0
3: ppp0    inet 192.0.2.1 peer 198.51.100.7/32 scope global ppp0
"""


def render(change: Change) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(linux_nftables.fields(change)) + "\n"


def judged(
    configuration: Configuration, attachment: str, direction: str, family: int, packet: Mapping[str, int]
) -> set[str]:
    actions = {PERMIT}
    place = attachment, direction, family
    for binding in configuration.bindings:
        if (binding.attachment, binding.direction, binding.family) == place:
            for name in binding.filters:
                actions = actions - {PERMIT} | evaluate(configuration, family, name, packet)[0]
                if PERMIT not in actions:
                    break
    return actions


USUAL = dict.fromkeys(packets.FIELDS, 0) | {
    "protocol": 6,
    "source": 1,
    "destination": 2,
    "destination_port": 25,
    "tcp_flags": 2,
    "ttl": 64,
    "length": 60,
}


# Rendering

POOL = {4: ("198.51.100.0/25", "198.51.100.128/26", "203.0.113.0/28"), 6: ("2001:db8:100::/40", "2001:db8:f::/48")}
PORTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair))), max_size=2
).map(tuple)


@st.composite
def policy_rules(draw: st.DrawFn, family: int) -> Rule:
    action = draw(st.sampled_from(("permit", "deny")))
    prefixes = st.lists(st.sampled_from(POOL[family]), max_size=2, unique=True).map(tuple)
    kind = draw(st.sampled_from(("any", "protocol", "ports", "icmp", "fragments", "undetermined")))
    rule = {
        "action": action,
        "sources": draw(prefixes),
        "destinations": draw(prefixes),
        "comment": draw(st.text(max_size=9)),
    }
    if kind == "protocol":
        rule["protocol"] = draw(st.sampled_from(("tcp", "udp", "esp", "gre")))
    elif kind == "ports":
        rule |= {"protocol": draw(st.sampled_from(("tcp", "udp"))), "source_ports": draw(PORTS),
                 "destination_ports": draw(PORTS)}  # fmt: skip
    elif kind == "icmp":
        codes = st.tuples(st.sampled_from((0, 3, 8)), st.sampled_from((None, 0, 4)))
        rule |= {
            "protocol": {4: "icmp", 6: "icmp6"}[family],
            "icmp": tuple(draw(st.lists(codes, min_size=1, max_size=2))),
        }
    elif kind == "fragments":
        rule |= {"protocol": draw(st.sampled_from(("", "tcp"))), "later_fragments": True}
    elif kind == "undetermined" and family == 6:
        rule["undetermined"] = True
    return Rule(**rule)


@st.composite
def packets_of(draw: st.DrawFn, family: int) -> dict[str, int]:
    def address() -> int:
        network = ipaddress.ip_network(
            draw(st.sampled_from((*POOL[family], {4: "192.0.2.0/24", 6: "2001:db8:e::/48"}[family])))
        )
        return int(network.network_address) + draw(st.integers(0, network.num_addresses - 1))

    fragment = draw(st.sampled_from((0, 0, 0, 1, 2)))
    return USUAL | {
        "protocol": draw(st.sampled_from((1, 6, 6, 17, 47, 50, 58))),
        "source": address(),
        "destination": address(),
        "source_port": draw(st.integers(0, 41)),
        "destination_port": draw(st.integers(0, 41)),
        "icmp_type": draw(st.sampled_from((0, 3, 8))),
        "icmp_code": draw(st.sampled_from((0, 4))),
        "fragment": fragment,
        # The protocol behind a later fragment's hidden header is nowhere to be seen: no rule of nftables can name it.
        "undetermined": draw(st.sampled_from((0, 0, 1))) if family == 6 and fragment < 2 else 0,
        "extension": 3 if family == 6 and fragment else 0,
    }


def means(rule: Rule, family: int, packet: Mapping[str, int]) -> bool:
    """The rule as rules.py describes it, without any of the parser's code."""
    readable = packet["fragment"] < 2 and not packet["undetermined"]

    def inside(value: int, prefixes: tuple[str, ...]) -> bool:
        return not prefixes or any(contains(prefix(one, family), value) for one in prefixes)

    def among(port: int, ranges: tuple[tuple[int, int], ...]) -> bool:
        return not ranges or (readable and any(low <= port <= high for low, high in ranges))

    icmp = not rule.icmp or (
        readable
        and any(packet["icmp_type"] == kind and code in (None, packet["icmp_code"]) for kind, code in rule.icmp)
    )
    return (
        inside(packet["source"], rule.sources)
        and inside(packet["destination"], rule.destinations)
        and (not rule.protocol or packet["protocol"] == PROTOCOLS[rule.protocol])
        and among(packet["source_port"], rule.source_ports)
        and among(packet["destination_port"], rule.destination_ports)
        and icmp
        and (not rule.later_fragments or packet["fragment"] >= 2)
        and (not rule.undetermined or bool(packet["undetermined"]))
    )


@settings(max_examples=150)
@given(data=st.data(), family=st.sampled_from((4, 6)), direction=st.sampled_from(("up", "down")))
def test_what_is_rendered_means_the_rules(data: st.DataObject, family: int, direction: str) -> None:
    rules = [
        *data.draw(st.lists(policy_rules(family), max_size=5)),
        Rule(data.draw(st.sampled_from(("permit", "deny")))),
    ]
    name = f"ISP-{direction.upper()}{family}-00000000"
    change = Change((RuleSet(name, family, direction, tuple(rules)),), (Bind("ppp*", direction, family, name),))
    configuration = linux_nftables.parse(render(change) + ADDRESSES, ["ppp*"])
    for packet in data.draw(st.lists(packets_of(family), min_size=5, max_size=5)):
        actions = judged(configuration, "ppp*", {"up": "in", "down": "out"}[direction], family, packet)
        wanted = next(rule.action for rule in rules if means(rule, family, packet))
        # Where a header is cut off or missing, the kernel may read other bytes: in doubt is as good as right.
        whole = packet["fragment"] < 2 and not packet["undetermined"]
        assert actions == {wanted} or (not whole and wanted in actions), packet


@pytest.mark.skipif(not tool("nft"), reason="nft is not on this machine")
@pytest.mark.skipif(bool(Device.unavailable()), reason=f"nft cannot check here: {Device.unavailable()}")
@settings(max_examples=25)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_nft_takes_what_is_rendered(data: st.DataObject, family: int) -> None:
    rules = (*data.draw(st.lists(policy_rules(family), max_size=5)), Rule("permit"))
    change = Change(
        (RuleSet("ISP-UP4-00000000", family, "up", rules),), (Bind("eth1.100", "up", family, "ISP-UP4-00000000"),)
    )
    done = subprocess.run(
        [tool("nft"), "-c", "-f", "-"], input=render(change), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), render(change)


@pytest.mark.parametrize(
    ("rule", "family", "attachment", "said"),
    [
        (
            Rule("deny", "esp", destination_ports=((1, 2),), comment="x"),
            4,
            "ppp0",
            "'x': ports need a protocol that has",
        ),
        (
            Rule("deny", "icmp", icmp=((8, None),), comment="x"),
            6,
            "ppp0",
            "'x': ICMP types of IPv6 need the protocol icmp6",
        ),
        (Rule("deny", undetermined=True, comment="x"), 4, "ppp0", "'x': header chains are IPv6's"),
        (
            Rule("deny", "tcp", destination_ports=((25, 25),), later_fragments=True, comment="x"),
            4,
            "ppp0",
            "has no ports",
        ),
        (Rule("deny"), 4, "GigabitEthernet0/0/1", "'GigabitEthernet0/0/1' is no name of a Linux interface"),
        (Rule("deny"), 4, 'e"; }', "is no name of a Linux interface"),
    ],
)
def test_what_cannot_be_rendered_says_so(rule: Rule, family: int, attachment: str, said: str) -> None:
    change = Change((RuleSet("x", family, "up", (rule,)),), (Bind(attachment, "up", family, "x"),))
    with pytest.raises(ValueError, match="^.*" + said.replace("(", r"\(")):
        linux_nftables.fields(change)


def test_the_narrower_attachment_comes_first() -> None:
    filters = tuple(RuleSet(name, 4, "up", (Rule("permit"),)) for name in ("all", "one", "some"))
    binds = (Bind("ppp*", "up", 4, "all"), Bind("ppp1*", "up", 4, "some"), Bind("ppp12", "up", 4, "one"))
    text = render(Change(filters, binds))
    assert text.index("goto one") < text.index("goto some") < text.index("goto all")


# Reading


def test_generator_output(sample_data: Path) -> None:
    files = sorted((sample_data / "configs" / "aerleon").glob("**/nftables/*.ref"))
    assert files
    for file in files:
        text = file.read_text()
        assert linux_nftables.incomplete(text) == ""
        configuration = linux_nftables.parse(text)
        assert configuration.doubts == ()
        # They are chains of the input and output hooks: nothing that is forwarded meets them.
        assert configuration.bindings == ()
        packet = USUAL | {"state": 1}
        assert evaluate(configuration, 6, "ip6 filtering_policies root0", packet)[0] == {PERMIT}
        assert evaluate(configuration, 6, "ip6 filtering_policies root0", packet | {"state": 3})[0] == {DENY}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "returned nothing"),
        ("table inet x {\n}\ntable inet y", "a table at its end has no block"),
        ("table inet x {\n chain y {\n", "it is cut off: 2 blocks are open"),
        ("table inet x {\n}\n}\n", "line 3 closes a block that none opened"),
        ("\x1b[1mtable inet x {\n}\n", "terminal escapes"),
        ("Operation not permitted (you must be root)\n" + ADDRESSES, "'Operation not permitted (you must be root)'"),
        ("bash: line 1: nft: command not found\n" + ADDRESSES, "command not found"),
        ("hostname edge1\ninterface Ethernet1\n ip access-group X in\n", "no nftables table"),
        ("firewall {\n    family inet {\n    }\n}\n", "no nftables table"),
        (ADDRESSES, ""),
        ("table inet x {\n\tcomment \"}\"\n}\n" + ADDRESSES, ""),
    ],
)  # fmt: skip
def test_incomplete(text: str, said: str) -> None:
    found = linux_nftables.incomplete(text)
    assert found == "" if not said else said in found


def test_other_platforms_are_refused() -> None:
    with pytest.raises(NotThisPlatform, match="no nftables table"):
        linux_nftables.parse("interface Ethernet1\n ip access-group X in\n")


WORDS = st.sampled_from(
    [
        *"table inet t { } chain c forward type filter hook priority 0 ; policy drop accept ip saddr daddr".split(),
        *"tcp dport flags syn | , & ( ) == != ! 25 20-30 192.0.2.0/24 { @s set elements = map vmap : jump goto".split(),
        *"ct state new meta l4proto . $x define add rule element insert delete flush ruleset counter packets".split(),
        *"limit rate 5/second iifname ip6 nexthdr exthdr frag exists reject with reset fib iif oif missing".split(),
        *"@th dnat to masquerade flow log prefix comment include dormant * \\ #".split(),
        *('"', '"ppp*"', "\n", "\n", "\n", ";", "ip frag-off & 0x1fff != 0", "{ 25 : drop }"),
        "type filter hook forward priority 0;",
        *(
            "log flags\n",
            "counter name\n",
            "numgen inc mod",
            "xt match",
            "# xt_LOG",
            "dnat to ip daddr map",
            "continue",
        ),
        *("ct status dnat", "last used", "index 0", "set s {\n", "iifname . ip saddr != { 1 . 2 }"),
    ]
)


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=60))
def test_no_text_ends_in_an_error(words: list[str]) -> None:
    text = "table inet t {\nchain c {\ntype filter hook forward priority 0\n" + " ".join(words)
    configuration = linux_nftables.parse(text, ["ppp*", "eth0"])
    assert linux_nftables.incomplete(text) is not None
    for family, name in configuration.filters:
        evaluate(configuration, family, name, USUAL)


@pytest.mark.parametrize(
    "text",
    [
        "add rule inet t c frobnicate drop",
        "add rule inet t c tcp dport @nowhere drop",
        "add rule inet t c jump nowhere",
        "add rule inet t c xt target MASQUERADE",
        "add rule inet t c tcp dport vmap @nowhere",
        "add rule inet t c tcp dport frobnicate drop",
        "add rule inet t c socket transparent 1 drop",
        "add rule inet t c queue num 3",
        "add rule inet t c tcp dport set 2525",
    ],
)
def test_what_is_not_understood_is_in_doubt(text: str) -> None:
    base = "table inet t {\nchain c {\ntype filter hook forward priority 0; policy accept;\n}\n}\n"
    configuration = linux_nftables.parse(base + text + "\n", ["ppp0"])
    entries = configuration.filters[4, "inet t c @ppp0 out"].entries
    assert [entry.line for entry in entries] == [6]
    assert entries[0].text == text
    assert judged(configuration, "ppp0", "out", 4, USUAL) == {PERMIT, DENY}


EITHER = {PERMIT, DENY}
SENT = USUAL | {"source": int(ipaddress.ip_address("198.51.100.7"))}


@pytest.mark.parametrize(
    ("rules", "port_25", "port_80"),
    [
        # A statement in front of a set: the brace belongs to the rule.
        ("counter tcp dport { 25, 26 } drop", {DENY}, {PERMIT}),
        ("counter meta l4proto { tcp, udp } th dport 25 drop", {DENY}, {PERMIT}),
        ('ct helper { "ftp" } accept\ntcp dport 25 drop', EITHER, {PERMIT}),
        # An element of a verdict map that goes on leads to the next rule, and not to the catch-all.
        ("tcp dport vmap { * : drop, 25 : continue }", {PERMIT}, {DENY}),
        ("tcp dport vmap { 25 : jump web, * : drop }\n}\nchain web {", {PERMIT}, {DENY}),
        # The colon of a map may stand at its key.
        ("tcp dport vmap { 25:drop, 80: accept }", {DENY}, {PERMIT}),
        ("ct state vmap { established: accept, new: drop }", {DENY}, {DENY}),
        # Who is one of several by chance or by a hash, is not known; neither is the rest of the map.
        ("numgen inc mod 2 vmap { 0 : drop, 1 : accept }\ntcp dport 25 drop", EITHER, EITHER),
        ("jhash ip saddr . ip daddr mod 2 seed 0x1 offset 5 vmap { 5 : accept }\ntcp dport 25 drop", EITHER, {PERMIT}),
        ("tcp dport 25 symhash mod 2 < 1 accept\ntcp dport 25 drop", EITHER, {PERMIT}),
        # When it was used last is a note, and no part of what follows.
        ("last used never tcp dport 25 drop", {DENY}, {PERMIT}),
        ("last used 1d2h3m4s5ms counter packets 1 bytes 60 tcp dport 25 drop", {DENY}, {PERMIT}),
        ("last tcp dport 25 drop", {DENY}, {PERMIT}),
        # What is computed for a mark ends where the next test or statement begins.
        ("ct mark set meta mark reject", EITHER, EITHER),
        ("meta mark set ct mark & 0xff | 0x100 tcp dport 25 drop", EITHER, {PERMIT}),
        (
            "ct mark set ip saddr . tcp dport map { 192.0.2.1 . 25 : 0x1 } tcp dport vmap { 25 : drop }",
            EITHER,
            {PERMIT},
        ),
        # Flags compared as one number: the packet has SYN, which is 2.
        ("tcp flags & (fin|syn|rst|psh|ack|urg) < fin drop", {PERMIT}, {PERMIT}),
        ("tcp flags & (fin|syn) >= syn drop", {DENY}, {DENY}),
        ("tcp flags < 3 tcp dport 25 drop", {DENY}, {PERMIT}),
        # An interface by its number, or by a variable that an included file would define, may be any.
        ("iif 3 drop", EITHER, EITHER),
        ("iifname $WAN tcp dport 25 accept\ntcp dport 25 drop", EITHER, {PERMIT}),
        ("iifname != { $LAN, $WAN } tcp dport 25 drop", EITHER, {PERMIT}),
        # Beside a value that is not understood the others still count.
        ("tcp dport { 25, frobnicate } drop", {DENY}, EITHER),
        # A condition of iptables that nft cannot spell hides behind a comment; the rule goes on.
        ("# xt_conntrack counter packets 1 bytes 60 accept # handle 12\ntcp dport 25 drop", EITHER, {PERMIT}),
        ("tcp dport 25 # xt_string counter packets 1 bytes 60 drop", EITHER, {PERMIT}),
        ("tcp dport 25 counter packets 1 bytes 60 # xt_REDIRECT", EITHER, {PERMIT}),
        # A line goes on behind a backslash, with or without a space before it.
        ("tcp dport 25\\\n drop", {DENY}, {PERMIT}),
        # What packets add to a set, is not in the text, whether or not the set says that it is dynamic.
        (
            "add @s { ip saddr }\nip saddr @s tcp dport 25 accept\ntcp dport 25 drop\n}\nset s { size 9",
            EITHER,
            {PERMIT},
        ),
        ("set update ip saddr @s\nip saddr @s drop\n}\nset s { size 9; flags timeout", EITHER, EITHER),
        ("ip saddr @s tcp dport 25 drop\n}\nset s { timeout 1h; elements = { 198.51.100.7 }", EITHER, {PERMIT}),
        ("ip saddr @s tcp dport 25 drop\n}\nset s { flags interval; elements = { 198.51.100.7 }", {DENY}, {PERMIT}),
        # A leading zero makes a number octal, as in C.
        ("tcp dport { 031, 0x19 } drop", {DENY}, {PERMIT}),
        ("tcp dport 025 drop", {PERMIT}, {PERMIT}),
        # Names of ports and protocols that are in the way of no other test.
        ("tcp dport { xmpp-client, ipp } accept\nmeta l4proto ipip accept\ntcp dport 25 drop", {DENY}, {PERMIT}),
        # `continue` goes on in its own rule.
        ("tcp dport 25 continue drop", {DENY}, {PERMIT}),
        ("tcp dport vmap { 25 : continue, 80 : accept } drop", EITHER, {PERMIT}),
        # A match of iptables that is not shown may hold or not, but the verdict is known; a comment always holds.
        ('xt match "conntrack" counter packets 1 bytes 60 drop\ntcp dport 25 drop', {DENY}, EITHER),
        ('xt match "conntrack" counter packets 1 bytes 60 accept\ntcp dport 25 drop', EITHER, {PERMIT}),
        ('tcp dport 25 xt match "comment" counter packets 1 bytes 60 drop', {DENY}, {PERMIT}),
        ('tcp flags syn counter packets 1 bytes 60 xt target "TCPMSS"\ntcp dport 25 drop', {DENY}, {PERMIT}),
        ('tcp dport 25 counter packets 1 bytes 60 xt target "REJECT"', EITHER, {PERMIT}),
        # What is in none of the elements of a concatenation.
        ("ip saddr . tcp dport != { 198.51.100.7 . 80, 192.0.2.1 . 25 } drop", {DENY}, {PERMIT}),
        ('iifname . ip saddr != { "ppp0" . 198.51.100.7, "ppp1" . 192.0.2.1 } drop', {PERMIT}, {PERMIT}),
        ('iifname . ip saddr != { "ppp0" . 192.0.2.1, "ppp1" . 198.51.100.7 } drop', {DENY}, {DENY}),
        ("ip saddr . tcp dport != { 198.51.100.7 . frobnicate } drop", EITHER, EITHER),
        # Nothing is translated where no rule does it, as firewalld and OpenWrt ask in front of all others.
        ("ct status dnat accept\ntcp dport 25 drop", {DENY}, {PERMIT}),
        ("ct status & dnat == dnat accept\ntcp dport 25 drop", {DENY}, {PERMIT}),
        ("ct status snat,dnat accept\ntcp dport 25 drop", EITHER, {PERMIT}),
        ("ct status ! dnat tcp dport 25 drop", EITHER, {PERMIT}),
        ('ct status dnat accept\ntcp dport 25 drop\n}\nchain other {\nxt target "DNAT"', EITHER, {PERMIT}),
        ("ct status dnat accept\ntcp dport 25 drop\n}\nchain other {\ndnat ip to 192.0.2.1", EITHER, {PERMIT}),
    ],
)
def test_what_rules_mean(rules: str, port_25: set[str], port_80: set[str]) -> None:
    text = f"table inet t {{\nchain c {{\ntype filter hook forward priority 0; policy accept;\n{rules}\n}}\n}}\n"
    configuration = linux_nftables.parse(text + ADDRESSES, ["ppp0"])
    assert configuration.doubts == ()
    both = SENT, SENT | {"destination_port": 80}
    assert [judged(configuration, "ppp0", "in", 4, packet) for packet in both] == [port_25, port_80]


@pytest.mark.parametrize(
    "text",
    [
        # A set may be made of others.
        "define one = { 192.0.2.1, }\ndefine two = {\n $one,\n HERE\n}\ntable inet t {\nCHAIN\nip saddr $two drop\n}}",
        "define one = { HERE }\ntable inet t {\nset s {\nelements = { $one, 0.0.0.0 }\n}\nCHAIN\nip saddr @s drop\n}}",
        # Variables may be defined in a block.
        "table inet t {\ndefine port = 25\nCHAIN\ndefine from = { HERE }\nip saddr $from tcp dport $port drop\n}}",
        # Commands that leave the chain as it is.
        "table inet t {\nCHAIN\ndrop\n}\n}\nflush ruleset ip6\nadd counter inet t n\nadd quota inet t n { over 1 }",
        "table inet t {\nCHAIN\ndrop\n}\n}\nct helper inet t n {\n}\nlimit inet t n {\n}\ndelete counter inet t n",
        # A rule needs no `add rule`, and `index` says where it stands.
        "table inet t {\nCHAIN\n}}\ninet t c tcp dport { 25, 26 } drop",
        "table inet t {\nCHAIN\naccept\n}}\ninsert inet t c tcp dport 80 drop\nadd rule inet t c index 0 drop",
        "table inet t {\nCHAIN\ntcp dport 80 accept\naccept\n}}\ninsert rule inet t c index 1 tcp dport 25 drop",
        # The devices of a chain that is named again are those of both.
        "table netdev t {\nchain c {\nINGRESS\ndevices = { ppp0 }\ndrop\n}\nchain c {\nINGRESS\ndevices = { wan0 }\n}}",
        "table netdev t {\nchain c {\nINGRESS\ndevices = { wan0, ppp0 }\nflags offload\ndrop\n}}",
    ],
)
def test_what_files_mean(text: str) -> None:
    """The packet is denied without a doubt."""
    text = text.replace("CHAIN", "chain c {\ntype filter hook forward priority 0; policy accept;")
    text = text.replace("INGRESS", "type filter hook ingress priority 0").replace("HERE", "198.51.100.7")
    configuration = linux_nftables.parse(text, ["ppp0"])
    assert configuration.doubts == ()
    assert judged(configuration, "ppp0", "in", 4, SENT) == {DENY}


def test_an_include_and_a_stray_line_are_doubts() -> None:
    text = 'table inet t {\n}\ninclude "/etc/nftables.d/*.nft"\nfrobnicate\nadd rule inet t nowhere drop\n'
    assert [doubt.line for doubt in linux_nftables.parse(text).doubts] == [3, 4, 5]
    text = f"table inet t {{\nchain c {{\ntype filter hook forward priority {'9' * 5000}\n}}\n}}\n"
    assert [doubt.line for doubt in linux_nftables.parse(text).doubts] == [3]


@pytest.mark.parametrize(
    ("statement", "port_25", "port_80"),
    [
        ("dnat ip to tcp dport map { 25 : 192.0.2.1, 26 : 192.0.2.1 }", EITHER, {PERMIT}),
        ("dnat ip addr . port to ip daddr . tcp dport map { 0.0.0.2 . 80 : 192.0.2.1 . 8080 }", {PERMIT}, EITHER),
        ("dnat ip to tcp dport map @ports", {PERMIT}, EITHER),
        ("dnat ip to numgen inc mod 2 map { 0 : 192.0.2.1, 1 : 192.0.2.2 }", EITHER, EITHER),
        ("dnat ip to 192.0.2.1", EITHER, EITHER),
        ("tcp dport 80 redirect to :3128", {PERMIT}, EITHER),
    ],
)
def test_what_a_map_does_not_translate_passes(statement: str, port_25: set[str], port_80: set[str]) -> None:
    text = f"table inet t {{\nchain c {{\ntype nat hook prerouting priority dstnat\n{statement}\n}}\nmap ports {{\n"
    text += "elements = { 80 : 192.0.2.1 }\n}\n}\n"
    both = SENT, SENT | {"destination_port": 80}
    configuration = linux_nftables.parse(text, ["ppp0"])
    assert [judged(configuration, "ppp0", "in", 4, packet) for packet in both] == [port_25, port_80]


@pytest.mark.parametrize(
    ("translation", "smarthost", "port_25"),
    [
        ("tcp dport 25 dnat to 192.0.2.25:2525", "", EITHER),
        ("tcp dport 25 dnat to 192.0.2.25", "ip daddr 192.0.2.25 accept", EITHER),
        ("tcp dport 25 dnat to 192.0.2.25", "", {DENY}),  # it goes to port 25 still
        ("tcp dport 25 dnat to 192.0.2.25 - 192.0.2.28:2525", "", EITHER),
        ("jump other\n}\nchain other {\ntcp dport 25 dnat to :2525", "", EITHER),
        ('iifname "wan0" jump other\n}\nchain other {\ntcp dport 25 dnat to :2525', "", {DENY}),
        ("jump other\n}\nchain other {\njump other\ntcp dport 80 dnat to :2525", "", EITHER),
        ("tcp dport 80 dnat to 192.0.2.25:2525", "", {DENY}),
        ("tcp dport 25 redirect to :2525", "", {DENY}),  # which is forwarded nowhere
        ("tcp dport 25 tcp dport set 2525", "", EITHER),
    ],
)
def test_a_filter_behind_a_translation_sees_another_packet(translation: str, smarthost: str, port_25: set[str]) -> None:
    text = f"table ip n {{\nchain c {{\ntype nat hook prerouting priority dstnat\n{translation}\n}}\n}}\n"
    text += (
        f"table inet t {{\nchain c {{\ntype filter hook forward priority 0\n{smarthost}\ntcp dport 25 drop\n}}\n}}\n"
    )
    assert judged(linux_nftables.parse(text + ADDRESSES, ["ppp0"]), "ppp0", "in", 4, SENT) == port_25


@pytest.mark.parametrize(
    ("rule", "checked"),
    [
        ("fib saddr . iif oif missing drop", True),
        ("fib iif . saddr oif 0 counter drop", True),
        ("fib saddr . iif check missing drop", True),
        ("fib saddr check missing drop", False),  # any route will do
        ("fib saddr . iif check exists drop", False),
        ("fib saddr . mark . iif oif missing drop", False),
    ],
)
def test_a_source_check(rule: str, checked: bool) -> None:
    text = f"table inet t {{\nchain c {{\ntype filter hook prerouting priority raw\n{rule}\n}}\n}}\n"
    found = linux_nftables.parse(text + ADDRESSES, ["ppp0"]).interfaces["ppp0"]
    assert found.source_check == (rule if checked else "")


def test_a_set_that_is_not_all_in_the_text() -> None:
    text = "table inet t {\nset s {\n\nLINE\n}\nchain c {\ntype filter hook forward priority 0\nip saddr @s drop\n}}"
    for line in ('include "addresses.nft"', "elem~nts = { 198.51.100.7 }", "elements = $addresses"):
        configuration = linux_nftables.parse(text.replace("LINE", line), ["ppp0"])
        assert [doubt.line for doubt in configuration.doubts] == [4]
        assert judged(configuration, "ppp0", "in", 4, SENT) == EITHER


@pytest.mark.parametrize(
    ("lines", "doubts", "port_25"),
    [
        # A policy or a priority may be a variable, in quotes where it is a word of the grammar.
        ('define all = "drop"\nDEFINED\ntype filter hook forward priority 0; policy $all;', [], {DENY}),
        ('define first = "filter - 5"\nDEFINED\ntype filter hook forward priority $first; policy drop;', [], {DENY}),
        ("DEFINED\ntype filter hook forward priority 0; policy $all;", [], EITHER),
        ("DEFINED\ntype filter hook forward priority 0; policy dr~p;", [], EITHER),
        ("DEFINED\ntype filter hook forward priority f~lter; policy drop;", [4], {DENY}),
        ("DEFINED\ntype filter hook f~rward priority 0; policy drop;", [4], {PERMIT}),
        ("DEFINED\nty~e filter hook forward priority 0; policy drop;", [4], {PERMIT}),
        ("DEFINED\ntype filter hook ingress device $wan priority 0; policy drop;", [4], {PERMIT}),
    ],
)
def test_what_a_chain_is(lines: str, doubts: list[int], port_25: set[str]) -> None:
    text = "\n" * ("define" not in lines) + lines.replace("DEFINED", "table inet t {\nchain c {")
    text += "\ntcp dport 80 accept\n}\n}\n"
    configuration = linux_nftables.parse(text + ADDRESSES, ["ppp0"])
    assert [doubt.line for doubt in configuration.doubts] == doubts
    assert judged(configuration, "ppp0", "in", 4, SENT) == port_25
    assert judged(configuration, "ppp0", "in", 4, SENT | {"destination_port": 80}) == {PERMIT}


@pytest.mark.parametrize("rule", ["log flags", "counter name", "xt", "last used", "numgen", "dnat to", "meta mark set"])
def test_a_rule_that_is_cut_off(rule: str) -> None:
    linux_nftables.parse(
        f"table inet t {{\nchain c {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}\n", ["ppp0"]
    )


def test_defines_do_not_explode() -> None:
    text = "define a0 = 1\n" + "".join(f"define a{n} = $a{n - 1}, $a{n - 1}\n" for n in range(1, 40))
    linux_nftables.parse(text + "add table inet t\nadd chain inet t c\nadd rule inet t c tcp dport { $a39 } drop\n")


def ruleset(rules: int) -> str:
    body = "".join(f"ip saddr 198.51.{n // 256 % 256}.{n % 256} tcp dport {n % 60000} drop\n" for n in range(rules))
    elements = ",\n".join(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(rules))
    return (
        f"table inet t {{\nset s {{ type ipv4_addr; elements = {{ {elements} }} }}\nchain c {{\n"
        f"type filter hook forward priority 0;\n{body}ip saddr @s drop\nip saddr != @s ip daddr @s accept\n}}\n}}\n"
    )


def test_time_grows_with_the_text() -> None:
    def seconds(rules: int) -> float:
        text = ruleset(rules)
        start = time.process_time()
        linux_nftables.parse(text, ["ppp*"])
        return time.process_time() - start

    seconds(100)
    assert seconds(8000) < 24 * max(seconds(1000), 0.01)


ROWS = (
    "iifname ppp* jump a",
    'iifname { "ppp0", "eth*" } tcp dport 25 drop',
    "oifname ppp* goto b",
    "oifname wan0 accept",
    "tcp dport vmap { 20-25 : drop, 30 : jump a }",
    "limit rate 1/second drop",
    "ct state established accept",
    "ip saddr 198.51.100.0/24 return",
    "meta mark 1 accept",
    "udp dport 7 drop",
)
INNER = ("tcp dport 25 drop", "accept", "return", "oifname ppp* drop", "tcp dport 30 drop")


@settings(max_examples=60)
@given(
    rows=st.lists(st.sampled_from(ROWS), max_size=6),
    inner=st.lists(st.sampled_from(INNER), min_size=4, max_size=4),
    policy=st.sampled_from(("accept", "drop")),
    packet=packets_of(4),
)
def test_the_search_agrees_with_the_evaluator(
    rows: list[str], inner: list[str], policy: str, packet: dict[str, int]
) -> None:
    text = "table inet t {\n"
    for name, rules in (("a", inner[:2]), ("b", inner[2:]), ("c", rows)):
        hook = f"type filter hook forward priority 0; policy {policy};" if name == "c" else ""
        text += f"chain {name} {{\n" + "\n".join([hook, *rules]) + "\n}\n"
    configuration = linux_nftables.parse(f"{text}}}\n{ADDRESSES}", ["ppp*", "eth7"])
    scope = {name: packets.exactly(value, packets.width(name, 4)) for name, value in packet.items()}
    for binding in configuration.bindings:
        if binding.family == 4 and packet["source"] != packet["destination"]:
            actions = judged(configuration, binding.attachment, binding.direction, 4, packet)
            for wanted in (PERMIT, DENY):
                answer = Search(configuration, 4).ask(binding.filters, [Question(wanted, (scope,))])[0]
                certain = True if actions == {wanted} else None if wanted in actions else False
                # The search may be less sure than the evaluator, never surer.
                assert answer.found in (certain, None), (actions, text)


# The push

REASON = Device.unavailable()
LINKS = {
    "ppp0": Link("subscribers", ("198.51.100.253/30",), ("198.51.100.0/25", "2001:db8:100::/40")),
    "wan0": Link("internet", ("203.0.113.253/30",), ("0.0.0.0/0", "::/0")),
    "mgmt0": Link("management", ("192.0.2.129/30",), ()),
}


def change(*rules: Rule) -> Change:
    return Change(
        (RuleSet("ISP-UP4-00000000", 4, "up", (*rules, Rule("permit"))),), (Bind("ppp*", "up", 4, "ISP-UP4-00000000"),)
    )


OLD, NEW = change(Rule("deny", "tcp", destination_ports=((25, 25),))), change(Rule("deny", "udp"))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[Device, object]]:
    device = Device("edge1", "table inet foreign {\n}\n", LINKS)
    host_key = device.start("127.0.0.1", 0, tmp_path)
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{device.ssh_port} {host_key}\n")
    options = [
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={known}",
        "-p",
        str(device.ssh_port),
    ]
    command = [tool("ssh"), *options, "-i", str(tmp_path / device.name / "id_ed25519"), "root@127.0.0.1"]

    def send(script: str) -> str:
        if "{{" in script:  # a command of PUSH
            script = script.format(minutes=1, session="test")
        done = subprocess.run(
            [*command, script], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
        )
        return done.stdout + done.stderr

    try:
        yield device, send
    finally:
        device.stop()


@pytest.mark.skipif(bool(REASON), reason=f"the Linux router cannot run here: {REASON}")
def test_push_confirm_and_timer(shell) -> None:  # type: ignore[no-untyped-def]
    device, send = shell
    push = linux_nftables.PUSH

    def run(commands: tuple[str, ...] | list[str]) -> str:
        return "".join(send(command) for command in commands)

    def table() -> str:
        return send("nft list table inet isp_edge")

    assert run([*push.arm, *linux_nftables.lines(render(OLD)), *push.commit, *push.confirm]) == ""
    assert "tcp dport 25" in table()
    assert "tcp dport 25" in send("cat /etc/nftables.d/isp-edge.nft")
    assert send("grep -c isp-edge.nft /etc/nftables.conf") == "1\n"
    assert "table inet foreign" in device.snapshot()

    # Not confirmed: the router's own timer brings the old table back.
    assert run([*push.arm, *linux_nftables.lines(render(NEW)), *push.commit]) == ""
    assert "tcp dport 25" not in table()
    assert "another push is under way" in send(push.arm[0])
    device.clock.advance(61)
    for _ in range(100):
        if "tcp dport 25" in table():
            break
        time.sleep(0.1)
    assert "tcp dport 25" in table()
    assert "isp-edge: " in send(push.confirm[0])

    # Taken back at once; and what was never committed leaves nothing.
    assert run([*push.arm, *linux_nftables.lines(render(NEW)), *push.commit]) == ""
    assert run(push.abort) == ""
    assert "tcp dport 25" in table()
    assert run([*push.arm, *push.discard]) == ""
    assert run(push.abort) == ""
    assert "tcp dport 25" in table()
    assert "No such file" in send("ls -d /run/isp-hardening.*")
    assert "tcp dport 25" in send("cat /etc/nftables.d/isp-edge.nft")

    # nft refuses: nothing changes.
    broken = linux_nftables.lines("table inet isp_edge { frobnicate }")
    assert "Error: " in run([*push.arm, *broken])
    assert run(push.discard) == ""
    assert "tcp dport 25" in table()


def listed(change: Change) -> str:
    """The table alone, as a router shows it."""
    text = render(change)
    return text[text.index("table inet isp_edge {") :]


def test_apply_replaces_the_table_in_the_running_text() -> None:
    running = f"table ip nat {{\n}}\n{listed(OLD)}table ip6 x {{\n}}\n{ADDRESSES}"
    commands = linux_nftables.lines(render(NEW))
    (after,) = linux_nftables.apply(running, commands)
    assert after.startswith("table ip nat {\n}\ntable inet isp_edge {\n")
    assert after.endswith("}\ntable ip6 x {\n}\n" + ADDRESSES)
    assert "tcp dport 25" not in after
    (first,) = linux_nftables.apply(ADDRESSES, commands)
    assert first.endswith("}\n" + ADDRESSES)
    with pytest.raises(ValueError, match="not one of ours: nft flush ruleset"):
        list(linux_nftables.apply(running, ["nft flush ruleset"]))


def test_restore_brings_the_table_of_the_backup_back() -> None:
    backup, running = (f"{listed(one)}{ADDRESSES}" for one in (OLD, NEW))
    assert linux_nftables.restore(running, running.replace("counter", "counter packets 5 bytes 300"), []) == []
    (back,) = linux_nftables.apply(running, linux_nftables.restore(running, backup, []))
    assert "tcp dport 25" in back
    (gone,) = linux_nftables.apply(running, linux_nftables.restore(running, ADDRESSES, []))
    assert gone == ADDRESSES
