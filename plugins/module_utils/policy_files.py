# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where in the YAML files of an inventory a variable is written: the file and the line of a Problem.

Files are composed into nodes and never constructed: no tag is resolved, no vault opened, no template
run. What a node's place is does not depend on what it means.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from .policy import Path as VariablePath

EXTENSIONS = (".yml", ".yaml", ".json")  # of group_vars and host_vars; Ansible takes none of them too
VAULT_HEADER = "$ANSIBLE_VAULT;"
MERGE_TAG = "tag:yaml.org,2002:merge"

# A value that is nothing but another variable: its lines are where that one is written.
_REFERENCE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file that cannot be read as YAML. `line` counts from 1; 0 where there is none."""

    file: str
    line: int
    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Variables of one host or group, in one file. `line` is where the scope begins in the file."""

    kind: str  # "host" | "group"
    name: str
    file: str
    line: int
    variables: MappingNode | None


@dataclass(frozen=True)
class Files:
    """All that the inventory's YAML files say, in Ansible's order of precedence, the strongest first."""

    scopes: tuple[Scope, ...]
    problems: tuple[FileProblem, ...]
    vaulted: tuple[str, ...]


def compose(text: str) -> Node | None:
    """The nodes of one YAML document, None for an empty one. Raises FileProblemError on text that is no YAML."""
    try:
        node: Node | None = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise FileProblemError(line, _told(error.problem or "it cannot be parsed")) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FileProblemError(line, f"holds the control character #x{ord(text[error.position]):02x}") from error
    except RecursionError as error:
        raise FileProblemError(0, "is nested too deeply") from error
    except YAMLError as error:
        raise FileProblemError(0, _told(str(error))) from error
    return node


class FileProblemError(ValueError):
    """Text that is no YAML: the line, counted from 1, and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


def _told(reason: str) -> str:
    return " ".join(f"is no YAML: {reason}".split())


def read_files(inventories: Sequence[str], playbooks: str = "", base: str = "", names: Collection[str] = ()) -> Files:
    """The YAML files of inventories (a file or a folder each), and of the variables beside the playbooks.

    `names` are the hosts and groups there are: a file that is named so needs no extension. File names in the
    result are relative to `base`, where they can be.
    """
    paths = list(_variable_files(Path(playbooks), names)) if playbooks else []
    for inventory in inventories:
        paths += [*_inventory_files(Path(inventory)), *_variable_files(_folder(Path(inventory)), names)]
    scopes: list[Scope] = []
    problems: list[FileProblem] = []
    vaulted: list[str] = []
    for kind, owner, path in dict.fromkeys(paths):
        name = _relative(path, base)
        try:
            text = path.read_text(encoding="utf-8-sig")
            node = None if text.startswith(VAULT_HEADER) else compose(text)
        except OSError as error:
            problems.append(
                FileProblem(name, 0, f"cannot be read: {error.strerror}", "let the user who runs this read it")
            )
        except UnicodeError:
            problems.append(FileProblem(name, 0, "is not UTF-8", "save it as UTF-8"))
        except FileProblemError as error:
            problems.append(FileProblem(name, error.line, error.reason, "mend the YAML"))
        else:
            if text.startswith(VAULT_HEADER):
                vaulted.append(name)
            elif owner:
                scopes.append(Scope(kind, owner, name, 1, node if isinstance(node, MappingNode) else None))
            elif isinstance(node, MappingNode):
                scopes += _inventory_scopes(node, name)
            problems += [replace(problem, file=name) for problem in _duplicates(node)]
    return Files(tuple(sorted(scopes, key=_precedence)), tuple(problems), tuple(vaulted))


def locate(files: Files, host: str, groups: Sequence[str], path: VariablePath, value: object) -> str:
    """The place of `path` as 'file:line', '' where it is in no file that can be read.

    `path` begins with a variable's name, and `value` is that variable's value for the host: of several
    files that set it the one that says the same is meant. A part of the path that is not there gives
    the line of what should hold it, and a variable that is set nowhere the line of the host.
    """
    names = {("host", host), ("group", "all")} | {("group", group) for group in groups}
    own = [scope for scope in files.scopes if (scope.kind, scope.name) in names]
    return _within(own, path, value, 0) or next(
        (f"{scope.file}:{scope.line}" for scope in reversed(own) if scope.kind == "host"), ""
    )


def _within(scopes: Sequence[Scope], path: VariablePath, value: object, depth: int) -> str:
    found = [
        (scope, key, node)
        for scope in scopes
        if scope.variables
        for key, node in _pairs(scope.variables)
        if key.value == path[0]
    ]
    if not found or depth > 4:  # a template may refer to itself in a circle
        return ""
    scope, key, node = next((one for one in found if _agrees(one[2], value)), found[0])
    line = key.start_mark.line
    for position, part in enumerate(path[1:], start=1):
        reference = _REFERENCE.fullmatch(node.value.strip()) if isinstance(node, ScalarNode) else None
        if reference:
            return _within(scopes, (reference[1], *path[position:]), value, depth + 1) or f"{scope.file}:{line + 1}"
        if isinstance(node, MappingNode):
            below = next((pair for pair in _pairs(node) if pair[0].value == str(part)), None)
            if below is None:
                break
            line, node = below[0].start_mark.line, below[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
        value = _inside(value, part)
    return f"{scope.file}:{line + 1}"


def _inside(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _agrees(node: Node, value: object) -> bool:
    """Whether the node may well be what the value came from; templates and vaulted values agree with anything."""
    if isinstance(node, MappingNode):
        if not isinstance(value, Mapping):
            return False
        pairs = [(key.value, below) for key, below in _pairs(node)]
        values = {str(key): one for key, one in value.items()}
        return len(pairs) == len(values) and all(key in values and _agrees(below, values[key]) for key, below in pairs)
    if isinstance(node, SequenceNode):
        if not isinstance(value, list | tuple) or len(value) != len(node.value):
            return False
        return all(_agrees(below, one) for below, one in zip(node.value, value, strict=True))
    if str(node.tag).startswith("!") or "{{" in node.value:
        return True
    written = str(node.value).lower()
    if isinstance(value, bool):
        return written in (("true", "yes", "on") if value else ("false", "no", "off"))
    return written == ("" if value is None else str(value)).lower() or (value is None and written in ("null", "~"))


def _pairs(node: MappingNode, depth: int = 0) -> Iterator[tuple[Node, Node]]:
    """Keys and values, those of a merge key ('<<') behind the mapping's own."""
    merged: list[Node] = []
    for key, value in node.value:
        if str(key.tag) == MERGE_TAG and depth < 8:
            merged += value.value if isinstance(value, SequenceNode) else [value]
        else:
            yield key, value
    for value in merged:
        if isinstance(value, MappingNode):
            yield from _pairs(value, depth + 1)


def _duplicates(node: Node | None) -> Iterator[FileProblem]:
    """Keys that are there twice: YAML forbids them, and Ansible takes the last one with a warning."""
    pending = [node]
    seen = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, SequenceNode):
            pending += reversed(one.value)
        elif isinstance(one, MappingNode):
            lines: dict[str, int] = {}
            for key, _ in one.value:
                line = key.start_mark.line + 1
                if isinstance(key, ScalarNode) and key.value in lines and str(key.tag) != MERGE_TAG:
                    reason = f"the key '{key.value}' is there already, in line {lines[key.value]}"
                    yield FileProblem("", line, reason, "keep one of the two")
                elif isinstance(key, ScalarNode):
                    lines[key.value] = line
            pending += [value for _, value in reversed(one.value)]


def _folder(inventory: Path) -> Path:
    return inventory if inventory.is_dir() else inventory.parent


def _inventory_files(inventory: Path) -> Iterator[tuple[str, str, Path]]:
    """The YAML files of an inventory, without an owner: they say themselves whose variables they hold."""
    for path in sorted(inventory.iterdir()) if inventory.is_dir() else [inventory]:
        if path.is_file() and path.suffix in EXTENSIONS and not path.name.startswith("."):
            yield "", "", path


def _variable_files(root: Path, names: Collection[str]) -> Iterator[tuple[str, str, Path]]:
    """Kind, owner and path of every file in host_vars and group_vars."""
    for kind in ("host", "group"):
        folder = root / f"{kind}_vars"
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            parts = path.relative_to(folder).parts
            hidden = any(part.startswith(".") or part.endswith("~") for part in parts)
            if not path.is_file() or hidden:
                continue
            if (len(parts) > 1 and path.suffix in (*EXTENSIONS, "")) or path.name in names:
                yield kind, parts[0], path
            elif len(parts) == 1 and path.suffix in EXTENSIONS:
                yield kind, path.stem, path


def _inventory_scopes(node: MappingNode, file: str) -> Iterator[Scope]:
    for key, value in _pairs(node):
        if not isinstance(value, MappingNode):
            continue
        for part, below in _pairs(value):
            if not isinstance(below, MappingNode):
                continue
            if part.value == "hosts":
                for host, variables in _pairs(below):
                    own = variables if isinstance(variables, MappingNode) else None
                    yield Scope("host", str(host.value), file, host.start_mark.line + 1, own)
            elif part.value == "vars":
                yield Scope("group", str(key.value), file, part.start_mark.line + 1, below)
            elif part.value == "children":
                yield from _inventory_scopes(below, file)


def _precedence(scope: Scope) -> tuple[bool, bool, bool]:
    """Hosts before groups, groups before 'all', and files of their own before the inventory's (Ansible's order)."""
    separate = f"{scope.kind}_vars" in Path(scope.file).parts
    return scope.kind == "group", scope.name == "all" and scope.kind == "group", not separate


def _relative(path: Path, base: str) -> str:
    try:
        return str(path.resolve().relative_to(Path(base).resolve())) if base else str(path)
    except ValueError:
        return str(path)
