# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text of others as a report may show it: one line, bounded, without secrets and without tricks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ..secrets import redact

LONGEST_TEXT = 1_000  # what a person can still read; the rest is counted

# C0, C1, surrogates, noncharacters and every format character that hides or turns text (bidi, zero width, tags).
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    "\U0001fffe\U0001ffff\U000e0000-\U0010ffff]"
)


@lru_cache(maxsize=65536)
def clean(text: str) -> str:
    """One line without secrets, that cannot hide anything, turn the text around or drive a terminal.

    What is longer than LONGEST_TEXT is cut, with a note.
    """
    more = len(text) - LONGEST_TEXT
    text = redact(text[:LONGEST_TEXT])
    if not (text.isascii() and text.isprintable()):
        text = _INVISIBLE.sub(_visible, text)
    return f"{text} … ({more:,} more characters)" if more > 0 else text


def _visible(found: re.Match[str]) -> str:
    return "    " if found[0] == "\t" else f"<U+{ord(found[0]):04X}>"


def text_of(value: object) -> str:
    return "" if value is None else clean(str(value))


def number_of(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def texts_of(values: Iterable[object] | None) -> tuple[str, ...]:
    return tuple(map(text_of, values or ()))
