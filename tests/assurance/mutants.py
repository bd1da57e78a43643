# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One-token mutants of a configuration, the same for the same seed."""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .grammar import TOKEN, grammar
from .texts import Known

# Words that stand in each other's place on some platform: what a tired operator confuses.
_CONFUSED = tuple(
    tuple(group.split())
    for group in (
        "permit deny", "accept drop discard reject", "allow deny", "forward drop", "tcp udp ip", "tcp udp ipv6",
        "ip ipv6 ipv4", "in out", "input output", "inbound outbound", "ingress egress", "up down", "source destination",
        "saddr daddr", "sport dport", "source-port destination-port", "src-port dst-port", "src-address dst-address",
        "source-address destination-address", "inet inet6", "ip ip6", "eq neq gt lt", "any host", "jump goto return",
        "established syn", "ipv4-address ipv6-address", "smtp domain www", "icmp icmpv6 icmp6", "accept return",
        "log established fragments", "src-port dst-port port", "src-ip dst-ip", "enable disable", "yes no",
        "payload-protocol next-header protocol", "iifname oifname", "destination-prefix-list source-prefix-list",
    )
)  # fmt: skip
# Words that take a line out of force on one platform or another, or narrow it.
_PUT_IN = (
    "inactive: ", "disable ", "disabled=yes ", "no ", "undo ", "established ", "fragments ", "log ", "any ", "! ", "# ",
    "not ", "!= ", "except ", "time-range NIGHT ",
)  # fmt: skip
_ADDRESS = re.compile(r"\d+(?:\.\d+){3}(?:/\d+)?$|[0-9A-Fa-f:]*::?[0-9A-Fa-f:]*(?:/\d+)?$")


@dataclass(frozen=True)
class Mutant:
    """A text, what was done to which line (from 1), and the words that are or were there."""

    text: str
    what: str
    line: int
    words: tuple[str, ...]


def mutants(whole: Known, chance: random.Random) -> Iterator[Mutant]:
    """Without end; each text once while there are new ones."""
    lines = whole.text.split("\n")
    places = _relevant(whole, lines)
    seen = {whole.text}
    misses = 0
    while misses < 200:
        place = chance.choice(places)
        what, changed, touched = _mutated(whole, lines, place, chance)
        text = "\n".join(changed)
        if text in seen:
            misses += 1
            continue
        seen.add(text)
        misses = 0
        words = tuple(dict.fromkeys(word for line in touched for word in TOKEN.findall(line) if not word.isspace()))
        yield Mutant(text, what, place + 1, words)


def _relevant(whole: Known, lines: list[str]) -> list[int]:
    """Lines without which the text means something else, is cut off, or is none of the platform."""
    from .fuzz import meaning

    same = meaning(whole.read, whole.names)
    found = []
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        fewer = "\n".join(lines[:place] + lines[place + 1 :])
        try:
            if whole.lost(fewer) or meaning(whole.parse(fewer), whole.names) != same:
                found.append(place)
        except ValueError:
            found.append(place)
    return found


def _mutated(whole: Known, lines: list[str], place: int, chance: random.Random) -> tuple[str, list[str], list[str]]:
    """What was done, the lines then, and those that it concerns, old and new."""
    line = lines[place]
    kind = chance.random()
    if kind < 0.07:
        return "line deleted", lines[:place] + lines[place + 1 :], [line]
    if kind < 0.12:
        return "line doubled", [*lines[:place], line, *lines[place:]], [line]
    if kind < 0.22 and place + 1 < len(lines):
        other = lines[place + 1]
        return "neighbours swapped", [*lines[:place], other, line, *lines[place + 2 :]], [line, other]
    what, new = _changed(whole, line, chance)
    return what, [*lines[:place], new, *lines[place + 1 :]], [line, new]


def _changed(whole: Known, line: str, chance: random.Random) -> tuple[str, str]:
    words = TOKEN.findall(line)
    places = [place for place, word in enumerate(words) if not word.isspace()]
    place = chance.choice(places)
    word = words[place]
    kind = chance.random()
    if kind < 0.06:
        return "word deleted", "".join(words[:place] + words[place + 1 :])
    if kind < 0.14:
        words.insert(place, chance.choice(_PUT_IN))
        return "word put in", "".join(words)
    if kind < 0.24:
        words[place] = chance.choice(grammar(whole.network_os).words)
        return "word of the platform", "".join(words)
    if _ADDRESS.match(word) and ("." in word or "::" in word):
        what, words[place] = _address(word, chance)
    elif re.fullmatch(r"\d+", word):
        value = int(word)
        words[place] = str(chance.choice((value + 1, max(value - 1, 0), value ^ 1 << chance.randrange(8), 0, 65535)))
        what = "number"
    elif re.fullmatch(r"\d+-\d+", word):
        ends = [int(end) for end in word.split("-")]
        ends[chance.randrange(2)] += chance.choice((1, -1))
        words[place], what = f"{ends[0]}-{ends[1]}", "range"
    elif groups := [group for group in _CONFUSED if word.lower() in group]:
        words[place] = chance.choice([other for other in chance.choice(groups) if other != word.lower()])
        what = "word confused"
    else:
        start = chance.randrange(len(word))
        words[place] = chance.choice((word + "X", word[:start] + word[start + 1 :], "any"))
        what = "name or word changed"
    return what, "".join(words)


def _address(word: str, chance: random.Random) -> tuple[str, str]:
    address, slash, length = word.partition("/")
    if slash and length.isdecimal() and chance.random() < 0.6:
        return "prefix length", f"{address}/{max(int(length) + chance.choice((1, -1, 8, -8)), 0)}"
    try:
        value = ipaddress.ip_address(address)
    except ValueError:
        return "address", "any"
    if chance.random() < 0.15:
        return "any put in", "any"
    bit = 1 << chance.randrange(32 if value.version == 4 else 128)
    return "address bit", f"{type(value)(int(value) ^ bit)}{slash}{length}"
