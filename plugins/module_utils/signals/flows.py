# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flow records out of the files of nfdump's collector, in bounded memory: columns of numpy, one chunk after the other.

    nfcapd files ─► read_flows() ─► Flows, Flows, ... ─► a table of the detectors, the replay of the what-if

nfcapd.py reads the layout that nfdump 1.7 writes. What it does not know (another version of the layout, another
compression) it leaves to the program nfdump (nfdump.py); what neither of them reads is a FlowFileError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The upper half of the 64 low bits of an IPv4 address that is written as IPv6 (RFC 4291, section 2.5.5.2).
V4_MAPPED = 0x0000_FFFF_0000_0000

CHUNK = 1 << 18  # rows of a chunk, about: 18 MB

# An exporter whose TCP flows lack flags more often than this does not give them: a bit of tcpControlBits is set where a
# packet of the flow had it (RFC 9565), and only null scans and later fragments have none.
_FLAGLESS = 0.1
_TCP = 6

_FINISHED = re.compile(r"nfcapd\.\d{12,14}")  # what nfcapd renames its file to when it rotates (nfcapd(1))


class FlowFileError(Exception):
    """A file whose flows cannot be read: where, what, and what to do. Flows that came before it are good."""

    def __init__(self, file: str, offset: int, reason: str, mend: str) -> None:
        super().__init__(f"{file}, byte {offset}: {reason}. {mend}")
        self.file = file
        self.offset = offset  # of the block or record in the file
        self.reason = reason
        self.mend = mend


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Flows of one file: arrays of equal length, one row a flow, in the order of the file or nearly so.

    `sampling`, `flags_known` and `source` are facts about the file, as far as it has been read: those of its last
    chunk hold for all of it. Every file ends with a chunk, be it empty, so no file goes by without its facts.
    """

    ts_ms: NDArray[np.int64]  # the first packet was seen, milliseconds since 1970-01-01 UTC
    src_hi: NDArray[np.uint64]  # the upper 64 bits of the source; IPv4 is written as ::ffff:a.b.c.d
    src_lo: NDArray[np.uint64]
    dst_hi: NDArray[np.uint64]
    dst_lo: NDArray[np.uint64]
    sport: NDArray[np.uint16]
    dport: NDArray[np.uint16]  # ICMP: type * 256 + code, as exporters give it
    proto: NDArray[np.uint8]
    flags: NDArray[np.uint8]  # TCP flags of all packets of the flow, or-ed; see flags_known
    packets: NDArray[np.uint64]  # from source to destination; nfcapd multiplies by a sampling rate that it knows
    octets: NDArray[np.uint64]
    # forwardingStatus (RFC 7270): 64..127 forwarded, 128..191 dropped, 0 not given. nfcapd 1.7.1 keeps that of NetFlow
    # v9 and not that of IPFIX, 1.7.5 keeps both.
    forwarding: NDArray[np.uint8]
    # One packet of so many was looked at, by the worst of the file's exporters; 1 none, 0 the file does not say. nfcapd
    # 1.7.1 overlooks what NetFlow v9 and IPFIX exporters announce in options, 1.7.5 does not.
    sampling: int
    flags_known: bool  # False: an exporter of the file sends TCP flows without their flags, so `flags` says nothing
    source: str  # the file

    KINDS: ClassVar[Mapping[str, str]] = {
        "ts_ms": "i8", "src_hi": "u8", "src_lo": "u8", "dst_hi": "u8", "dst_lo": "u8", "sport": "u2", "dport": "u2",
        "proto": "u1", "flags": "u1", "packets": "u8", "octets": "u8", "forwarding": "u1",
    }  # fmt: skip

    def __len__(self) -> int:
        return len(self.ts_ms)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as DuckDB takes them for a table (`SELECT * FROM name_of_the_variable`)."""
        return {name: getattr(self, name) for name in self.KINDS}

    def where(self, mask: NDArray[np.bool_]) -> Flows:
        """The rows for which the mask is true, in arrays of their own."""
        rows = mask.nonzero()[0]
        return self.having({name: column[rows] for name, column in self.columns().items()})

    def having(self, columns: Mapping[str, NDArray[Any]]) -> Flows:
        """Other rows of the same file."""
        return Flows(**columns, sampling=self.sampling, flags_known=self.flags_known, source=self.source)


@dataclass(slots=True)
class FileFacts:
    """What is learned of a file's exporters while it is read."""

    exporters: set[int] = field(default_factory=set)
    samplers: dict[int, int] = field(default_factory=dict)  # exporter: one packet of so many
    tcp: dict[int, int] = field(default_factory=dict)  # exporter: TCP flows
    flagless: dict[int, int] = field(default_factory=dict)  # exporter: those of them that have no flag

    def sampled(self, exporter: int, rate: int) -> None:
        """An exporter announced a sampler; of several the coarsest counts."""
        self.samplers[exporter] = max(rate, self.samplers.get(exporter, 0))

    def count(self, exporters: NDArray[Any], flows: Flows) -> None:
        """Count flows with and without flags. `exporters` says who sent each of them."""
        import numpy as np

        tcp = flows.proto == _TCP
        flagless = tcp & (flows.flags == 0)
        if flagless.any():  # a later fragment has neither ports nor flags, whoever exports it
            fragments = flagless & (flows.sport == 0) & (flows.dport == 0)
            tcp &= ~fragments
            flagless &= ~fragments
        alone = bool(len(flows)) and (exporters == exporters[0]).all()
        for counts, rows in ((self.tcp, tcp), (self.flagless, flagless)):
            if alone:
                found = {int(exporters[0]): np.count_nonzero(rows)}
            else:
                found = dict(enumerate(np.bincount(exporters[rows])))
            for exporter, number in found.items():
                if number:
                    counts[exporter] = counts.get(exporter, 0) + int(number)

    @property
    def sampling(self) -> int:
        """As in Flows: 1 only where every exporter says so."""
        worst = max(self.samplers.values(), default=0)
        return worst if worst > 1 or self.exporters <= set(self.samplers) else 0

    @property
    def flags_known(self) -> bool:
        """As in Flows."""
        return all(self.flagless.get(exporter, 0) <= _FLAGLESS * flows for exporter, flows in self.tcp.items())


Wanted: TypeAlias = "Callable[[Flows], NDArray[np.bool_]]"


def read_flows(paths: Iterable[str | PathLike[str]], wanted: Wanted | None = None) -> Iterator[Flows]:
    """The flows of all files, one after the other, in chunks of about CHUNK rows.

    `wanted` says of each row of a chunk whether it is of interest, as a mask: it is asked block by block, so what is
    of no interest takes no memory. It must look at rows only, not at the facts.
    A directory stands for the files in it, as finished() says.

    Raises FlowFileError where a file is missing, foreign, truncated or damaged.
    """
    from ansible_collections.isp.hardening.plugins.module_utils.signals import nfcapd, nfdump

    for path in finished(paths):
        try:
            found = nfcapd.survey(path)
        except nfcapd.OtherLayout as other:
            yield from _chunks(nfdump.read(path, wanted, str(other)))
        else:
            yield from _chunks(nfcapd.read(found, wanted))


def finished(paths: Iterable[str | PathLike[str]]) -> Iterator[str]:
    """The files that are meant, by time: for a directory those in it and below that nfcapd writes no more.

    Raises FlowFileError for a directory without any, or with one in it that cannot be read.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield os.fspath(path)
            continue
        files = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(path, onerror=_unreadable)
            for name in names
            if _FINISHED.fullmatch(name)
        ]
        if not files:
            raise FlowFileError(
                os.fspath(path),
                0,
                "no finished file of nfcapd in this directory",
                "Give the directory nfcapd writes to",
            )
        yield from sorted(files, key=lambda file: (os.path.basename(file), file))


def _unreadable(error: OSError) -> None:
    raise FlowFileError(str(error.filename), 0, (error.strerror or "cannot be read").lower(), "Mend path or mode")


def _chunks(parts: Iterator[Flows]) -> Iterator[Flows]:
    """The parts of one file in full chunks, and the rest. Parts are copied at once: they are views of a block."""
    import numpy as np

    columns: dict[str, NDArray[Any]] = {}
    rows = 0
    for part in parts:
        done = 0
        while done < len(part):
            if rows == 0:
                columns = {name: np.empty(CHUNK, kind) for name, kind in Flows.KINDS.items()}
            more = min(CHUNK - rows, len(part) - done)
            for name, column in columns.items():
                column[rows : rows + more] = getattr(part, name)[done : done + more]
            rows, done = rows + more, done + more
            if rows == CHUNK:
                yield part.having(columns)
                rows = 0
    kinds = Flows.KINDS.items()
    yield part.having({name: columns[name][:rows] if rows else np.empty(0, kind) for name, kind in kinds})
