# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading of variable trees: what is there, of which type, and a Problem with its path for what is not as it must be.

A reader never raises on any data. It notes the problem and gives an empty value of the type that was wanted.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """What is wrong at a place of the variable tree, and what to do. The path begins with the variable's name."""

    path: Path
    reason: str
    mend: str


def path_text(path: Path) -> str:
    """('isp_policy', 'pools', 'a', 'ipv4', 0) as 'isp_policy.pools.a.ipv4[0]'."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


class Problems(list[Problem]):
    """Every problem so far, in the order in which the tree was read."""

    def add(self, path: Path, reason: str, mend: str) -> None:
        self.append(Problem(tuple(plain(part) if isinstance(part, str) else part for part in path), reason, mend))


def plain(text: str) -> str:
    """A plain str: Ansible 2.19 hands over a subclass that carries its origin and would drag it everywhere."""
    return str.__str__(text) if type(text) is str else "".join(text)


def shown(value: object) -> str:
    """A value for a message: short, on one line."""
    text = repr(plain(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def kind_of(value: object) -> str:
    """The name that YAML has for a value's type."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a text"),
        (Mapping, "a mapping"),
        (datetime.date, "a date"),
        (Sequence, "a list"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "nothing")


def meant(word: str, known: Iterable[str], what: str) -> str:
    """The mend for a word that is not known: the nearest one, or all of them."""
    choices = list(known)
    near = nearest(word, choices)
    if near:
        return f"did you mean '{near}'?"
    return f"the {what} are {', '.join(choices)}" if choices else f"there are no {what} yet"


def nearest(word: str, choices: Sequence[str]) -> str:
    same = [one for one in choices if one.lower() == word.lower()]
    # Ids of two or three letters are all near to each other.
    return next(iter(same or (difflib.get_close_matches(word, choices, n=1) if len(word) > 3 else [])), "")


def read_mapping(
    data: object, path: Path, problems: Problems, keys: Sequence[str], required: Mapping[str, str] | None = None
) -> dict[str, object]:
    """The known keys of a mapping. Those of `required` that are absent are problems, each with its mend."""
    if not isinstance(data, Mapping):
        problems.add(path, f"is {kind_of(data)}, not a mapping", f"write the keys {', '.join(keys)} under it")
        return {}
    for key in data:
        if key not in keys:
            problems.add((*path, key), f"unknown key {shown(key)}", meant(str(key), keys, "keys"))
    for key, mend in (required or {}).items():
        if key not in data:
            problems.add(path, f"'{key}' is missing", mend)
    return {key: data[key] for key in keys if key in data}


def read_items(data: object, path: Path, problems: Problems) -> list[tuple[Path, object]]:
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Sequence):
        problems.add(path, f"is {kind_of(data)}, not a list", "write a list: [..], or one item a line after '- '")
        return []
    return [((*path, number), item) for number, item in enumerate(data)]


def read_list(
    tree: Mapping[str, object], key: str, place: Path, problems: Problems, empty: str = ""
) -> list[tuple[Path, object]]:
    """The items of the list under the key, none where the key is absent. `empty` is the mend where [] is no choice."""
    if key not in tree:
        return []
    if empty and tree[key] == []:
        problems.add((*place, key), "is empty", empty)
    return read_items(tree[key], (*place, key), problems)


def read_text(data: object, path: Path, problems: Problems) -> str:
    """One line of text that can be read; "" with a problem for anything else."""
    if not isinstance(data, str):
        problems.add(path, f"is {kind_of(data)}, not a text", "write a text, in quotes where YAML reads another type")
    elif not data.strip():
        problems.add(path, "is empty", "fill it in")
    elif not data.strip().isprintable():  # a folded text ('>') ends with a line break
        problems.add(path, "holds a line break or a control character", "write it on one line")
    else:
        return plain(data.strip())
    return ""


def read_flag(data: object, path: Path, problems: Problems) -> bool:
    if isinstance(data, bool):
        return data
    problems.add(path, f"is {kind_of(data)} ({shown(data)}), not true or false", "write true or false, without quotes")
    return False


def read_choice(data: object, path: Path, problems: Problems, choices: Sequence[str]) -> str:
    if isinstance(data, str) and data in choices:
        return plain(data)
    near = nearest(str(data), choices)
    few = "none of " + ", ".join(choices) if len(choices) < 8 else "not known"
    problems.add(
        path, f"{shown(data)} is {few}", f"did you mean '{near}'?" if near else f"write one of {', '.join(choices)}"
    )
    return choices[0]


def read_number(
    tree: Mapping[str, object],
    key: str,
    default: int,
    path: Path,
    problems: Problems,
    lowest: int = 1,
    highest: int = 0,
) -> int:
    """The whole number under the key, the default where it is absent; `highest` 0 is no limit."""
    value = tree.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add((*path, key), f"is {kind_of(value)} ({shown(value)}), not a whole number", "write digits only")
    elif value < lowest or (highest and value > highest):
        said = f"from {lowest} to {highest}" if highest else f"of {lowest} or more"
        problems.add((*path, key), f"{value} is out of range", f"write a number {said}")
    else:
        return int(value)
    return default
