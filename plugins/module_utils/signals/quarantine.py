# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quarantine on a Linux edge: what must be in the kernel's table for the actions in force, and what has to change.

    actions in force ─► deadlines() ──────┐
    nft -j list table ─► read_table() ────┴─► plan() ─► one transaction for nft -f

A leaky walled garden (RFC 6561 [memory]): port 25, the ports of worms and the Web are closed, the portal is open, and
all else stays as it is: names, submission of mail (RFC 6409 on 587, RFC 8314 on 465), calls and emergency calls. What
is not a member of the sets is not looked at.

Each element has a timeout, so that it ends by itself. A reload of nftables empties the sets; the service puts back what
is still due, for the time that is left. The chains look at every packet, and the table accepts nothing for others: no
rule for established connections, in whichever table, lets a session live on.

Sources: nft(8) on sets, timeouts and `reject`; wiki.nftables.org, "Element timeouts": the timeout of an element that is
there is changed by deleting and adding it. nft 1.0.6 has no `destroy`: what may or may not be there is added, then
deleted, and added again in one transaction.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .ledger import read_json, read_never
from .limits import MOST_PREFIXES, Action, Protected

TABLE = "isp_quarantine"
SETS = {4: "subscribers4", 6: "subscribers6"}
TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
SAYS = {4: "ip", 6: "ip6"}
SAME = 2_500  # ms: nft tells whole seconds, and time passes between two looks

WEB = "{ 80, 443 }"
WORMS = "{ 135, 137-139, 445 }"  # NetBIOS, SMB, RPC; 593 is RPC over HTTP (controls P4 and P5)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the role tells the service."""

    state: str  # path
    audit: str  # path
    portal: tuple[str, ...]  # addresses
    never: tuple[Protected, ...]
    most: int  # actions at once

    @property
    def size(self) -> int:
        """Elements that a set may hold."""
        return self.most * MOST_PREFIXES


@dataclass(frozen=True, slots=True)
class Table:
    """What the kernel has: rules by chain, and elements with the seconds that are left (None: no timeout)."""

    chains: Mapping[str, int]
    elements: Mapping[int, Mapping[str, int | None]]


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction, "" where nothing has to change."""

    text: str = ""
    added: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rebuilt: bool = False

    @property
    def changed(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        new = "the table anew: " if self.rebuilt else ""
        return f"{new}{len(self.added)} added, {len(self.renewed)} renewed, {len(self.removed)} removed"


def read_settings(text: str) -> Settings:
    """The settings file of the service. Raises ValueError for what is no such file."""
    data: Any = read_json(text)
    try:
        portal = tuple(str(ipaddress.ip_address(one)) for one in data["portal"])
        if not portal:
            raise ValueError("no portal, and so no way out")
        return Settings(str(data["state"]), str(data["audit"]), portal, read_never(data["never"]), int(data["most"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not as the role writes it ({error!r:.100})") from None


def deadlines(actions: Iterable[Action], now: int) -> dict[str, int]:
    """The prefixes that must be in the sets, and until when (ms)."""
    return {prefix: action.until for action in actions if action.until > now for prefix in action.prefixes}


def chains(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The rules by chain, the one at the hook first. The names tell what is in them: another portal, another name."""
    portal: dict[int, list[str]] = {4: [], 6: []}
    for address in settings.portal:
        portal[ipaddress.ip_address(address).version].append(address)
    open_up, open_down = (
        tuple(
            f"{SAYS[family]} {side}addr {{ {', '.join(some)} }} meta l4proto {{ tcp, udp }} th {side}port {WEB} return"
            for family, some in portal.items()
            if some
        )
        for side in "ds"
    )
    up = (
        *open_up,
        "tcp dport 25 counter drop",
        f"tcp dport {WEB} counter reject with tcp reset",
        f"udp dport {WEB} counter reject with icmpx port-unreachable",
        f"meta l4proto {{ tcp, udp }} th dport {WORMS} counter drop",
        "tcp dport 593 counter drop",
    )
    down = (*open_down, f"tcp sport {{ 25, {WEB[2:-2]} }} counter drop", f"udp sport {WEB} counter drop")
    version = hashlib.sha256(repr((up, down, settings.size)).encode()).hexdigest()[:8]
    hook = [f"{SAYS[family]} saddr @{SETS[family]} jump from-{version}" for family in SETS]
    hook += [f"{SAYS[family]} daddr @{SETS[family]} jump to-{version}" for family in SETS]
    return {"forward": tuple(hook), f"from-{version}": up, f"to-{version}": down}


def table_text(settings: Settings) -> str:
    """The table with empty sets, as a transaction that puts it in the place of the one that is there."""
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for family, name in SETS.items():
        flags = "timeout" if family == 4 else "interval, timeout"
        # Older kernels count an interval as two elements: its begin and its end.
        size = settings.size * (1 if family == 4 else 2)
        lines += [f"\tset {name} {{", f"\t\ttype {TYPES[family]}", f"\t\tsize {size}", f"\t\tflags {flags}", "\t}"]
    ordered = chains(settings)
    for name, rules in reversed(ordered.items()):
        lines.append(f"\tchain {name} {{")
        if name == "forward":  # before the edge filters (filter - 5), and before what others have at `filter`
            lines.append("\t\ttype filter hook forward priority filter - 10; policy accept;")
        lines += [*(f"\t\t{rule}" for rule in rules), "\t}"]
    return "\n".join([*lines, "}", ""])


def read_table(text: str) -> Table:
    """The output of `nft -j list table inet isp_quarantine`. Raises ValueError for what is no such output."""
    rules: dict[str, int] = {}
    elements: dict[int, dict[str, int | None]] = {4: {}, 6: {}}
    families = {name: family for family, name in SETS.items()}
    try:
        for entry in json.loads(text)["nftables"]:
            if "chain" in entry:
                rules.setdefault(entry["chain"]["name"], 0)
            elif "rule" in entry:
                rules[entry["rule"]["chain"]] = rules.get(entry["rule"]["chain"], 0) + 1
            elif "set" in entry and entry["set"]["name"] in families:
                found = elements[families[entry["set"]["name"]]]
                for item in entry["set"].get("elem", ()):
                    inner = item["elem"] if isinstance(item, dict) and "elem" in item else {"val": item}
                    found[_element(inner["val"])] = inner.get("expires")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the output of nft is not understood ({error!r:.100})") from None
    return Table(rules, elements)


def plan(settings: Settings, wanted: Mapping[str, int], found: Table | None, now: int) -> Change:
    """What makes the kernel's table what it must be. `found` is None where there is no such table."""
    expected = {name: len(rules) for name, rules in chains(settings).items()}
    rebuilt = found is None or dict(found.chains) != expected
    there = {} if found is None else {prefix: left for some in found.elements.values() for prefix, left in some.items()}
    removed = [prefix for prefix in there if prefix not in wanted]
    added = [prefix for prefix in wanted if prefix not in there]
    renewed = [
        prefix
        for prefix, left in there.items()
        if prefix in wanted and (left is None or abs(wanted[prefix] - now - left * 1000) > SAME)
    ]
    if rebuilt:
        text = table_text(settings) + "".join(_add(prefix, wanted[prefix] - now) for prefix in wanted)
    else:
        text = "".join(map(_remove, removed))
        text += "".join(_remove(prefix) + _add(prefix, wanted[prefix] - now) for prefix in (*renewed, *added))
    return Change(text, tuple(added), tuple(renewed), tuple(removed), rebuilt)


def removal(ended: Iterable[Action], found: Table | None) -> str:
    """The transaction that takes these actions out of the kernel's table, and touches nothing else; "" for none."""
    there = set().union(*found.elements.values()) if found else set()
    return "".join(_remove(prefix) for action in ended for prefix in action.prefixes if prefix in there)


def session_commands(prefix: str) -> list[list[str]]:
    """What ends the sessions of a prefix that flow offload keeps away from the filter (conntrack(8))."""
    family = "ipv6" if ":" in prefix else "ipv4"
    return [
        ["conntrack", "-D", "-f", family, "-s", prefix, "-p", protocol, "--dport", port]
        for protocol, port in (("tcp", "25"), ("tcp", "80"), ("tcp", "443"), ("udp", "443"))
    ]


def _add(prefix: str, left: int) -> str:
    return f"add element inet {TABLE} {SETS[_family(prefix)]} {{ {_text(prefix)} timeout {max(left, 1)}ms }}\n"


def _remove(prefix: str) -> str:
    name, text = SETS[_family(prefix)], _text(prefix)
    # It may have run out in the meantime, and what is not there cannot be deleted.
    return f"add element inet {TABLE} {name} {{ {text} }}\ndelete element inet {TABLE} {name} {{ {text} }}\n"


def _family(prefix: str) -> int:
    return 6 if ":" in prefix else 4


def _text(prefix: str) -> str:
    """As nft takes it: an address of IPv4 without its length, since that set has no intervals."""
    return prefix.removesuffix("/32") if "." in prefix else prefix


def _element(value: Any) -> str:
    """An element as a prefix; two addresses with a dash where it is no prefix, which is none of ours."""
    if isinstance(value, str):
        return str(ipaddress.ip_network(value))
    if "prefix" in value:
        return str(ipaddress.ip_network((value["prefix"]["addr"], value["prefix"]["len"])))
    return f"{value['range'][0]}-{value['range'][1]}"
