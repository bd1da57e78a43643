# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy: the variables `isp_policy` and `isp_attachments`, read whole and checked whole.

Readers never raise on any data: they return what they read and every problem there is, each with its
path in the variable tree, so that policy_files.py can tell the file and the line.
"""

from __future__ import annotations

import bisect
import datetime
import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from . import variables
from .controls import KINDS, SWITCHES, Switch
from .packets import PROTOCOLS, WITH_PORTS
from .rules import Rule
from .variables import (
    Problems,
    kind_of,
    meant,
    plain,
    read_choice,
    read_flag,
    read_items,
    read_list,
    read_mapping,
    read_text,
    shown,
)

# Whoever calls a reader takes these along.
Path = variables.Path
Problem = variables.Problem
path_text = variables.path_text

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PROFILES = ("standard", "strict")
EXCEPTION_CONTROLS = ("P1", "P2", "P3")  # what an exception is from, unless it says so
DIRECTIONS = ("up", "down")
FAMILIES = {"ipv4": 4, "ipv6": 6}
ACTIONS = ("permit", "deny")

# The keys of every mapping in the tree; docs/policy.md has a table for each.
KEYS: Mapping[str, tuple[str, ...]] = {
    "policy": ("profile", "pools", "smarthosts", "exceptions", "controls", "terms"),
    "pool": ("kind", "ipv4", "ipv6"),
    "smarthost": ("name", "ipv4", "ipv6"),
    "exception": ("prefix", "owner", "reason", "until", "controls"),
    "control": ("enabled", "pools"),
    "terms": ("before", "after"),
    "term": (
        "action",
        "direction",
        "family",
        "protocol",
        "source",
        "destination",
        "source_ports",
        "destination_ports",
        "comment",
    ),
    "attachment": ("name", "pools", "replace_foreign", "session_filters"),
    "session_filter": ("filter", "direction", "family"),
}

# Widest prefixes of smarthosts: a smarthost is a few hosts, and whatever it covers may be mailed to on port 25.
WIDEST_SMARTHOST = {4: 24, 6: 64}

# Addresses no subscriber has (RFC 6890, RFC 4291): "this network", loopback, link-local, multicast and above.
NO_SUBSCRIBERS = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Wide enough for every vendor's names and nft's wildcards; what could end or begin another command is not in it.
_ATTACHMENT = re.compile(r"[A-Za-z0-9$](?:[A-Za-z0-9/._:@$*+ -]*[A-Za-z0-9/._:@$*+-])?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True)
class Pool:
    """Subscriber prefixes, canonical text. `kind` is one of controls.KINDS."""

    name: str
    kind: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]

    def prefixes(self, family: int) -> tuple[str, ...]:
        return self.ipv4 if family == 4 else self.ipv6


@dataclass(frozen=True)
class Smarthost:
    """A mail relay that subscribers may reach on port 25. Prefixes, "192.0.2.25/32" for an address."""

    name: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]

    def prefixes(self, family: int) -> tuple[str, ...]:
        return self.ipv4 if family == 4 else self.ipv6


@dataclass(frozen=True)
class PolicyException:
    """A part of one pool that some controls leave alone, up to and including the day `until`."""

    prefix: str
    owner: str
    reason: str
    until: datetime.date
    controls: tuple[str, ...]
    pool: str = ""  # the pool that it is a part of

    @property
    def family(self) -> int:
        return 6 if ":" in self.prefix else 4


@dataclass(frozen=True)
class Setting:
    """The switch of a control. `kinds` are the kinds of pools that it covers."""

    enabled: bool
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """A rule of the operator's own, in each of the directions and families."""

    rule: Rule
    directions: tuple[str, ...]
    families: tuple[int, ...]


@dataclass(frozen=True)
class Policy:
    """A policy without problems. `exceptions` are in force; `expired` ones count as absent."""

    profile: str
    pools: Mapping[str, Pool]
    smarthosts: tuple[Smarthost, ...]
    exceptions: tuple[PolicyException, ...]
    expired: tuple[PolicyException, ...]
    controls: Mapping[str, Setting]
    before: tuple[Term, ...]
    after: tuple[Term, ...]


@dataclass(frozen=True)
class SessionFilter:
    """A filter of the router that a RADIUS server gives to sessions, in place of the one that is bound there."""

    name: str
    direction: str
    family: int


@dataclass(frozen=True)
class Attachment:
    """Where subscribers of some pools hang: an interface, subinterface, template, dynamic profile.

    `session_filters`: all that RADIUS gives to sessions there, () for none, None where nobody has said.
    """

    name: str
    pools: tuple[str, ...]
    replace_foreign: bool = False
    session_filters: tuple[SessionFilter, ...] | None = None


def read_policy(data: object, today: datetime.date) -> tuple[Policy | None, list[Problem]]:
    """The value of `isp_policy`. None instead of a policy when there is any problem; all of them are returned."""
    problems = Problems()
    path: Path = ("isp_policy",)
    if data is None:
        problems.add(path, "is not set", "set it in group_vars; docs/policy.md shows the whole tree")
        return None, problems
    if not isinstance(data, Mapping):
        problems.add(path, f"is {kind_of(data)}, not a mapping", "write it as docs/policy.md shows")
        return None, problems
    tree = read_mapping(data, path, problems, KEYS["policy"])
    profile = read_choice(tree.get("profile", "standard"), (*path, "profile"), problems, PROFILES)
    known = len(problems)
    pools = _pools(tree.get("pools"), (*path, "pools"), problems)
    space = _PoolSpace(pools, problems, whole=len(problems) == known)
    smarthosts = _smarthosts(tree.get("smarthosts", []), (*path, "smarthosts"), problems, space)
    exceptions = _exceptions(tree.get("exceptions", []), (*path, "exceptions"), problems, space)
    controls = _controls(tree.get("controls", {}), (*path, "controls"), problems)
    terms = read_mapping(tree.get("terms", {}), (*path, "terms"), problems, KEYS["terms"])
    before = _terms(terms.get("before", []), (*path, "terms", "before"), problems)
    after = _terms(terms.get("after", []), (*path, "terms", "after"), problems)
    if problems:
        return None, problems
    policy = Policy(
        profile=profile,
        pools={pool.name: _plain_pool(pool) for pool in pools},
        smarthosts=tuple(smarthosts),
        exceptions=tuple(one for one in exceptions if one.until >= today),
        expired=tuple(one for one in exceptions if one.until < today),
        controls=controls,
        before=tuple(before),
        after=tuple(after),
    )
    return policy, problems


def read_attachments(data: object, policy: Policy) -> tuple[tuple[Attachment, ...], list[Problem]]:
    """The value of a host's `isp_attachments`. Attachments without a problem are returned beside the problems."""
    return check_attachments(data, policy.pools)


def pool_names(data: object) -> list[str]:
    """The names in `isp_policy.pools`, however broken the rest of the policy is."""
    pools = data.get("pools") if isinstance(data, Mapping) else None
    return [plain(name) for name in pools if isinstance(name, str)] if isinstance(pools, Mapping) else []


def check_attachments(data: object, pools: Collection[str]) -> tuple[tuple[Attachment, ...], list[Problem]]:
    """As read_attachments, for a policy that is known by its pool names only."""
    problems = Problems()
    path: Path = ("isp_attachments",)
    attachments: dict[str, Attachment] = {}
    if data is None:
        problems.add(path, "is not set", "list the host's attachments in its host_vars; [] when it has no subscribers")
        return (), problems
    for place, item in read_items(data, path, problems):
        known = len(problems)
        tree = read_mapping(item, place, problems, KEYS["attachment"], _required("name", "pools"))
        name = read_text(tree.get("name"), (*place, "name"), problems) if "name" in tree else ""
        if name and not _ATTACHMENT.fullmatch(name):
            problems.add(
                (*place, "name"), f"'{name}' is no interface name", "write it as the router's configuration does"
            )
        if name in attachments:
            problems.add((*place, "name"), f"attachment '{name}' is listed twice", "keep one, with the pools of both")
        members: list[str] = []
        for where, pool in read_list(tree, "pools", place, problems, "name the pools whose subscribers hang there"):
            member = read_text(pool, where, problems)
            if member in members:
                problems.add(where, f"pool '{member}' is listed twice", "remove one")
            elif member and member not in pools:
                problems.add(where, f"unknown pool '{member}'", meant(member, pools, "pools of isp_policy.pools"))
            members.append(member)
        foreign = read_flag(tree.get("replace_foreign", False), (*place, "replace_foreign"), problems)
        sessions = _session_filters(tree["session_filters"], place, problems) if "session_filters" in tree else None
        if len(problems) == known:
            attachments[name] = Attachment(name, tuple(members), foreign, sessions)
    return tuple(attachments.values()), problems


def _session_filters(data: object, place: Path, problems: Problems) -> tuple[SessionFilter, ...]:
    found: list[SessionFilter] = []
    for where, item in read_items(data, (*place, "session_filters"), problems):
        known = len(problems)
        tree = read_mapping(item, where, problems, KEYS["session_filter"], _required(*KEYS["session_filter"]))
        if len(tree) < len(KEYS["session_filter"]):
            continue
        one = SessionFilter(
            read_text(tree["filter"], (*where, "filter"), problems),
            read_choice(tree["direction"], (*where, "direction"), problems, DIRECTIONS),
            FAMILIES[read_choice(tree["family"], (*where, "family"), problems, tuple(FAMILIES))],
        )
        if one in found and len(problems) == known:
            problems.add(where, f"filter '{one.name}' is listed twice for this direction and family", "remove one")
        found.append(one)
    return tuple(found)


_MISSING = {
    "name": "add 'name'",
    "pools": "add 'pools': the pools whose subscribers hang there",
    "kind": f"add 'kind': {', '.join(KINDS)}",
    "prefix": "add 'prefix': the customer's own addresses",
    "action": f"add 'action': {' or '.join(ACTIONS)}",
    "owner": "add 'owner': who answers for the exception, with a ticket or contract number",
    "reason": "add 'reason': why the exception is needed",
    "until": "add 'until': its last day, as 2027-01-31",
    "filter": "add 'filter': its name in the router's configuration",
    "direction": "add 'direction': up (from the subscriber) or down",
    "family": "add 'family': ipv4 or ipv6",
}


def _required(*keys: str) -> dict[str, str]:
    return {key: _MISSING[key] for key in keys}


def read_network(data: object, path: Path, problems: Problems, family: int = 0) -> Network | None:
    """A prefix or an address, of the family unless that is 0."""
    if not isinstance(data, str):
        problems.add(path, f"is {kind_of(data)} ({shown(data)}), not a prefix", "write a prefix in quotes")
        return None
    text = plain(data)
    address, slash, length = text.partition("/")
    try:
        if "%" in text or (slash and not (length.isascii() and length.isdecimal())):
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        example = "2001:db8:100::/40" if ":" in text else "198.51.100.0/24"
        problems.add(path, f"{shown(text)} is not an IP prefix", f"write a network and a prefix length, as {example}")
        return None
    if ipaddress.ip_address(address) != network.network_address:
        problems.add(
            path, f"{text} has host bits set", f"write {network}, or {address}/{network.max_prefixlen} for the host"
        )
        return None
    if family and network.version != family:
        other = "ipv6" if family == 4 else "ipv4"
        problems.add(path, f"{text} is not an IPv{family} prefix", f"move it to the {other} list")
        return None
    return network


@dataclass(frozen=True)
class _Prefix:
    """A prefix of a pool, and where it is written."""

    network: Network
    pool: str
    path: Path


@dataclass(frozen=True)
class _RawPool:
    name: str
    kind: str
    prefixes: tuple[_Prefix, ...]


def _plain_pool(pool: _RawPool) -> Pool:
    families = {
        version: tuple(str(one.network) for one in pool.prefixes if one.network.version == version)
        for version in (4, 6)
    }
    return Pool(pool.name, pool.kind, families[4], families[6])


def _pools(data: object, path: Path, problems: Problems) -> list[_RawPool]:
    mend = "name at least one pool, as residential: {kind: dynamic, ipv4: [198.51.100.0/24]}"
    if not data and not isinstance(data, str | int):
        problems.add(path[:-1] if data is None else path, "has no pools" if data is None else "is empty", mend)
        return []
    if not isinstance(data, Mapping):
        problems.add(path, f"is {kind_of(data)}, not a mapping", mend)
        return []
    pools = []
    for key, value in data.items():
        place: Path = (*path, key)
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            problems.add(
                place, f"{shown(key)} is no pool name", "use letters, digits, '-', '_' and '.'; quote a number"
            )
            continue
        tree = read_mapping(value, place, problems, KEYS["pool"], _required("kind"))
        kind = read_choice(tree["kind"], (*place, "kind"), problems, KINDS) if "kind" in tree else ""
        prefixes = []
        for name, family in FAMILIES.items():
            for where, item in read_list(tree, name, place, problems):
                network = read_network(item, where, problems, family)
                if network is None:
                    continue
                never = next((one for one in NO_SUBSCRIBERS if one.version == family and one.overlaps(network)), None)
                if never:
                    problems.add(where, f"{network} holds addresses of {never}, which no subscriber has", "narrow it")
                    continue
                prefixes.append(_Prefix(network, plain(key), where))
        if tree and not tree.get("ipv4") and not tree.get("ipv6"):
            problems.add(place, f"pool '{key}' has no prefixes", "list some under ipv4 or ipv6, or remove the pool")
        pools.append(_RawPool(plain(key), kind, tuple(prefixes)))
    return pools


class _PoolSpace:
    """All prefixes of all pools, to be asked which one an address belongs to. Reports those that overlap."""

    def __init__(self, pools: Sequence[_RawPool], problems: Problems, whole: bool) -> None:
        self.whole = whole  # every pool could be read
        self.first: dict[int, list[int]] = {4: [], 6: []}
        self.outer: dict[int, list[_Prefix]] = {4: [], 6: []}
        number = 0
        order = {}
        for pool in pools:
            for prefix in pool.prefixes:
                order[prefix.path] = number = number + 1
        found = []
        for prefix in sorted(
            (prefix for pool in pools for prefix in pool.prefixes),
            key=lambda one: (
                one.network.version,
                int(one.network.network_address),
                one.network.prefixlen,
                order[one.path],
            ),
        ):
            family = prefix.network.version
            around = self.outer[family][-1] if self.outer[family] else None
            if around and around.network.overlaps(prefix.network):
                found.append(sorted((around, prefix), key=lambda one: order[one.path]))
            else:
                self.first[family].append(int(prefix.network.network_address))
                self.outer[family].append(prefix)
        for earlier, later in sorted(found, key=lambda pair: order[pair[1].path]):
            there = f"{earlier.network} of pool '{earlier.pool}'"
            if earlier.network == later.network:
                problems.add(
                    later.path, f"{later.network} is there already, in pool '{earlier.pool}'", "keep one of the two"
                )
            else:
                problems.add(later.path, f"{later.network} overlaps {there}", "give every address to one pool only")

    def meeting(self, network: Network) -> _Prefix | None:
        """A prefix of a pool that has addresses in common with the network."""
        family = network.version
        position = bisect.bisect_right(self.first[family], int(network.broadcast_address)) - 1
        if position >= 0 and self.outer[family][position].network.overlaps(network):
            return self.outer[family][position]
        return None


def _smarthosts(data: object, path: Path, problems: Problems, space: _PoolSpace) -> list[Smarthost]:
    smarthosts: list[Smarthost] = []
    for place, item in read_items(data, path, problems):
        tree = read_mapping(item, place, problems, KEYS["smarthost"], _required("name"))
        name = read_text(tree["name"], (*place, "name"), problems) if "name" in tree else ""
        if name and any(name == other.name for other in smarthosts):
            problems.add(
                (*place, "name"), f"smarthost '{name}' is listed twice", "keep one, with the addresses of both"
            )
        families: dict[int, list[str]] = {4: [], 6: []}
        for key, family in FAMILIES.items():
            for where, address in read_list(tree, key, place, problems):
                network = read_network(address, where, problems, family)
                if network is None:
                    continue
                pool = space.meeting(network)
                if network.prefixlen < WIDEST_SMARTHOST[family]:
                    problems.add(
                        where,
                        f"{network} is too wide for a smarthost: all of it could be mailed to on port 25",
                        f"list its addresses, or prefixes of /{WIDEST_SMARTHOST[family]} and longer",
                    )
                elif pool:
                    where_to = "is inside" if network.prefixlen >= pool.network.prefixlen else "takes in"
                    problems.add(
                        where,
                        f"smarthost {_host_text(network)} {where_to} {pool.network} of pool '{pool.pool}'",
                        "give the smarthost an address outside the pools, or take its prefix out of the pool",
                    )
                families[family].append(str(network))
        if tree and not tree.get("ipv4") and not tree.get("ipv6"):
            problems.add(place, "has no addresses", "list its addresses under ipv4 or ipv6")
        smarthosts.append(Smarthost(name, tuple(families[4]), tuple(families[6])))
    return smarthosts


def _host_text(network: Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _exceptions(data: object, path: Path, problems: Problems, space: _PoolSpace) -> list[PolicyException]:
    exceptions: list[PolicyException] = []
    for place, item in read_items(data, path, problems):
        known = len(problems)
        tree = read_mapping(item, place, problems, KEYS["exception"], _required(*KEYS["exception"][:4]))
        prefix, pool = "", ""
        if "prefix" in tree:
            prefix, pool = _exception_prefix(tree["prefix"], (*place, "prefix"), problems, space)
        if prefix and any(prefix == other.prefix for other in exceptions):
            problems.add(
                (*place, "prefix"), f"a second exception for {prefix}", "keep one; extend it instead of adding another"
            )
        owner = read_text(tree["owner"], (*place, "owner"), problems) if "owner" in tree else ""
        reason = read_text(tree["reason"], (*place, "reason"), problems) if "reason" in tree else ""
        until = _date(tree["until"], (*place, "until"), problems) if "until" in tree else None
        controls = []
        for where, control in read_list(
            tree, "controls", place, problems, "name the controls, or remove the key: P1, P2 and P3 are the default"
        ):
            name = _control(control, where, problems)
            if name and not SWITCHES[name].exceptions:
                problems.add(where, f"there is no exception from {name}", f"take {name} out; {_why_none(name)}")
            controls.append(name)
        if len(problems) == known and until:
            chosen = tuple(dict.fromkeys(controls)) or EXCEPTION_CONTROLS
            exceptions.append(PolicyException(prefix, owner, reason, until, chosen, pool))
    return exceptions


def _why_none(control: str) -> str:
    if SWITCHES[control].invariant:
        return "it permits, and nobody needs to be exempt from that"
    return "addresses that subscribers truly have belong into a pool"


def _exception_prefix(data: object, path: Path, problems: Problems, space: _PoolSpace) -> tuple[str, str]:
    """The prefix and the name of its pool, '' for both where there is a problem."""
    network = read_network(data, path, problems)
    if network is None:
        return "", ""
    pool = space.meeting(network)
    if pool is None:
        if space.whole:  # else the pool may well be one of those that could not be read
            problems.add(
                path, f"{network} is in no pool", "an exception is a part of a pool: mend the prefix or remove it"
            )
        return "", ""
    if network.prefixlen <= pool.network.prefixlen:
        problems.add(
            path,
            f"{network} is too wide: it takes in all of {pool.network} of pool '{pool.pool}'",
            "name only the customer's own addresses, or give these customers a pool of kind static or business",
        )
        return "", ""
    return str(network), pool.pool


def _date(data: object, path: Path, problems: Problems) -> datetime.date | None:
    if isinstance(data, datetime.date) and not isinstance(data, datetime.datetime):
        return datetime.date(data.year, data.month, data.day)
    if isinstance(data, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", data):
        try:
            return datetime.date.fromisoformat(plain(data))
        except ValueError:
            pass  # the 31st of February: said below
    problems.add(path, f"{shown(data)} is not a date", "write year-month-day, as 2027-01-31")
    return None


def _control(data: object, path: Path, problems: Problems) -> str:
    if isinstance(data, str) and data in SWITCHES:
        return plain(data)
    problems.add(path, f"unknown control {shown(data)}", meant(str(data), SWITCHES, "controls"))
    return ""


def _controls(data: object, path: Path, problems: Problems) -> dict[str, Setting]:
    settings = {name: Setting(switch.default, switch.kinds) for name, switch in SWITCHES.items()}
    if not isinstance(data, Mapping):
        problems.add(path, f"is {kind_of(data)}, not a mapping", "write a control and its switch a line, as P6: true")
        return settings
    for key, value in data.items():
        name = _control(key, (*path, key), problems)
        if name:
            settings[name] = _setting(value, (*path, name), problems, SWITCHES[name])
    return settings


def _setting(data: object, path: Path, problems: Problems, switch: Switch) -> Setting:
    kinds = switch.kinds
    if isinstance(data, Mapping):
        tree = read_mapping(data, path, problems, KEYS["control"])
        enabled = read_flag(tree.get("enabled", True), (*path, "enabled"), problems)
        if "pools" in tree:
            empty = f"name kinds of pools ({', '.join(KINDS)}) or set enabled: false"
            kinds = tuple(
                read_choice(item, where, problems, KINDS)
                for where, item in read_list(tree, "pools", path, problems, empty)
            )
    elif isinstance(data, bool):
        enabled = data
    else:
        problems.add(
            path,
            f"is {kind_of(data)} ({shown(data)}), not true or false",
            "write true or false without quotes, or {enabled: true, pools: [dynamic]}",
        )
        return Setting(switch.default, kinds)
    if switch.invariant and (not enabled or set(kinds) != set(KINDS)):
        problems.add(path, f"{path[-1]} is an invariant: it holds for every pool, always", "remove the line")
    return Setting(enabled, tuple(dict.fromkeys(kinds)))


def _terms(data: object, path: Path, problems: Problems) -> list[Term]:
    terms = []
    for place, item in read_items(data, path, problems):
        tree = read_mapping(item, place, problems, KEYS["term"], _required("action"))
        action = read_choice(tree["action"], (*place, "action"), problems, ACTIONS) if "action" in tree else ""
        directions: tuple[str, ...] = DIRECTIONS
        if "direction" in tree:
            directions = (read_choice(tree["direction"], (*place, "direction"), problems, DIRECTIONS),)
        protocol = ""
        if "protocol" in tree:
            protocol = read_choice(tree["protocol"], (*place, "protocol"), problems, tuple(PROTOCOLS))
        comment = read_text(tree["comment"], (*place, "comment"), problems) if "comment" in tree else ""
        ports = {key: _ports(tree, key, place, problems) for key in ("source_ports", "destination_ports")}
        for key, value in ports.items():
            if value and PROTOCOLS.get(protocol) not in WITH_PORTS:
                problems.add((*place, key), f"protocol '{protocol or 'any'}' has no ports", "set protocol: tcp or udp")
        families, addresses = _term_addresses(tree, place, problems, protocol)
        if tree.keys() <= {"action", "direction", "family", "comment"} and path[-1] == "before" and action:
            problems.add(
                place,
                f"the term would {action} every packet, and no control behind it would ever apply",
                "give it a protocol, addresses or ports, or move it to terms.after",
            )
        rule = Rule(
            action=action,
            protocol=protocol,
            sources=addresses["source"],
            destinations=addresses["destination"],
            source_ports=ports["source_ports"],
            destination_ports=ports["destination_ports"],
            comment=comment,
        )
        terms.append(Term(rule, directions, families))
    return terms


def _term_addresses(
    tree: Mapping[str, object], place: Path, problems: Problems, protocol: str
) -> tuple[tuple[int, ...], dict[str, tuple[str, ...]]]:
    """The families that a term is for, and its prefixes by key. Its family follows from them unless it says so."""
    family = 0
    why = ""
    if "family" in tree:
        family = FAMILIES[read_choice(tree["family"], (*place, "family"), problems, tuple(FAMILIES))]
        why = f"the term is for IPv{family}"
    only = {"icmp": 4, "icmp6": 6}.get(protocol, 0)
    if only and family and family != only:
        problems.add((*place, "protocol"), f"{protocol} is not a protocol of IPv{family}", f"set family: ipv{only}")
    elif only:
        family, why = only, f"{protocol} is a protocol of IPv{only}"
    addresses: dict[str, tuple[str, ...]] = {}
    for key in ("source", "destination"):
        prefixes = []
        empty = f"list prefixes, or remove the key: without it any {key} matches"
        for where, item in read_list(tree, key, place, problems, empty):
            network = read_network(item, where, problems)
            if network is None:
                continue
            if not family:
                family, why = network.version, f"the term has {network} too"
            if network.version != family:
                problems.add(
                    where, f"{network} is an IPv{network.version} prefix, and {why}", "write one term per family"
                )
            prefixes.append(str(network))
        addresses[key] = tuple(prefixes)
    return (family,) if family else (4, 6), addresses


def _ports(tree: Mapping[str, object], key: str, place: Path, problems: Problems) -> tuple[tuple[int, int], ...]:
    """Ranges of ports, both ends in them, from numbers and texts like '1024-65535'."""
    ranges = []
    mend = "write a number from 0 to 65535, or a range in quotes as '1024-65535'"
    empty = "list ports, or remove the key: without it any port matches"
    for where, item in read_list(tree, key, place, problems, empty):
        found = _PORTS.fullmatch(str(item)) if isinstance(item, str | int) and not isinstance(item, bool) else None
        low = int(found[1]) if found else 0
        high = int(found[2] or low) if found else 0
        if not found or high > 65535:
            problems.add(where, f"{shown(item)} is not a port", mend)
        elif low > high:
            problems.add(where, f"port range {low}-{high} ends before it begins", f"write '{high}-{low}'")
        else:
            ranges.append((low, high))
    return tuple(ranges)
