# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's own verdict on packets, as far as it takes a text: its evaluator shares no code with the audit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.isp.hardening.plugins.module_utils.packets import address_value
from ansible_collections.isp.hardening.plugins.module_utils.platforms import linux_nftables
from lab import conntrack, junos_tree, packets
from lab.ace import Rejected
from lab.cli import Configuration, Refusal
from lab.indented import Block, parse
from lab.judge import Packet
from lab.netns import tool
from lab.routers import kind
from lab.routers import names as lab_names
from lab.routers.base import Router
from lab.routers.linux_nftables import Device, Link

from .texts import Known

Asked = tuple[str, str, int, Mapping[str, int]]  # attachment, direction, family, fields
_PATIENCE = 0.1
_BATCH, _AT_MOST = 40, 80  # packets that are sent together, and for one text and direction
_LINKS = {
    "ppp0": Link("subscribers", ("198.51.100.253/30",), ("198.51.100.0/25", "2001:db8:100::/40")),
    "wan0": Link("internet", ("203.0.113.253/30",), ("0.0.0.0/0", "::/0")),
}
_SYN = 2


class Judge:
    """No lab router: nothing is said, and `why` tells so."""

    why = ""

    def verdicts(self, whole: Known, text: str, asked: Sequence[Asked]) -> list[str | None]:
        """'permit', 'deny', or None where the router would not take the text or the packet cannot be sent."""
        return [None] * len(asked)

    def surely(self, whole: Known, text: str, asked: Asked) -> str | None:
        """The verdict on one packet, with all the time that it may need."""
        return self.verdicts(whole, text, [asked])[0]


class Missing(Judge):
    def __init__(self, why: str) -> None:
        self.why = why


class Typed(Judge):
    """A router whose configuration is a text."""

    def verdicts(self, whole: Known, text: str, asked: Sequence[Asked]) -> list[str | None]:
        try:
            router = kind(whole.network_os)("router", text)
            if isinstance(getattr(router, "running", None), Configuration):
                router = _replayed(whole, text)
            elif whole.network_os == "juniper_junos" and _unknown(text) - _unknown(whole.text):
                return [None] * len(asked)
        except Exception:  # each CLI refuses in its own way: what it refuses is no text of the vendor's
            return [None] * len(asked)
        return [self._one(router, one) for one in asked]

    @staticmethod
    def _one(router: Router, asked: Asked) -> str | None:
        attachment, direction, family, fields = asked
        try:
            return router.judge(attachment, direction, Packet(family=family, **fields))
        except Exception:  # a line that the router would not have
            return None


@functools.lru_cache(maxsize=64)
def _unknown(text: str) -> frozenset[str]:
    """What a commit would refuse."""
    return frozenset(junos_tree.check(junos_tree.parse(text)))


def _replayed(whole: Known, text: str) -> Router:
    """A router with one line typed after the other, which is stricter than a router that starts with a text.

    Raises Rejected for a line that it does not take, unless the text that the mutant was made of has that line too.
    """
    router, refused = _entered(whole.network_os, text)
    if new := refused - _refused(whole):
        raise Rejected(len(new))
    return router


@functools.lru_cache(maxsize=64)
def _refused(whole: Known) -> frozenset[str]:
    return _entered(whole.network_os, whole.text)[1]


def _entered(network_os: str, text: str) -> tuple[Router, frozenset[str]]:
    # Interfaces are hardware: those of the text are there before anything is typed.
    there = [line for line in text.splitlines() if line.startswith("interface ")]
    router = kind(network_os)("router", "\n".join([*there, "end", ""]))
    running: Configuration = router.running  # type: ignore[attr-defined]
    refused = set()

    def enter(block: Block, path: tuple[str, ...]) -> None:
        inside = path
        for child in block.children:
            if "\n" in child.line:  # a banner
                continue
            if child.line[0] != "!":  # a comment, behind which the mode is what it was
                try:
                    inside, _ = running.enter(path, child.line)
                except (Rejected, Refusal):
                    refused.add(child.line)
                    continue
            enter(child, inside)

    enter(parse(text), ())
    return router, frozenset(refused)


class Kernel(Judge):
    """nftables in the kernel; packets between ppp0 and wan0."""

    def __init__(self, router: Device) -> None:
        self.router = router
        self._patience = _PATIENCE

    def surely(self, whole: Known, text: str, asked: Asked) -> str | None:
        self._patience = 10 * _PATIENCE
        try:
            return super().surely(whole, text, asked)
        finally:
            self._patience = _PATIENCE

    def verdicts(self, whole: Known, text: str, asked: Sequence[Asked]) -> list[str | None]:
        found: list[str | None] = [None] * len(asked)
        ruleset = linux_nftables.ADDRESS_LINE.sub("", text)
        if whole.foreign or "flowtable" in ruleset:  # cables lead to the common pools; not every kernel has the other
            return found
        try:
            self.router.nft("flush", "ruleset")
            self.router.nft("-f", "-", stdin=ruleset)
        except OSError:
            return found
        tracked = " ct " in ruleset
        for direction in ("up", "down"):
            mine = {
                number: Packet(family=family, **fields)
                for number, (_, way, family, fields) in enumerate(asked)
                if way == direction and _sendable(family, fields, tracked, "length" in ruleset)
            }
            stride = len(mine) // _AT_MOST + 1
            mine = dict(list(mine.items())[::stride])
            came = self._came(direction, mine)
            for number, packet in mine.items():
                # What did not come may have been stopped before any filter: a martian, a hop limit.
                ordinary = packet.ttl > 1 and _forwarded(packet)
                found[number] = "permit" if number in came else "deny" if ordinary else None
        return found

    def _came(self, direction: str, several: Mapping[int, Packet]) -> set[int]:
        """Those that come out; who does not gets a second chance, because a busy machine loses packets."""
        came: set[int] = set()
        for patience in (self._patience, 3 * self._patience):
            waiting = [number for number in several if number not in came]
            for start in range(0, len(waiting), _BATCH):
                batch = waiting[start : start + _BATCH]
                conntrack.forget(self.router.namespace)
                ends = self.router.ends("ppp0", direction)
                passed = packets.arriving(*ends, [several[number] for number in batch], patience)
                came |= {number for number, one in zip(batch, passed, strict=True) if one}
        return came


def _sendable(family: int, fields: Mapping[str, int], tracked: bool, measured: bool) -> bool:
    opening = fields["protocol"] == 17 or (fields["protocol"] == 6 and fields["tcp_flags"] == _SYN)
    fragment_header = family == 4 or not fields["fragment"] or fields["extension"] == 3
    return (
        not fields["undetermined"] and not fields["state"] and fragment_header and fields["extension"] != 5
        and (100 if measured else 0) <= fields["length"] <= 1400  # the mark that tells it from others needs room
        and ((opening and not fields["fragment"]) or not tracked)
    )  # fmt: skip


def _forwarded(packet: Packet) -> bool:
    """The kernel forwards between these addresses at all."""
    pools = {4: ("198.51.100.0", 25), 6: ("2001:db8:100::", 40)}
    address, length = pools[packet.family]
    bits = 32 if packet.family == 4 else 128
    inside = [
        one >> bits - length == address_value(address, packet.family) >> bits - length
        for one in (packet.source, packet.destination)
    ]
    ends = packet.source, packet.destination
    special = [one >> 24 in (0, 127) or one >> 28 >= 14 if packet.family == 4 else one >> 125 != 1 for one in ends]
    return inside.count(True) == 1 and not any(special)


@contextlib.contextmanager
def judge(network_os: str) -> Iterator[Judge]:
    """Whoever judges packets of the platform."""
    if network_os not in lab_names():
        yield Missing(f"lab/routers/{network_os}.py is not there")
    elif not kind(network_os).own_server:
        yield Typed()
    elif reason := kind(network_os).unavailable():
        yield Missing(reason)
    else:
        router = Device("assurance", "", _LINKS)
        router.connect()
        router.namespace.run(tool("sysctl"), "-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0")
        try:
            yield Kernel(router)
        finally:
            router.stop()
