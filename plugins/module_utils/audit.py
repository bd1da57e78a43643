# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Does this configuration keep the policy? One Finding for everything that must hold, with packet and lines."""

from __future__ import annotations

import bisect
import fnmatch
import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .filters import DENY, Binding, Configuration, Entry, Interface
from .filters import UNKNOWN as NOT_READ
from .findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from .obligations import Obligation, obligations
from .packets import packet_text
from .policy import Attachment, Policy
from .search import Answer, Question, Search
from .sessions import in_sessions, supplied

_LIST_DIRECTION = {"up": "in", "down": "out"}
_OPPOSITE = {DENY: "permit", "permit": DENY}
_SHOWN = 4  # prefixes of an interface that a finding lists
_Range = tuple[int, int, str]  # first and last address, name of the pool


def audit(
    configuration: Configuration, policy: Policy, attachments: Sequence[Attachment], host: str, link_local: bool = True
) -> list[Finding]:
    """Every obligation of every attachment, then what the configuration shows and the policy does not."""
    findings = []
    whole = [(attachment, one) for attachment in attachments for one in obligations(policy, attachment, link_local)]
    for family in (4, 6):
        groups: dict[tuple[str, ...] | None, list[tuple[Obligation, Binding | None, str]]] = defaultdict(list)
        for attachment, obligation in whole:
            if obligation.family == family:
                binding = bound(configuration, obligation.attachment, obligation.direction, family)
                for session, one in in_sessions(configuration, attachment, obligation.direction, family, binding):
                    groups[one.filters if one else None].append((obligation, one, session))
        search = Search(configuration, family)
        for filters, group in groups.items():
            questions = [Question(_OPPOSITE[one.must], one.scope, one.exempt) for one, _, _ in group]
            answers = search.ask(filters or (), questions)
            for (obligation, binding, session), answer in zip(group, answers, strict=True):
                finding = _finding(configuration, host, obligation, binding, answer)
                if session:  # a place of its own: no push mends what RADIUS sends
                    finding = replace(finding, attachment=f"{finding.attachment}, sessions with {session}")
                findings.append(finding)
    findings += _coverage(configuration, policy, attachments, host)
    findings += _exceptions(policy, attachments, host)
    findings += supplied(configuration, attachments, host, findings)
    findings.append(_reading(configuration, host))
    return findings


def bound(configuration: Configuration, attachment: str, direction: str, family: int) -> Binding | None:
    """The filters in force on the attachment for "up" or "down" traffic, None where everything passes."""
    wanted = (attachment, _LIST_DIRECTION[direction], family)
    found = (one for one in configuration.bindings if (one.attachment, one.direction, one.family) == wanted)
    return next(found, None)


def _finding(
    configuration: Configuration, host: str, obligation: Obligation, binding: Binding | None, answer: Answer
) -> Finding:
    packet = reason = mend = ""
    fields: tuple[tuple[str, int], ...] = ()
    evidence = tuple(Evidence(entry.line, entry.text) for entry in answer.entries)
    verdict = {False: COMPLIANT, True: VIOLATED, None: UNKNOWN}[answer.found]
    if binding is None and not _exists(configuration, obligation.attachment):
        verdict, answer = UNKNOWN, Answer(None, reason=f"the router has no {obligation.attachment}")
    if answer.packet:
        packet, fields = packet_text(answer.packet, obligation.family), tuple(sorted(answer.packet.items()))
    check = configuration.interfaces.get(obligation.attachment)
    checked = check and check.source_check and obligation.family in check.source_check_families
    if verdict != COMPLIANT and obligation.control == "P8" and check and checked:
        verdict, packet, fields = COMPLIANT, "", ()
        evidence = (Evidence(check.source_check_line, check.source_check),)
        reason = "strict unicast RPF validates the sources, given that routes lead only to the pools"
    elif verdict == UNKNOWN:
        # What decides for the example is beside the point: the evidence is the lines that were not understood, those
        # first that would do the wrong thing.
        unread = [entry for entry in answer.entries if entry.doubt or entry.action == NOT_READ]
        unread = [entry for entry in unread if entry.action in (NOT_READ, _OPPOSITE[obligation.must])] or unread
        reason, mend = _doubted(configuration, obligation, binding, answer, unread)
        evidence = tuple(Evidence(entry.line, entry.text) for entry in unread)
        evidence = evidence or _binding_evidence(configuration, obligation, binding)
    elif verdict == VIOLATED:
        reason, mend = _blame(configuration, obligation, binding, answer.entries)
        evidence = evidence or _binding_evidence(configuration, obligation, binding)
    return Finding(
        control=obligation.control, host=host, attachment=obligation.attachment, pool=obligation.pool,
        direction=obligation.direction, family=obligation.family, verdict=verdict, title=obligation.title,
        reason=reason, packet=packet, fields=fields, evidence=evidence, mend=mend,
    )  # fmt: skip


def _exists(configuration: Configuration, attachment: str) -> bool:
    return bool(fnmatch.filter(configuration.interfaces, attachment))


def _doubted(
    configuration: Configuration,
    obligation: Obligation,
    binding: Binding | None,
    answer: Answer,
    unread: Sequence[Entry],
) -> tuple[str, str]:
    if unread:
        return (
            f"not known: line {unread[-1].line}, {unread[-1].doubt or 'which was not understood'}",
            f"read line {unread[-1].line} yourself, or rewrite it in a form that is understood",
        )
    if binding is None:
        return f"not known: {answer.reason}", "correct isp_attachments of the router"
    names = binding.filters
    open_ended = [name for name in names if configuration.filters[obligation.family, name].default == NOT_READ]
    if open_ended and answer.packet:
        return (
            f"not known: what {' and '.join(open_ended)} does to a packet that none of its lines match",
            "playbooks/routers.yml binds a complete filter",
        )
    return f"not known: {answer.reason}", "simplify the filter, or have it replaced: playbooks/routers.yml"


def _blame(
    configuration: Configuration, obligation: Obligation, binding: Binding | None, entries: Sequence[Entry]
) -> tuple[str, str]:
    where = f"{obligation.attachment}, {_LIST_DIRECTION[obligation.direction]}bound, IPv{obligation.family}"
    if binding is None:
        return f"no filter is bound to {where}, so everything passes", "bind a filter there: playbooks/routers.yml does"
    deciding = entries[-1] if entries else None
    if deciding and deciding.line in {configuration.filters[obligation.family, name].line for name in binding.filters}:
        return f"line {deciding.line}: {deciding.text}", "decide about it in a line above the end of the filter"
    if obligation.must == DENY:
        if deciding is None:
            return (
                f"{' and '.join(binding.filters)} on {where} has no line for this packet and permits it",
                "playbooks/routers.yml binds a complete filter",
            )
        return (
            f"line {deciding.line} permits it before any line denies it",
            f"deny it above line {deciding.line}, or narrow that line",
        )
    if deciding is None or deciding.action == "permit":
        return (
            f"the end of {' and '.join(binding.filters)} on {where} denies it",
            "permit it before the end of the filter",
        )
    return f"line {deciding.line} denies it", f"permit it above line {deciding.line}, or narrow that line"


def _binding_evidence(
    configuration: Configuration, obligation: Obligation, binding: Binding | None
) -> tuple[Evidence, ...]:
    if binding is None:
        interface = configuration.interfaces.get(obligation.attachment)
        return (Evidence(interface.line, interface.name),) if interface else ()
    found = [Evidence(binding.line, binding.text)]
    for name in binding.filters:
        chosen = configuration.filters[binding.family, name]
        found.append(Evidence(chosen.line, chosen.text or f"{name}, whose default is {chosen.default}"))
    return tuple(dict.fromkeys(found))


def _coverage(
    configuration: Configuration, policy: Policy, attachments: Sequence[Attachment], host: str
) -> Iterator[Finding]:
    """C1: what the policy names exists, and what carries a pool is in the policy."""
    named = [attachment.name for attachment in attachments]
    title = "every attachment that carries a pool is in the policy, and exists"
    wrong = False
    for name in named:
        if not _exists(configuration, name):
            wrong = True
            yield Finding(
                "C1", host, name, "", "", 0, VIOLATED, title,
                reason=f"the router has no {name}",
                mend=f"correct isp_attachments of {host}; the configuration shows "
                + (", ".join(sorted(configuration.interfaces)[:8]) or "no interface"),
            )  # fmt: skip
    for interface, carried in uncovered(configuration, policy, named):
        wrong = True
        yield Finding(
            "C1", host, interface.name, ", ".join(carried), "", 0, VIOLATED, title,
            reason=f"{interface.name} carries addresses of a pool, and the policy does not name it",
            evidence=(Evidence(interface.line, f"{interface.name}: {_shortened(interface.prefixes)}"),),
            mend=f"add {interface.name} to isp_attachments of {host}",
        )  # fmt: skip
    if not wrong:
        yield Finding("C1", host, "", "", "", 0, COMPLIANT, title)


def uncovered(
    configuration: Configuration, policy: Policy, named: Sequence[str]
) -> Iterator[tuple[Interface, tuple[str, ...]]]:
    """The interfaces that carry addresses of pools, and are none of `named`; with those pools."""
    space = _space(policy)
    for interface in configuration.interfaces.values():
        # A loopback lends its address to unnumbered interfaces; subscribers hang there, not on the loopback.
        if interface.shutdown or re.match(r"lo(opback)?\d*(\.\d+)?$", interface.name, re.IGNORECASE):
            continue
        if any(fnmatch.fnmatchcase(interface.name, name) for name in named):
            continue
        carried = {name for prefix in interface.prefixes for name in _pools_of(prefix, space)}
        if carried:
            yield interface, tuple(sorted(carried))


def _shortened(prefixes: Sequence[str]) -> str:
    """An address range becomes many prefixes."""
    rest = len(prefixes) - _SHOWN
    return ", ".join(prefixes[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _space(policy: Policy) -> dict[int, list[_Range]]:
    """The prefixes of all pools by family, in order; no two of them overlap."""
    space: dict[int, list[_Range]] = {4: [], 6: []}
    for pool in policy.pools.values():
        for network in map(ipaddress.ip_network, pool.ipv4 + pool.ipv6):
            first, last = int(network.network_address), int(network.broadcast_address)
            space[network.version].append((first, last, pool.name))
    return {family: sorted(ranges) for family, ranges in space.items()}


def _pools_of(prefix: str, space: Mapping[int, Sequence[_Range]]) -> Iterator[str]:
    """The pools that have addresses in common with the prefix; a default route has none."""
    network = ipaddress.ip_interface(prefix).network
    if not network.prefixlen:
        return
    first, last = int(network.network_address), int(network.broadcast_address)
    ranges = space[network.version]
    before = bisect.bisect_left(ranges, (first,)) - 1  # may reach into it
    for low, high, name in ranges[max(before, 0) :]:
        if low > last:
            break
        if high >= first:
            yield name


def _exceptions(policy: Policy, attachments: Sequence[Attachment], host: str) -> Iterator[Finding]:
    """C3: an expired exception counts as absent, and is said."""
    pools = {name for attachment in attachments for name in attachment.pools}
    for exception in policy.expired:
        if exception.pool in pools:
            yield Finding(
                "C3", host, "", exception.pool, "", exception.family, VIOLATED, "every exception is in force",
                reason=f"the exception of {exception.prefix} ({exception.owner}) ended on {exception.until}",
                mend="extend it or remove it with isp.hardening.policy_exception; until then it counts as absent",
            )  # fmt: skip


def _reading(configuration: Configuration, host: str) -> Finding:
    """C2: nothing that may matter was left unread."""
    title = "every line that may matter to a filter was understood"
    if not configuration.doubts:
        return Finding("C2", host, "", "", "", 0, COMPLIANT, title)
    return Finding(
        "C2", host, "", "", "", 0, UNKNOWN, title,
        reason="; ".join(dict.fromkeys(doubt.reason for doubt in configuration.doubts)),
        evidence=tuple(Evidence(doubt.line, doubt.text) for doubt in configuration.doubts),
        mend="read these lines yourself; a verdict that rests on them is unknown",
    )  # fmt: skip
