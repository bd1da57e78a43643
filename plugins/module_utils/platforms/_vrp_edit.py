# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A VRP configuration as text that commands act upon: what a commit makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_RULE = re.compile(r"rule (\d+) (?!description\b)")
_OF_A_LIST = frozenset({"rule", "description", "step", "ip", "ipv6", "eq", "neq", "gt", "lt", "range"})


@dataclass
class Block:
    """A line of the system view with the lines below it; "" stands where one was taken out."""

    header: str
    lines: list[str] = field(default_factory=list)

    def said(self) -> list[str]:
        """The lines below without indentation, and without `#`."""
        return [line.strip() for line in self.lines if line.strip() not in ("", "#")]


def key_of(line: str) -> str | None:
    """What names the view that the line enters, None when it enters none."""
    words = line.split()
    if words[:1] == ["acl"]:
        rest = words[1:]
        family = "ipv6 " if rest[:1] == ["ipv6"] else ""
        rest = rest[1:] if family else rest
        if rest[:1] and rest[0] in ("ip-pool", "ipv6-pool", "port-pool", "name") and len(rest) > 1:
            return f"acl {family}{rest[0] if rest[0] != 'name' else ''}{rest[1]}"
        number = rest[1] if rest[:1] == ["number"] and len(rest) > 1 else (rest[0] if rest else "")
        return f"acl {family}{number}" if number.isdecimal() else None
    if words[:1] == ["traffic"] and len(words) > 2 and words[1] in ("classifier", "behavior", "policy"):
        return " ".join(words[:3])
    if words[:1] == ["interface"] and len(words) > 1:
        return f"interface {''.join(words[1:])}"
    return None


def _name(line: str) -> str:
    """What `undo` calls the line: `rule 5` and `classifier X` by these words, others as a whole."""
    words = line.split()
    numbered = words[:1] == ["rule"] and len(words) > 1 and words[1].isdecimal()
    return " ".join(words[:2] if numbered or words[:1] == ["classifier"] else words)


class Editor:
    """The text as blocks, in the order in which they stand."""

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        self.index: dict[str, Block] = {}
        self._view: Block | None = None
        self._at: dict[str, list[int]] = {}  # where a list's lines stand, while the view is a list: it may be long
        for raw in text.split("\n"):
            line = raw.rstrip("\r")
            if line[:1] in (" ", "\t") and self.blocks:
                self.blocks[-1].lines.append(line)
                continue
            self.blocks.append(Block(line))
            key = key_of(line)
            if key is not None:
                self.index.setdefault(key, self.blocks[-1])

    def text(self) -> str:
        return "\n".join(line for block in self.blocks for line in (block.header, *filter(None, block.lines)))

    def obey(self, command: str) -> None:
        """Raises ValueError for what would not be taken, or is not known here."""
        line = " ".join(command.split())
        words = line.split()
        key = key_of(line)
        if line == "quit":
            self._view = None
        elif key is not None:
            self._enter(line, key)
        elif self._view is not None:
            self._in_view(self._view, line, words)
        elif words[:1] == ["undo"] and key_of(line[5:]) is not None:
            self._delete(line, key_of(line[5:]) or "")
        elif words[:1] == ["traffic-policy"] and len(words) == 3:
            if self.bindings("", words[2]):
                raise ValueError(f"'{command}': another policy is applied in that direction")
            self._insert(Block(line))
        elif words[:2] == ["undo", "traffic-policy"]:
            found = [block for block in self.blocks if block.header == line[5:]]
            if not found:
                raise ValueError(f"'{command}': nothing of that name is applied")
            self.blocks.remove(found[0])
        else:
            raise ValueError(f"'{command}' is not understood here")

    def _enter(self, line: str, key: str) -> None:
        if key not in self.index:
            if key.startswith("interface "):
                raise ValueError(f"'{line}': the running configuration has no such place")
            self.index[key] = Block(line)
            self._insert(self.index[key])
        self._view = self.index[key]
        self._at = {}
        for at, said in enumerate(self._view.lines if key.startswith("acl ") else ()):
            self._at.setdefault(_name(said), []).append(at)

    def _insert(self, block: Block) -> None:
        """In front of the `return`, with a `#` behind it."""
        headers = [one.header for one in self.blocks]
        place = headers.index("return") if "return" in headers else len(headers)
        self.blocks[place:place] = [block, Block("#")]

    def _delete(self, line: str, key: str) -> None:
        gone = self.index.get(key)
        if gone is None:
            raise ValueError(f"'{line}': there is nothing of that name")
        users = [block.header for block in self.blocks if any(self._refers(said, gone) for said in block.said())]
        users += [block.header for block in self.blocks if self._refers(block.header, gone)]
        if users:
            raise ValueError(f"'{line}': {users[0]} still uses it")
        self.blocks.remove(gone)
        del self.index[key]

    @staticmethod
    def _refers(said: str, gone: Block) -> bool:
        words, name = said.split(), gone.header.split()
        if name[:1] == ["acl"]:
            ipv6 = name[1:2] == ["ipv6"]
            own = name[3 if ipv6 else 2 : 4 if ipv6 else 3] if "name" in name or "number" in name else name[-1:]
            return words[:1] == ["if-match"] and ("ipv6" in words) == ipv6 and "acl" in words and words[-1:] == own
        if name[1:2] == ["policy"]:
            return words[:2] == ["traffic-policy", name[2]]
        at = {"classifier": 1, "behavior": 3}.get(name[1], 0)
        return words[:1] == ["classifier"] and words[at : at + 1] == name[2:3]

    def _in_view(self, view: Block, line: str, words: list[str]) -> None:
        kind = view.header.split()[:2]
        if kind[0] == "interface":
            self._on_interface(view, line, words)
        elif kind == ["traffic", "policy"]:
            self._in_policy(view, line, words)
        elif kind[0] == "acl":
            self._in_list(view, line, words)
        elif kind[0] == "traffic":
            if words[0] not in ("if-match", "permit", "deny", "ip", "ipv6") and kind[1] == "classifier":
                raise ValueError(f"'{line}' is not understood in {view.header}")
            if line not in view.said():
                view.lines.append(f" {line}")

    def _on_interface(self, view: Block, line: str, words: list[str]) -> None:
        bare = words[1:] if words[0] == "undo" else words
        if bare[:1] != ["traffic-policy"] or len(bare) != 3 or bare[2] not in ("inbound", "outbound"):
            raise ValueError(f"'{line}' is not understood on an interface")
        there = [one for one in view.lines if one.split()[:1] == ["traffic-policy"] and one.split()[2:3] == bare[2:]]
        if words[0] == "undo":
            if not any(one.split() == bare for one in there):
                raise ValueError(f"'{line}': nothing of that name is applied there")
            view.lines = [one for one in view.lines if one.split() != bare]
        elif there and there[0].split() != bare:
            raise ValueError(f"'{line}': another policy is applied there in that direction")
        elif not there:
            view.lines.append(f" {line}")

    @staticmethod
    def _in_policy(view: Block, line: str, words: list[str]) -> None:
        if words[:2] == ["undo", "classifier"] and len(words) == 3:
            kept = [one for one in view.lines if one.split()[:2] != words[1:]]
            if len(kept) == len(view.lines):
                raise ValueError(f"'{line}': {view.header} has no such classifier")
            view.lines = kept
        elif words[0] == "classifier" and words[2:3] == ["behavior"] and len(words) > 3:
            view.lines = [one for one in view.lines if one.split()[:2] != words[:2]] + [f" {line}"]
        elif words[0] in ("share-mode", "statistics", "step", "description", "statistic"):
            view.lines.append(f" {line}")
        else:
            raise ValueError(f"'{line}' is not understood in {view.header}")

    def _in_list(self, view: Block, line: str, words: list[str]) -> None:
        if words[:2] == ["undo", "rule"] and len(words) == 3:
            for at in self._at.pop(" ".join(words[1:]), ()):
                view.lines[at] = ""
            return
        if words[0] not in _OF_A_LIST:
            raise ValueError(f"'{line}' is not understood in {view.header}")
        places = self._at.setdefault(_name(line), [])
        there = [view.lines[at].strip() for at in places]
        rules = [one for one in there if _RULE.match(one)] if _RULE.match(line) else []
        if rules and rules[0] != line:
            raise ValueError(f"'{line}': {view.header} has another {_name(line)}, and the two would merge")
        if line not in there:
            places.append(len(view.lines))
            view.lines.append(f" {line}")

    # -- what is applied where, and what it needs ----------------------------------------------------------------

    def bindings(self, view: str, way: str) -> list[str]:
        """The lines that apply a policy in a direction, on an interface or ("") in the system view."""
        block = self.index.get(view)
        said = block.said() if view and block else [] if view else [one.header for one in self.blocks]
        return [one for one in said if one.split()[:1] == ["traffic-policy"] and one.split()[2:] == [way]]

    def applied(self, view: str, way: str) -> str:
        return next((line.split()[1] for line in self.bindings(view, way)), "")

    def needs(self, policy: str) -> list[str]:
        """The keys of what a policy is made of, itself last."""
        found: list[str] = []
        for name, line in classifier_lines(self, policy):
            found += self.needs_of(name, line)
        return list(dict.fromkeys([*found, f"traffic policy {policy}"]))

    def needs_of(self, classifier: str, line: str) -> list[str]:
        """The keys of what a line `classifier X behavior Y` needs: lists and their pools first."""
        block = self.index.get(f"traffic classifier {classifier}")
        lists = []
        for said in block.said() if block else ():
            words = said.split()
            if words[:1] == ["if-match"] and "acl" in words:
                rest = [word for word in words[words.index("acl") + 1 :] if word not in ("name", "ipv6")]
                family = "ipv6 " if "ipv6" in words else ""
                lists.append(f"acl {family}{rest[0]}" if rest else "")
        pools = [
            f"acl {kind}{words[words.index(word) + 1]}"
            for key in lists
            for said in (self.index[key].said() if key in self.index else ())
            for words in [said.split()]
            for kind, word in (("ip-pool", "source-pool"), ("ip-pool", "destination-pool"),
                               ("port-pool", "source-port-pool"), ("port-pool", "destination-port-pool"))
            if word in words[:-1]
        ]  # fmt: skip
        behavior = line.split()[3:4]
        keys = [*pools, *lists, f"traffic classifier {classifier}", *(f"traffic behavior {one}" for one in behavior)]
        return [key for key in dict.fromkeys(keys) if key in self.index]

    def again(self, source: Editor, key: str) -> list[str]:
        """The lines that make the block what it is in `source`; none when it is that already."""
        wanted, here = source.index[key], self.index.get(key)
        if here is not None and here.said() == wanted.said():
            return []
        there, then = (dict.fromkeys(block.said() if block else ()) for block in (here, wanted))
        gone = dict.fromkeys(_name(said) for said in there if said not in then)  # a rule goes with its description
        lines = [said for said in then if said not in there or _name(said) in gone]
        return [wanted.header, *(f"undo {name}" for name in gone), *lines, "quit"]

    def unused(self, starts: Sequence[str]) -> Iterator[str]:
        """The commands that delete what begins so and nothing uses: policies, then classifiers, then lists."""
        for kind in ("traffic policy ", "traffic classifier ", "acl ", "traffic behavior "):
            begin = tuple(f"{kind}{middle}{start}" for middle in ("", "ipv6 ") for start in starts)
            for key in [key for key in self.index if key.startswith(begin)]:
                command = f"undo {' '.join(self.index[key].header.split()[:3])}"
                if kind == "acl ":
                    family = "ipv6 " if key.startswith("acl ipv6 ") else ""
                    command = f"undo acl {family}name {key.removeprefix('acl ').removeprefix(family)}"
                try:
                    Editor(self.text()).obey(command)
                except ValueError:
                    continue
                yield command


def classifier_lines(editor: Editor, policy: str) -> list[tuple[str, str]]:
    """(name, line) of the classifiers of a policy."""
    block = editor.index.get(f"traffic policy {policy}")
    return [(line.split()[1], line) for line in (block.said() if block else ()) if line.startswith("classifier ")]
