# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nftables parser against the kernel: crafted packets through a real router in network namespaces.

Where the parser is certain, the kernel must do the same; where it is in doubt, either is right. The ruleset is read
twice, as it was written and as `nft list ruleset` prints it, and both must mean the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.filters import DENY, PERMIT, Configuration, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.findings import VIOLATED
from ansible_collections.isp.hardening.plugins.module_utils.packets import address_value, packet_text
from ansible_collections.isp.hardening.plugins.module_utils.platforms import linux_nftables
from lab import conntrack, packets
from lab.judge import Packet
from lab.netns import tool
from lab.routers.linux_nftables import RELATED, Device, Link
from tests.unit.test_cases import findings

REASON = Device.unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"the kernel cannot be asked here: {REASON}")

PATIENCE = 0.1
CASES = sorted(path.parent for path in Path(__file__).parents[1].glob("platforms/linux_nftables/[0-9]*/findings.yml"))
LINKS = {
    "ppp0": Link("subscribers", ("198.51.100.253/30",), ("198.51.100.0/25", "2001:db8:100::/40")),
    "wan0": Link("internet", ("203.0.113.253/30",), ("0.0.0.0/0", "::/0")),
}
NEAR = {4: "198.51.100.7", 6: "2001:db8:100::7"}
FAR = {4: "203.0.113.9", 6: "2001:db8:ffff::9"}
SMARTHOST = {4: "192.0.2.25", 6: "2001:db8:ffff::25"}
TCP, UDP, ICMP, ICMP6, ESP = 6, 17, 1, 58, 50
SYN, ACK, SYN_ACK, RST = 2, 16, 18, 4


@pytest.fixture(scope="module")
def router() -> Iterator[Device]:
    device = Device("kernel", "", LINKS)
    device.connect()
    # An ACK without its connection is invalid, and not taken for one that was lost.
    device.namespace.run(tool("sysctl"), "-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0")
    yield device
    device.stop()


def packet(family: int, direction: str = "up", far: str = "", near: str = "", **fields: int) -> Packet:
    """A packet between a subscriber and the network; `up` comes from the subscriber."""
    here, there = (address_value(one, family) for one in (near or NEAR[family], far or FAR[family]))
    source, destination = (here, there) if direction == "up" else (there, here)
    usual = {"protocol": TCP, "source_port": 40000, "destination_port": 25, "tcp_flags": SYN, "length": 120}
    return Packet(family, source, destination, **(usual | fields))


def variety(family: int, direction: str) -> list[Packet]:
    """What tells rules apart: ports, flags, fragments, headers in front, cut chains, addresses, other protocols."""

    def make(**fields: object) -> Packet:
        return packet(family, direction, **fields)  # type: ignore[arg-type]

    found = [make(destination_port=port) for port in (24, 25, 26, 80, 135, 138, 140, 445, 587)]
    found += [make(source_port=port, destination_port=40000, tcp_flags=SYN_ACK) for port in (25, 26)]
    found += [make(tcp_flags=flags) for flags in (ACK, SYN_ACK, RST, 0, 1 | 2, 0xFF)]
    found += [make(protocol=UDP, destination_port=port) for port in (25, 53, 137, 1900)]
    found += [make(far=SMARTHOST[family]), make(far=SMARTHOST[family], destination_port=80)]
    found += [make(protocol=ESP), make(protocol=47)]
    front = 3 if family == 6 else 0  # an IPv6 fragment has its own header
    for part in (1, 2):
        pings = {4: ICMP, 6: ICMP6}[family]
        found += [make(protocol=protocol, fragment=part, extension=front, length=400) for protocol in (TCP, UDP, pings)]
    found += [make(ttl=ttl) for ttl in (2, 63, 65)] + [make(tos=tos) for tos in (0x20, 0x2E << 2, 1)]
    found += [make(length=length) for length in (100, 500, 1400)]
    if family == 4:
        found += [make(protocol=ICMP, icmp_type=kind, icmp_code=code) for kind, code in ((8, 0), (3, 4), (11, 0))]
        found.append(make(options=1))
    else:
        found += [make(protocol=ICMP6, icmp_type=kind, icmp_code=code) for kind, code in ((128, 0), (2, 0), (1, 3))]
        found += [make(extension=header) for header in (1, 2, 3, 4)]
        found += [make(extension=header, fragment=part, length=400) for header in (1, 2, 4) for part in (1, 2)]
        found += [make(extension=header, protocol=UDP, destination_port=53) for header in (1, 4)]
        found += [make(extension=3, undetermined=1), make(extension=3, undetermined=1, fragment=1, length=400)]
        found += [make(extension=3, undetermined=1, fragment=2, length=400), make(undetermined=1)]
    return found


def possible(configuration: Configuration, direction: str, one: Packet) -> set[str]:
    """What the filters in force may do, as the search sees it."""
    side = {"up": "in", "down": "out"}[direction]
    binding = next(
        (b for b in configuration.bindings if (b.attachment, b.direction, b.family) == ("ppp0", side, one.family)), None
    )
    actions = {PERMIT}
    for name in binding.filters if binding else ():
        values = asdict(one) | {"length": len(packets.craft(one).packets[-1 if one.later else 0])}
        values["ttl"] -= direction == "down"  # the filter's packet is the one on the subscriber's side
        actions = actions - {PERMIT} | evaluate(configuration, one.family, name, values)[0]
        if PERMIT not in actions:
            break
    return actions


def possible_after(router: Device, text: str, direction: str, one: Packet) -> set[str]:
    return possible(linux_nftables.parse(text + router.execute("ip -o addr show"), ["ppp0"]), direction, one)


def compare(router: Device, text: str, several: Sequence[tuple[str, Packet]]) -> list[str]:
    """Load the ruleset, send the packets; where the parser and the kernel do not agree. Raises OSError if nft does."""
    router.nft("flush", "ruleset")
    router.nft("-f", "-", stdin=text)
    addresses = router.execute("ip -o addr show")
    readings = [linux_nftables.parse(f"{one}\n{addresses}", ["ppp0"]) for one in (text, router.snapshot())]
    wrong = []
    for direction in ("up", "down"):
        mine = [one for way, one in several if way == direction]
        conntrack.forget(router.namespace)
        sender, receivers = router.ends("ppp0", direction)
        came = packets.arriving(sender, receivers, mine, PATIENCE) if mine else []
        for one, passed in zip(mine, came, strict=True):
            verdict = PERMIT if passed else DENY
            for reading, source in zip(readings, ("file", "listing"), strict=True):
                actions = possible(reading, direction, one)
                if verdict not in actions:
                    told = packet_text(asdict(one), one.family)
                    wrong.append(f"{direction} {told}: the kernel gives {verdict}, the {source} {sorted(actions)}")
    return wrong


def everything() -> list[tuple[str, Packet]]:
    return [(way, one) for way in ("up", "down") for family in (4, 6) for one in variety(family, way)]


def opening() -> list[tuple[str, Packet]]:
    """Of these, what connection tracking takes for the first packet of a connection."""

    def opens(one: Packet) -> bool:
        echo = one.icmp_type in (8, 128)
        return not one.undetermined and (one.protocol == UDP or (one.protocol == TCP and one.tcp_flags == SYN) or echo)

    return [(way, one) for way, one in everything() if opens(one)]


def table(body: str, family: str = "inet", hook: str = "forward", priority: str = "0", policy: str = "accept",
          before: str = "", kind: str = "filter") -> str:  # fmt: skip
    return (
        f"table {family} test {{\n{before}\n chain stage {{\n  type {kind} hook {hook} priority {priority}; "
        f"policy {policy};\n{body}\n }}\n}}\n"
    )


# ruff: noqa: E501 (a ruleset reads best on the line of its name)
RULESETS = {
    "port behind extension headers": table("tcp dport 25 drop"),
    "first next header only": table("ip6 nexthdr tcp tcp dport 25 drop"),
    "next headers": table("ip6 nexthdr { 0, 43, 60 } accept\nip6 nexthdr != tcp drop"),
    "next header of fragments": table("ip6 nexthdr 44 drop"),
    "protocol": table("meta l4proto tcp drop"),
    "not protocol": table("meta l4proto != { tcp, udp } drop"),
    "IPv4 protocol": table("ip protocol udp drop\nip protocol != { 6, 17, 50 } drop"),
    "any transport": table("meta l4proto { tcp, udp } th dport { 135, 137-139, 445 } drop"),
    "transport without a protocol": table("th dport 25 drop"),
    "raw transport": table("@th,16,16 25 drop"),
    "drop by policy": table("tcp dport { 80, 587 } accept\nudp dport 53 accept", policy="drop"),
    "families": table("meta nfproto ipv6 drop\nmeta protocol ip tcp dport 80 drop"),
    "IPv4 table": table("tcp dport 25 drop", family="ip"),
    "IPv6 table": table("tcp dport 25 drop", family="ip6"),
    "any of the flags": table("tcp flags syn,ack drop"),
    "one flag": table("tcp flags syn drop"),
    "exactly these flags": table("tcp flags == syn drop"),
    "not exactly": table("tcp flags != syn drop"),
    "flag is clear": table("tcp flags ! ack drop"),
    "masked flags": table("tcp flags & (fin|syn|rst|ack) == syn drop"),
    "masked flags, not": table("tcp flags & (syn|ack) != syn drop"),
    "masked flags, new spelling": table("tcp flags syn / syn,ack drop"),
    "set of flags": table("tcp flags { syn, syn|ack, fin|syn } drop"),
    "flags by number": table("tcp flags & 0x12 == 0x2 drop"),
    "ranges": table("tcp dport 20-30 drop\nudp dport != 50-60 drop"),
    "comparisons": table("tcp dport < 26 drop\ntcp dport >= 445 drop"),
    "prefix": table("ip daddr 192.0.2.0/24 drop\nip6 daddr 2001:db8:ffff::25 drop\nip saddr 198.51.100.0/26 tcp dport 80 drop"),
    "address range": table("ip saddr 198.51.100.4-198.51.100.9 tcp dport 25 drop\nip6 saddr != 2001:db8:100::/40 drop"),
    "address mask": table("ip saddr & 255.0.255.0 == 198.0.100.0 tcp dport 25 drop"),
    "negated set": table("ip saddr != { 198.51.100.0/25, 203.0.113.0/28 } drop"),
    "named sets": table(
        "ip saddr @pool tcp dport @ports drop\nip6 saddr @pool6 tcp dport != @ports drop",
        before="set pool { type ipv4_addr; flags interval; elements = { 198.51.100.0/25, 203.0.113.9 } }\n"
        "set pool6 { type ipv6_addr; flags interval; elements = { 2001:db8:100::/40 } }\n"
        "set ports { type inet_service; flags interval; elements = { smtp, 135-140 } }",
    ),
    "set that is empty": table(
        "ip saddr != @pool tcp dport 25 drop\nip saddr @pool accept\ntcp dport 80 drop",
        before="set pool { type ipv4_addr; flags interval; }",
    ),
    "concatenation": table(
        "ip daddr . tcp dport { 192.0.2.25 . 25, 203.0.113.0/24 . 80-90 } drop\nip6 daddr . th dport @pairs drop",
        before="set pairs { type ipv6_addr . inet_service; flags interval; elements = { 2001:db8:ffff::/48 . 20-30 } }",
    ),
    "negated concatenation": table("meta l4proto . th dport != { tcp . 25, udp . 53 } drop"),
    "verdict map": table(
        "tcp dport vmap { 25 : drop, 80 : jump web, 135-140 : goto web, 587 : accept }\ntcp dport 26 drop",
        before="chain web { tcp flags syn return; drop; }",
    ),
    "named verdict map": table(
        "meta l4proto . th dport vmap @decide",
        before="map decide { type inet_proto . inet_service : verdict; elements = { tcp . 25 : drop, udp . 53 : drop } }",
    ),
    "catch-all": table("tcp dport vmap { 25 : accept, * : drop }"),
    "catch-all behind what goes on": table(
        "tcp dport vmap { 25 : jump web, 80 : continue, 135-140 : goto web, * : drop }\nudp dport vmap { * : drop, 53 : continue }",
        before="chain web { tcp flags ack accept; }",
    ),
    "catch-all of interfaces": table('iifname vmap { "ppp0" : jump up, * : drop }', before="chain up { tcp dport 25 drop; }"),
    "flags as a number": table("tcp flags & (fin|syn|rst|psh|ack|urg) < fin drop\ntcp flags > 0x12 drop"),
    "continue": table("tcp dport 25 continue drop\ntcp dport vmap { 80 : continue, 445 : accept } drop\ntcp dport 445 drop"),
    "none of several concatenations": table(
        "ip saddr . tcp dport != { 198.51.100.7 . 25, 198.51.100.7 . 80-135, 203.0.113.9 . 40000 } drop\n"
        'iifname . ip6 saddr . udp dport != { "ppp0" . 2001:db8:100::/40 . 53, "wan0" . ::/0 . 1-1000 } drop'
    ),
    "chains": table(
        "jump one\ntcp dport 445 drop",
        before="chain two { tcp dport 80 return; tcp dport 25 drop; udp dport 53 goto three; }\nchain three { drop; }\n"
        "chain one { tcp dport 26 accept; jump two; tcp dport 80 drop; }",
    ),
    "chain in place": table("tcp dport 25 jump {\n counter\n tcp flags syn drop\n}\ntcp dport 80 goto { return; }\ntcp dport 80 drop"),
    "accept in one table is not enough": table("tcp dport 25 accept", priority="-10") + table("tcp dport 25 drop").replace("test", "other"),
    "drop in one table is enough": table("tcp dport 25 drop", priority="10") + table("accept").replace("test", "other"),
    "interfaces": table('iifname "ppp*" tcp dport 25 drop\noifname "ppp*" tcp sport 25 drop\niifname != "ppp0" tcp dport 80 drop'),
    "interfaces by index": table('iif "ppp0" tcp dport 25 drop\noif "wan0" tcp dport 80 drop\niif { "ppp0", "lo" } udp dport 53 drop'),
    "both sides": table('iifname "ppp*" oifname "wan0" tcp dport 25 drop\niifname "wan0" oifname { "ppp0", "ppp1" } tcp sport 25 drop'),
    "interface maps": table(
        'iifname vmap { "ppp*" : jump up, "wan0" : jump down }',
        before="chain up { tcp dport 25 drop; }\nchain down { tcp sport 25 drop; }",
    ),
    "interface set": table(
        "iifname @edge tcp dport 25 drop\niifname != @edge tcp sport 25 drop",
        before='set edge { type ifname; flags interval; elements = { "ppp*" } }',
    ),
    "interface and address": table('iifname . ip daddr { "ppp0" . 192.0.2.25 } drop\niifname . tcp dport vmap { "wan0" . 25 : drop }'),
    "prerouting": table('iifname "ppp*" tcp dport 25 drop\noifname "wan0" drop\noifname != "ppp*" udp dport 53 drop', hook="prerouting", priority="raw"),
    "postrouting": table('iifname "ppp0" tcp dport 25 drop\noifname "ppp0" tcp sport 25 drop', hook="postrouting", priority="srcnat + 10"),
    "IPv4 fragments": table("ip frag-off & 0x1fff != 0 drop"),
    "IPv4 first fragments": table("ip frag-off & 0x2000 != 0 drop"),
    "IPv4 fragment field": table("ip frag-off & 0x3fff == 0 tcp dport 25 drop\nip frag-off 0 udp dport 53 drop"),
    "IPv6 fragments": table("exthdr frag exists drop"),
    "IPv6 without fragment header": table("exthdr frag missing tcp dport 25 drop"),
    "IPv6 fragment offset": table("frag frag-off != 0 drop"),
    "IPv6 first fragments": table("frag frag-off 0 frag more-fragments 1 drop"),
    "extension headers": table("exthdr hbh exists drop\nexthdr dst exists accept\nexthdr rt missing tcp dport 25 drop"),
    "cut chains": table("frag frag-off != 0 meta l4proto 0-255 return\ntcp urgptr & 0 == 0 return\nmeta l4proto != tcp @th,0,64 & 0 == 0 return\nmeta nfproto ipv6 drop"),
    "icmp": table("icmp type { 3, 8 } icmp code != 4 drop\nicmpv6 type packet-too-big drop\nicmpv6 type . icmpv6 code { 1 . 3 } drop"),
    "hop limit": table("ip ttl < 3 drop\nip ttl 62 drop\nip6 hoplimit > 63 drop\nip6 hoplimit 1 drop"),
    "hop limit in prerouting": table("ip ttl < 3 drop\nip6 hoplimit 63 drop", hook="prerouting"),
    "traffic class": table("ip dscp cs1 drop\nip6 dscp { cs1, ef } drop\nip ecn != not-ect drop"),
    "length": table("ip length > 300 drop\nip6 length 60-80 drop\nmeta length 100 drop"),
    "IPv4 options": table("ip hdrlength > 5 drop"),
    "reject": table("tcp dport 25 reject with tcp reset\nreject with icmp host-unreachable"),
    "reject all": table("tcp dport 80 accept\nreject"),
    "statements": table('counter log prefix "x { y" level info limit rate 1/day burst 1 packets tcp dport 24 drop\nmeta mark set 0x1 tcp dport 25 counter drop comment "no; { here"'),
    "a counter before a set": table("counter tcp dport { 25, 80 } drop\ncounter meta l4proto { tcp, udp } th dport { 53, 135 } drop"),
    "dynamic set": table(
        "add @seen { ip saddr }\nip saddr @seen tcp dport 25 drop\nip saddr != @seen tcp dport 80 drop",
        before="set seen { type ipv4_addr; flags dynamic; size 5; }",
    ),
    "define": "define far = { 192.0.2.25, 203.0.113.9 }\ndefine smtp = 25\n" + table("ip daddr $far tcp dport $smtp drop"),
    "commands": (
        "add table inet test\nadd chain inet test stage { type filter hook forward priority 0; }\n"
        "add rule inet test stage tcp dport 80 drop\ninsert rule inet test stage tcp dport 80-90 accept\n"
        "add set inet test ports { type inet_service; }\nadd element inet test ports { 25, 26 }\n"
        "add rule inet test stage tcp dport @ports drop\n"
    ),
    "dormant table": table("drop").replace("{", "{\n flags dormant;", 1),
    "output and input are others": table("drop", hook="output") + table("drop", hook="input").replace("test", "other"),
    "states": table("ct state established,related accept\nct state invalid drop\nct state new tcp dport 25 drop"),
    "no state but new": table("ct state != new drop"),
    "state map": table("ct state vmap { established : accept, invalid : drop }\ntcp dport 25 drop"),
    "states before tracking": table("ct state invalid tcp dport 25 drop\nct state new drop", hook="prerouting", priority="raw")
    + table("ct state new accept").replace("test", "other"),
    "fragments with tracking": table("ct state invalid accept\nip frag-off & 0x1fff != 0 drop\nexthdr frag exists drop\ntcp dport 25 drop\nudp dport 25 drop"),
    "next header with tracking": table("ct state invalid accept\nip6 nexthdr tcp drop\nmeta l4proto udp drop"),
    "length with tracking": table("ct state new ip length > 300 drop"),
    "fragments before tracking": table("ip frag-off & 0x3fff != 0 drop\nexthdr frag exists drop", hook="prerouting", priority="-450")
    + table("ct state new tcp dport 25 drop").replace("test", "other"),
    "source check": table("fib saddr . iif oif missing drop", hook="prerouting") + table("tcp dport 25 drop").replace("test", "other"),
    "netdev ingress": "table netdev test {\n chain stage {\n  type filter hook ingress device \"ppp0\" priority 0;\n  tcp dport 25 drop\n }\n}\n"
    + table("tcp dport 80 drop").replace("test", "other"),
}  # fmt: skip


@pytest.mark.parametrize("name", RULESETS)
def test_the_kernel_agrees(router: Device, name: str) -> None:
    several = opening() if "ct state" in RULESETS[name] else everything()
    assert compare(router, RULESETS[name], several) == []


# Conditions that leave no doubt; family and upper-layer protocol say which of them nft takes in one rule.
CONDITIONS = [
    (family, protocol, text)
    for family, protocol, texts in (
        (
            0,
            "tcp",
            "tcp dport {port}|tcp dport != {port}|tcp sport {port}|tcp dport {{ {port}, {port2} }}|tcp flags syn",
        ),
        (0, "tcp", "tcp dport {port}-65535|tcp flags & 0x12 == syn|tcp flags ! ack|tcp flags != 0x12"),
        (4, "tcp", "ip saddr . tcp dport {{ {near4} . {port} }}|ip protocol tcp"),
        (0, "udp", "udp dport {port}|udp sport 1024-50000|udp dport != {{ {port2}, 53 }}"),
        (0, "set", "meta l4proto {{ tcp, udp }}|meta l4proto != {{ tcp, icmp }} th dport {port}|meta l4proto > 6"),
        (4, "icmp", "icmp type 8|icmp type {{ 3, 11 }} icmp code 0"),
        (6, "icmp6", "icmpv6 type {{ 1, 2 }}|icmpv6 type . icmpv6 code {{ 1 . 3 }}"),
        (4, "", "ip daddr {far4}|ip saddr != {near4}/26|ip frag-off & 0x1fff != 0|ip ttl > 62|ip dscp != cs0"),
        (6, "", "ip6 daddr {far6}|ip6 saddr {near6}/48|frag frag-off != 0|exthdr hbh exists|ip6 hoplimit < 64"),
        (6, "first", "ip6 nexthdr tcp|ip6 nexthdr != {{ 6, 17 }}"),
        (0, "", 'meta length < 130|iifname "ppp*"|oifname "ppp0"|iifname != "wan0"'),
    )
    for text in texts.split("|")
]
VERDICTS = ("drop", "accept", "counter drop", "return", "jump one", "goto two", "reject", "counter", "continue")


def random_ruleset(chance: random.Random, tracked: bool) -> str:
    hook = chance.choice(("forward", "forward", "postrouting", "prerouting"))
    possible_here = [one for one in VERDICTS if one != "reject" or hook == "forward"]

    def rule(verdicts: Sequence[str]) -> str:
        words = {
            "port": chance.choice((25, 80, 135, 445)), "port2": chance.choice((26, 53, 587)),
            "far4": chance.choice((FAR[4], SMARTHOST[4])), "far6": chance.choice((FAR[6], SMARTHOST[6])),
            "near4": NEAR[4], "near6": NEAR[6],
        }  # fmt: skip
        family, protocol, first = chance.choice(CONDITIONS)
        fitting = [
            text
            for other, upper, text in CONDITIONS
            if text != first and other in (family, 0) and (not upper or not protocol) and (other == family or family)
        ]
        chosen = [one.format(**words) for one in (first, *chance.sample(fitting, chance.choice((0, 0, 1))))]
        if tracked and chance.random() < 0.3:
            chosen.append(chance.choice(("ct state new", "ct state invalid", "ct state != established")))
        return " ".join([*chosen, chance.choice(verdicts)])

    inner = [verdict for verdict in possible_here if not verdict.startswith(("jump", "goto"))]
    one, two = ("\n".join(rule(inner) for _ in range(chance.randint(1, 4))) for _ in range(2))
    text = ""
    for number in range(chance.choice((1, 1, 2))):
        body = "\n".join(rule(possible_here) for _ in range(chance.randint(1, 6)))
        chains = f"chain one {{\n{one}\n}}\nchain two {{\n{two}\n}}"
        made = table(body, hook=hook, priority=str(chance.randint(-5, 5)), policy=chance.choice(("accept", "accept", "drop")),
                     before=chains)  # fmt: skip
        text += made.replace("test", f"test{number}")
    return text


@pytest.mark.parametrize("seed", range(40))
def test_random_rulesets(router: Device, seed: int) -> None:
    chance = random.Random(seed)
    tracked = seed % 4 == 3
    text = random_ruleset(chance, tracked)
    sample = chance.sample(opening() if tracked else everything(), 60)
    assert compare(router, text, sample) == [], text


@pytest.mark.parametrize(
    "rule", ["tcp dport 25 drop", "tcp flags syn drop", "meta l4proto tcp drop", "ip protocol 6 drop"]
)
def test_a_header_that_is_cut_off(router: Device, rule: str) -> None:
    # It has no room for a mark that tells it from others, so it goes alone.
    for direction in ("up", "down"):
        assert compare(router, table(rule), [(direction, packet(4, direction, undetermined=1))]) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_kernel_confirms_each_witness(router: Device, case: Path) -> None:
    """What leaks by the audit passes the kernel, what is blocked by the audit does not."""
    text = linux_nftables.ADDRESS_LINE.sub("", (case / "running.cfg").read_text())
    router.nft("flush", "ruleset")
    try:
        router.nft("-f", "-", stdin=text)
    except OSError as error:
        if "flowtable" not in text:
            raise
        pytest.skip(f"this kernel was built without flow tables: {error}"[:90])
    batches: dict[str, list[tuple[Packet, str]]] = {"up": [], "down": []}
    for one in findings(case):
        if one.verdict == VIOLATED and one.packet:
            shown = Packet(family=one.family, **dict(one.fields))
            wanted = PERMIT if "denied" in one.title else DENY
            if shown.state == 0:
                batches[one.direction].append((shown, wanted))
            # A related connection opens with a SYN; that no other TCP packet is related is beyond the model.
            elif shown.state != RELATED or shown.protocol != TCP or shown.tcp_flags == SYN:
                assert router.judge("ppp0", one.direction, shown) == wanted, one
    for direction, batch in batches.items():
        came = packets.arriving(*router.ends("ppp0", direction), [shown for shown, _ in batch], PATIENCE)
        for (shown, wanted), passed in zip(batch, came, strict=True):
            assert (PERMIT if passed else DENY) == wanted, packet_text(asdict(shown), shown.family)


def test_what_the_kernel_never_forwards(router: Device) -> None:
    """The first address block means "this network" (RFC 1122); the model says so without a rule."""
    stranger = packet(4, "up", near="0.0.0.0", protocol=UDP, destination_port=67)
    ruleset = table("tcp dport 25 drop")
    assert possible_after(router, ruleset, "up", stranger) == {DENY}
    assert compare(router, ruleset, [("up", stranger)]) == []


def test_certain_where_it_matters(router: Device) -> None:
    """The differential tests would pass if everything were in doubt; nearly nothing is."""
    router.nft("flush", "ruleset")
    chance = random.Random(1)
    total = open_ = 0
    for _ in range(20):
        reading = linux_nftables.parse(
            random_ruleset(chance, tracked=False) + router.execute("ip -o addr show"), ["ppp0"]
        )
        for direction, one in everything():
            total += 1
            open_ += len(possible(reading, direction, one)) > 1
    assert open_ < total / 12
