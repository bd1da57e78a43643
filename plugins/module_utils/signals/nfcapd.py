# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of nfdump's collector, layout version 2 with extension records version 3, as nfdump 1.7 writes them.

    file header 40 bytes │ block header 12, records │ block header 12, records │ ... │ appendix blocks (totals)

What is where: nfdump's nffileV2.h, nfxV3.h, id.h and exporter.h, and files that nfcapd 1.7.1 and nfdump 1.7.1 wrote.
All numbers are little-endian here; a file of a big-endian collector is refused.

A block is one array of words at first: whatever could be the header of a flow record is a candidate, and the
records are those candidates that a chain of record sizes reaches from the first byte of the block. So each record's
header is verified without a loop over records. Records of one size are the rows of a matrix then, and each of their
element headers is compared with those of the first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import (
    V4_MAPPED,
    FileFacts,
    FlowFileError,
    Flows,
    Wanted,
)

_MAGIC, _MAGIC_SWAPPED = 0xA50C, 0x0CA5
# magic, layout, version of nfdump, created, compression, encryption, appendix blocks, creator, offset of the appendix,
# block size, blocks
_FILE = struct.Struct("<HHIqBBHIqII")
_BLOCK = struct.Struct("<IIHH")  # records, bytes without this header, type, flags
_RECORD = struct.Struct("<HH")  # type, bytes with this header
_SAMPLER = struct.Struct("<HHHHqII")  # type, size, exporter, algorithm, id, packet interval, packet space
_OLD_SAMPLER = struct.Struct("<HHiIHH")  # type, size, id, interval, algorithm, exporter
_EXPORTER = struct.Struct("<HHI16sHHI")  # type, size, version, address, family, exporter, id

_PLAIN, _LZ4 = 0, 3
_COMPRESSIONS = {0: "none", 1: "LZO", 2: "bzip2", 3: "LZ4", 4: "Zstandard"}
_BLOCK_PLAIN = 1  # flag of a block that is not compressed though the file is
_BLOCK_BYTES = 5 << 20  # nfdump's own buffer: no block is longer, packed or not

_FLOW, _EXPORTER_INFO, _OLD_SAMPLER_INFO, _SAMPLER_INFO = 11, 7, 9, 15
_NO_FLOWS = (8, 12, 13, 14)  # totals of exporters, names of applications, interfaces, VRFs
_FLOW_HEADER = 12  # type, size, elements, engine type and id, exporter, flags, version of NetFlow
_GENERIC, _IPV4, _IPV6 = 1, 2, 3
_ELEMENT_BYTES = {_GENERIC: 52, _IPV4: 12, _IPV6: 36}
_SMALLEST = _FLOW_HEADER + _ELEMENT_BYTES[_GENERIC]  # what is shorter, or longer than nfdump's MAXRECORDSIZE, is
_LARGEST = 1024  # verified one by one

# Where the columns are in an element, its header of 4 bytes included.
_FIELDS = {
    _GENERIC: (
        ("ts_ms", "<i8", 4), ("packets", "<u8", 28), ("octets", "<u8", 36), ("sport", "<u2", 44), ("dport", "<u2", 46),
        ("proto", "u1", 48), ("flags", "u1", 49), ("forwarding", "u1", 50),
    ),
    _IPV6: (("src_hi", "<u8", 4), ("src_lo", "<u8", 12), ("dst_hi", "<u8", 20), ("dst_lo", "<u8", 28)),
    _IPV4: (("src4", "<u4", 4), ("dst4", "<u4", 8)),
}  # fmt: skip

_DAMAGED = "The file is damaged: leave it out, and look at disk and collector"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Survey:
    """A file whose headers are all sound: where its blocks of records are."""

    path: str
    blocks: tuple[tuple[int, int, int, bool], ...]  # offset of the records, bytes in the file, records, compressed


class OtherLayout(Exception):
    """An nfdump file that this reader does not know: a reason in words. The program nfdump may read it."""


def survey(path: str) -> Survey:
    """Look at the header of the file and of every block in it: nothing of a truncated file is ever given out.

    Raises OtherLayout where nfdump may know better, FlowFileError where the file is none of nfdump's, or damaged.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_FILE.size)
        magic, layout = struct.unpack_from("<HH", header) if len(header) >= 4 else (0, 0)
        if magic == _MAGIC_SWAPPED:
            raise FlowFileError(
                path, 0, "written on a machine of the other byte order", "Read it with nfdump on such a machine"
            )
        if magic != _MAGIC:
            raise FlowFileError(path, 0, "no file of nfdump's collector", "Give files that nfcapd has written")
        if layout != 2:
            raise OtherLayout(f"layout version {layout}")
        if len(header) < _FILE.size:
            raise _truncated(path, len(header), "the file header is cut short")
        _, _, version, _, compression, encryption, _, _, appendix, _, count = _FILE.unpack(header)
        if version >> 16 & 0xFFF != 0x107:
            raise OtherLayout(f"layout version 2 of nfdump {version >> 24 & 0xF}.{version >> 16 & 0xFF}")
        if encryption or compression not in (_PLAIN, _LZ4):
            raise OtherLayout(
                "encryption" if encryption else f"compression {_COMPRESSIONS.get(compression, compression)}"
            )
        if compression == _LZ4 and find_spec("lz4") is None:
            raise OtherLayout("compression LZ4, for which Python's package lz4 is absent")
        if appendix == 0:
            raise FlowFileError(
                path, 0, "not finished: nfcapd writes to it, or was killed", "Wait until nfcapd has rotated it"
            )
        blocks: list[tuple[int, int, int, bool]] = []
        offset = _FILE.size
        for _ in range(count):
            file.seek(offset)
            block = file.read(_BLOCK.size)
            if len(block) < _BLOCK.size:
                raise _truncated(path, offset, f"block {len(blocks) + 1} of {count} is missing")
            records, octets, kind, flags = _BLOCK.unpack(block)
            if kind != 3:
                raise OtherLayout(f"block type {kind} at byte {offset}")
            if octets > _BLOCK_BYTES:
                raise FlowFileError(path, offset, f"a block of {octets:,} bytes, which nfdump never writes", _DAMAGED)
            start, offset = offset + _BLOCK.size, offset + _BLOCK.size + octets
            if offset > size:
                raise _truncated(path, start, f"block {len(blocks) + 1} of {count} is cut short")
            blocks.append((start, octets, records, compression == _LZ4 and not flags & _BLOCK_PLAIN))
        if offset != appendix or appendix >= size:
            raise _truncated(path, offset, f"the blocks end at byte {offset}, the header says {appendix} of {size}")
        return Survey(path, tuple(blocks))


def read(found: Survey, wanted: Wanted | None) -> Iterator[Flows]:
    """The flows of a file, some chunks for each block of it; the last one may be empty.

    Raises FlowFileError at the first record that does not hold what its header says.
    """
    facts = FileFacts()
    with _open(found.path) as file:
        for offset, octets, count, compressed in found.blocks:
            file.seek(offset)
            block = file.read(octets)
            if len(block) < octets:
                raise _truncated(found.path, offset, "the file has become shorter")
            if compressed:
                block = _unpacked(found.path, offset, block)
            for rows, elements in _alike(found.path, offset, block, count, facts):
                flows = _flows(rows, elements, facts, found.path)
                facts.count(_column(rows, 8, "<u2"), flows)
                flows = flows if wanted is None else flows.where(wanted(flows))
                if len(flows):
                    yield flows
    yield _flows(np.zeros((0, _FLOW_HEADER), "u1"), {}, facts, found.path)


def _column(rows: Array, offset: int, kind: str) -> Array:
    """The numbers of a kind at this offset of every record: a view, whatever their alignment."""
    column: Array = rows[:, offset : offset + np.dtype(kind).itemsize].view(kind)[:, 0]
    return column


def _alike(path: str, place: int, block: bytes, count: int, facts: FileFacts) -> Iterator[tuple[Array, dict[int, int]]]:
    """The flow records of a block, those of one size and with the same elements as one matrix of bytes, a row a record.

    With each the places of those elements that become columns.
    """
    starts, sizes = _flow_records(path, place, block, count, facts)
    while len(starts):
        size = int(sizes[0])
        same = sizes == size
        if same.all():
            chosen, starts = starts, starts[:0]
        else:
            chosen, starts, sizes = starts[same], starts[~same], sizes[~same]
        first, number = int(chosen[0]), len(chosen)
        if chosen[-1] - first == (number - 1) * size:  # nothing in between
            rows: Array = np.ndarray((number, size), "u1", block, first)
        else:
            everywhere: Array = np.ndarray(len(block) - size + 1, f"V{size}", block, 0, (1,))
            rows = everywhere[chosen].view("u1").reshape(number, size)
        while len(rows):
            try:
                heads, elements = _elements(rows[0].tobytes())
            except ValueError as error:
                raise FlowFileError(
                    path, place, f"a record of {size} bytes, from byte {first} of the block on: {error}", _DAMAGED
                ) from None
            counts = _column(rows, 4, "<u2")
            same = counts == counts[0]
            for head in heads:
                words = _column(rows, head, "<u4")
                same &= words == words[0]
            if same.all():
                yield rows, elements
                break
            yield rows[same], elements
            rows = rows[~same]


def _flow_records(path: str, place: int, block: bytes, count: int, facts: FileFacts) -> tuple[Array, Array]:
    """Offsets and sizes of a block's flow records; the other records go into the facts."""
    words = np.frombuffer(block, "<u4", len(block) // 4)
    kind, size = _RECORD.unpack_from(block) if len(words) else (0, 0)
    usual = kind == _FLOW and size >= _SMALLEST and size % 4 == 0 and size * count == len(block)
    if usual and (words[:: size // 4] == words[0]).all():  # nothing but flows of one size
        return np.arange(0, len(block), size), np.full(count, size)
    # Every record that nfcapd writes is a multiple of 4 bytes; one that is not leads to the slow branch below.
    candidates = np.flatnonzero(words & 0xFFFF == _FLOW)
    sizes = words[candidates] >> 16
    likely = (sizes >= _SMALLEST) & (sizes <= _LARGEST)
    if not likely.all():
        candidates, sizes = candidates[likely], sizes[likely]
    candidates <<= 2
    ends = candidates + sizes
    breaks = np.append(np.flatnonzero(ends[:-1] != candidates[1:]), len(candidates) - 1)  # the last ones of chains
    starts: list[Array] = []
    lengths: list[Array] = []
    position = found = 0
    while position < len(block):
        index = int(np.searchsorted(candidates, position))
        if index < len(candidates) and candidates[index] == position:
            last = int(breaks[np.searchsorted(breaks, index)])
            starts.append(candidates[index : last + 1])
            lengths.append(sizes[index : last + 1])
            position = int(ends[last])
            found += last + 1 - index
            continue
        kind, size = _RECORD.unpack_from(block, position) if position + _RECORD.size <= len(block) else (0, 0)
        if size < _RECORD.size or position + size > len(block):
            raise FlowFileError(path, place, f"no record at byte {position} of the block", _DAMAGED)
        if kind == _FLOW and size >= _FLOW_HEADER:
            starts.append(np.array([position]))
            lengths.append(np.array([size]))
        elif not _noted(kind, block[position : position + size], facts):
            raise FlowFileError(
                path, place, f"record type {kind} at byte {position} of the block", "Read it with a newer release"
            )
        position += size
        found += 1
    if position != len(block) or found != count:
        raise FlowFileError(
            path, place, f"{count} records announced, {found} found, {position} of {len(block)} bytes", _DAMAGED
        )
    if not starts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(starts), np.concatenate(lengths)


def _noted(kind: int, record: bytes, facts: FileFacts) -> bool:
    """Whether a record that is no flow is known; what it says of exporter and sampling is in the facts then."""
    if kind == _EXPORTER_INFO and len(record) == _EXPORTER.size:
        facts.exporters.add(_EXPORTER.unpack(record)[5])
    elif kind == _SAMPLER_INFO and len(record) == _SAMPLER.size:
        _, _, exporter, _, _, interval, space = _SAMPLER.unpack(record)
        facts.sampled(exporter, (interval + space) // max(interval, 1))
    elif kind == _OLD_SAMPLER_INFO and len(record) == _OLD_SAMPLER.size:
        _, _, _, interval, _, exporter = _OLD_SAMPLER.unpack(record)
        facts.sampled(exporter, interval)
    else:
        return kind in _NO_FLOWS
    return True


def _elements(record: bytes) -> tuple[list[int], dict[int, int]]:
    """Where the headers of a record's elements are, and where those are that become columns.

    Raises ValueError where an element is not as it must be.
    """
    heads: list[int] = []
    elements: dict[int, int] = {}
    place = _FLOW_HEADER
    for number in range(struct.unpack_from("<H", record, 4)[0]):
        if place + _RECORD.size > len(record):
            raise ValueError(f"element {number + 1} is outside of it")
        kind, length = _RECORD.unpack_from(record, place)
        if length < _RECORD.size or place + length > len(record):
            raise ValueError(f"element {number + 1} is of {length} bytes")
        heads.append(place)
        if kind in _ELEMENT_BYTES:
            if length != _ELEMENT_BYTES[kind]:
                raise ValueError(f"element {kind} is of {length} bytes instead of {_ELEMENT_BYTES[kind]}")
            if kind in elements:
                raise ValueError(f"element {kind} is there twice")
            elements[kind] = place
        place += length
    return heads, elements


def _flows(rows: Array, elements: dict[int, int], facts: FileFacts, path: str) -> Flows:
    """Records with the same elements as columns, views where it can be. What no element gives is zero."""
    columns: dict[str, Array] = {}
    for element, fields in _FIELDS.items():
        if place := elements.get(element):
            columns |= {name: _column(rows, place + offset, kind) for name, kind, offset in fields}
    if "src4" in columns:
        columns["src_lo"] = columns.pop("src4") | np.uint64(V4_MAPPED)
        columns["dst_lo"] = columns.pop("dst4") | np.uint64(V4_MAPPED)
    for name, kind in Flows.KINDS.items():
        if name not in columns:
            columns[name] = np.broadcast_to(np.zeros((), kind), len(rows))
    return Flows(**columns, sampling=facts.sampling, flags_known=facts.flags_known, source=path)


def _unpacked(path: str, offset: int, block: bytes) -> bytes:
    import lz4.block  # type: ignore[import-untyped]  # lz4 ships no types

    try:
        unpacked: bytes = lz4.block.decompress(block, uncompressed_size=_BLOCK_BYTES)
    except lz4.block.LZ4BlockError as error:
        raise FlowFileError(path, offset, f"the block cannot be unpacked ({error})", _DAMAGED) from None
    return unpacked


def _open(path: str) -> BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise FlowFileError(path, 0, (error.strerror or "cannot be opened").lower(), "Mend path or mode") from error


def _truncated(path: str, offset: int, reason: str) -> FlowFileError:
    return FlowFileError(path, offset, f"truncated: {reason}", "Copy it again, or leave it out; nothing of it was used")
