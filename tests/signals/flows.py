# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Synthetic flows with labels, and a writer of nfcapd files. Whatever comes from here is called synthetic.

The model: an access network in one hour (or another span), seen by an exporter that gives TCP flags and does not
sample. Every host has one address; every eighth speaks IPv6. Rates are flows an hour, drawn once for each host.

| label         | does                                                             | rate      | no DATA          |
|---------------|------------------------------------------------------------------|-----------|------------------|
| open_bot      | port 25 to ever new destinations                                 | 60 to 600 | .25 SYN, .3 short |
| blocked_bot   | the same behind a filter: nobody answers                         | 60 to 600 | all SYN          |
| low_rate_bot  | as an open bot, slowly                                           | 8 to 30   | .25 SYN, .3 short |
| worm          | one of ports 135, 139, 445 at random addresses                   | 100 to 800 | .95 SYN         |
| mail_server   | port 25 to 400 known destinations of its own, some of them often | 50 to 400 | .02 SYN, .04 short |
| misconfigured | retries to one dead smarthost on port 25                         | 6 to 60   | all SYN          |
| p2p           | high ports at random addresses, TCP and UDP                      | 40 to 200 | .5 SYN           |
| normal        | web, DNS, QUIC, submission; half of the flows are the answers    | the rest  | .03 SYN          |

A flow without answer has 1 to 3 SYN of 60 bytes; a short one 6 to 12 packets and less than 1,500 bytes; the others
more than 12 packets. Subscribers are from 198.18.0.0/15 (RFC 2544) and 2001:db8:0:n::/64 (RFC 3849), the world from
240.0.0.0/4 (RFC 1112) and 2001:db8:8000::/33: no address is anybody's.

    hour = Synthetic(seed=1, flows=1_000_000)
    hour.labels["open_bot"]   # addresses
    write_nfcapd(path, hour.chunks())
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
from numpy.typing import NDArray

from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import V4_MAPPED, Flows

Array = NDArray[Any]
BEGIN = 1_767_225_600_000  # 2026-01-01 00:00 UTC
HOUR = 3_600_000
_SUBSCRIBERS = int(ipaddress.IPv4Address("198.18.0.0"))
_WORLD4 = int(ipaddress.IPv4Address("240.0.0.0"))
_SUBSCRIBERS6 = 0x2001_0DB8_0000_0000
_WORLD6 = 0x2001_0DB8_8000_0000
_SYN, _WHOLE = 0x02, 0x1B
_SILENT, _SHORT, _FULL = 0, 1, 2


@dataclass(frozen=True)
class Population:
    """How many hosts of each kind; every other subscriber is normal."""

    subscribers: int = 131_072
    open_bot: int = 150
    blocked_bot: int = 150
    low_rate_bot: int = 100
    worm: int = 200
    mail_server: int = 150
    misconfigured: int = 3_000
    p2p: int = 2_000

    def scaled(self, share: float) -> Population:
        """A smaller network, at least one host of each kind."""
        return Population(**{part.name: max(1, round(getattr(self, part.name) * share)) for part in fields(self)})


class Synthetic:
    """A span of an access network: seedable, in order of time. The same arguments give the same flows.

    `flows` is the number of all flows; what the labelled hosts do is there in full, the rest is the background.
    """

    def __init__(
        self,
        seed: int,
        flows: int,
        population: Population | None = None,
        begin: int = BEGIN,
        span: int = HOUR,
        chunk: int = 1 << 19,
    ) -> None:
        self.population = population = population or Population()
        self.begin, self.span, self.chunk = begin, span, chunk
        self.seed, self.flows = seed, flows
        rng = np.random.default_rng([seed, 0])
        kinds = [part.name for part in fields(population) if part.name != "subscribers"]
        hosts = rng.permutation(population.subscribers)
        self.hosts: dict[str, Array] = {}
        for kind in kinds:
            self.hosts[kind], hosts = np.split(hosts, [getattr(population, kind)])
        self.normal = hosts
        self.labels = {kind: tuple(address_of(host) for host in chosen) for kind, chosen in self.hosts.items()}
        self._labelled = self._of_labels(rng)
        if len(self._labelled) > flows:
            raise ValueError(f"the labelled hosts alone have {len(self._labelled)} flows: ask for more, or scale down")

    def chunks(self) -> Iterator[Flows]:
        """All flows, in order of time, in chunks of about `chunk`."""
        parts = max(1, -(-self.flows // self.chunk))
        background = self.flows - len(self._labelled)
        edges = self.begin + self.span * np.arange(parts + 1) // parts
        places = np.searchsorted(self._labelled.ts_ms, edges)
        for part in range(parts):
            rng = np.random.default_rng([self.seed, 1, part])
            rows = background * (part + 1) // parts - background * part // parts
            labelled = _slice(self._labelled, slice(places[part], places[part + 1]))
            normal = self._background(rng, rows, int(edges[part]), int(edges[part + 1]))
            yield _sorted(joined([labelled, normal]))

    def _of_labels(self, rng: np.random.Generator) -> Flows:
        world = 1 << 27
        hosts = self.hosts
        parts = []
        for kind, rates, odds in (
            ("open_bot", (60, 600), (0.25, 0.3)),
            ("blocked_bot", (60, 600), (1.0, 0.0)),
            ("low_rate_bot", (8, 30), (0.25, 0.3)),
            ("worm", (100, 800), (0.95, 0.0)),
            ("mail_server", (50, 400), (0.02, 0.04)),
            ("misconfigured", (6, 60), (1.0, 0.0)),
            ("p2p", (40, 200), (0.5, 0.0)),
        ):
            rate = rng.uniform(*rates, len(hosts[kind])) * self.span / HOUR
            host = np.repeat(np.arange(len(hosts[kind])), rng.poisson(rate))
            rows = len(host)
            proto = np.full(rows, 6)
            dport = np.full(rows, 25)
            target = rng.integers(0, world, rows)
            if kind == "worm":
                dport = rng.choice([135, 139, 445], len(hosts[kind]))[host]
            elif kind == "mail_server":  # its own 400 destinations: the first ones are the large mailbox providers
                known = np.minimum(rng.zipf(1.3, rows), 400)
                target = np.where(known < 20, known, known + 1000 * (host + 1)) % world
            elif kind == "misconfigured":
                target = rng.integers(0, world, len(hosts[kind]))[host]
            elif kind == "p2p":
                dport = rng.integers(1024, 65536, rows)
                proto = np.where(rng.random(rows) < 0.5, 6, 17)
            outcome = _outcomes(rng, rows, *odds)
            time = rng.integers(self.begin, self.begin + self.span, rows)
            parts.append(_flows(rng, time, hosts[kind][host], target, proto, dport, outcome))
        return _sorted(joined(parts))

    def _background(self, rng: np.random.Generator, rows: int, begin: int, end: int) -> Flows:
        service = rng.choice(7, rows, p=[0.45, 0.1, 0.2, 0.2, 0.02, 0.02, 0.01])
        proto = np.array([6, 6, 17, 17, 6, 6, 1])[service]
        dport = np.array([443, 80, 443, 53, 993, 587, 0x0800])[service]
        host = self.normal[rng.integers(0, len(self.normal), rows)]
        target = np.minimum(rng.zipf(1.2, rows), 1 << 22)  # some servers are asked by everybody
        outcome = _outcomes(rng, rows, 0.03, 0.4)
        flows = _flows(rng, rng.integers(begin, end, rows), host, target, proto, dport, outcome)
        answer = (rng.random(rows) < 0.5) & (flows.proto != 1)
        return replace(
            flows,
            src_hi=np.where(answer, flows.dst_hi, flows.src_hi),
            src_lo=np.where(answer, flows.dst_lo, flows.src_lo),
            dst_hi=np.where(answer, flows.src_hi, flows.dst_hi),
            dst_lo=np.where(answer, flows.src_lo, flows.dst_lo),
            sport=np.where(answer, flows.dport, flows.sport),
            dport=np.where(answer, flows.sport, flows.dport),
        )


def address_of(host: int) -> str:
    """The address of a subscriber by its number."""
    if host % 8 == 7:
        return str(ipaddress.IPv6Address(_SUBSCRIBERS6 + int(host) << 64 | 1))
    return str(ipaddress.IPv4Address(_SUBSCRIBERS + int(host)))


def address_text(high: int, low: int) -> str:
    """Two halves, as Flows has them, as canonical text."""
    address = ipaddress.IPv6Address(int(high) << 64 | int(low))
    return str(address.ipv4_mapped or address)


def _outcomes(rng: np.random.Generator, rows: int, silent: float, short: float) -> Array:
    drawn = rng.random(rows)
    return np.where(drawn < silent, _SILENT, np.where(drawn < silent + short, _SHORT, _FULL))


def _flows(
    rng: np.random.Generator, time: Array, host: Array, target: Array, proto: Array, dport: Array, outcome: Array
) -> Flows:
    rows = len(time)
    packets = np.choose(
        outcome, [rng.integers(1, 4, rows), rng.integers(6, 13, rows), rng.integers(13, 80, rows)]
    ).astype("u8")
    each = np.choose(outcome, [np.full(rows, 60), rng.integers(52, 121, rows), rng.integers(300, 1400, rows)])
    v6 = host % 8 == 7
    return Flows(
        ts_ms=time.astype("i8"),
        src_hi=np.where(v6, _SUBSCRIBERS6 + host, 0).astype("u8"),
        src_lo=np.where(v6, 1, V4_MAPPED | (_SUBSCRIBERS + host)).astype("u8"),
        dst_hi=np.where(v6, _WORLD6 + target % 0x7FFF_FFFF, 0).astype("u8"),
        dst_lo=np.where(v6, 25, V4_MAPPED | (_WORLD4 + target)).astype("u8"),
        sport=np.where(proto == 1, 0, rng.integers(1024, 65536, rows)).astype("u2"),
        dport=dport.astype("u2"),
        proto=proto.astype("u1"),
        flags=np.where(proto == 6, np.where(outcome == _SILENT, _SYN, _WHOLE), 0).astype("u1"),
        packets=packets,
        octets=packets * each.astype("u8"),
        forwarding=np.zeros(rows, "u1"),
        sampling=1,
        flags_known=True,
        source="synthetic",
    )


def joined(parts: Iterable[Flows]) -> Flows:
    """Several chunks as one."""
    parts = list(parts)
    return replace(parts[-1], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Flows.KINDS})


def _slice(flows: Flows, rows: slice | Array) -> Flows:
    return replace(flows, **{name: column[rows] for name, column in flows.columns().items()})


def _sorted(flows: Flows) -> Flows:
    return _slice(flows, np.argsort(flows.ts_ms, kind="stable"))


# nfcapd files, layout version 2: the numbers are those of nfcapd.py, written here a second time.

PLAIN, LZ4 = 0, 3
_ELEMENTS = {
    1: [("first", "<u8"), ("last", "<u8"), ("received", "<u8"), ("packets", "<u8"), ("octets", "<u8"), ("sport", "<u2"),
        ("dport", "<u2"), ("proto", "u1"), ("flags", "u1"), ("forwarding", "u1"), ("tos", "u1")],
    2: [("src4", "<u4"), ("dst4", "<u4")],
    3: [("src_hi", "<u8"), ("src_lo", "<u8"), ("dst_hi", "<u8"), ("dst_lo", "<u8")],
    4: [("input", "<u4"), ("output", "<u4"), ("masks", "V8")],
    5: [("flows", "<u8"), ("out_packets", "<u8"), ("out_octets", "<u8")],
    7: [("src_as", "<u4"), ("dst_as", "<u4")],
    12: [("exporter_address", "<u4")],
    99: [("unknown", "V5")],  # no element of nfdump: an odd size
}  # fmt: skip


@dataclass(frozen=True)
class Exporter:
    """Who sends: its number in the file, its sampler (None: it announces none), and what it puts into a flow besides
    times, counters, ports and addresses: elements in the order in which they are written; 0 is the address."""

    number: int = 1
    sampling: int | None = None
    elements: tuple[int, ...] = (1, 0, 4, 12)


def write_nfcapd(
    path: Path | str,
    chunks: Iterable[Flows],
    exporters: tuple[Exporter, ...] = (Exporter(),),
    compression: int = PLAIN,
    block: int = 1 << 20,
) -> int:
    """Write a file as nfcapd 1.7.1 does; returns the number of flows. Rows go to the exporters in turn."""
    totals = _Totals()
    blocks = 0
    with open(path, "wb") as file:
        file.write(bytes(40))
        pending = bytearray()
        records = 0

        def flush() -> None:
            nonlocal pending, records, blocks
            if records:
                file.write(_block(bytes(pending), records, compression))
                blocks += 1
            pending, records = bytearray(), 0

        for exporter in exporters:
            pending += struct.pack("<HHI16sHHI", 7, 32, 10, b"", 2, exporter.number, 1)
            records += 1
            if exporter.sampling is not None:
                pending += struct.pack("<HHHHqII", 15, 24, exporter.number, 0, -2, 1, exporter.sampling - 1)
                records += 1
        for chunk in chunks:
            totals.add(chunk)
            data, starts = _records(chunk, exporters)
            begin = 0
            while begin < len(starts) - 1:
                end = int(np.searchsorted(starts, starts[begin] + block - len(pending), "right")) - 1
                if end <= begin:
                    flush()
                    continue
                pending += data[starts[begin] : starts[end]]
                records += end - begin
                begin = end
        flush()
        appendix = file.tell()
        ident = struct.pack("<HH", 0x8001, 9) + b"none\0"
        file.write(_block(ident + struct.pack("<HH", 0x8002, 148) + totals.packed(), 2, compression))
        file.seek(0)
        file.write(
            struct.pack("<HHIqBBHIqII", 0xA50C, 2, 0x01070100, BEGIN // 1000, compression, 0, 1, 1, appendix, 0, blocks)
        )
    return totals.flows


def _block(data: bytes, records: int, compression: int) -> bytes:
    if compression == LZ4:
        data = lz4.block.compress(data, store_size=False)
    return struct.pack("<IIHH", records, len(data), 3, 0) + data


def _records(flows: Flows, exporters: tuple[Exporter, ...]) -> tuple[memoryview, Array]:
    """The records of a chunk one behind the other, and where each begins, with the end behind."""
    turn = np.arange(len(flows)) % len(exporters)
    v6 = (flows.src_hi != 0) | (flows.src_lo >> 32 != V4_MAPPED >> 32)
    layouts = [(exporter, is_v6, _record_type(exporter, is_v6)) for exporter in exporters for is_v6 in (False, True)]
    sizes = np.array([layout.itemsize for _, _, layout in layouts])[turn * 2 + v6]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    data = np.zeros(starts[-1], "u1")
    for number, (exporter, is_v6, layout) in enumerate(layouts):
        chosen = np.flatnonzero(turn * 2 + v6 == number)
        if not len(chosen):
            continue
        rows = np.zeros(len(chosen), layout)
        rows["type"], rows["size"], rows["count"] = 11, layout.itemsize, len(exporter.elements)
        rows["exporter"], rows["netflow"] = exporter.number, 10
        rows["marks"] = 2 if (exporter.sampling or 1) > 1 else 0
        for element in exporter.elements:
            element = element or (3 if is_v6 else 2)
            rows[f"element{element}"] = element
            rows[f"length{element}"] = np.dtype(_ELEMENTS[element]).itemsize + 4
        part = _slice(flows, chosen)
        rows["first"] = rows["last"] = rows["received"] = part.ts_ms
        for name in ("packets", "octets", "sport", "dport", "proto", "flags", "forwarding"):
            rows[name] = getattr(part, name)
        for name in ("src_hi", "src_lo", "dst_hi", "dst_lo") if is_v6 else ():
            rows[name] = getattr(part, name)
        if not is_v6:
            rows["src4"], rows["dst4"] = part.src_lo & 0xFFFF_FFFF, part.dst_lo & 0xFFFF_FFFF
        places = np.ndarray(len(data) - layout.itemsize + 1, f"V{layout.itemsize}", data, 0, (1,))
        places[starts[chosen]] = rows.view(f"V{layout.itemsize}")
    return memoryview(data), starts


def _record_type(exporter: Exporter, v6: bool) -> np.dtype[Any]:
    parts: list[tuple[str, str]] = [
        ("type", "<u2"), ("size", "<u2"), ("count", "<u2"), ("engine", "<u2"), ("exporter", "<u2"), ("marks", "u1"),
        ("netflow", "u1"),
    ]  # fmt: skip
    for element in exporter.elements:
        element = element or (3 if v6 else 2)
        parts += [(f"element{element}", "<u2"), (f"length{element}", "<u2"), *_ELEMENTS[element]]
    return np.dtype(parts)


class _Totals:
    """stat_record_t: flows, bytes, packets in all and by protocol, first and last."""

    def __init__(self) -> None:
        self.flows = 0
        self.counts = np.zeros((3, 5), "u8")  # flows, bytes, packets × all, TCP, UDP, ICMP, other
        self.first, self.last = (1 << 63) - 1, 0

    def add(self, flows: Flows) -> None:
        if not len(flows):
            return
        kind = np.array([4] * 256)
        kind[[6, 17, 1, 58]] = 1, 2, 3, 3
        kinds = kind[flows.proto]
        for row, values in enumerate((np.ones(len(flows), "u8"), flows.octets, flows.packets)):
            self.counts[row, 0] += values.sum()
            for number in (1, 2, 3, 4):
                self.counts[row, number] += values[kinds == number].sum()
        self.flows += len(flows)
        self.first, self.last = min(self.first, int(flows.ts_ms.min())), max(self.last, int(flows.ts_ms.max()))

    def packed(self) -> bytes:
        order = [*self.counts[:, 0], *self.counts[0, 1:], *self.counts[1, 1:], *self.counts[2, 1:]]
        return struct.pack("<15Q3Q", *map(int, order), self.first, self.last, 0)
