# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flow files through the program nfdump: for what nfcapd.py leaves to it, as LZO, bzip2 and files of nfdump 1.6.

Two machine formats, by version (`nfdump -V`): `-o pipe` of 1.7.0 and 1.7.1 (Debian 12), and `-o csv-fast` from 1.7.5 on
(Debian 13; output_pipe.c and output_csv_fast.c of nfdump), which has no pipe any more. What the releases in between
print is not known, so they are refused. `-o fmt:` serves for nothing here: `%ter` of 1.7.1 misprints the milliseconds.

Neither format has forwardingStatus. For a tunnelled packet `pipe` prints a flow of no packets and bytes besides.
"""

from __future__ import annotations

import csv
import ipaddress
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import (
    V4_MAPPED,
    FileFacts,
    FlowFileError,
    Flows,
    Wanted,
)

_VERSION = re.compile(r"Version: (?:NSEL-NEL)?(\d+)\.(\d+)\.(\d+)")
_SAMPLER = re.compile(r"packet interval: (\d+), packet space: (\d+)")
_BYTES = 1 << 20  # of nfdump's output at a time

# af, first, last, proto, 4 words of the source, port, 4 words of the destination, port, two AS, two interfaces, flags,
# TOS, packets, bytes
_PIPE_FIELDS = 22
_NO_FLOWS = b"No matching flows\n"  # in the place of lines
_CSV_HEADER = (
    "cnt,af,firstSeen,lastSeen,proto,srcAddr,srcPort,dstAddr,dstPort,srcAS,dstAS,input,output,flags,srcTos,packets,"
    "bytes"
)
_FLAG_BITS = {"C": 128, "E": 64, "U": 32, "A": 16, "P": 8, "R": 4, "S": 2, "F": 1, ".": 0}  # FlagsString(), RFC 9293
_AF_INET6 = 10
_IPV4_BITS = np.uint64(V4_MAPPED)

Array = NDArray[Any]


def read(path: str, wanted: Wanted | None, why: str) -> Iterator[Flows]:
    """The flows of a file that nfcapd.py does not read for the reason `why`; the last chunk may be empty.

    Raises FlowFileError where nfdump is absent, of a version that is not known, or complains about the file.
    """
    form = _form(path, why)
    facts = FileFacts()
    _samplers(path, why, facts)
    with tempfile.TemporaryFile() as complaints:
        command = ["nfdump", "-C", "none", "-q", "-r", path, "-o", form]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process:
            assert process.stdout is not None
            for rows in _pipe(process.stdout, path) if form == "pipe" else _csv(process.stdout, path):
                flows = _flows(rows, facts, path)
                facts.count(np.zeros(len(flows), np.uint16), flows)
                yield flows if wanted is None else flows.where(wanted(flows))
        complaints.seek(0)
        complaint = complaints.read().decode(errors="replace").strip()
    if process.returncode or complaint:
        raise FlowFileError(
            path, 0, f"nfdump says: {complaint or f'exit code {process.returncode}'}", "Leave the file out"
        )
    yield _flows({name: np.zeros(0, kind) for name, kind in Flows.KINDS.items()}, facts, path)


def _form(path: str, why: str) -> str:
    """The machine format of the nfdump that is installed."""
    text = _output(["nfdump", "-V"], path, why)
    found = _VERSION.search(text)
    if not found:
        raise FlowFileError(
            path, 0, f"{why}, and no version in what nfdump says: {text.strip()[:80]}", "Install nfdump 1.7.1 or 1.7.5"
        )
    version = tuple(int(part) for part in found.groups())
    if (1, 7, 0) <= version <= (1, 7, 1):
        return "pipe"
    if (1, 7, 5) <= version < (1, 8, 0):
        return "csv-fast"
    shown = ".".join(found.groups())
    raise FlowFileError(
        path, 0, f"{why}, and what nfdump {shown} prints is not known", "Use nfdump 1.7.1 or 1.7.5, or LZ4 (nfcapd -y)"
    )


def _samplers(path: str, why: str, facts: FileFacts) -> None:
    for line in _output(["nfdump", "-C", "none", "-E", path], path, why).splitlines():
        if line.startswith("SysID:"):
            facts.exporters.add(len(facts.exporters))
        elif found := _SAMPLER.search(line):
            interval, space = int(found[1]), int(found[2])
            facts.sampled(max(len(facts.exporters) - 1, 0), (interval + space) // max(interval, 1))


def _pipe(stream: IO[bytes], path: str) -> Iterator[dict[str, Array]]:
    """Lines of numbers: what is no number, or one too many, is refused."""
    for text in _lines(stream):
        try:
            table = np.array(text.replace(b"\n", b"|").split(b"|")[:-1], dtype="S20").astype(np.uint64)
            table = table.reshape(text.count(b"\n"), _PIPE_FIELDS)
        except ValueError:
            raise _foreign(path, text) from None
        v6 = table[:, 0] == _AF_INET6
        high, low = table[:, (4, 9)] << 32 | table[:, (5, 10)], table[:, (6, 11)] << 32 | table[:, (7, 12)]
        low = np.where(v6[:, None], low, low | _IPV4_BITS)
        yield {
            "ts_ms": table[:, 1], "src_hi": high[:, 0], "src_lo": low[:, 0], "dst_hi": high[:, 1], "dst_lo": low[:, 1],
            "sport": table[:, 8], "dport": table[:, 13], "proto": table[:, 3], "flags": table[:, 18],
            "packets": table[:, 20], "octets": table[:, 21],
        }  # fmt: skip


def _csv(stream: IO[bytes], path: str) -> Iterator[dict[str, Array]]:
    """Lines below a header of which every word is known."""
    header = stream.readline()
    if header and header.decode(errors="replace").strip() != _CSV_HEADER:
        raise _foreign(path, header)
    for text in _lines(stream):
        try:
            table = list(zip(*csv.reader(text.decode("ascii").splitlines()), strict=True))
            _, _, first, _, proto, src, sport, dst, dport, _, _, _, _, flags, _, packets, octets = table
            (src_hi, src_lo), (dst_hi, dst_lo) = (zip(*map(_address, column), strict=True) for column in (src, dst))
            yield {
                "ts_ms": _numbers(first), "src_hi": np.array(src_hi, "u8"), "src_lo": np.array(src_lo, "u8"),
                "dst_hi": np.array(dst_hi, "u8"), "dst_lo": np.array(dst_lo, "u8"), "sport": _numbers(sport),
                "dport": _numbers(dport), "proto": _numbers(proto), "flags": np.array([_flags(text) for text in flags]),
                "packets": _numbers(packets), "octets": _numbers(octets),
            }  # fmt: skip
        except (ValueError, KeyError):
            raise _foreign(path, text) from None


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, about _BYTES of them at a time."""
    rest = b""
    while text := stream.read(_BYTES):
        text, newline, rest = (rest + text).rpartition(b"\n")
        if text and text + newline != _NO_FLOWS:
            yield text + newline
    if rest:
        yield rest + b"\n"


def _numbers(texts: tuple[str, ...]) -> Array:
    return np.array(texts, "S20").astype(np.uint64)


@lru_cache(1 << 16)
def _address(text: str) -> tuple[int, int]:
    """Both halves of an address, IPv4 mapped. Raises ValueError."""
    address = ipaddress.ip_address(text)
    number = int(address) if address.version == 6 else V4_MAPPED | int(address)
    return number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF


@lru_cache(256)
def _flags(text: str) -> int:
    return sum(_FLAG_BITS[letter] for letter in text)


def _flows(columns: dict[str, Array], facts: FileFacts, path: str) -> Flows:
    rows = len(columns["ts_ms"])
    cast = {name: columns.get(name, np.zeros(rows)).astype(kind) for name, kind in Flows.KINDS.items()}
    return Flows(**cast, sampling=facts.sampling, flags_known=facts.flags_known, source=path)


def _output(command: list[str], path: str, why: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError as error:
        raise FlowFileError(
            path, 0, f"{why}, and the program nfdump cannot be run ({error.strerror})", "Install the package nfdump"
        ) from error


def _foreign(path: str, text: bytes) -> FlowFileError:
    line = text.split(b"\n", 1)[0].decode(errors="replace")[:80]
    return FlowFileError(path, 0, f"nfdump printed what is not known: {line}", "Use nfdump 1.7.1 or 1.7.5")
