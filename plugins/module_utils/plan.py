# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From findings to the commands of a push, proved before the first of them is sent.

What is refused here is never tried on a router: a filter that does not keep the policy once it is parsed back, a
state on the way that is neither the old filter nor the new one, a foreign filter that the policy does not give up,
and a filter that would cut the session it is pushed over.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from .audit import audit, bound
from .filters import DENY, Binding, Configuration, Filter
from .findings import COMPLIANT, Finding
from .packets import exactly, packet_text, prefix, span
from .policy import Attachment, Policy
from .rules import Bind, Change, RuleSet, compile_change
from .search import Question, Search

OURS = "ISP-"  # how all our names begin; an operator's can begin so, too
OUR_FILTERS = tuple(f"{OURS}{side}{family}-" for side in ("UP", "DOWN") for family in (4, 6))
LIST_DIRECTION = {"up": "in", "down": "out"}

Render = Callable[[dict[str, object]], str]
_Place = tuple[str, str, int]  # attachment, "up" or "down", family


class Refused(Exception):
    """The push is refused and nothing was sent. The message says what, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Push:
    """How a platform takes a change. The commands may hold {minutes} or {seconds} (of the rollback timer) and
    {session} (a name).

    The lines of the change go between `arm` and `commit`; `confirm` follows over a fresh login, then `save` keeps what
    is confirmed for the next start. After a failure `discard` clears what was not committed, and a timer that waits,
    harmless where there is nothing; `abort` takes back a change in force. `held`: only the session that committed can
    confirm or take back, so it stays while another login looks at the router.
    """

    arm: tuple[str, ...]
    commit: tuple[str, ...]
    confirm: tuple[str, ...]
    abort: tuple[str, ...]
    discard: tuple[str, ...] = ()
    save: tuple[str, ...] = ()
    held: bool = False


@dataclass(frozen=True, slots=True)
class Management:
    """The session that the push goes over: our address, the router's, and the port of its SSH server."""

    controller: str
    router: str
    port: int


@dataclass(frozen=True, slots=True)
class Plan:
    """`lines` lead to the running text `predicted`. `kept`: places left as they are though wrong, and why."""

    lines: tuple[str, ...]
    predicted: str
    places: frozenset[_Place]
    kept: tuple[str, ...]


def propose(
    platform: ModuleType,
    running: str,
    policy: Policy,
    attachments: Sequence[Attachment],
    findings: Sequence[Finding],
    render: Render,
    management: Management | None,
) -> Plan:
    """The least change that makes every obligation hold; no lines when all hold already. Raises Refused."""
    names = [attachment.name for attachment in attachments]
    before = platform.parse(running, names)
    wanting = {
        (one.attachment, one.direction, one.family)
        for one in findings
        if one.verdict != COMPLIANT and one.control.startswith("P")
    }
    absent = sorted(name for name in names if name not in before.interfaces and not platform.WHOLE)
    if wanting and absent:
        raise Refused(f"the router has no {', '.join(absent)}: correct isp_attachments; nothing was changed")
    whole = compile_change(policy, attachments, getattr(platform, "PER_ATTACHMENT", False))
    if platform.WHOLE:
        change, kept = whole if wanting else Change((), ()), tuple[str, ...]()
    else:
        change, kept = _needed(whole, wanting, before, attachments)
    if not change.binds:
        return Plan((), running, frozenset(), kept)
    change = _settle(platform, change, before, render, running)
    lines = [*platform.lines(render(_fields(platform, change, running))), *_left_over(platform, before, change)]
    places = frozenset((bind.attachment, bind.direction, bind.family) for bind in change.binds)
    try:
        texts = list(platform.apply(running, lines))
    except ValueError as error:
        raise Refused(f"the template gave a line that is not understood: {error}; nothing was changed") from error
    states = _parsed(platform, texts, names)
    _never_weaker(before, states)
    after = states[-1]
    _keeps_policy(platform, after, policy, attachments, findings, places)
    if management:
        _keeps_session(after, change.binds, management)
    return Plan(tuple(lines), texts[-1], places, kept)


def _fields(platform: ModuleType, change: Change, running: str) -> dict[str, object]:
    """Where a binding holds more than the filters of one place (VRP), what is written depends on what runs."""
    found: dict[str, object]
    if not getattr(platform, "SHARED_BINDING", False):
        found = platform.fields(change)
        return found
    try:
        found = platform.fields(change, running)
    except ValueError as error:
        raise Refused(f"{error}; nothing was changed") from error
    return found


def restoring(platform: ModuleType, running: str, backup: str, names: Sequence[str]) -> Plan:
    """Back to the filters and bindings that the backup has on these attachments. Raises Refused."""
    why = platform.incomplete(backup)
    if why:
        raise Refused(f"the backup is no configuration to go back to: {why}; nothing was changed")
    before, wanted = platform.parse(running, names), platform.parse(backup, names)
    lines = platform.restore(running, backup, names)
    if not lines:
        return Plan((), running, frozenset(), ())
    texts = list(platform.apply(running, lines))
    states = _parsed(platform, texts, names)
    _never_weaker(before, states)
    now, then = in_force(states[-1]), in_force(wanted)
    for place in now.keys() | then.keys():
        if place[0] in names and not all_same(now.get(place, ()), then.get(place, ())):
            raise Refused(f"{place[0]} ({place[1]}, IPv{place[2]}) cannot be put back as it was; nothing was changed")
    return Plan(tuple(lines), texts[-1], frozenset(), ())


def _needed(
    whole: Change, wanting: set[_Place], before: Configuration, attachments: Sequence[Attachment]
) -> tuple[Change, tuple[str, ...]]:
    """The bindings that something is wrong with, less those that belong to others."""
    given_up = {attachment.name for attachment in attachments if attachment.replace_foreign}
    binds, kept = [], []
    for bind in whole.binds:
        if (bind.attachment, bind.direction, bind.family) not in wanting:
            continue
        binding = bound(before, bind.attachment, bind.direction, bind.family)
        foreign = binding and not all(name.startswith(OUR_FILTERS) for name in binding.filters)
        if binding and foreign and bind.attachment not in given_up:
            kept.append(
                f"{bind.attachment} keeps the foreign filter {' and '.join(binding.filters)} "
                f"({LIST_DIRECTION[bind.direction]}, IPv{bind.family}, line {binding.line}): "
                "set replace_foreign: true on this attachment to have it replaced"
            )
        else:
            binds.append(bind)
    used = {bind.filter for bind in binds}
    return Change(tuple(one for one in whole.filters if one.name in used), tuple(binds)), tuple(kept)


def _settle(platform: ModuleType, change: Change, before: Configuration, render: Render, running: str) -> Change:
    """Leave out the filters that the router has already, and give a new name where it has another one of that name."""
    try:
        rendered = platform.parse(render(_fields(platform, change, running)))
    except ValueError as error:
        raise Refused(f"the template renders nothing that {platform.__name__} can read: {error}") from error
    filters: list[RuleSet] = []
    renamed: dict[str, str] = {}
    for one in change.filters:
        here, new = before.filters.get((one.family, one.name)), rendered.filters.get((one.family, one.name))
        if here is not None and new is not None and _same(here, new):
            continue
        if here is not None:
            free = (f"{one.name}-{number}" for number in itertools.count(1))
            renamed[one.name] = next(name for name in free if (one.family, name) not in before.filters)
        filters.append(replace(one, name=renamed.get(one.name, one.name)))
    binds = tuple(replace(bind, filter=renamed.get(bind.filter, bind.filter)) for bind in change.binds)
    return Change(tuple(filters), binds)


def _left_over(platform: ModuleType, before: Configuration, change: Change) -> Iterable[str]:
    """The lines that delete our filters which nothing refers to any more."""
    rebound = {(bind.attachment, LIST_DIRECTION[bind.direction], bind.family) for bind in change.binds}
    used = {(bind.family, bind.filter) for bind in change.binds}
    for binding in before.bindings:
        if (binding.attachment, binding.direction, binding.family) not in rebound:
            # Lists that are bound as one filter have their names in the line that binds them.
            used |= {(binding.family, name) for name in (*binding.filters, *binding.text.split())}
    defined = {key for key, one in before.filters.items() if one.name.startswith(OUR_FILTERS) and one.entries}
    lines: list[str] = platform.remove(sorted(defined - used))
    return lines


def _same(one: Filter, other: Filter) -> bool:
    """Line for line the same decisions; numbers, remarks and spelling do not matter."""
    return one.default == other.default and [
        (entry.action, entry.matches, entry.target, entry.doubt) for entry in one.entries
    ] == [(entry.action, entry.matches, entry.target, entry.doubt) for entry in other.entries]


def same_in_force(one: Configuration, other: Configuration) -> bool:
    """Every place has the same filters, line for line, in both."""
    left, right = in_force(one), in_force(other)
    return left.keys() == right.keys() and all(all_same(left[place], right[place]) for place in left)


def in_force(configuration: Configuration) -> dict[_Place, tuple[Filter, ...]]:
    """The filters of each place that has any, as (attachment, "in" or "out", family)."""
    return {
        (one.attachment, one.direction, one.family): tuple(
            configuration.filters[one.family, name] for name in one.filters
        )
        for one in configuration.bindings
    }


def _parsed(platform: ModuleType, texts: Sequence[str], names: Sequence[str]) -> list[Configuration]:
    """Each text once: a text that follows itself is the same configuration."""
    found = {text: platform.parse(text, names) for text in dict.fromkeys(texts)}
    return [found[text] for text in texts]


def _never_weaker(before: Configuration, states: Sequence[Configuration]) -> None:
    """Each place has the old filter or the new one, whole, in every state on the way (law 1)."""
    old, new = in_force(before), in_force(states[-1])
    for number, state in enumerate(states[:-1], 1):
        if number > 1 and state is states[number - 2]:
            continue
        now = in_force(state)
        for place in old.keys() | new.keys() | now.keys():
            here = now.get(place, ())
            if not any(all_same(here, whole.get(place, ())) for whole in (old, new)):
                raise Refused(
                    f"after step {number} of the push {place[0]} ({place[1]}, IPv{place[2]}) would have neither the "
                    "old filter nor the new one: a filter in use is never edited in place; nothing was changed"
                )


def all_same(one: tuple[Filter, ...], other: tuple[Filter, ...]) -> bool:
    return one == other or (
        len(one) == len(other) and all(_same(left, right) for left, right in zip(one, other, strict=True))
    )


def _keeps_policy(
    platform: ModuleType,
    after: Configuration,
    policy: Policy,
    attachments: Sequence[Attachment],
    findings: Sequence[Finding],
    places: frozenset[_Place],
) -> None:
    """What the change leads to, read back by the same parser, keeps every obligation it is for, and spoils none."""
    wrong_before = {_key(one) for one in findings if one.verdict != COMPLIANT}
    host = findings[0].host
    for one in audit(after, policy, attachments, host, platform.LINK_LOCAL):
        place = (one.attachment, one.direction, one.family)
        if one.verdict != COMPLIANT and (place in places or _key(one) not in wrong_before):
            lines = "; ".join(f"line {evidence.line}: {evidence.text}" for evidence in one.evidence[-2:])
            raise Refused(
                f"what the template gives for {one.attachment} ({one.direction}, IPv{one.family}) does not prove: "
                f"{one.title}, but {one.reason} [{one.packet}] {lines}; correct the template or the policy's own "
                "terms; nothing was changed"
            )


def _key(finding: Finding) -> tuple[str, ...]:
    return (
        finding.control, finding.attachment, finding.pool, finding.direction, str(finding.family), finding.title
    )  # fmt: skip


def _keeps_session(after: Configuration, binds: Sequence[Bind], management: Management) -> None:
    """The session's own packets still pass wherever it comes in over one of the changed attachments (law 2)."""
    if not management.controller:
        return
    family = 6 if ":" in management.router else 4
    ports = {"up": ("source_port", "destination_port"), "down": ("destination_port", "source_port")}
    for bind in binds:
        interface = after.interfaces.get(bind.attachment)
        if bind.family != family or interface is None:
            continue
        # It comes in where the controller is; an unnumbered interface only borrows the router's own address.
        # A link-local address has its zone behind a %.
        ends = [ipaddress.ip_address(one.partition("%")[0]) for one in (management.controller, management.router)]
        if not any(ends[0] in ipaddress.ip_interface(text).network for text in interface.prefixes):
            continue
        source, destination = ends if bind.direction == "up" else reversed(ends)
        far, near = ports[bind.direction]
        scope = {
            "protocol": exactly(6, 8), far: span(1024, 65535, 16), near: exactly(management.port, 16),
            "source": prefix(str(source), family), "destination": prefix(str(destination), family),
            "fragment": exactly(0, 2), "undetermined": exactly(0, 1), "extension": exactly(0, 3),
        }  # fmt: skip
        binding: Binding | None = bound(after, bind.attachment, bind.direction, family)
        answer = Search(after, family).ask(binding.filters if binding else (), [Question(DENY, (scope,))])[0]
        if answer.found is not False and answer.packet:
            raise Refused(
                f"the new filter on {bind.attachment} would cut the session that brings it: it denies "
                f"{packet_text(answer.packet, family)}; permit it in terms.before of the policy, or come in over "
                "another interface; nothing was changed"
            )
