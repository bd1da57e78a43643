# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may be done about cases: the one place that says yes to a quarantine or a black-hole.

    cases + active actions + limits + now ─► decide() ─► Decision: add, keep, release, refused, frozen

Nothing is done about an address of the never-list, about more than one host or one subscriber's link at a time, for
longer than the kind of action allows, or about more subscribers than the cap. Where a limit does not hold for the
whole run, the run is frozen: nothing is added and nothing is cut to fit, since nobody knows which half would be right.

The policy may be stricter than the figures here and never laxer. Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

import bisect
import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from .records import AMBIGUOUS, KNOWN, Case, Owner

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MOST = 100  # subscribers acted against at once
SHARE = 1_000  # and at most one of so many
MOST_PREFIXES = 16  # of one case, so that the cap bounds addresses as well
SHORTEST = {4: 32, 6: 64}  # one host, or one subscriber's link
LATE = 31 * DAY  # without a run: a clock that is wrong is likelier than a month that nobody missed
# Addresses that no host has on the Internet (RFC 6890, RFC 4291); ::/8 has IPv4 inside IPv6 in it.
NOBODY = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
)
END = 253_402_300_800_000  # the year 10000, which no calendar has
AHEAD = 5 * MINUTE  # how far the clock of an exporter may be ahead of ours

# Evidence of one family comes out of the same packets, so that two of it are one. D7 is about no subscriber.
FAMILIES = {
    "D1": "flows to port 25",
    "D2": "flows to port 25",
    "D3": "flows to port 25",
    "D4": "flows to worm ports",
    "D5": "DNS queries",
    "D6": "verdicts on mail",
    "D7": "",
    "XBL": "blocklist",
    "complaint": "complaints",
    "operator": "operator",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of action: how long it may last, and how many families of evidence it takes without an operator."""

    longest: int  # milliseconds
    families: int


QUARANTINE, SOURCE, DESTINATION, INBOUND = "quarantine", "source", "destination", "inbound"
KINDS = {
    QUARANTINE: Kind(DAY, 1),
    SOURCE: Kind(DAY, 2),  # RTBH (RFC 5635) of a subscriber, by source
    DESTINATION: Kind(DAY, 2),  # and by destination
    INBOUND: Kind(HOUR, 2),  # a remote source that attacks the mail exchangers
}


@dataclass(frozen=True, slots=True)
class Protected:
    """A prefix of the never-list, and why it is there."""

    prefix: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the policy says about one kind of action. All of it holds beside the figures of this file."""

    kind: str
    subscribers: int  # of the whole network
    never: tuple[Protected, ...]
    ttl: int = DAY  # how long an action lasts, milliseconds
    most: int = MOST
    families: int = 1
    dry_run: bool = True
    enabled: bool = True  # False is the kill switch

    @property
    def cap(self) -> int:
        """Actions at once. Below 1,000 subscribers it is none: one of them would be more than 0.1 %."""
        return max(0, min(self.most, MOST, self.subscribers // SHARE))


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done about a case, from `since` until `until`, which the host that does it knows by itself."""

    key: str
    subscriber: str
    prefixes: tuple[str, ...]  # canonical, each with its length
    since: int
    until: int
    reason: str
    sources: tuple[str, ...]
    by: str  # who wanted it: "automatic", or the operator's name

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a state file and for Ansible's results."""
        return asdict(self) | {"prefixes": list(self.prefixes), "sources": list(self.sources)}


@dataclass(frozen=True, slots=True)
class Release:
    """An action that ends now, and why."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A case that nothing is done about, and why."""

    case: Case
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. `frozen` is "" or the alarm: why nothing was added.

    With `dry_run` nothing is to be done, only told. The kill switch is no dry run.
    """

    add: tuple[Action, ...]
    keep: tuple[Action, ...]
    release: tuple[Release, ...]
    refused: tuple[Refusal, ...]
    frozen: str
    dry_run: bool


def limits_of(policy: Mapping[str, Any], kind: str) -> Limits:
    """The limits of one kind of action, out of what the filter signals_host gives.

    Raises KeyError, TypeError or AttributeError for what is no such thing.
    """
    return Limits(
        kind,
        policy["subscribers"],
        tuple(Protected(one["prefix"], one["reason"]) for one in policy["never"]),
        ttl=policy["inbound_minutes"] * MINUTE if kind == INBOUND else policy["hours"] * HOUR,
        most=policy["most"],
        dry_run=policy["dry_run"],
    )


def hidden(policy: Mapping[str, Any]) -> set[str]:
    """What of a policy is never shown: where the state lies, which may have a password in it."""
    return {str(policy["state"])} if policy.get("state") else set()


def read_case(data: object) -> Case:
    """A case as the detectors hand it over. Raises ValueError, which names the key and the field that is wrong."""
    fields = _fields(data, "case", Case, ("key", "subscriber"), ("since",), ("prefixes", "sources", "evidence"))
    return Case(**fields)


def read_action(data: object) -> Action:
    """An action out of a state file. Raises ValueError, which names the key and the field that is wrong."""
    texts = ("key", "subscriber", "reason", "by")
    fields = _fields(data, "action", Action, texts, ("since", "until"), ("prefixes", "sources"))
    prefixes, reason = narrow(fields["prefixes"])
    if reason:
        raise ValueError(f"action {fields['key']!r:.60}: {reason}")
    return Action(**fields | {"prefixes": prefixes})


def _fields(
    data: object, what: str, kind: type, texts: Iterable[str], times: Iterable[str], lists: Iterable[str]
) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{what}: {data!r:.60} is no mapping; it has a key and what belongs to it")
    name = f"{what} {data.get('key')!r:.60}"
    if unknown := sorted(set(map(str, data)) - {field.name for field in dataclass_fields(kind)}):
        raise ValueError(f"{name}: unknown field {', '.join(unknown)}")
    found: dict[str, Any] = {}
    for field in texts:
        found[field] = data.get(field)
        if not isinstance(found[field], str) or (field == "key" and not found[field]):
            raise ValueError(f"{name}: '{field}' is no text")
        found[field] = str(found[field])
    for field in times:
        found[field] = data.get(field)
        if not isinstance(found[field], int) or isinstance(found[field], bool) or not 0 <= found[field] < END:
            raise ValueError(f"{name}: '{field}' is no whole number of milliseconds since 1970")
    for field in lists:
        some = data.get(field, ())
        if not isinstance(some, list | tuple) or not all(isinstance(one, str) for one in some):
            raise ValueError(f"{name}: '{field}' is no list of texts")
        found[field] = tuple(map(str, some))
    return found


def narrow(prefixes: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """The prefixes, canonical and none within another; and "", or why they are nothing to act upon.

    Each is one IPv4 address, or an IPv6 /64 or longer, that a host can have.
    """
    found: dict[str, IPv4Network | IPv6Network] = {}
    for text in prefixes:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            return (), f"{text!r:.60} is no prefix ({error})"
        if "%" in text:  # a zone of IPv6, which ipaddress takes as it stands, whatever is in it
            return (), f"{text!r:.60} has a zone, which no address on the Internet has"
        if network.prefixlen < SHORTEST[network.version]:
            wanted = "/32" if network.version == 4 else "/64 or longer"
            return (), f"{network} is more than one subscriber's; only {wanted} is acted upon"
        if any(network.network_address in strange for strange in NOBODY):
            return (), f"{network} is no address that a host has on the Internet"
        found[str(network)] = network
    if not found:
        return (), "no address is known"
    if len(found) > MOST_PREFIXES:
        return (), f"{len(found)} prefixes, more than the {MOST_PREFIXES} that one subscriber may have"
    inner = [text for text, one in found.items() if any(_within(one, other) for other in found.values())]
    return tuple(text for text in found if text not in inner), ""


def _within(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return one.version == other.version and one.prefixlen > other.prefixlen and one.overlaps(other)


Span = tuple[int, int, Protected]  # the first and the last address


def _farther(one: Span, other: Span) -> Span:
    return other if other[1] > one[1] else one


class NeverList:
    """Which protected prefix a prefix has addresses in common with. Raises ValueError for one that cannot be read."""

    def __init__(self, never: Iterable[Protected]) -> None:
        spans: dict[int, list[Span]] = {4: [], 6: []}
        for one in never:
            network = ipaddress.ip_network(one.prefix)
            spans[network.version].append((int(network[0]), int(network[-1]), one))
        self._first: dict[int, list[int]] = {}
        self._reach: dict[int, list[Span]] = {}
        for version, some in spans.items():
            some.sort(key=lambda span: span[:2])
            self._first[version] = [first for first, _, _ in some]
            # Of all that begin so far, the one that reaches farthest: whether any overlaps is whether this one does.
            self._reach[version] = list(itertools.accumulate(some, _farther))

    def hit(self, prefix: str) -> Protected | None:
        """One of the protected prefixes that overlap the prefix."""
        network = ipaddress.ip_network(prefix)
        place = bisect.bisect_right(self._first[network.version], int(network[-1]))
        if not place:
            return None
        _, last, protected = self._reach[network.version][place - 1]
        return protected if last >= int(network[0]) else None


def decide(
    cases: Iterable[Case],
    active: Iterable[Action],
    limits: Limits,
    now: int,
    *,
    last: int = 0,
    owners: Mapping[str, Owner] | None = None,
    released: Mapping[str, int] | None = None,
) -> Decision:
    """What to do about the cases. Pure: the same arguments give the same decision.

    `active` are the actions in force. `last` is when the last run was (0: never). `owners` says who has the prefixes
    of active actions now: one that moved on to another subscriber is let go. `released` holds until when what was
    released by hand is left alone: cases by their keys, and subscribers, whose next case may have another key.

    An active action stays until its time is over, also where its case is no longer told: a source that fell silent is
    no cure. What ends one early is the never-list, another subscriber at its address, new addresses of the same
    subscriber, and the kill switch.
    """
    cases = tuple(cases)
    active = tuple(active)

    def freeze(
        reason: str, keep: Iterable[Action] = active, release: Iterable[Release] = (), refused: Iterable[Refusal] = ()
    ) -> Decision:
        told = {id(one.case): one for one in refused}
        told |= {id(case): Refusal(case, reason) for case in cases if id(case) not in told}
        return Decision((), tuple(keep), tuple(release), tuple(told.values()), reason, limits.dry_run)

    if not limits.enabled:
        reason = "the kill switch is on"
        ended = tuple(Release(action, reason) for action in active)
        return Decision((), (), ended, tuple(Refusal(case, reason) for case in cases), reason, False)
    if reason := _limits_fault(limits) or clock_fault(active, now, last):
        return freeze(reason)

    never = NeverList(limits.never)
    keep, release = _judge_active(active, never, limits, now, owners or {})
    wanted, refused = _judge_cases(cases, never, limits, now, released or {})

    # A subscriber who has other addresses than those in force: the new ones are added, and the old ones let go.
    addresses = {action.key: set(action.prefixes) for _, action in wanted}
    moved = [action for action in keep if not set(action.prefixes) >= addresses.get(action.key, set())]
    keep = [action for action in keep if action not in moved]

    keys = {action.key for action in keep}
    wanted = [(case, action) for case, action in wanted if action.key not in keys]
    clashes = _clashes(keep, [action for _, action in wanted])
    refused += [Refusal(case, clashes[action.key]) for case, action in wanted if action.key in clashes]
    add = [action for _, action in wanted if action.key not in clashes]

    def unreplaced(new: Sequence[Action]) -> list[Action]:
        """Those of the moved ones that nothing new takes the place of, and that have no address that is not his now."""
        taken = {action.key for action in new}
        held = [one for one in moved if one.key not in taken and set(one.prefixes) <= addresses[one.key]]
        return [one for one in held if not _clashes([one], new)]

    stay = unreplaced(add)
    over = f"{len(add)} more beside {len(keep) + len(stay)} in force are more than the cap of {limits.cap}"
    frozen = bool(add) and len(keep) + len(stay) + len(add) > limits.cap
    keep += unreplaced(()) if frozen else stay
    release += [Release(action, "the subscriber has other addresses now") for action in moved if action not in keep]
    if frozen:
        said = f" for {limits.subscribers} subscribers; nothing was added: look whether the evidence is right"
        return freeze(over + said, keep, release, refused)
    return Decision(tuple(add), tuple(keep), tuple(release), tuple(refused), "", limits.dry_run)


def _limits_fault(limits: Limits) -> str:
    """Why nothing can be done under these limits, or ""."""
    if limits.kind not in KINDS:
        return f"{limits.kind!r} is no kind of action; write one of {', '.join(KINDS)}"
    if not limits.never:
        return "the never-list is empty; name at least the own servers, the infrastructure and the BGP peers"
    for one in limits.never:
        try:
            ipaddress.ip_network(one.prefix)
        except ValueError as error:
            return f"never-list: {one.prefix!r:.60} is no prefix ({error})"
    if not 0 < limits.ttl <= KINDS[limits.kind].longest:
        longest = KINDS[limits.kind].longest
        return f"an action of the kind {limits.kind} may last up to {longest} ms, and not {limits.ttl} ms"
    return ""


def clock_fault(active: Iterable[Action], now: int, last: int) -> str:
    """Why the clock is not to be believed, or "": it is behind the last action or run, or a month after it."""
    latest = max([last, *(action.since for action in active)])
    if now < latest:
        return f"the clock went back: it is {now} ms, and the last run was at {latest} ms; mend the clock"
    if latest and now - latest > LATE:
        return (
            f"the clock is {(now - latest) // DAY} days after the last run; if that is right, take the state file"
            " away and run again"
        )
    return ""


def _judge_active(
    active: Iterable[Action], never: NeverList, limits: Limits, now: int, owners: Mapping[str, Owner]
) -> tuple[list[Action], list[Release]]:
    keep, release = [], []
    for action in active:
        reason = _protected(action.prefixes, never)
        if action.until <= now:
            reason = "its time is over"
        elif action.until - now > KINDS[limits.kind].longest:
            reason = "it lasts longer than allowed"
        for prefix in action.prefixes:
            owner = owners.get(prefix)
            if owner and owner.state == KNOWN and owner.subscriber != action.subscriber:
                reason = reason or f"{prefix} belongs to another subscriber now"
            elif owner and owner.state == AMBIGUOUS:
                reason = reason or f"nobody can say any more whose {prefix} is: {owner.reason}"
        if reason:
            release.append(Release(action, reason))
        else:
            keep.append(action)
    return keep, release


def _protected(prefixes: Iterable[str], never: NeverList) -> str:
    for prefix in prefixes:
        if found := never.hit(prefix):
            return f"{prefix} is on the never-list: {found.prefix}, {found.reason}"
    return ""


def _judge_cases(
    cases: tuple[Case, ...], never: NeverList, limits: Limits, now: int, released: Mapping[str, int]
) -> tuple[list[tuple[Case, Action]], list[Refusal]]:
    refused = []
    keys = Counter(case.key for case in cases)
    wanted: list[tuple[Case, Action]] = []
    for case in cases:
        prefixes, reason = narrow(case.prefixes)
        reason = reason or _protected(prefixes, never) or _evidence_fault(case, limits)
        if not case.key:
            reason = "a case needs a key"
        elif keys[case.key] > 1:
            reason = f"{keys[case.key]} cases have the key {case.key}"
        elif case.since > now + AHEAD:
            reason = reason or "it begins in the future"
        elif released.get(case.key, 0) > now or (
            "operator" not in case.sources and released.get(case.subscriber, 0) > now
        ):
            reason = reason or "it was released by hand"
        if reason:
            refused.append(Refusal(case, reason))
            continue
        sources = tuple(dict.fromkeys(case.sources))
        said = "; ".join((", ".join(sources), *case.evidence[:1]))
        by = "operator" if "operator" in sources else "automatic"
        wanted.append((case, Action(case.key, case.subscriber, prefixes, now, now + limits.ttl, said, sources, by)))
    return wanted, refused


def _clashes(keep: Iterable[Action], wanted: Iterable[Action]) -> dict[str, str]:
    """The keys of wanted actions whose addresses another action has too, each with what to say of it."""
    holders: dict[tuple[int, int, int], list[Action]] = {}  # first those that are kept, then in the order of the cases
    kept = [*keep]
    for action in (*kept, *wanted):
        for prefix in action.prefixes:
            network = ipaddress.ip_network(prefix)
            holders.setdefault((network.version, int(network[0]), -int(network[-1])), []).append(action)
    kept_keys = {action.key for action in kept}
    found: dict[str, str] = {}
    outer: list[tuple[int, int, int]] = []  # two prefixes are apart, or one holds the other
    for span in sorted(holders):
        while outer and (outer[-1][0] != span[0] or -outer[-1][2] < span[1]):
            outer.pop()
        outer.append(span)
        same = {action.key: action for around in outer for action in holders[around]}
        old = [key for key in same if key in kept_keys]
        new = [action for key, action in same.items() if key not in kept_keys]
        if not old and len({action.subscriber for action in new}) > 1:
            said = f"it is said to be of two subscribers: {', '.join(sorted({action.subscriber for action in new}))}"
            found |= {action.key: f"{action.prefixes[0]}: {said}" for action in new}
        elif len(same) > 1:
            first = old[0] if old else new[0].key
            found |= {a.key: f"its address is acted upon already, as {first}" for a in new if a.key != first}
    return found


def _evidence_fault(case: Case, limits: Limits) -> str:
    """Why the evidence is not enough, or ""."""
    if strange := sorted(set(case.sources) - FAMILIES.keys()):
        return f"nobody knows what {', '.join(strange)} is evidence of; the sources are {', '.join(FAMILIES)}"
    families = {FAMILIES[source] for source in case.sources} - {""}
    needed = max(1, limits.families, KINDS[limits.kind].families)
    if "operator" in families or len(families) >= needed:
        return ""
    said = ", ".join(sorted(families)) or "none"
    return f"it takes {needed} independent kinds of evidence, or an operator; there is {said}"
