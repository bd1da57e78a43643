# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom the flow detectors find in synthetic flows, and whom at other thresholds. No capture of real bots has labels."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ansible_collections.isp.hardening.plugins.module_utils.signals.detectors import DETECTORS, WORM_PORTS, address_of
from ansible_collections.isp.hardening.plugins.module_utils.signals.engines import TCP, DuckDB
from ansible_collections.isp.hardening.plugins.module_utils.signals.queries import walked
from tests.signals.flows import Population, Synthetic
from tests.signals.flows import address_of as address_of_host

NAMES = ("D1", "D2", "D3", "D4")
PORTS = (25, *WORM_PORTS)
HEIGHTS = range(1, 8)  # h = ln(10^n)
BAD = {
    "D1": ("open_bot", "blocked_bot", "low_rate_bot"),
    "D2": ("open_bot", "blocked_bot", "low_rate_bot"),
    "D3": ("blocked_bot",),
    "D4": ("worm",),
}
_HEAD = """
### Whom the detectors find (synthetic)

An hour of synthetic flows (the model is in tests/signals/flows.py) of {subscribers:,} subscribers, all of them in a
residential pool. The figures test formulas and code; of real subscribers they say nothing. In each cell how many are
alarmed, and the median of the contacts until then.
"""
_ROC = """
The same at other thresholds, h = ln(benign contacts a day / false alarms allowed a day): the share of the hosts that
the detector is for, and how many others it alarms. The default is ln(1,000,000).
"""


def section(share: float = 1.0) -> str:
    """The part of the page, for a share of the network."""
    population = Population().scaled(share)
    hour = Synthetic(seed=1, flows=max(20_000, round(620_000 * share)), population=population)
    with DuckDB() as engine:
        for chunk in hour.chunks():
            own = (chunk.src_hi >> 32 == 0x2001_0DB8) | (chunk.src_lo >> 17 == 0xFFFF_C612_0000 >> 17)
            engine.add(0, chunk.where((chunk.proto == TCP) & np.isin(chunk.dport, PORTS) & own))
        return "\n".join(_lines(engine, hour))


def _lines(engine: DuckDB, hour: Synthetic) -> Iterator[str]:
    labels = {_subject(int(host)): kind for kind, hosts in hour.hosts.items() for host in hosts}
    kinds = [*hour.labels, "normal"]
    yield _HEAD.format(subscribers=hour.population.subscribers)
    yield f"| Hosts | How many | {' | '.join(NAMES)} |"
    yield f"|---|--:|{'--:|' * len(NAMES)}"
    found: dict[str, dict[str, list[int]]] = {name: {kind: [] for kind in kinds} for name in NAMES}
    for name in NAMES:
        alarms, _contacts = walked(engine, DETECTORS[name])
        for (key, _port), _time, _score, contacts in alarms:
            found[name][labels.get(address_of(key), "normal")].append(contacts)
    for kind in kinds:
        cells = [f"{len(of[kind]):,} ({statistics.median(of[kind]):.0f})" if of[kind] else "0" for of in found.values()]
        yield f"| {kind.replace('_', ' ')} | {len(hour.hosts.get(kind, hour.normal)):,} | {' | '.join(cells)} |"
    yield _ROC
    yield f"| h | {' | '.join(f'{name} finds | others' for name in NAMES)} |"
    yield f"|--:|{'--:|--:|' * len(NAMES)}"
    for height in HEIGHTS:
        cells = []
        for name in NAMES:
            test = replace(DETECTORS[name], contacts_a_day=10.0**height, false_alarms_a_day=1.0)
            seen = {address_of(key) for (key, _port), *_ in walked(engine, test)[0]}
            bad = {subject for subject, kind in labels.items() if kind in BAD[name]}
            cells += [f"{len(seen & bad) / len(bad):.1%}", f"{len(seen - bad):,}"]
        yield f"| ln 10^{height} | {' | '.join(cells)} |"


def _subject(host: int) -> str:
    """A host as detectors name it: IPv6 by its /64."""
    address = address_of_host(host)
    return address.removesuffix("1") if ":" in address else address
