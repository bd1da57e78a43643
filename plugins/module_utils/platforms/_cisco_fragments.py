# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a line of a list does to later fragments and behind IPv6 extension headers, and where that is not certain."""

from __future__ import annotations

from ..packets import EXTENSIONS, INITIAL, LATER_FRAGMENT, Alternatives, Match, complement, exactly, union
from ._cisco_dialect import EXTENSION_NUMBERS

_NO_EXTENSION: Alternatives = ((0, 0b111),)
FIRST_OR_WHOLE: Alternatives = ((0, 0b10),)
_LATER_DOUBT = "what a line with layer 4 conditions does to later fragments is not documented"
_CHAIN_DOUBT = "whether a protocol is sought behind IPv6 extension headers is not documented"
_CUT_SHORT_DOUBT = "whether a protocol matches an incomplete header chain is not documented"

# One reading of a line: what it matches, and why that is not certain ("" when it is).
Piece = tuple[tuple[Match, ...], str]


def pieces_of(
    base: dict[str, Alternatives], layer4: dict[str, Alternatives], family: int, permit: bool, doubt: str,
    settled: set[int], later_fragments: frozenset[int], header_chain: bool,
) -> list[Piece]:  # fmt: skip
    """The line for whole packets and first fragments, and for what it says about later ones.

    base, layer4: its conditions by field, those that only a first fragment can show apart. doubt: why the line itself
    is not certain. settled: the extension headers that lines above deny by number; a line may add one.
    later_fragments: the families in which a permit with layer 4 conditions matches them on layer 3 alone.
    header_chain: is a protocol sought behind extension headers?
    """
    unsure: list[Piece] = []
    if layer4:
        certain: list[Match] = [{**base, **layer4, **INITIAL}]
        if "fragment" in base:  # `fragments` beside ports: no device takes it
            return [((certain[0],), doubt or "fragments together with layer 4 conditions")]
        later: Match = {**base, "fragment": LATER_FRAGMENT}
        if family not in later_fragments:
            unsure.append(((later,), _LATER_DOUBT))
        elif permit:
            certain.append(later)
    elif family == 6 and "protocol" in base and "fragment" not in base:
        certain = [{**base, "undetermined": ((0, 1),)}, {**base, "fragment": LATER_FRAGMENT}]
        cut_short: Match = {**base, "undetermined": ((1, 1),), "fragment": FIRST_OR_WHOLE}
        unsure.append(((cut_short,), _CUT_SHORT_DOUBT))
    else:
        certain = [base]
    by_number = "protocol" in base and base["protocol"][0][0] in EXTENSION_NUMBERS
    first_header = by_number or ("protocol" in base and not header_chain)
    if family == 6 and first_header and "extension" not in base:
        certain, hidden = _first_header(base, certain, permit or bool(doubt), settled)
        if hidden:
            unsure.insert(0, (hidden, _CHAIN_DOUBT))
    pieces: list[Piece] = [(tuple(certain), doubt)] if certain else []
    return pieces + [(matches, doubt or why) for matches, why in unsure]


def _first_header(
    base: Match, certain: list[Match], permit: bool, settled: set[int]
) -> tuple[list[Match], tuple[Match, ...]]:
    """Split what a protocol matches into what is certain and what depends on the device.

    A device compares either the first next-header or the one behind the extension headers. Once a line denies
    an extension header by number to everybody, later lines see packets with it only on devices of the second
    kind: from there on (`settled`) they are read so.
    """
    number = base["protocol"][0][0]
    rest = {name: value for name, value in base.items() if name != "protocol"}
    if number in EXTENSION_NUMBERS:
        code = EXTENSIONS[EXTENSION_NUMBERS[number]]
        if not permit and not rest:
            settled.add(code)
        return [], ({**rest, "extension": exactly(code, 3)}, base)
    if len(settled) == len(EXTENSION_NUMBERS):
        return certain, ()
    known = union(_NO_EXTENSION, *(exactly(code, 3) for code in sorted(settled)))
    sure: list[Match] = [{**match, "extension": known} for match in certain]
    return sure, tuple({**match, "extension": complement(known, 3)} for match in certain)
