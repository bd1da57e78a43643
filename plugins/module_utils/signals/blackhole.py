# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Black-holing: the desired state, what may stand in it, and what the trigger says to the routers.

    cases ─► limits ─► state file ─► plan() ─► commands() ─► ExaBGP ─► routers, which discard (RFC 5635, RFC 6666)

The controller writes the state file; the trigger reads it again and again, judges every route of it once more, and lets
it go at its time without anybody's help. The file is the kill switch too: empty (no byte in it), everything is
withdrawn and nothing is added until somebody writes to it again.

A file that cannot be read says nothing: nothing is added for it, and nothing taken away before its time.

The guards here and limits.py share no code, so that a mistake in one is found by the other; the routers have the third
pair of eyes. The trigger's host has this file and no policy. Times are milliseconds since 1970 UTC, prefixes canonical
text.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

STATE = "/var/lib/isp-hardening-blackhole/state.json"

# A subscriber by source, one by destination, and somebody else's address by source; how long each may last.
SOURCE, DESTINATION, INBOUND = "source", "destination", "inbound"
LONGEST = {SOURCE: 24 * 3_600_000, DESTINATION: 24 * 3_600_000, INBOUND: 3_600_000}
MOST = 100
SHORTEST = {4: 32, 6: 64}  # one host of IPv4, one link of IPv6

# No host has these (RFC 6890, RFC 4291): "this network", loopback, link-local, multicast and above.
NO_HOSTS = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
)

BLACKHOLE = "65535:666"  # RFC 7999 5
NO_EXPORT = "65535:65281"  # RFC 1997; RFC 7999 3.2 wants it, or no-advertise, beside BLACKHOLE
FLOW = "flow "  # before a prefix: the FlowSpec rule that discards what comes from there (RFC 8955, RFC 8956)
NEXT_HOPS = {4: "192.0.2.1", 6: "100::1"}  # discarded on every router: TEST-NET-1, and the discard prefix of RFC 6666

LARGEST_STATE = 1_000_000  # bytes; the largest sensible one has a hundredth of it

_REQUIRED = ("key", "kind", "route", "until", "case", "reason")
_OPTIONAL = ("since", "subscriber", "sources", "by")
_WRITE = "write {} for no routes, or nothing at all to withdraw everything"


class StateError(Exception):
    """The state file, or the configuration of the trigger, is not what it must be; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the desired state. `case` is the key of the case; the last four are for those who read it later."""

    key: str
    kind: str  # "source", "destination" or "inbound"
    route: str
    until: int
    case: str
    reason: str
    since: int = 0
    subscriber: str = ""
    sources: tuple[str, ...] = ()
    by: str = "operator"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the state file."""
        return asdict(self) | {"sources": list(self.sources)}


@dataclass(frozen=True, slots=True)
class State:
    """The desired state. `released` says until when a case that somebody has let go by hand is left alone."""

    routes: tuple[Route, ...] = ()
    released: Mapping[str, int] = field(default_factory=dict)
    killed: bool = False  # the file is empty


def read_state(text: str) -> State:
    """The state file's text. Raises StateError for all that is not exactly as write_state would have it."""
    if not text.strip():
        return State(killed=True)
    if len(text) > LARGEST_STATE:
        raise StateError(f"is larger than {LARGEST_STATE} bytes; {_WRITE}")
    data = _json(text)
    if not isinstance(data, dict) or not isinstance(data.get("routes", []), list):
        raise StateError(f"holds no mapping with a list 'routes'; {_WRITE}")
    if unknown := sorted(set(data) - {"routes", "released"}):
        raise StateError(f"unknown key {unknown[0]!r:.60}; {_WRITE}")
    routes = tuple(_route(item, f"routes[{number}]") for number, item in enumerate(data.get("routes", [])))
    keys = [one.key for one in routes]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise StateError(f"two routes have the key {twice[0]!r:.60}; keep one of them")
    released = data.get("released", {})
    if not isinstance(released, dict) or not all(_time(until) for until in released.values()):
        raise StateError("'released' is no mapping of cases to milliseconds")
    return State(routes, released)


def write_state(state: State) -> str:
    """The text of a state file; the same state gives the same text."""
    if state.killed:
        return ""
    routes = sorted((one.as_dict() for one in state.routes), key=lambda one: one["key"])
    return json.dumps({"routes": routes, "released": dict(sorted(state.released.items()))}, indent=1) + "\n"


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise StateError("a key stands twice in one mapping; keep one of them")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise StateError(f"line {error.lineno}: is no JSON ({error.msg}); {_WRITE}") from error
    except (RecursionError, ValueError) as error:  # brackets, or digits, without an end
        raise StateError(f"is no JSON that anybody writes ({error}); {_WRITE}") from error


def _time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _route(item: object, place: str) -> Route:
    if not isinstance(item, dict):
        raise StateError(f"{place}: is no mapping; each route has {', '.join(_REQUIRED)}")
    if missing := [name for name in _REQUIRED if name not in item]:
        raise StateError(f"{place}: '{missing[0]}' is missing; each route has {', '.join(_REQUIRED)}")
    if unknown := sorted(set(item) - {*_REQUIRED, *_OPTIONAL}):
        raise StateError(f"{place}: unknown key {unknown[0]!r:.60}; take it out")
    for name in ("key", "kind", "route", "case", "reason", "subscriber", "by"):
        value = item.get(name, "operator")
        if not isinstance(value, str) or not value.isprintable() or (name in ("key", "case") and not value):
            raise StateError(f"{place}: '{name}' is no text on one line")
    for name in ("since", "until"):
        if not _time(item.get(name, 0)):
            raise StateError(f"{place}: '{name}' is no whole number of milliseconds")
    sources = item.get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(one, str) for one in sources):
        raise StateError(f"{place}: 'sources' is no list of texts")
    return Route(**item | {"sources": tuple(sources)})


# -- the guards --------------------------------------------------------------------------------------------------


def shield(never: Mapping[str, str]) -> dict[str, str]:
    """The never-list (prefix and reason) as routers can hold it: longer than a /64 of IPv6 is its whole /64.

    A subscriber's link is never that of a server, and a prefix list can then name all that must not come, be it the
    /64 around a server or the server alone. Raises ValueError for a prefix that is none.
    """
    found: dict[str, str] = {}
    for text, reason in never.items():
        network = ipaddress.ip_network(text)
        if network.version == 6 and network.prefixlen > SHORTEST[6]:
            network = network.supernet(new_prefix=SHORTEST[6])
        found.setdefault(str(network), reason)
    return found


def _span(prefix: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(prefix)
    return network.version, int(network[0]), int(network[-1])


class Guards:
    """What a route must hold to, for the controller and the trigger alike. The routers have it once more, their way.

    `own` are the prefixes of subscribers, `cap` how many cases, and how many routes of a family, there may be at once,
    `flowspec` the addresses of routers that are told of sources by FlowSpec too.
    Raises StateError where the guards themselves make no sense.
    """

    def __init__(
        self,
        own: Iterable[str],
        never: Mapping[str, str],
        cap: int,
        next_hops: Mapping[int, str] = NEXT_HOPS,
        flowspec: Iterable[str] = (),
    ) -> None:
        try:
            self._own = [_span(prefix) for prefix in own]
            self._never = [(*_span(prefix), f"{prefix}, {reason}") for prefix, reason in shield(never).items()]
            self.next_hops = {ipaddress.ip_address(text).version: text for text in next_hops.values()}
            self.flowspec = tuple(str(ipaddress.ip_address(address)) for address in flowspec)
        except ValueError as error:
            raise StateError(f"own, never, flowspec or a next hop: {error}") from error
        if not self._own:
            raise StateError("own is empty; name the prefixes of subscribers")
        if not self._never:
            raise StateError("never is empty; name at least the own servers, the infrastructure and the BGP peers")
        if not _time(cap) or cap > MOST:
            raise StateError(f"cap is {cap!r:.20}; write a number from 0 to {MOST}")
        if self.next_hops != next_hops:
            raise StateError("the next hops are not one of IPv4 and one of IPv6")
        self.cap = cap

    def refusal(self, one: Route, now: int) -> str:
        """Why the route is not announced, or ""."""
        if one.kind not in LONGEST:
            return f"{one.kind!r:.40} is no kind of black-holing; the kinds are {', '.join(LONGEST)}"
        if reason := self.prefix_refusal(one.route):
            return reason
        version, first, last = _span(one.route)
        own = [span for span in self._own if span[0] == version and span[1] <= last and first <= span[2]]
        if one.kind == INBOUND and own:
            return f"{one.route} is a subscriber's, and {INBOUND} is for addresses of others"
        if one.kind != INBOUND and not any(span[1] <= first and last <= span[2] for span in own):
            return f"{one.route} is no subscriber's, and {one.kind} is for subscribers alone"
        if one.until - now > LONGEST[one.kind]:
            return f"it lasts longer than the {LONGEST[one.kind] // 60_000} minutes that {one.kind} may"
        return ""

    def prefix_refusal(self, prefix: str) -> str:
        """Why nothing may ever be announced for the prefix, or ""."""
        try:
            network = ipaddress.ip_network(prefix)
        except ValueError as error:
            return f"{prefix!r:.60} is no prefix ({error})"
        if "%" in prefix:  # a zone of IPv6, which ipaddress takes as it stands, whatever is in it
            return f"{prefix!r:.60} has a zone, which no address on the Internet has"
        if str(network) != prefix:
            return f"{prefix!r:.60} is not written as {network}"
        if network.prefixlen < SHORTEST[network.version]:
            return f"{prefix} is more than one {'address' if network.version == 4 else 'link, a /64'}"
        if any(network.network_address in strange for strange in NO_HOSTS):
            return f"{prefix} is no address that a host has on the Internet"
        version, first, last = _span(prefix)
        for also, low, high, said in self._never:
            if also == version and low <= last and first <= high:
                return f"{prefix} is on the never-list: {said}"
        return ""

    def breach(self, routes: Iterable[Route]) -> str:
        """The alarm when these are more than there may be at once, or ""."""
        routes = tuple(routes)
        counts = {"cases": len({one.case for one in routes})} | {
            f"IPv{version} routes": len({one.route for one in routes if (":" in one.route) == (version == 6)})
            for version in (4, 6)
        }
        over = [f"{count} {what}" for what, count in counts.items() if count > self.cap]
        if not over:
            return ""
        return f"{', '.join(over)} are more than the cap of {self.cap}; nothing is added: look whether they are right"


# -- the trigger -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be announced, each with its last time, what is refused by its key, and the alarm or "".

    What is announced is a prefix, or FLOW and a prefix.
    """

    wanted: Mapping[str, int]
    refused: tuple[tuple[str, str], ...] = ()
    alarm: str = ""


def plan(state: State | None, fault: str, announced: Mapping[str, int], guards: Guards, now: int) -> Plan:
    """What the trigger has to announce now. `announced` is what it announces, each with its last time.

    `state` is None where the file cannot be read, and `fault` says why.
    """
    if state is None:
        kept = {prefix: until for prefix, until in announced.items() if until > now}
        return Plan(kept, alarm=f"{fault}; nothing is added, and what is announced ends at its time")
    refused, routes = [], []
    for one in state.routes:
        if reason := guards.refusal(one, now):
            refused.append((one.key, reason))
        elif one.until > now:
            routes.append(one)
    wanted: dict[str, int] = {}
    for one in routes:
        ways = ("", FLOW) if guards.flowspec and one.kind != DESTINATION else ("",)
        for name in (way + one.route for way in ways):
            wanted[name] = max(one.until, wanted.get(name, 0))
    alarm = guards.breach(routes)
    if alarm:
        wanted = {prefix: until for prefix, until in wanted.items() if prefix in announced}
    return Plan(wanted, tuple(refused), alarm)


def commands(announced: Iterable[str], wanted: Iterable[str], guards: Guards) -> Iterator[tuple[str, str]]:
    """What leads ExaBGP from one set to the other, each with its line; what goes comes first."""
    announced, wanted = set(announced), set(wanted)
    for verb, names in (("withdraw", announced - wanted), ("announce", wanted - announced)):
        for name in sorted(names):
            yield name, _line(verb, name, guards)


def _line(verb: str, name: str, guards: Guards) -> str:
    prefix = name.removeprefix(FLOW)
    if name == prefix:
        next_hop = guards.next_hops[ipaddress.ip_network(prefix).version]
        return f"{verb} route {prefix} next-hop {next_hop} community [ {BLACKHOLE} {NO_EXPORT} ]"
    routers = " , ".join(f"neighbor {address}" for address in guards.flowspec)
    then = f"then {{ community [ {BLACKHOLE} {NO_EXPORT} ]; discard; }}"
    return f"{routers} {verb} flow route {{ match {{ source {prefix}; }} {then} }}"


_ROUTE = re.compile(r"(announce|withdraw) route (\S+) next-hop (\S+)(?: community \[ ([0-9: ]*) \])?")
_RULE = re.compile(
    r"(neighbor \S+(?: , neighbor \S+)*) (announce|withdraw) flow route "
    r"\{ match \{ source (\S+); \} then \{ (?:community \[ ([0-9: ]*) \]; )?discard; \} \}"
)


def line_fault(line: str, guards: Guards) -> str:
    """Why the line must not go out to ExaBGP, or "": the last look at it, whoever has made it."""
    if match := _ROUTE.fullmatch(line):
        verb, prefix, next_hop, communities = match.groups()
    elif match := _RULE.fullmatch(line):
        routers, verb, prefix, communities = match.groups()
        next_hop = ""
        if strange := set(routers.replace(",", " ").replace("neighbor", " ").split()) - set(guards.flowspec):
            return f"{', '.join(sorted(strange))} takes no FlowSpec"
    else:
        return f"{line!r:.120} neither announces nor withdraws a route"
    if verb == "withdraw":
        return ""
    if reason := guards.prefix_refusal(prefix):
        return reason
    if next_hop and next_hop != guards.next_hops[ipaddress.ip_network(prefix).version]:
        return f"{prefix}: {next_hop} is not the next hop that routers discard"
    if missing := {BLACKHOLE, NO_EXPORT} - set((communities or "").split()):
        return f"{prefix}: community {', '.join(sorted(missing))} is missing"
    return ""
