# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""clamd.conf and clamav-milter.conf: what counts of them, and the sizes behind which nothing is scanned.

Sources: clamd.conf(5), clamav-milter.conf(5); the defaults are those of ClamAV 1.x. Of a key that stands twice the
first one counts, but for the keys that are lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
# What clamd does without the key, in bytes; 0 is no limit.
LIMITS = {"StreamMaxLength": 100 * 1024**2, "MaxScanSize": 400 * 1024**2, "MaxFileSize": 100 * 1024**2}
_LISTS = ("localnet", "addheader", "tcpaddr", "excludepath")


@dataclass(frozen=True, slots=True)
class Setting:
    """A line that counts, or one that a former one of its key hides."""

    line: int
    key: str
    value: str
    hidden: bool = False


def read(text: str) -> tuple[Setting, ...]:
    """The settings of such a file in their order."""
    settings: list[Setting] = []
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        key = words[0].lower()
        value = words[1].strip().strip('"') if words[1:] else ""
        settings.append(Setting(number, words[0], value, key in seen and key not in _LISTS))
        seen.add(key)
    return tuple(settings)


def setting(settings: tuple[Setting, ...], key: str) -> Setting:
    """The one that counts; line 0 and no value where the file has none."""
    found = (one for one in settings if one.key.lower() == key.lower() and not one.hidden)
    return next(found, Setting(0, key, ""))


def switched_off(settings: tuple[Setting, ...], key: str) -> bool:
    """Whether a boolean that is on by itself is set to off."""
    return setting(settings, key).value.lower() in ("no", "false", "0")


def size(value: str) -> int | None:
    """Bytes of "25M"; None for what is no size."""
    found = re.fullmatch(r"(\d+)([kmg]?)", value.lower())
    return int(found[1]) * _UNITS[found[2]] if found else None


def below(settings: tuple[Setting, ...], message_size_limit: int) -> Iterator[tuple[Setting, int]]:
    """The limits of clamd that are smaller than a message may be, with their bytes; a default has line 0."""
    for key, default in LIMITS.items():
        one = setting(settings, key)
        limit = size(one.value) if one.line else default
        if limit is None or 0 < limit < message_size_limit:
            yield one, limit or 0
