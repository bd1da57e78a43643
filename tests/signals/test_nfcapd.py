# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading flow files: what the real nfcapd wrote, what a test wrote, and what is no such file."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import flows as library
from ansible_collections.isp.hardening.plugins.module_utils.signals import nfcapd
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import FlowFileError, Flows, read_flows
from tests.signals.box import Box
from tests.signals.box import box as real_box
from tests.signals.flows import (
    BEGIN,
    LZ4,
    PLAIN,
    Exporter,
    Population,
    Synthetic,
    address_text,
    joined,
    write_nfcapd,
)

SMALL = Population(2_000, 1, 1, 1, 1, 1, 5, 5)
# Everything that both machine formats of nfdump print: all but forwardingStatus.
PRINTED = [name for name in Flows.KINDS if name != "forwarding"]
TELEGRAF = "netflow/telegraf/plugins/inputs/netflow/testcases"


def rows(parts: Iterable[Flows], names: Sequence[str] = tuple(Flows.KINDS)) -> Counter[tuple[int, ...]]:
    """All rows, whatever their order."""
    flows = joined(parts)
    return Counter(zip(*(getattr(flows, name).tolist() for name in names), strict=True))


def readable(parts: Iterable[Flows]) -> set[tuple[str, int, str, int, int, int, int, int, int]]:
    """Rows as a person would write them: source, port, destination, port, protocol, flags, packets, bytes, status."""
    flows = joined(parts)
    return {
        (
            address_text(flows.src_hi[row], flows.src_lo[row]), int(flows.sport[row]),
            address_text(flows.dst_hi[row], flows.dst_lo[row]), int(flows.dport[row]), int(flows.proto[row]),
            int(flows.flags[row]), int(flows.packets[row]), int(flows.octets[row]), int(flows.forwarding[row]),
        )
        for row in range(len(flows))
    }  # fmt: skip


@pytest.fixture
def no_nfdump(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the program."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with real_box(tmp_path_factory.mktemp("box")) as made:
        yield made


@pytest.fixture
def nfdump(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The box's nfdump as a program of this machine, for files below the directory of the box."""
    words = f"podman exec {box.name} nfdump"
    inside = f"s|^{box.directory}|/box|"
    fake_program(
        tmp_path / "bin",
        f'for word do set -- "$@" "$(printf %s "$word" | sed "{inside}")"; shift; done\nexec {words} "$@"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def fake_program(directory: Path, script: str) -> None:
    directory.mkdir(exist_ok=True)
    program = directory / "nfdump"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    program.chmod(0o755)


# -- files of the real collector ---------------------------------------------------------------------------------------


class Collector:
    """The real nfcapd in the box, and packets for it."""

    def __init__(self, box: Box, name: str, options: str = "") -> None:
        self.box, self.name = box, name
        self.directory = box.directory / name
        self.directory.mkdir()
        box.run(
            f"nfcapd -w /box/{name} -p 9995 -b 127.0.0.1 -t 3600 -P /run/{name}.pid {options} >/box/{name}.log 2>&1 & "
            "until grep -qs Startup /box/{0}.log; do sleep 0.05; done".format(name)
        )

    def send(self, packets: Iterable[bytes]) -> None:
        for number, packet in enumerate(packets):
            (self.box.directory / f"{self.name}.{number:03}.packet").write_bytes(packet)
        self.box.run(
            "python3 -c 'import glob, socket, time\n"
            "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f'for name in sorted(glob.glob("/box/{self.name}.*.packet")):\n'
            '    out.sendto(open(name, "rb").read(), ("127.0.0.1", 9995)); time.sleep(0.01)\'; sleep 0.2'
        )

    def close(self) -> Path:
        """The one file that it wrote."""
        self.box.run(f"kill $(cat /run/{self.name}.pid); while [ -e /run/{self.name}.pid ]; do sleep 0.05; done")
        (file,) = self.directory.glob("nfcapd.2*")
        return file


def printed(box: Box, file: Path) -> Counter[tuple[int, ...]]:
    """What the real nfdump prints of a file, as rows; the reading of its text is this test's own."""
    text = box.run(f"nfdump -C none -q -r /box/{file.relative_to(box.directory)} -o pipe").stdout
    found: Counter[tuple[int, ...]] = Counter()
    for line in text.splitlines():
        kind, first, _, proto, *rest = map(int, line.split("|"))
        source, sport, target, dport, flags = rest[:4], rest[4], rest[5:9], rest[9], rest[14]
        (src_hi, src_lo), (dst_hi, dst_lo) = (
            (words[0] << 32 | words[1], words[2] << 32 | words[3])
            if kind == socket.AF_INET6
            else (0, 0xFFFF << 32 | words[3])
            for words in (source, target)
        )
        found[(first, src_hi, src_lo, dst_hi, dst_lo, sport, dport, proto, flags, rest[16], rest[17])] += 1
    return found


def template(number: int, fields: Sequence[tuple[int, int]]) -> bytes:
    """A template of NetFlow v9 (RFC 3954, section 5.2): elements and their lengths."""
    body = struct.pack(">HH", number, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields)
    return struct.pack(">HH", 0, 4 + len(body)) + body


def data(number: int, fields: Sequence[tuple[int, int]], records: Iterable[Sequence[int]]) -> bytes:
    body = b"".join(
        value.to_bytes(length, "big") for record in records for (_, length), value in zip(fields, record, strict=True)
    )
    body += bytes(-len(body) % 4)
    return struct.pack(">HH", number, 4 + len(body)) + body


def netflow9(sequence: int, sets: Sequence[bytes], source: int = 1) -> bytes:
    """A packet: uptime 1,000 s at BEGIN."""
    return struct.pack(">HHIIII", 9, len(sets), 1_000_000, BEGIN // 1000, sequence, source) + b"".join(sets)


# RFC 3954, section 8: bytes, packets, protocol, flags, ports, addresses, last and first switched; 89 is
# forwardingStatus (RFC 7270).
COUNTERS = ((1, 4), (2, 4), (22, 4), (21, 4), (4, 1), (7, 2), (11, 2))
V4 = (*COUNTERS, (6, 1), (89, 1), (8, 4), (12, 4))
V4_NO_FLAGS = (*COUNTERS, (8, 4), (12, 4))
V6 = (*COUNTERS, (6, 1), (27, 16), (28, 16))


def number(text: str) -> int:
    return int(ipaddress.ip_address(text))


def mixed_packets(source: int = 1) -> list[bytes]:
    """Three templates in one packet: IPv4 with flags and forwarding status, IPv6, and IPv4 again."""
    v4 = [(60, 1, 5_000, 5_000, 6, 40_000 + row, 25, 2, 130, number("192.0.2.7"), number("198.51.100.1") + row)
          for row in range(20)]  # fmt: skip
    v6 = [(9_000, 20, 6_000, 7_000, 6, 50_000 + row, 587, 27, number("2001:db8::7"), number("2001:db8:1::1") + row)
          for row in range(20)]  # fmt: skip
    sets = [template(256, V4), template(257, V6)]
    for row in range(20):
        sets += [data(256, V4, v4[row : row + 1]), data(257, V6, v6[row : row + 1])]
    return [netflow9(1, sets, source)]


@pytest.mark.parametrize(
    ("options", "sampling"), [("", 0), ("-y", 0), ("-s 100", 100), ("-z", 0), ("-j", 0), ("-z -s 100", 100)],
    ids=["plain", "lz4", "sampled", "lzo through nfdump", "bzip2 through nfdump", "sampled through nfdump"],
)  # fmt: skip
@pytest.mark.usefixtures("nfdump")
def test_reader_equals_nfdump_on_files_of_real_exporters(
    box: Box, sample_data: Path, options: str, sampling: int
) -> None:
    """NetFlow v5, v9 and IPFIX of real exporters through the real nfcapd: row by row what the real nfdump prints."""
    collector = Collector(box, f"real{options.replace(' ', '')}", options)
    cases = ("netflow_v5_example", "netflow_v9_example", "issue_13305", "issue_14370", "ipfix_pen_35632")
    real = [file.read_bytes() for case in cases for file in sorted((sample_data / TELEGRAF / case).glob("*.bin"))]
    collector.send([*real, *mixed_packets()])
    file = collector.close()
    parts = list(read_flows([file]))
    assert rows(parts, PRINTED) == printed(box, file)
    assert sum(map(len, parts)) == 62
    assert parts[-1].sampling == sampling


def test_mixed_templates_and_ipv6_of_the_real_collector(box: Box) -> None:
    """Flows of two templates in turn: addresses, flags and forwarding status are each where they belong."""
    collector = Collector(box, "mixed")
    collector.send(mixed_packets())
    expected = {("192.0.2.7", 40_000 + row, f"198.51.100.{1 + row}", 25, 6, 2, 1, 60, 130) for row in range(20)} | {
        ("2001:db8::7", 50_000 + row, f"2001:db8:1::{1 + row:x}", 587, 6, 27, 20, 9_000, 0) for row in range(20)
    }
    parts = list(read_flows([collector.close()]))
    assert readable(parts) == expected
    assert parts[-1].flags_known
    # The first packet of the IPv4 flows was seen 995 s before the exporter's clock said BEGIN.
    assert joined(parts).ts_ms.min() == BEGIN - 995_000


def test_an_exporter_without_tcp_flags_is_told(box: Box) -> None:
    """One exporter of two sends a template without flags: what it says of SYN-only flows would be wrong."""
    collector = Collector(box, "flagless")
    flows = [(60, 1, 5_000, 5_000, 6, 40_000 + row, 25, number("192.0.2.8"), number("203.0.113.1")) for row in range(5)]
    collector.send([*mixed_packets(), netflow9(1, [template(256, V4_NO_FLAGS), data(256, V4_NO_FLAGS, flows)], 2)])
    parts = list(read_flows([collector.close()]))
    assert sum(map(len, parts)) == 45
    assert not parts[-1].flags_known


@pytest.mark.parametrize("options", ["-y", "-j"], ids=["lz4", "bzip2 through nfdump"])
@pytest.mark.usefixtures("nfdump")
def test_a_file_without_flows_has_its_facts(box: Box, options: str) -> None:
    (part,) = read_flows([Collector(box, f"empty{options}", options).close()])
    assert len(part) == part.sampling == 0


def announced5() -> list[bytes]:
    """NetFlow v5 with a flow, and in its header one packet of 100, picked deterministically (mode 1)."""
    head = struct.pack(">HHIIIIBBH", 5, 1, 1_000_000, BEGIN // 1000, 0, 0, 0, 0, 1 << 14 | 100)
    flow = struct.pack(
        ">IIIHHIIIIHHxBBBHHBBxx", number("192.0.2.7"), number("198.51.100.1"), 0, 0, 0, 1, 60, 5_000, 5_000, 40_000,
        25, 2, 6, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return [head + flow]


def test_sampling_that_an_exporter_announces_is_told(box: Box) -> None:
    """By NetFlow v5; what v9 and IPFIX exporters say in options nfcapd 1.7.1 overlooks, unlike 1.7.5."""
    collector = Collector(box, "announced")
    collector.send(announced5())
    parts = list(read_flows([collector.close()]))
    assert sum(map(len, parts)) == 1
    assert parts[-1].sampling == 100


def test_a_file_that_nfcapd_still_writes_is_refused_and_a_directory_leaves_it_out(box: Box) -> None:
    collector = Collector(box, "busy")
    collector.send(mixed_packets())
    (busy,) = collector.directory.glob("nfcapd.current*")
    with pytest.raises(FlowFileError, match="not finished"):
        list(read_flows([busy]))
    with pytest.raises(FlowFileError, match="no finished file"):
        list(read_flows([collector.directory]))
    file = collector.close()
    shutil.copy(file, collector.directory / "nfcapd.current.1")
    assert {part.source for part in read_flows([collector.directory])} == {str(file)}


DIALOGUE = """
import socket
server = socket.create_server(("198.51.100.1", 25))
def dial(address, port):
    one = socket.socket()
    one.bind(("192.0.2.1", 0))
    one.settimeout(0.5)
    one.connect((address, port))
    return one
one = dial("198.51.100.1", 25)
other = server.accept()[0]
other.send(b"220 mx.example.net\\r\\n")
one.recv(99)
one.close()
other.close()
for address, port in (("198.51.100.1", 26), ("203.0.113.1", 25)):
    try:
        dial(address, port)
    except OSError:
        pass
"""


def test_real_packets_through_softflowd(box: Box) -> None:
    """A mail server that answers, one that refuses and one that is silent: flags and packets as TCP sends them."""
    collector = Collector(box, "dialogue")
    (box.directory / "dialogue.py").write_text(DIALOGUE, encoding="ascii")
    # softflowd waits for a full buffer of the kernel, so it reads what tcpdump has caught.
    box.run(
        "for address in 192.0.2.1 198.51.100.1 203.0.113.1; do ip address add $address/32 dev lo; done\n"
        "nft 'add table ip silent; add chain ip silent in { type filter hook input priority 0; };"
        " add rule ip silent in ip daddr 203.0.113.1 drop'\n"
        "tcpdump -i lo -w /box/packets --immediate-mode -U net 192.0.2.0/24 >/box/tcpdump 2>&1 & tcpdump=$!\n"
        "until grep -qs listening /box/tcpdump; do sleep 0.05; done\n"
        "python3 /box/dialogue.py; sleep 0.2; kill $tcpdump; wait $tcpdump\n"
        "softflowd -r /box/packets -n 127.0.0.1:9995 -v 9 -A milli -p /run/probe.pid >/box/softflowd.out 2>&1\n"
        "sleep 0.3"
    )
    file = collector.close()
    parts = list(read_flows([file]))
    assert rows(parts, PRINTED) == printed(box, file)
    found = {(row[0], row[2], row[3]): row for row in readable(parts) if row[0] == "192.0.2.1"}
    syn, fin_syn_ack = 0x02, 0x13
    assert found["192.0.2.1", "198.51.100.1", 25][5] & fin_syn_ack == fin_syn_ack
    assert found["192.0.2.1", "198.51.100.1", 26][5] == syn
    assert found["192.0.2.1", "203.0.113.1", 25][5:7] == (syn, 1)
    assert parts[-1].flags_known


# -- files of the writer above, which the real nfdump reads too --------------------------------------------------------


@pytest.mark.parametrize("compression", [PLAIN, LZ4])
def test_the_real_nfdump_reads_what_the_tests_write(box: Box, compression: int) -> None:
    hour = Synthetic(5, 6_000, SMALL)
    file = box.directory / f"synthetic.{compression}"
    exporters = (Exporter(1), Exporter(2, 1, (0, 7, 1, 12)), Exporter(3, None, (1, 5, 0)))
    assert write_nfcapd(file, hour.chunks(), exporters, compression, 50_000) == 6_000
    found = rows(read_flows([file]), PRINTED)
    assert found == rows(hour.chunks(), PRINTED)
    assert found == printed(box, file)


ELEMENTS = st.permutations([0, 1, 4, 5, 7, 12, 99]).flatmap(
    lambda order: st.sets(st.sampled_from([4, 5, 7, 12, 99])).map(
        lambda without: tuple(element for element in order if element not in without)
    )
)


@settings(max_examples=40)
@given(
    st.lists(ELEMENTS, min_size=1, max_size=3),
    st.sampled_from([PLAIN, LZ4]),
    st.integers(300, 20_000),
    st.integers(0, 9),
)
@example([(99, 1, 0)], PLAIN, 5_000, 1)  # no word of any record is where words are
def test_any_order_of_elements_gives_the_same_flows(
    tmp_path_factory: pytest.TempPathFactory, layouts: list[tuple[int, ...]], compression: int, block: int, seed: int
) -> None:
    """Mixed templates, IPv6, records of odd sizes, any size of block: what was written is read."""
    file = tmp_path_factory.mktemp("any") / "nfcapd.202601010000"
    hour = Synthetic(seed, 500, Population(100, 1, 1, 1, 1, 1, 1, 1), span=600_000)
    exporters = tuple(Exporter(1 + number, None, elements) for number, elements in enumerate(layouts))
    write_nfcapd(file, hour.chunks(), exporters, compression, block)
    assert rows(read_flows([file])) == rows(hour.chunks())


def test_numbers_that_look_like_record_headers_mislead_nobody(tmp_path: Path) -> None:
    """0.104.0.11 is the first word of a record of 104 bytes; here every number is one."""
    flows = joined(Synthetic(1, 3_000, SMALL).chunks())
    head = 104 << 16 | 11
    likely = np.full(len(flows), head | head << 32, "u8")
    v4 = np.full(len(flows), head | 0xFFFF << 32, "u8")
    flows = replace(flows, src_hi=np.where(flows.src_hi, likely, 0), src_lo=np.where(flows.src_hi, likely, v4),
                    packets=likely, octets=likely, ts_ms=likely.astype("i8"))  # fmt: skip
    file = tmp_path / "file"
    for block in (500, 1 << 20):
        write_nfcapd(file, [flows], (Exporter(1), Exporter(2, None, (0, 1))), block=block)
        assert rows(read_flows([file])) == rows([flows])


def test_wanted_is_a_filter_and_chunks_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "CHUNK", 700)
    hour = Synthetic(2, 6_000, SMALL)
    file = tmp_path / "file"
    write_nfcapd(file, hour.chunks(), compression=LZ4, block=30_000)
    parts = list(read_flows([file], lambda flows: (flows.proto == 6) & (flows.dport == 25)))
    everything = joined(hour.chunks())
    expected = everything.where((everything.proto == 6) & (everything.dport == 25))
    assert rows(parts) == rows([expected])
    assert max(map(len, parts)) <= 700 < len(expected)
    nothing = list(read_flows([file], lambda flows: flows.proto == 255))
    assert [len(part) for part in nothing] == [0]
    assert nothing[0].flags_known


# -- facts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "told"),
    [((None,), 0), ((1,), 1), ((1000,), 1000), ((1, None), 0), ((None, 512), 512), ((10, 1000, 1), 1000)],
)
def test_sampling_is_told_for_each_file(tmp_path: Path, rates: tuple[int | None, ...], told: int) -> None:
    """The worst of the exporters; none only where all of them say so."""
    hour = Synthetic(3, 3_000, SMALL)
    write_nfcapd(tmp_path / "file", hour.chunks(), tuple(Exporter(1 + n, rate) for n, rate in enumerate(rates)))
    write_nfcapd(tmp_path / "other", hour.chunks(), (Exporter(1, 1),))
    facts = {part.source: part.sampling for part in read_flows([tmp_path / "file", tmp_path / "other"])}
    assert facts == {str(tmp_path / "file"): told, str(tmp_path / "other"): 1}


def test_flags_are_known_though_some_tcp_flows_have_none(tmp_path: Path) -> None:
    """Null scans and later fragments have no flags; an exporter that gives none at all is another thing."""
    flows = joined(Synthetic(4, 3_000, SMALL).chunks())
    some = replace(flows, flags=np.where(np.arange(len(flows)) % 20, flows.flags, 0).astype("u1"))
    fragments = np.arange(len(flows)) % 3 == 0
    cut = replace(some, **{name: np.where(fragments, 0, getattr(some, name)).astype(Flows.KINDS[name])
                           for name in ("flags", "sport", "dport")})  # fmt: skip
    none = replace(flows, flags=np.zeros(len(flows), "u1"))
    for number, (part, known) in enumerate(((flows, True), (some, True), (cut, True), (none, False))):
        write_nfcapd(tmp_path / str(number), [part])
        assert list(read_flows([tmp_path / str(number)]))[-1].flags_known is known


# -- what is no such file ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_nfdump")
@pytest.mark.parametrize("compression", [PLAIN, LZ4])
def test_a_truncated_file_gives_an_error_and_not_one_flow(tmp_path: Path, compression: int) -> None:
    file = tmp_path / "whole"
    write_nfcapd(file, Synthetic(6, 3_000, SMALL).chunks(), compression=compression, block=20_000)
    whole = file.read_bytes()
    for length in [*range(60), *range(60, len(whole), len(whole) // 50), len(whole) - 200]:
        (tmp_path / "part").write_bytes(whole[:length])
        given = read_flows([tmp_path / "part"])
        with pytest.raises(FlowFileError) as told:
            next(given)
        assert told.value.file == str(tmp_path / "part")
        assert told.value.mend


@pytest.mark.usefixtures("no_nfdump")
@settings(max_examples=80)
@given(st.data())
def test_damage_gives_flows_or_an_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    compression = data.draw(st.sampled_from([PLAIN, LZ4]))
    file = tmp_path_factory.mktemp("damage") / "file"
    write_nfcapd(
        file,
        Synthetic(7, 300, Population(50, 1, 1, 1, 1, 1, 1, 1), span=300_000).chunks(),
        compression=compression,
        block=5_000,
    )
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the damage is where headers are.
        place = data.draw(st.integers(0, 200) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    with suppress(FlowFileError):
        for part in read_flows([file]):
            assert len({len(column) for column in part.columns().values()}) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no file of nfdump"),
        (b"\x0c", "no file of nfdump"),
        (b"af|first|last\n" * 9, "no file of nfdump"),
        (b"\xd4\xc3\xb2\xa1" + bytes(90), "no file of nfdump"),  # pcap
        (b"\xa5\x0c" + bytes(90), "other byte order"),
        (struct.pack("<HH", 0xA50C, 1) + bytes(90), "layout version 1, and the program nfdump cannot be run"),
        (struct.pack("<HH", 0xA50C, 3) + bytes(90), "layout version 3, and the program nfdump cannot be run"),
        (struct.pack("<HHI", 0xA50C, 2, 0x01061700) + bytes(90), "of nfdump 1.6, and the program nfdump cannot be run"),
        (struct.pack("<HHIqB", 0xA50C, 2, 0x01070800, 0, 4) + bytes(90), "compression Zstandard, and the program"),
        (struct.pack("<HHIqB", 0xA50C, 2, 0xF1070800, 0, 9) + bytes(90), "compression 9, and the program"),
        (struct.pack("<HHIqBB", 0xA50C, 2, 0x01070100, 0, 0, 1) + bytes(90), "encryption, and the program"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_nfdump")
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FlowFileError, match=reason) as told:
        list(read_flows([tmp_path / "file"]))
    assert str(told.value).startswith(f"{tmp_path / 'file'}, byte 0: ")


@pytest.mark.usefixtures("no_nfdump")
def test_without_the_package_lz4_such_files_go_to_nfdump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nfcapd(tmp_path / "file", Synthetic(6, 3_000, SMALL).chunks(), compression=LZ4)
    monkeypatch.setattr(nfcapd, "find_spec", lambda _: None)
    with pytest.raises(FlowFileError, match="package lz4 is absent, and the program nfdump cannot be run"):
        list(read_flows([tmp_path / "file"]))


def test_a_missing_file_and_unreadable_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FlowFileError, match="no such file"):
        list(read_flows([tmp_path / "nowhere"]))
    with pytest.raises(FlowFileError, match="no finished file"):
        list(read_flows([tmp_path]))

    def denied(folder: str) -> NoReturn:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(FlowFileError, match="byte 0: permission denied"):
        list(read_flows([tmp_path]))


def test_a_record_of_an_unknown_type_is_refused_with_its_place(tmp_path: Path) -> None:
    write_nfcapd(tmp_path / "file", Synthetic(6, 3_000, SMALL).chunks())
    content = bytearray((tmp_path / "file").read_bytes())
    content[52:54] = struct.pack("<H", 10)  # the first record of the first block: one of nfdump 1.6 instead of 7
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FlowFileError, match="byte 52: record type 10 at byte 0 of the block"):
        list(read_flows([tmp_path / "file"]))


# -- the program nfdump, by its version --------------------------------------------------------------------------------

PIPE = """2|1767225600001|1767225600009|6|0|0|0|3221225991|40000|0|0|0|3325256705|25|0|0|0|0|2|0|1|60
10|1767225600002|1767225600009|6|536939960|0|0|7|50000|536939960|65536|0|1|587|0|0|0|0|27|0|20|9000"""
CSV = """cnt,af,firstSeen,lastSeen,proto,srcAddr,srcPort,dstAddr,dstPort,srcAS,dstAS,input,output,flags,srcTos,\
packets,bytes
1,2,1767225600001,1767225600009,6,192.0.2.7,40000,198.51.100.1,25,0,0,0,0,......S.,0,1,60
2,10,1767225600002,1767225600009,6,2001:db8::7,50000,2001:db8:1::1,587,0,0,0,0,...AP.SF,0,20,9000"""


def answering(directory: Path, version: str, form: str, text: str, end: str = "exit 0") -> None:
    """A program that answers as nfdump does: to -V, -E, and -o in one format only."""
    (directory / "answer").write_text(text + "\n", encoding="ascii")
    fake_program(
        directory / "bin",
        f'[ "$1" = -V ] && {{ echo "nfdump: Version: {version}"; exit; }}\n'
        'case "$*" in\n'
        '*"-E "*) echo "SysID: 1, IP: 192.0.2.1"; echo "    Sampler: packet interval: 1, packet space: 9";;\n'
        f'*"-o {form}") while read line; do echo "$line"; done <{directory / "answer"}; {end};;\n'
        "*) exit 1;;\nesac",
    )


@pytest.fixture
def other_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for the program nfdump: Zstandard."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    file = tmp_path / "nfcapd.202601010000"
    file.write_bytes(struct.pack("<HHIqB", 0xA50C, 2, 0x01070800, 0, 4) + bytes(90))
    return file


@pytest.mark.parametrize(
    ("version", "form", "text"),
    [
        ("NSEL-NEL1.7.1", "pipe", PIPE),
        ("1.7.5-release Options: NSEL-NEL ZSTD BZIP2 Date: Wed Oct 23 19:53:03 CEST 2024", "csv-fast", CSV),
        ("1.7.8-fa44aee Options: ZSTD BZIP2 Date: 2026-01-01 00:00:00 +0100", "csv-fast", CSV),
    ],
)
def test_nfdump_version_switch(tmp_path: Path, other_layout: Path, version: str, form: str, text: str) -> None:
    """1.7.1 prints `pipe` and knows no csv-fast, 1.7.5 and 1.7.8 the other way round: the same flows of all."""
    answering(tmp_path, version, form, text)
    parts = list(read_flows([other_layout]))
    assert readable(parts) == {
        ("192.0.2.7", 40_000, "198.51.100.1", 25, 6, 2, 1, 60, 0),
        ("2001:db8::7", 50_000, "2001:db8:1::1", 587, 6, 27, 20, 9_000, 0),
    }
    assert joined(parts).ts_ms.tolist() == [BEGIN + 1, BEGIN + 2]
    assert parts[-1].sampling == 10
    assert parts[-1].flags_known


@pytest.mark.parametrize(
    ("version", "text", "end", "reason"),
    [
        ("1.7.4", PIPE, "exit 0", "what nfdump 1.7.4 prints is not known"),
        ("1.8.0", PIPE, "exit 0", "what nfdump 1.8.0 prints is not known"),
        ("unicorn", PIPE, "exit 0", "no version in what nfdump says"),
        ("1.7.1", PIPE + "|1", "exit 0", "nfdump printed what is not known"),
        ("1.7.1", "Date first seen          Duration", "exit 0", "nfdump printed what is not known: Date first"),
        ("1.7.1", PIPE, "exit 3", "nfdump says: exit code 3"),
        ("1.7.1", PIPE, "echo corrupt >&2", "nfdump says: corrupt"),
    ],
)
def test_an_nfdump_that_is_not_known_or_complains_is_refused(
    tmp_path: Path, other_layout: Path, version: str, text: str, end: str, reason: str
) -> None:
    answering(tmp_path, version, "pipe", text, end)
    with pytest.raises(FlowFileError, match=reason):
        list(read_flows([other_layout]))


@pytest.mark.parametrize(
    ("version", "form", "head"), [("1.7.1", "pipe", ""), ("1.7.5", "csv-fast", CSV.split("1,2,")[0])]
)
def test_no_flows_through_nfdump(tmp_path: Path, other_layout: Path, version: str, form: str, head: str) -> None:
    """Both say so in words where lines would be."""
    answering(tmp_path, version, form, f"{head}No matching flows")
    assert [len(part) for part in read_flows([other_layout])] == [0]


def test_a_column_more_in_csv_fast_is_refused(tmp_path: Path, other_layout: Path) -> None:
    answering(tmp_path, "1.7.9", "csv-fast", CSV.replace("bytes", "bytes,fwd"))
    with pytest.raises(FlowFileError, match="nfdump printed what is not known: cnt,af"):
        list(read_flows([other_layout]))


# -- the generator -----------------------------------------------------------------------------------------------------


def test_synthetic_flows_keep_to_their_model() -> None:
    """The same seed gives the same flows; each kind of host does what the table says."""
    hour = Synthetic(11, 20_000, Population(4_000, 5, 5, 5, 5, 5, 20, 20))
    flows = joined(hour.chunks())
    assert len(flows) == 20_000
    assert rows([flows]) == rows(Synthetic(11, 20_000, Population(4_000, 5, 5, 5, 5, 5, 20, 20)).chunks())
    assert rows([flows]) != rows(Synthetic(12, 20_000, Population(4_000, 5, 5, 5, 5, 5, 20, 20)).chunks())
    assert (np.diff(flows.ts_ms) >= 0).all()
    found: dict[str, list[tuple[str, int, int, int]]] = {}
    for row in np.flatnonzero(flows.proto == 6).tolist():
        source = address_text(flows.src_hi[row], flows.src_lo[row])
        target = address_text(flows.dst_hi[row], flows.dst_lo[row])
        found.setdefault(source, []).append(
            (target, int(flows.dport[row]), int(flows.flags[row]), int(flows.packets[row]))
        )
    assert all(flags == 2 for host in hour.labels["blocked_bot"] for _, _, flags, _ in found[host])
    for host in hour.labels["open_bot"]:
        assert len({target for target, *_ in found[host]}) > 0.9 * len(found[host])
        assert 0.3 < sum(packets <= 12 for *_, packets in found[host]) / len(found[host]) < 0.8
    assert all(
        len({target for target, *_ in found[host]}) == 1 for host in hour.labels["misconfigured"] if host in found
    )
    assert all({port for _, port, *_ in found[host]} <= {135, 139, 445} for host in hour.labels["worm"])
    labelled = {host for hosts in hour.labels.values() for host in hosts}
    senders = {host for host, seen in found.items() if any(port == 25 for _, port, *_ in seen)}
    assert senders <= labelled


def test_a_survey_reads_no_records(tmp_path: Path) -> None:
    """Headers alone: a file is refused before anything of it is used, whatever its size."""
    write_nfcapd(tmp_path / "file", Synthetic(6, 3_000, SMALL).chunks(), block=20_000)
    found = nfcapd.survey(str(tmp_path / "file"))
    assert sum(records for _, _, records, _ in found.blocks) == 3_001
