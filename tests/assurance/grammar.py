# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Texts made of a platform's own lines and words, put together wrongly: what the fuzzer feeds to its parser."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Callable, Sequence

from .texts import rendered, written

TOKEN = re.compile(r"[A-Za-z_][\w.$-]*|\d[\w.:/-]*|[0-9a-fA-F:]*::[0-9a-fA-F:./]*|\s+|.", re.DOTALL)
# Numbers that parsers stumble over: out of every range, negative, digits that int() does not take or takes for others.
_NUMBERS = (
    "0 1 24 25 26 255 256 65535 65536 -1 4294967295 4294967296 18446744073709551616 1" + "0" * 40 + " 0x19 025 1e3 "
    "\u00b2 \u0663 0-65535 1-4294967295 65535-0 25-25 32 33 128 129"
).split()
_ADDRESSES = (
    "0.0.0.0 0.0.0.0/0 255.255.255.255 198.51.100.0/33 198.51.100.7/-1 198.51.100 198.51.100.256 0.0.0.254 "
    "::/0 ::/129 2001:db8:: 2001:db8:::1 fe80::1%eth0 ::ffff:192.0.2.1 198.51.100.0-198.51.100.255 "
    "0.0.0.0-255.255.255.255 2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
).split()
_NOISE = (*'{ } [ ] ; " \\ /* */ # ! = , ^C'.split(), "\x00", "\r", "\t", "\u2028", "\ufffd", "")
_WINDOW = 14  # lines of a text that are taken together
_REPEAT = 120


class Grammar:
    """Draws texts for one platform; the same seed draws the same."""

    def __init__(self, network_os: str) -> None:
        texts = [*written(network_os), *(one.text for one in rendered(network_os))] or ["hostname r"]
        self.texts = [text.splitlines() for text in texts]
        self.lines = sorted({line for text in self.texts for line in text})
        self.words = sorted({word for line in self.lines for word in TOKEN.findall(line) if not word.isspace()})
        # What opens a list or an interface, by how often lines follow that are further in.
        self.heads = [
            one for text in self.texts for one, below in itertools.pairwise(text) if _indent(below) > _indent(one)
        ] or self.lines

    def text(self, chance: random.Random) -> str:
        """Any text: most look like a part of a configuration, some like none."""
        shape = chance.random()
        if shape < 0.35:
            lines = self._window(chance)
        elif shape < 0.6:
            lines = [chance.choice(self.heads), *chance.choices(self.lines, k=chance.randint(1, 9))]
        elif shape < 0.75:
            lines = [chance.choice(self.heads), *(self._line(chance) for _ in range(chance.randint(1, 8)))]
        elif shape < 0.9:
            one, other = "\n".join(self._window(chance)), "\n".join(self._window(chance))
            lines = (one[: chance.randint(0, len(one))] + other[chance.randint(0, len(other)) :]).split("\n")
        elif shape < 0.97:
            lines = self._window(chance)
            place = chance.randrange(len(lines))
            lines[place] = self._noisy(lines[place], chance)
        else:
            lines = self._repeated(chance)
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            place = chance.randrange(len(lines))
            lines[place] = self.changed(lines[place], chance)
        return "\n".join(lines) + chance.choice(("", "\n", "\nend\n", "\n!\n", "\n}\n"))

    def _window(self, chance: random.Random) -> list[str]:
        """Some lines of a text, mostly with those that they are inside of."""
        text = chance.choice(self.texts)
        start = chance.randrange(len(text))
        window = text[start : start + chance.randint(1, _WINDOW)]
        if chance.random() < 0.3:
            return window
        around: list[str] = []
        indent = _indent(window[0])
        for line in reversed(text[:start]):
            if not indent:
                break
            if line.strip() and _indent(line) < indent:
                around.insert(0, line)
                indent = _indent(line)
        opened = sum(line.count("{") - line.count("}") for line in (*around, *window))
        return [*around, *window, *["}"] * opened]

    def _line(self, chance: random.Random) -> str:
        """Words without order, so far in as lines of the platform are."""
        indent = " " * chance.choice((0, 1, 2, 3, 4, 8))
        return indent + " ".join(self._word(chance) for _ in range(chance.randint(1, 9)))

    def _word(self, chance: random.Random) -> str:
        kind = chance.random()
        if kind < 0.8:
            return chance.choice(self.words)
        return chance.choice(_NUMBERS if kind < 0.9 else _ADDRESSES if kind < 0.97 else _NOISE)

    def changed(self, line: str, chance: random.Random) -> str:
        """The line with one word replaced, put in, left out, doubled or cut."""
        words = TOKEN.findall(line)
        places = [place for place, word in enumerate(words) if not word.isspace()]
        if not places:
            return self._line(chance)
        place = chance.choice(places)
        kind = chance.randrange(6)
        if kind <= 1:
            words[place] = self._word(chance)
        elif kind == 2:
            words.insert(place, self._word(chance) + " ")
        elif kind == 3:
            del words[place]
        elif kind == 4:
            words[place] = f"{words[place]} " * 2
        else:
            words[place] = words[place][: chance.randrange(len(words[place]))]
        return "".join(words)

    def _noisy(self, line: str, chance: random.Random) -> str:
        for _ in range(chance.randint(1, 4)):
            place = chance.randint(0, len(line))
            junk = chance.choice((*_NOISE, chr(chance.randrange(1, 0x2100))))
            line = line[:place] + junk + line[place + chance.randint(0, 3) :]
        return line

    def _repeated(self, chance: random.Random) -> list[str]:
        """One line or word many times, or many levels deep."""
        head, times = chance.choice(self.heads), chance.randint(2, _REPEAT)
        kind = chance.randrange(4)
        if kind == 0:
            return [head, *[chance.choice(self.lines)] * times]
        if kind == 1:
            return [head, " ".join([chance.choice(self.lines), *[self._word(chance)] * times])]
        if kind == 2:
            return [" " * depth + head for depth in range(times)]
        return [head.rstrip(" {") + " { "] * times + ["}"] * chance.randint(0, times)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


@functools.cache
def grammar(network_os: str) -> Grammar:
    return Grammar(network_os)


def shrunk(text: str, fails: Sequence[type[BaseException]], check: Callable[[str], object]) -> str:
    """A shorter text on which `check` still raises one of `fails`: lines, then words are left out."""
    for parts, joiner in ((text.split("\n"), "\n"), (None, "")):
        pieces = parts if parts is not None else TOKEN.findall(text)
        place = 0
        while place < len(pieces) and len(pieces) < 3000:
            fewer = pieces[:place] + pieces[place + 1 :]
            try:
                check(joiner.join(fewer))
            except tuple(fails):
                pieces = fewer
            except Exception:  # another fault: not the one that is looked at
                place += 1
            else:
                place += 1
        text = joiner.join(pieces)
    return text
