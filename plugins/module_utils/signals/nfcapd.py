# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of nfdump's collector, layout version 2 with extension records version 3, as nfdump 1.7 writes them.

    file header 40 bytes │ block header 12, records │ block header 12, records │ ... │ appendix blocks (totals)

What is where: nfdump's nffileV2.h, nfxV3.h, id.h and exporter.h, and files that nfcapd 1.7.1 and nfdump 1.7.1 wrote.
All numbers are little-endian here; a file of a big-endian collector is refused.

A block is one array of 16-bit words at first: whatever could be the header of a flow record is a candidate, and the
records are those candidates that a chain of record sizes reaches from the first byte of the block. So each record's
header is verified without a loop over records. Records of one size are one array of structures then, and each of
their element headers is compared with those of the first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from typing import Any, NoReturn

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
_BLOCK_BYTES = 5 << 20  # nfdump's own buffer: no block is longer when it is unpacked

_FLOW, _EXPORTER_INFO, _OLD_SAMPLER_INFO, _SAMPLER_INFO = 11, 7, 9, 15
_NO_FLOWS = (8, 12, 13, 14)  # totals of exporters, names of applications, interfaces, VRFs
_FLOW_HEADER = 12  # type, size, elements, engine type and id, exporter, flags, version of NetFlow
_GENERIC, _IPV4, _IPV6 = 1, 2, 3
_ELEMENT_BYTES = {_GENERIC: 52, _IPV4: 12, _IPV6: 36}
_SMALLEST = _FLOW_HEADER + _ELEMENT_BYTES[_GENERIC]  # what is shorter is verified one by one

# Where the columns are in an element, its header of 4 bytes included.
_FIELDS = {
    _GENERIC: (
        ("ts_ms", "<u8", 4), ("packets", "<u8", 28), ("octets", "<u8", 36), ("sport", "<u2", 44), ("dport", "<u2", 46),
        ("proto", "u1", 48), ("flags", "u1", 49), ("forwarding", "u1", 50),
    ),
    _IPV4: (("src4", "<u4", 4), ("dst4", "<u4", 8)),
    _IPV6: (("src_hi", "<u8", 4), ("src_lo", "<u8", 12), ("dst_hi", "<u8", 20), ("dst_lo", "<u8", 28)),
}  # fmt: skip

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Survey:
    """A file whose headers are all sound: where its blocks of records are."""

    path: str
    compressed: bool
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
            _refuse(path, 0, "written on a machine of the other byte order", "Read it with nfdump on such a machine")
        if magic != _MAGIC:
            _refuse(path, 0, "no file of nfdump's collector", "Give files that nfcapd has written")
        if layout != 2:
            raise OtherLayout(f"layout version {layout}")
        if len(header) < _FILE.size:
            _truncated(path, len(header), "the file header is cut short")
        _, _, version, _, compression, encryption, _, _, appendix, _, count = _FILE.unpack(header)
        if version >> 16 & 0xFFF != 0x107:
            raise OtherLayout(f"layout version 2 of nfdump {version >> 24 & 0xF}.{version >> 16 & 0xFF}")
        if encryption or compression not in (_PLAIN, _LZ4):
            raise OtherLayout(
                "encryption" if encryption else f"compression {_COMPRESSIONS.get(compression, compression)}"
            )
        if appendix == 0:
            _refuse(path, 0, "not finished: nfcapd writes to it, or was killed", "Wait until nfcapd has rotated it")
        blocks: list[tuple[int, int, int, bool]] = []
        offset = _FILE.size
        for _ in range(count):
            file.seek(offset)
            block = file.read(_BLOCK.size)
            if len(block) < _BLOCK.size:
                _truncated(path, offset, f"block {len(blocks) + 1} of {count} is missing")
            records, octets, kind, flags = _BLOCK.unpack(block)
            if kind != 3:
                raise OtherLayout(f"block type {kind} at byte {offset}")
            start, offset = offset + _BLOCK.size, offset + _BLOCK.size + octets
            if offset > size:
                _truncated(path, start, f"block {len(blocks) + 1} of {count} is cut short")
            blocks.append((start, octets, records, compression == _LZ4 and not flags & _BLOCK_PLAIN))
        if offset != appendix or appendix >= size:
            _truncated(path, offset, f"the blocks end at byte {offset}, the header says {appendix} of {size}")
        return Survey(path, compression == _LZ4, tuple(blocks))


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
                _truncated(found.path, offset, "the file has become shorter")
            if compressed:
                block = _unpacked(found.path, offset, block)
            for rows in _tables(found.path, offset, block, count, facts):
                flows = _flows(rows, facts, found.path)
                facts.count(rows["exporter"], flows)
                flows = flows if wanted is None else flows.where(wanted(flows))
                if len(flows):
                    yield flows
    yield empty(facts, found.path)


def empty(facts: FileFacts, path: str) -> Flows:
    """No flows, and all facts of the file."""
    return _flows(np.zeros(0, _layout(bytes(_FLOW_HEADER), _FLOW_HEADER)), facts, path)


def _tables(path: str, place: int, block: bytes, count: int, facts: FileFacts) -> Iterator[Array]:
    """The flow records of a block as arrays of structures, one for each size and map of elements."""
    starts, sizes = _flow_records(path, place, block, count, facts)
    for size in np.flatnonzero(np.bincount(sizes)).tolist():
        chosen = starts[sizes == size]
        while len(chosen):
            first = int(chosen[0])
            try:
                layout = _layout(block[first : first + size], size)
            except ValueError as error:
                _refuse(path, place, f"record at byte {first} of the block: {error}", _DAMAGED)
            if chosen[-1] - first == (len(chosen) - 1) * size:  # nothing in between
                rows: Array = np.ndarray(len(chosen), layout, block, first)
            else:
                rows = np.ndarray(len(block) - size + 1, layout, block, 0, (1,))[chosen]
            same = np.ones(len(rows), bool)
            for name in layout.names or ():
                if name.startswith("head"):
                    same &= rows[name] == rows[name][0]
            if same.all():
                yield rows
                break
            yield rows[same]
            chosen = chosen[~same]


def _flow_records(path: str, place: int, block: bytes, count: int, facts: FileFacts) -> tuple[Array, Array]:
    """Offsets and sizes of a block's flow records; the other records go into the facts."""
    words = np.frombuffer(block, "<u2", len(block) // 4 * 2)
    # Every record that nfcapd writes is a multiple of 4 bytes; one that is not leads to the slow branch below.
    candidates = np.flatnonzero((words[0::2] == _FLOW) & (words[1::2] >= _SMALLEST)) * 4
    sizes = words[candidates // 2 + 1].astype(np.int64)
    breaks = np.flatnonzero(candidates[:-1] + sizes[:-1] != candidates[1:])  # last candidate of each chain
    breaks = np.append(breaks, len(candidates) - 1)
    starts: list[Array] = []
    lengths: list[Array] = []
    position = found = 0
    while position < len(block):
        index = int(np.searchsorted(candidates, position))
        if index < len(candidates) and candidates[index] == position:
            last = int(breaks[np.searchsorted(breaks, index)])
            starts.append(candidates[index : last + 1])
            lengths.append(sizes[index : last + 1])
            position = int(candidates[last] + sizes[last])
            found += last + 1 - index
            continue
        kind, size = _RECORD.unpack_from(block, position) if position + _RECORD.size <= len(block) else (0, 0)
        if size < _RECORD.size or position + size > len(block):
            _refuse(path, place, f"no record at byte {position} of the block", _DAMAGED)
        if kind == _FLOW and size >= _FLOW_HEADER:
            starts.append(np.array([position]))
            lengths.append(np.array([size]))
        elif not _noted(kind, block[position : position + size], facts):
            _refuse(path, place, f"record type {kind} at byte {position} of the block", "Read it with a newer release")
        position += size
        found += 1
    if position != len(block) or found != count:
        _refuse(path, place, f"{count} records announced, {found} found, {position} of {len(block)} bytes", _DAMAGED)
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


@lru_cache(64)
def _layout(record: bytes, size: int) -> np.dtype[Any]:
    """Where the columns of records like this one are. Raises ValueError where the elements are not as they must be."""
    names, formats, offsets = ["head", "exporter"], ["<u4", "<u2"], [0, 8]
    names.append("head_elements")
    formats.append("<u2")
    offsets.append(4)
    place = _FLOW_HEADER
    for number in range(struct.unpack_from("<H", record, 4)[0]):
        if place + _RECORD.size > size:
            raise ValueError(f"element {number + 1} is outside of it")
        kind, length = _RECORD.unpack_from(record, place)
        if length < _RECORD.size or place + length > size:
            raise ValueError(f"element {number + 1} is of {length} bytes")
        if length != _ELEMENT_BYTES.get(kind, length):
            raise ValueError(f"element {kind} is of {length} bytes instead of {_ELEMENT_BYTES[kind]}")
        names.append(f"head_{number}")
        formats.append("<u4")
        offsets.append(place)
        for name, form, offset in _FIELDS.get(kind, ()):
            if name in names:
                raise ValueError(f"element {kind} is there twice")
            names.append(name)
            formats.append(form)
            offsets.append(place + offset)
        place += length
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _flows(rows: Array, facts: FileFacts, path: str) -> Flows:
    """Records of one layout as columns: views into the block wherever the file has the numbers as they are wanted.

    An element that is not there is zero in every column, as it is for nfdump.
    """
    names = rows.dtype.names or ()
    columns: dict[str, Array] = {}
    for name, kind in Flows.KINDS.items():
        if name == "ts_ms" and name in names:
            columns[name] = rows[name].view("<i8")
        elif name in names:
            columns[name] = rows[name]
        elif name.endswith("_lo") and "src4" in names:
            columns[name] = rows[f"{name[:3]}4"].astype(np.uint64) | np.uint64(V4_MAPPED)
        else:
            columns[name] = np.broadcast_to(np.zeros((), kind), len(rows))
    return Flows(**columns, sampling=facts.sampling, flags_known=facts.flags_known, source=path)


def _unpacked(path: str, offset: int, block: bytes) -> bytes:
    import lz4.block  # type: ignore[import-untyped]

    try:
        unpacked: bytes = lz4.block.decompress(block, uncompressed_size=_BLOCK_BYTES)
    except lz4.block.LZ4BlockError as error:
        _refuse(path, offset, f"the block cannot be unpacked ({error})", _DAMAGED)
    return unpacked


_DAMAGED = "The file is damaged: leave it out, and look at disk and collector"


def _open(path: str) -> BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise FlowFileError(path, 0, (error.strerror or "cannot be opened").lower(), "Mend path or mode") from error


def _truncated(path: str, offset: int, reason: str) -> NoReturn:
    _refuse(path, offset, f"truncated: {reason}", "Copy it again, or leave it out; nothing of it was used")


def _refuse(path: str, offset: int, reason: str, mend: str) -> NoReturn:
    raise FlowFileError(path, offset, reason, mend)
