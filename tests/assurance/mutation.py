# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is the audit's verdict on a mutant true? Packets decide, and two evaluators that are not the audit's search.

For every obligation that the audit calls compliant, packets at the edges of all that the policy, the line and its
mutant name are put to the naive evaluator and to the lab's router: none may meet the wrong fate. Every witness of a
violation must meet it at both. What the audit leaves open is never wrong, and counted.
"""

from __future__ import annotations

import ipaddress
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.isp.hardening.plugins.module_utils.audit import bound
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    Configuration,
    NotThisPlatform,
    evaluate,
    matches,
)
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from ansible_collections.isp.hardening.plugins.module_utils.obligations import Obligation, obligations
from ansible_collections.isp.hardening.plugins.module_utils.packets import (
    ADDRESS_WIDTH,
    POSSIBLE,
    PROTOCOLS,
    Alternatives,
    contains,
    packet_text,
    width,
)

from .judges import Judge, judge
from .mutants import Mutant, mutants
from .texts import Known, compliant

_OPPOSITE = {"permit": "deny", "deny": "permit"}
_PORTS = (0, 22, 24, 25, 26, 53, 67, 80, 134, 135, 136, 137, 138, 139, 140, 444, 445, 446, 465, 587, 592, 593, 594, 993,
          995, 1023, 1024, 1025, 1029, 1030, 1900, 4500, 49152, 65535)  # fmt: skip
_VALUES: Mapping[str, tuple[int, ...]] = {
    "protocol": (6, 17, 1, 58, 50, 47, 132), "source_port": _PORTS, "destination_port": _PORTS,
    "icmp_type": (0, 1, 2, 3, 8, 11, 128, 133, 134, 135, 136, 255), "icmp_code": (0, 1, 4), "fragment": (0, 0, 1, 2, 3),
    "undetermined": (0, 0, 1), "tcp_flags": (2, 16, 18, 4, 24, 17, 0, 63), "extension": (0, 0, 1, 2, 3, 4, 5),
    "state": (0, 0, 1, 2, 3), "tos": (0, 184, 1), "ttl": (64, 33, 127, 255), "length": (120, 60, 1400),
    "options": (0, 0, 1),
}  # fmt: skip
_USUAL = {
    "protocol": 6, "source_port": 49152, "destination_port": 80, "tcp_flags": 2, "icmp_type": 8, "icmp_code": 0,
    "fragment": 0, "undetermined": 0, "extension": 0, "state": 0, "tos": 0, "ttl": 64, "length": 120, "options": 0,
}  # fmt: skip
_FAR = {4: 0xCB007109, 6: 0x20010DB8_FFFF << 80 | 9}


@dataclass
class Tally:
    """What became of the mutants of a platform."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    packets: int = 0  # put to the naive evaluator
    judged: int = 0  # of those, judged by the lab too
    witnesses: int = 0
    confirmed: int = 0  # of those, by the lab too; the naive evaluator has confirmed all, or there is a fault
    left_open: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)  # texts that the lab's router does not read as the audit does


def examine(whole: Known, mutant: Mutant, lab: Judge, chance: random.Random, many: int, tally: Tally) -> None:
    """One mutant: `many` packets for each obligation."""
    if whole.lost(mutant.text):
        tally.outcomes["told to be cut off"] += 1
        return
    try:
        configuration = whole.parse(mutant.text)
    except NotThisPlatform:
        tally.outcomes["told to be none of the platform"] += 1
        return
    findings = {_key(one): one for one in whole.audit(configuration)}
    demands = [
        one for place in whole.attachments for one in obligations(whole.policy, place, whole.platform.LINK_LOCAL)
    ]
    told = [one for one in findings.values() if one.control == "C2" and one.verdict == UNKNOWN]
    asked: list[tuple[Obligation, str, dict[str, int]]] = []
    values = _values(whole, mutant)
    for one in demands:
        finding = findings[_key(one)]
        if finding.verdict == VIOLATED and finding.packet:
            asked.append((one, VIOLATED, dict(finding.fields)))
        elif finding.verdict == UNKNOWN or not finding.evidence:  # evidence there: a source check, and no filter
            asked += [(one, finding.verdict, packet) for packet in _sample(one, values, chance, many)]
    questions = [(one.attachment, one.direction, one.family, packet) for one, _, packet in asked]
    judged = lab.verdicts(whole, mutant.text, questions)
    wrong: dict[str, str] = {}
    for (one, verdict, packet), question, at_first in zip(asked, questions, judged, strict=True):
        by_lab = at_first
        if at_first == "deny" and (one.must, verdict) in ((PERMIT, COMPLIANT), (DENY, VIOLATED)):  # or lost on the way?
            by_lab = lab.surely(whole, mutant.text, question)
        naive = possible(configuration, one, packet)
        tally.packets += 1
        tally.judged += by_lab is not None
        bad = ""
        if verdict == VIOLATED:
            tally.witnesses += 1
            tally.confirmed += by_lab == _OPPOSITE[one.must]
            if naive != {_OPPOSITE[one.must]}:
                bad = f"the naive evaluator gives {sorted(naive)} for the witness"
            elif by_lab == one.must:
                bad = f"the lab gives {by_lab} for the witness"
        elif verdict == COMPLIANT and _OPPOSITE[one.must] in naive:
            bad = f"compliant, and the naive evaluator gives {sorted(naive)}"
        elif verdict == COMPLIANT and by_lab == _OPPOSITE[one.must] and not told:
            bad = f"compliant, and the lab gives {by_lab}"
        if bad:
            wrong.setdefault(bad, _fault(whole, mutant, one, packet, bad))
    tally.faults += wrong.values()
    raised = Counter(one.verdict for one in findings.values())
    if raised[VIOLATED]:
        tally.outcomes["violated, with a packet"] += 1
    elif raised[UNKNOWN]:
        refused = None in judged
        harmless = all(by_lab == one.must for (one, _, _), by_lab in zip(asked, judged, strict=True))
        tally.outcomes["unknown" if refused or not harmless else "unknown, and nothing has changed"] += 1
        if harmless and not refused:
            tally.left_open.append(f"{whole.name}, {mutant.what}: {_line(mutant)!r}")
    else:
        tally.outcomes["nothing raised"] += 1


def _understood(whole: Known, lab: Judge, chance: random.Random, tally: Tally) -> bool:
    """Does the lab's router hold the unchanged text for compliant too? It does not know every feature."""
    trial = Tally()
    examine(whole, Mutant(whole.text, "nothing", 1, ()), lab, chance, 40, trial)
    tally.faults += [fault for fault in trial.faults if "the lab gives" not in fault]
    tally.otherwise += [f"{whole.name}: {fault.partition(': ')[2]}" for fault in trial.faults[:1]]
    return not trial.faults


def possible(configuration: Configuration, one: Obligation, packet: Mapping[str, int]) -> set[str]:
    """What the filters in force may do to the packet, by the naive evaluator."""
    binding = bound(configuration, one.attachment, one.direction, one.family)
    actions = {PERMIT}
    for name in binding.filters if binding else ():
        actions = actions - {PERMIT} | evaluate(configuration, one.family, name, packet)[0]
        if PERMIT not in actions:
            break
    return actions


def _key(one: Obligation | Finding) -> tuple[object, ...]:
    return one.control, one.attachment, one.pool, one.direction, one.family, one.title


def _fault(whole: Known, mutant: Mutant, one: Obligation, packet: Mapping[str, int], what: str) -> str:
    return (
        f"{whole.network_os} {whole.name}, {mutant.what}, line {mutant.line} {_line(mutant)!r}: {one.control} "
        f"{one.direction} IPv{one.family} ({one.title}): {what}: {packet_text(packet, one.family)}"
    )


def _line(mutant: Mutant) -> str:
    return mutant.text.split("\n")[mutant.line - 1 :][0].strip()


# --- Packets at the edges ------------------------------------------------------------------------------------------


def _values(whole: Known, mutant: Mutant) -> dict[tuple[str, int], list[int]]:
    """Values of fields at which something may change, by field and family."""
    numbers = {int(word) for text in mutant.words for word in _decimals(text) if len(word) < 6}
    around = [value + by for value in sorted(numbers) for by in (-1, 0, 1) if 0 <= value + by < 1 << 16]
    found: dict[tuple[str, int], list[int]] = {}
    owners = (*whole.policy.pools.values(), *whole.policy.smarthosts)
    for family in (4, 6):
        prefixes = [text for owner in owners for text in owner.prefixes(family)]
        prefixes += [one.prefix for one in whole.policy.exceptions if one.family == family]
        addresses = list(dict.fromkeys([*_edges([*prefixes, *mutant.words], family), _FAR[family]]))
        found["source", family] = found["destination", family] = addresses
        for name, values in _VALUES.items():
            near = [value for value in around if value < 1 << width(name, family)] if name in _NUMBERED else []
            found[name, family] = [*values, *near, *near]
        named = [PROTOCOLS[word.lower()] for word in mutant.words if word.lower() in PROTOCOLS]
        found["protocol", family] += named
    return found


_NUMBERED = ("protocol", "source_port", "destination_port", "icmp_type")


def _decimals(text: str) -> Iterator[str]:
    yield from (
        part for part in text.replace("-", " ").replace(",", " ").split() if part.isascii() and part.isdecimal()
    )


def _edges(texts: Sequence[str], family: int) -> Iterator[int]:
    """First and last address of each prefix, those beside them and one inside."""
    full = (1 << ADDRESS_WIDTH[family]) - 1
    for text in texts:
        for part in text.split("-"):
            try:
                network = ipaddress.ip_network(part, strict=False)
            except ValueError:
                continue
            if network.version == family and ("." in part or ":" in part):
                first, last = int(network.network_address), int(network.broadcast_address)
                yield from (one & full for one in (first, last, first - 1, last + 1, (first + last) // 2))


def _sample(
    one: Obligation, values: Mapping[tuple[str, int], list[int]], chance: random.Random, many: int
) -> Iterator[dict[str, int]]:
    """Packets of the obligation: in its scope, in none of its exemptions."""
    for _ in range(many):
        scope = chance.choice(one.scope)
        packet = dict(_USUAL)
        for name in (*_USUAL, "source", "destination"):
            candidates = values[name, one.family]
            if name in scope:
                fitting = [value for value in candidates if contains(scope[name], value)]
                if fitting and chance.random() < 0.8:
                    packet[name] = chance.choice(fitting)
                elif name not in packet or not contains(scope[name], packet[name]):
                    packet[name] = _inside(scope[name], width(name, one.family), chance)
            elif name not in packet or chance.random() < 0.25:
                packet[name] = chance.choice(candidates)
        real = matches(POSSIBLE[one.family], packet) and matches(scope, packet)
        if real and not any(matches(exempt, packet) for exempt in one.exempt):
            yield packet


def _inside(alternatives: Alternatives, bits: int, chance: random.Random) -> int:
    value, mask = chance.choice(alternatives)
    return value | chance.choice((0, -1, chance.getrandbits(bits))) & ~mask & (1 << bits) - 1


# --- A run ----------------------------------------------------------------------------------------------------------


def run(network_os: str, seed: int, each: int, many: int, at_most: int = 99) -> dict[str, object]:
    """`each` mutants of every compliant text of the platform (of `at_most` texts), as figures."""
    tally, chance = Tally(), random.Random(f"{network_os} {seed}")
    texts = compliant(network_os)[:at_most]
    for one in texts:
        if one.lost(one.text) or one.found:
            tally.faults.append(f"{one.name} is not compliant: {one.lost(one.text) or one.found[0]}")
    with judge(network_os) as lab:
        for whole in texts:
            judging = lab if _understood(whole, lab, chance, tally) else Judge()
            for _, mutant in zip(range(each), mutants(whole, chance), strict=False):
                try:
                    examine(whole, mutant, judging, chance, many, tally)
                except Exception as error:
                    tally.faults.append(
                        f"{whole.name} {mutant.what} line {mutant.line}: {type(error).__name__} {error}"
                    )
    return {
        "platform": network_os,
        "lab": lab.why,
        "texts": len(texts),
        "otherwise": tally.otherwise,
        "mutants": sum(tally.outcomes.values()),
        "outcomes": dict(sorted(tally.outcomes.items())),
        "packets": tally.packets,
        "judged": tally.judged,
        "witnesses": tally.witnesses,
        "confirmed": tally.confirmed,
        "left_open": tally.left_open,
        "faults": tally.faults,
        "cpu": round(time.process_time(), 1),
    }


if __name__ == "__main__":
    json.dump(run(sys.argv[1], *(int(word) for word in sys.argv[2:])), sys.stdout, indent=1)
