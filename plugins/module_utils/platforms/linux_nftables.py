# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Linux routers with nftables: the text of `nft list ruleset`, and a table of our own, `inet isp_edge`.

What is modelled. "kernel" means: seen with crafted packets in tests/unit/test_kernel_nftables.py (nft 1.0.6);
otherwise the source is nft(8) or, where it says so, the kernel's file.

- A packet passes when every base chain on its way accepts it: prerouting, forward, postrouting (netdev and inet
  ingress before, egress behind them), in each by priority. `accept` ends one base chain only; a drop is final (nft(8),
  VERDICT STATEMENT; kernel). So each base chain is a filter of its own, and all must permit.
- `tcp dport` and its like look behind IPv6 extension headers (kernel). On a later fragment they should match nothing,
  but the kernel's fast path reads the bytes that stand there as ports (nft_payload_fast_eval; kernel): in doubt.
- `ip6 nexthdr` is the first next header only: anything in between is a bypass (kernel).
- `meta l4proto` finds nothing where the header chain is cut off before its end (net/netfilter, nft_set_pktinfo_ipv6).
- An IPv6 authentication header is one of the headers in front: the protocol is the one behind it (ipv6_find_hdr). TCP
  behind a mobility header counts as TCP, although the kernel stops there: no host takes it (RFC 6275, 6.1.1).
- Where connection tracking is in use (ct, nat, flow), the kernel puts fragments together before the chains see them
  (priority -400; kernel): the ports of a fragment are those of its datagram, and no fragment is ever seen as one. A
  first IPv6 fragment without the whole header chain stays alone (net/ipv6/netfilter/nf_conntrack_reasm.c).
- The forward hook sees TTL and hop limit one lower than the packet that came in (kernel).
- `ct state` before priority -200 is `invalid`, for nothing is tracked yet (kernel).
- A flow that `flow add` took bypasses all chains from its next packet on: established packets that reach it pass.
- `limit`, `quota`, `ct count`, marks, time, sets that the packet path or a timeout changes: they narrow, in doubt.
- Rewritten packets (dnat, redirect, tproxy, `tcp dport set`): unknown from there on; a later chain still denies them
  where it does not ask for a rewritten field. Behind a source rewrite, and before the reverse rewrite of answers,
  conditions on the rewritten fields are in doubt.
- The interface on the other side: traffic between an attachment and the network is judged. Every interface of
  `ip -o addr show` that is no attachment leads to the network (without that output: every one that the text names); a
  permit for one of several counts, a deny for one of several is in doubt. What a chain permits between two attachments,
  and not to the network, is in doubt.
- `fib saddr . iif oif missing drop` that every packet of an attachment meets is its source check, and no entry.
- Linux forwards nothing from 0.0.0.0/8 (net/ipv4/route.c, martians; kernel). Said for traffic from subscribers only:
  nobody blames a filter for what the network's side would never send.
- A fragment is judged as if the others of its datagram pass what stands before the kernel puts them together.
- Traffic to and from the router itself (input, output) is not judged: it is not forwarded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..filters import PERMIT, Binding, Configuration, Doubt, Interface, NotThisPlatform
from ._nftables_chains import Builder
from ._nftables_change import PUSH, apply, fields, lines, remove, restore
from ._nftables_conditions import names
from ._nftables_parts import Map, Test
from ._nftables_text import ADDRESS_LINE, Ruleset, tokens

__all__ = [
    "ALIASES",
    "DEVICE_TYPE",
    "LINK_LOCAL",
    "LIVE",
    "PUSH",
    "READ",
    "REJECTED",
    "WHOLE",
    "apply",
    "fields",
    "incomplete",
    "lines",
    "parse",
    "remove",
    "restore",
]

ALIASES = ("linux", "nftables", "debian", "ubuntu")
DEVICE_TYPE = ""
READ = ("nft list ruleset", "ip -o addr show")
REJECTED = (
    r"^.*\bError: .*",
    r"Operation not permitted",
    r"command not found",
    r"^isp-edge: .*",
    r"^exit status \d+.*",
)
LIVE = False
WHOLE = True  # a change replaces our whole table
LINK_LOCAL = False  # link-local traffic is never forwarded, so no forward chain sees it


def incomplete(text: str) -> str:
    """Why the text is not the whole output of READ; "" when it is."""
    if not text.strip():
        return "the router returned nothing: even without a ruleset `ip -o addr show` names the loopback"
    if "\x1b" in text:
        return "it holds terminal escapes: read it without a terminal"
    said = re.search(r"^.*(?:Operation not permitted|command not found|: not found$|^Error: ).*", text, re.MULTILINE)
    if said:
        return f"it holds an error message: '{said.group().strip()[:200]}'"
    depth = 0
    for word, line in tokens(text):
        depth += (word == "{") - (word == "}")
        if depth < 0:
            return f"line {line} closes a block that none opened"
    if depth:
        return f"it is cut off: {depth} blocks are open at its end"
    if re.search(r"^table [^{}\n]*\Z", text.rstrip(), re.MULTILINE):
        return "it is cut off: a table at its end has no block"
    try:
        parse(text)
    except NotThisPlatform as error:
        return str(error)
    return ""


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """The text of `nft list ruleset`, or of files for `nft -f`, with or without `ip -o addr show` behind it.

    Chains ask for interfaces, so the filters of a binding are made for its attachment: `inet isp_edge up @ppp* in`.
    Every chain is there for no attachment in particular too, as `inet isp_edge up`. Without attachments the text is
    taken for every interface that it names, and for `*`, all others. Raises NotThisPlatform.
    """
    ruleset = Ruleset(text)
    interfaces = _interfaces(ruleset.lines)
    if not ruleset.statements and not interfaces:
        raise NotThisPlatform("there is no nftables table in it, and no line of `ip -o addr show`")
    named: list[str] = []
    builder = Builder(ruleset, tuple(attachments), ())
    named = _named_interfaces(ruleset)
    if attachments:  # every other interface with an address leads to the network
        builder.uplinks = tuple(
            name
            for name in interfaces or named
            if all(names(one, name) is False and names(name, one) is False for one in attachments)
        )
    builder.plain()
    bindings: list[Binding] = []
    for attachment in attachments or [*named, "*"]:
        bound, check = builder.bind(attachment)
        bindings += bound
        known = [one for one in interfaces.values() if names(attachment, one.name)]
        if attachment in interfaces or attachment in named or known or not interfaces:
            of_all = Interface(attachment, 0, tuple(prefix for one in known for prefix in one.prefixes))
            shown = interfaces.get(attachment, of_all)
            if check:
                shown = replace(shown, source_check=ruleset.text(check.line), source_check_line=check.line)
            interfaces[attachment] = shown
    return Configuration(
        filters=builder.filters,
        bindings=tuple(bindings),
        interfaces=interfaces,
        doubts=(*ruleset.doubts, *_bridges(ruleset)),
        filter_lines=ruleset.read,
    )


def _interfaces(lines: Sequence[str]) -> dict[str, Interface]:
    """From `2: ppp0    inet 192.0.2.1 peer 198.51.100.7/32 scope global ppp0`; a peer is what is routed there."""
    found: dict[str, Interface] = {}
    for number, line in enumerate(lines, 1):
        match = ADDRESS_LINE.match(line) if line[:1].isdigit() else None
        if match and match[1] != "lo":
            prefix = match[4] or match[3]
            try:
                ipaddress.ip_interface(prefix)
            except ValueError:
                continue
            known = found.get(match[1], Interface(match[1], number))
            found[match[1]] = replace(known, prefixes=(*known.prefixes, prefix))
    return found


def _named_interfaces(ruleset: Ruleset) -> list[str]:
    """The interface names and patterns of the text, each once."""
    found: dict[str, None] = {}
    for table in ruleset.tables.values():
        for chain in table.chains.values():
            for rule in chain.rules:
                for part in rule.parts or ():
                    tests = [test for test, _ in part.cases] if isinstance(part, Map) else [part]
                    for test in tests:
                        found |= dict.fromkeys(_asked_interfaces(test)) if isinstance(test, Test) else {}
            found |= dict.fromkeys(chain.devices)
    return [name for name in found if name not in ("lo", "*", "") and not name.isdecimal()]


def _asked_interfaces(test: Test) -> Iterator[str]:
    for position, selector in enumerate(test.selectors):
        if selector.kind == "interface":
            yield from (value for element in test.elements if isinstance(value := element[position], str))


def _bridges(ruleset: Ruleset) -> Iterator[Doubt]:
    for table in ruleset.tables.values():
        for chain in table.chains.values():
            if table.family == "bridge" and chain.hook and (chain.rules or chain.policy != PERMIT):
                reason = "a chain of a bridge may drop what subscribers send over one: it is not worked out"
                yield Doubt(chain.line, ruleset.text(chain.line), reason)
