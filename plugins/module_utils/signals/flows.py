# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flow records out of the files of nfdump's collector, in bounded memory: columns of numpy, one chunk after the other.

    nfcapd files ─► read_flows() ─► Flows, Flows, ... ─► a table of the detectors, the replay of the what-if

nfcapd.py reads the layout that nfdump 1.7 writes. What it does not know (another version of the layout, another
compression) it leaves to the program nfdump (nfdump.py); what neither of them reads is a FlowFileError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The upper half of the 64 low bits of an IPv4 address that is written as IPv6 (RFC 4291, section 2.5.5.2).
V4_MAPPED = 0x0000_FFFF_0000_0000

COLUMNS = (
    "ts_ms", "src_hi", "src_lo", "dst_hi", "dst_lo", "sport", "dport", "proto", "flags", "packets", "octets",
    "forwarding",
)  # fmt: skip


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
    packets: NDArray[np.uint64]  # of the subscriber's direction; nfcapd multiplies by the sampling rate where it knows
    octets: NDArray[np.uint64]
    forwarding: NDArray[np.uint8]  # IPFIX forwardingStatus (element 89): 64..127 forwarded, 128..191 dropped, 0 unknown
    sampling: int  # one packet of so many was looked at, the worst of the file's exporters; 1 none, 0 the file says not
    flags_known: bool  # False: an exporter of the file sends TCP flows without their flags, so `flags` says nothing
    source: str  # the file

    def __len__(self) -> int:
        return len(self.ts_ms)

    def where(self, mask: NDArray[np.bool_]) -> Flows:
        """The rows for which the mask is true."""
        raise NotImplementedError


Wanted: TypeAlias = "Callable[[Flows], NDArray[np.bool_]]"


def read_flows(paths: Iterable[str | PathLike[str]], wanted: Wanted | None = None) -> Iterator[Flows]:
    """The flows of all files, one after the other, in chunks of about CHUNK rows.

    `wanted` says of each row of a chunk whether it is of interest, as a mask: it is asked before anything is copied,
    so a filter on port and protocol costs a fraction of reading all. It must look at rows only, not at the facts.
    A directory stands for all files in it and below that nfcapd has finished (nfcapd.YYYYmmddHHMM).

    Raises FlowFileError where a file is missing, foreign, truncated or damaged.
    """
    raise NotImplementedError
