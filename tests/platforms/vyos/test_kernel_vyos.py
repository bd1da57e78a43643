# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The VyOS parser against the kernel: what VyOS makes of a configuration, written here by hand, and crafted packets.

What VyOS makes of it: github.com/vyos/vyos-1x, data/templates/firewall/ and python/vyos/firewall.py. Where the parser
is certain, the kernel must do the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.filters import DENY, PERMIT
from ansible_collections.isp.hardening.plugins.module_utils.platforms import vyos
from lab import conntrack, packets
from lab.netns import tool
from lab.routers.linux_nftables import Device
from tests.unit.test_kernel_nftables import LINKS, PATIENCE, opening, possible

REASON = Device.unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"the kernel cannot be asked here: {REASON}")

PLACES = (
    "set interfaces ethernet ppp0 address 198.51.100.253/30\nset interfaces ethernet wan0 address 203.0.113.253/30\n"
)
# In front of all: fragments are marked, and connections are tracked.
MARKS = "".join(
    f"""table {family} marks {{
  chain before {{
    type filter hook prerouting priority -450; policy accept;
    {fragment} meta mark set 0xffff1 return
  }}
  chain tracked {{
    type filter hook prerouting priority -150; policy accept;
    ct state invalid counter
  }}
}}
"""
    for family, fragment in (("ip", "ip frag-off & 0x3fff != 0"), ("ip6", "exthdr frag exists"))
)
# The rules of `forward filter` as VyOS has them, and as nft gets them.
FIREWALLS = {
    "ports": """
        10 action drop
        10 protocol tcp
        10 destination port 25,135-139
        20 action drop
        20 protocol tcp_udp
        20 destination port 445,1000-65535
        20 source port !40000
        30 action drop
        30 protocol udp
        30 destination port !53
    = meta l4proto tcp tcp dport { 25, 135-139 } counter drop
      meta l4proto { tcp, udp } th dport { 445, 1000-65535 } th sport != { 40000 } counter drop
      meta l4proto udp udp dport != { 53 } counter drop""",
    "fragments": """
        10 action accept
        10 fragment match-non-frag
        10 protocol tcp
        20 action drop
        20 fragment match-frag
    = meta l4proto tcp meta mark != 0xffff1 counter accept
      meta mark 0xffff1 counter drop""",
    "protocols": """
        10 action accept
        10 protocol tcp
        20 action drop
        20 protocol !udp
        30 action reject
        30 protocol 17
        30 dscp 8-46
    = meta l4proto tcp counter accept
      meta l4proto != udp counter drop
      meta l4proto udp FAMILY dscp { 8-46 } counter reject""",
    "flags and states": """
        10 action drop
        10 protocol tcp
        10 tcp flags syn
        10 tcp flags not ack
        10 destination port 25
        20 action accept
        20 state established
        20 state related
        30 action drop
        30 state invalid
        40 action drop
        40 packet-length 300-2000
    = meta l4proto tcp tcp dport { 25 } tcp flags & (syn|ack) == syn counter drop
      ct state { established, related } counter accept
      ct state { invalid } counter drop
      FAMILY length { 300-2000 } counter drop""",
    "interfaces": """
        10 action continue
        10 inbound-interface name ppp*
        20 action drop
        20 inbound-interface name !wan0
        20 protocol tcp
        20 destination port 25
        30 action drop
        30 outbound-interface name ppp0
        30 protocol udp
    = iifname { "ppp*" } counter continue
      meta l4proto tcp tcp dport { 25 } iifname != { "wan0" } counter drop
      meta l4proto udp oifname { "ppp0" } counter drop""",
}


@pytest.fixture(scope="module")
def router() -> Iterator[Device]:
    device = Device("kernel", "", LINKS)
    device.connect()
    device.namespace.run(tool("sysctl"), "-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0")
    yield device
    device.stop()


def ruleset(rules: str) -> str:
    chain = "chain VYOS_FORWARD_filter {\n type filter hook forward priority 0; policy accept;\n"
    return MARKS + "".join(
        f"table {family} vyos_filter {{\n{chain}{rules.replace('FAMILY', family)}\n}}\n}}\n" for family in ("ip", "ip6")
    )


@pytest.mark.parametrize("name", FIREWALLS)
def test_the_kernel_agrees(router: Device, name: str) -> None:
    lines, _, rules = FIREWALLS[name].partition("    = ")
    text = PLACES
    for family in ("ipv4", "ipv6"):
        for line in lines.strip().splitlines():
            text += f"set firewall {family} forward filter rule {line.strip()}\n"
    configuration = vyos.parse(text, ["ppp0"])
    assert configuration.doubts == ()
    router.nft("flush", "ruleset")
    router.nft("-f", "-", stdin=ruleset(rules))
    wrong = []
    for direction in ("up", "down"):
        several = [one for way, one in opening() if way == direction]
        conntrack.forget(router.namespace)
        sender, receivers = router.ends("ppp0", direction)
        for one, passed in zip(several, packets.arriving(sender, receivers, several, PATIENCE), strict=True):
            verdict = PERMIT if passed else DENY
            certain = possible(configuration, direction, one)
            if verdict not in certain:
                wrong.append(f"{direction} {one}: the kernel gives {verdict}, the text {sorted(certain)}")
    assert wrong == []
