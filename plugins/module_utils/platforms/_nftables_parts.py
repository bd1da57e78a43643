# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an nftables rule is made of: tests, verdicts, side effects. Reading rules makes them, evaluation takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

# A number from low to high; or, with a mask that is not -1, every x with x & mask == low. Text: an interface pattern.
Value = tuple[int, int, int] | str
ANY: Value = (0, (1 << 128) - 1, -1)


@dataclass(frozen=True, slots=True)
class Selector:
    """What a test looks at. `kind` says how; `field`, `bits`, `shift`, `add` map it to a field of the packet."""

    kind: str
    field: str = ""
    bits: int = 0
    names: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)
    protocols: tuple[int, ...] | None = None  # the L4 header it is in; () any with ports
    family: int = 0
    shift: int = 0
    add: int = 0
    flags: bool = False  # a bit mask, whose plain value means: any of these bits
    last: bool = False  # it ends its header, and so can be read only where the header is whole


@dataclass(frozen=True, slots=True)
class Test:
    selectors: tuple[Selector, ...]
    elements: tuple[tuple[Value | None, ...], ...]  # None: not understood
    negate: bool = False
    doubt: str = ""  # it may hold for fewer packets
    loose: bool = False  # other elements may be in it by the time a packet comes


@dataclass(frozen=True, slots=True)
class Verdict:
    action: str
    target: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Map:
    """A verdict map: the first element that fits decides."""

    cases: tuple[tuple[Test, Verdict], ...]


@dataclass(frozen=True, slots=True)
class Narrow:
    reason: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    what: str  # "source", "destination" by connection tracking; "packet" at once
    moved: frozenset[str] = frozenset()  # fields that are others in the chains that follow


@dataclass(frozen=True, slots=True)
class Flow:
    devices: tuple[str, ...] | None  # None: not known


Part = Test | Verdict | Map | Narrow | Rewrite | Flow
