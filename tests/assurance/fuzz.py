# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds of a parser for any text, and the loop that looks for a text for which it does not.

No exception but NotThisPlatform; no hang; a result whose size is of the order of the text's; a result that the naive
evaluator can walk; and never "compliant" for a compliant text that was cut off or has a garbled line.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    UNKNOWN,
    Configuration,
    NotThisPlatform,
    evaluate,
)
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding

from .grammar import grammar, shrunk
from .texts import Known, cases, rendered

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".cache" / "assurance"  # texts that showed a fault
CPU_LIMIT = 20  # seconds for one small text: far beyond any honest need, so a hang
MEMORY_LIMIT = 3 << 30  # bytes of address space for the whole process
# Ternaries and entries for each byte of a text: a port range is 30, an address range 62 or 254, each in 2 families.
SIZE_A_BYTE, SIZE_FREE = 300, 20_000
AUDITED = 500  # every how many texts the audit runs too
WHOLE = 1000  # every how many texts is a whole one, cut off or garbled
_USUAL = {
    "protocol": 6, "source_port": 49152, "destination_port": 25, "tcp_flags": 2, "icmp_type": 8, "icmp_code": 0,
    "fragment": 0, "undetermined": 0, "extension": 0, "state": 0, "tos": 0, "ttl": 64, "length": 60, "options": 0,
}  # fmt: skip
_PACKETS = {
    4: _USUAL | {"source": 0xC6336407, "destination": 0xCB007109},
    6: _USUAL | {"source": 0x20010DB8_0100 << 80 | 7, "destination": 0x20010DB8_FFFF << 80 | 9},
}
JUNK = ("\ufffd", "\x07", "\u00a7%", "~^")  # what no vendor's word holds


class Wrong(AssertionError):
    """The result breaks a promise."""


class Hang(AssertionError):
    """The text takes too much work."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raises Hang when what runs inside takes CPU_LIMIT seconds of this process."""

    def strike(_: int, __: FrameType | None) -> None:
        raise Hang(f"more than {CPU_LIMIT} CPU-s")

    before = signal.signal(signal.SIGVTALRM, strike)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check(network_os: str, text: str, audited: bool = False) -> bool:
    """All that holds of any text; says whether it was taken for a configuration of the platform."""
    platform, place = _platform(network_os)
    if not isinstance(platform.incomplete(text), str):
        raise Wrong("incomplete() is no text")
    try:
        configuration = platform.parse(text, place)
    except NotThisPlatform:
        return False
    _sound(configuration, text)
    if audited:
        for one in rendered(network_os)[:1]:
            _told(one.audit(configuration))
    return True


@functools.cache
def _platform(network_os: str) -> tuple[ModuleType, list[str]]:
    """The parser, and the attachments that it is told."""
    return platforms.load(network_os), [name for one in rendered(network_os)[:1] for name in one.names]


def _sound(configuration: Configuration, text: str) -> None:
    lines, size = text.count("\n") + len(text.splitlines()) + 1, 0
    for (family, name), chosen in configuration.filters.items():
        for entry in chosen.entries:
            size += 1 + sum(len(union) for match in entry.matches for union in match.values())
            if not 0 <= entry.line <= lines:
                raise Wrong(f"{name} has an entry of line {entry.line} of {lines}")
        actions, _ = evaluate(configuration, family, name, _PACKETS[family])
        if not actions or not actions <= {PERMIT, DENY}:
            raise Wrong(f"{name} gives {actions}")
    if size > SIZE_FREE + SIZE_A_BYTE * len(text):
        raise Wrong(f"{size} ternaries of {len(text)} bytes")
    for binding in configuration.bindings:
        if not binding.filters or any((binding.family, name) not in configuration.filters for name in binding.filters):
            raise Wrong(f"{binding.text} binds a filter that is not there")


def _told(findings: list[Finding]) -> None:
    for finding in findings:
        if "disagree" in finding.reason:
            raise Wrong(finding.reason)


# --- Texts that were cut off, or have a garbled line -----------------------------------------------------------------


def meaning(configuration: Configuration, names: Sequence[str]) -> object:
    """All that a verdict on the filters of these attachments can rest on, without lines, texts and names of filters."""
    bindings = sorted(
        (one.attachment, one.direction, one.family, one.filters)
        for one in configuration.bindings
        if one.attachment in names
    )
    order: dict[tuple[int, str], int] = {}  # filters by when they are met first
    told: list[object] = []

    def met(family: int, name: str) -> int:
        if (family, name) not in order:
            order[family, name] = len(order)
        return order[family, name]

    for attachment, direction, family, filters in bindings:
        told.append((attachment, direction, family, [met(family, name) for name in filters]))
    done = 0
    while done < len(order):
        family, name = list(order)[done]
        one = configuration.filters[family, name]
        told.append(one.default)
        for entry in one.entries:
            target = met(family, entry.target) if entry.target else -1
            told.append((entry.action, entry.matches, target, bool(entry.doubt)))
        done += 1
    return told


def trusted(whole: Known, text: str) -> str:
    """What is believed of the text that nobody should believe; "" when it is told to be cut off or not understood.

    A compliant text that still is, with other filters; a text with findings that has lost one.
    """
    if whole.lost(text):
        return ""
    try:
        configuration = whole.parse(text)
    except NotThisPlatform:
        return ""
    if not whole.found and meaning(configuration, whole.names) == meaning(whole.read, whole.names):
        return ""
    if _doubts(configuration) - _doubts(whole.read):
        return ""
    raised = {_place(one) for one in whole.audit(configuration) if one.verdict != COMPLIANT}
    if whole.found:
        return ", ".join(" ".join(place) for place in sorted({_place(one) for one in whole.found} - raised))
    return "" if raised else "compliant"


def _place(finding: Finding) -> tuple[str, ...]:
    # C1 is told of the router's name for the place, which may be what was garbled.
    where = "" if finding.control == "C1" else finding.attachment
    return finding.control, where, finding.direction, str(finding.family)


def _doubts(configuration: Configuration) -> Counter[str]:
    """What was not understood, by how often its reason is told."""
    entries = [entry for one in configuration.filters.values() for entry in one.entries]
    unread = [
        (entry.action == UNKNOWN) * "unknown: " + entry.doubt
        for entry in entries
        if entry.doubt or entry.action == UNKNOWN
    ]
    return Counter([*unread, *(doubt.reason for doubt in configuration.doubts)])


def check_cut(whole: Known, text: str) -> None:
    """The beginning of the text: told to be cut off, or no longer compliant, or the rest meant nothing."""
    if whole.text[len(text) :].strip() and (wrong := trusted(whole, text)):
        raise Wrong(f"{whole.name} without its end {whole.text[len(text) :][:60]!r}: {wrong}")


# A line end that is lost behind one of these makes the next line a part of it, for the router too.
_FREE_TEXT = re.compile(r"\b(remark|description|comment|banner|name)\b|^\s*[!#]|/\*|//")


def garbled(whole: Known, chance: random.Random) -> str:
    """The text with junk in one line, or with a line end lost. Names of filters stay: a vendor takes nearly any."""
    names = {name for _, name in whole.read.filters if len(name) > 2}
    lines = whole.text.split("\n")
    while True:
        place = chance.randrange(len(lines) - 1)
        line = lines[place]
        if chance.random() < 0.2 and not _FREE_TEXT.search(line):
            new = line + chance.choice(("", " ")) + lines[place + 1]
            return "\n".join([*lines[:place], new, *lines[place + 2 :]])
        start = chance.randint(0, len(line))
        new = line[:start] + chance.choice(JUNK) + line[start + chance.choice((0, 0, 1, 2)) :]
        if all(line.count(name) == new.count(name) for name in names):
            return "\n".join([*lines[:place], new, *lines[place + 1 :]])


def check_garbled(whole: Known, text: str) -> None:
    if wrong := trusted(whole, text):
        raise Wrong(f"{whole.name} with a garbled line: {wrong}")


@functools.cache
def sound(network_os: str) -> tuple[Known, ...]:
    """Texts of the platform that are whole by its own word."""
    return tuple(one for one in (*rendered(network_os), *cases(network_os)) if not one.lost(one.text))


# --- The work for a text ------------------------------------------------------------------------------------------


def work(network_os: str, text: str) -> int:
    """Calls that parsing the text makes, of Python and C functions alike: a measure that no machine changes."""
    (platform, place), count = _platform(network_os), 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        platform.incomplete(text)
        with contextlib.suppress(NotThisPlatform):
            platform.parse(text, place)
    finally:
        sys.setprofile(None)
    return count


# --- The loop -------------------------------------------------------------------------------------------------------


def run(network_os: str, seed: int, inputs: int) -> dict[str, object]:
    """So many texts; how many were taken for the platform's, and the faults, each kind once, kept in KEPT."""
    chance, source = random.Random(f"{network_os} {seed}"), grammar(network_os)
    whole = sound(network_os)
    taken, faults = 0, {}
    for number in range(inputs):
        small = number % WHOLE != WHOLE - 1 or not whole
        if small:
            text, test = source.text(chance), functools.partial(check, network_os, audited=number % AUDITED == 1)
        else:
            one = chance.choice(whole)
            if number // WHOLE % 2:
                text, test = garbled(one, chance), functools.partial(check_garbled, one)
            else:
                text, test = one.text[: chance.randint(0, len(one.text))], functools.partial(check_cut, one)
        try:
            with watched():
                taken += test(text) is not False
        except (Exception, MemoryError, RecursionError) as error:  # whatever comes is a fault
            kind = f"{type(error).__name__} {_where(error)}"
            if kind not in faults:
                shorter = shrunk(text, (type(error),), test) if type(error) is not Hang and small else text
                faults[kind] = f"{error}"[:300]
                KEPT.mkdir(parents=True, exist_ok=True)
                name = f"{network_os}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}.txt"
                (KEPT / name).write_text(f"{kind}\n{error}\n----\n{shorter}", encoding="utf-8", errors="surrogatepass")
    return {
        "platform": network_os, "inputs": inputs, "taken": taken, "faults": faults,
        "cpu": round(time.process_time(), 1),
    }  # fmt: skip


def _where(error: BaseException) -> str:
    """The last line of ours that it came through."""
    place, here = "", error.__traceback__
    while here is not None:
        file = Path(here.tb_frame.f_code.co_filename)
        if "module_utils" in file.parts or not place:
            place = f"{file.name}:{here.tb_lineno}"
        here = here.tb_next
    return place


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    json.dump(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
