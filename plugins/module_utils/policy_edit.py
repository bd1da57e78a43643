# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Add, change and remove exceptions in the text of a policy file, and leave every other byte as it is.

The YAML nodes tell where things are, and the text is spliced there. A YAML library that dumps the whole
file again moves comments to other entries when a list changes, and breaks lines anew.
"""

from __future__ import annotations

import copy
import datetime
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .policy import KEYS, Problem, path_text, read_policy
from .policy_files import VAULT_HEADER, FileProblemError, compose

VARIABLE, LIST = "isp_policy", "exceptions"
FIELDS = KEYS["exception"]


class EditError(ValueError):
    """Why the text is not edited. `causes` are the line, counted from 1 (0: none), and the reason with its mend."""

    def __init__(self, line: int, reason: str, mend: str) -> None:
        super().__init__(f"{reason}; {mend}")
        self.causes = [(line, f"{reason}; {mend}")]

    def told(self, file: str) -> str:
        return "\n".join(f"{file}:{line}: {text}" if line else f"{file}: {text}" for line, text in self.causes)


@dataclass(frozen=True)
class _Place:
    """Where the list of exceptions is: its key, and its value, None where the key is not there."""

    policy: MappingNode
    key: Node | None
    value: Node | None


def edited(text: str, prefix: str, fields: Mapping[str, Any] | None, today: datetime.date) -> str:
    """The text with the fields set in the exception for the prefix, or without it when `fields` is None.

    Raises EditError when that cannot be done, or when the policy would not be good.
    """
    try:
        ipaddress.ip_network(prefix)
    except ValueError as error:
        raise EditError(0, f"prefix: {error}", "write a network and a prefix length, as 198.51.100.7/32") from error
    if fields and "until" in fields and not _is_date(str(fields["until"])):
        raise EditError(0, f"until: {str(fields['until'])!r} is not a date", "write year-month-day, as 2027-01-31")
    result = drop(text, prefix) if fields is None else put(text, prefix, fields)
    if result == text:
        return text
    problems = _problems(result, today)
    if problems:
        refusal = EditError(0, "", "")
        refusal.causes = [(line, f"{path_text(one.path)}: {one.reason}; {one.mend}") for line, one in problems]
        raise refusal
    if fields and "until" in fields and str(fields["until"]) < today.isoformat():
        raise EditError(0, f"until: {fields['until']} is in the past", "name a day to come, or remove the exception")
    return result


def put(text: str, prefix: str, fields: Mapping[str, Any]) -> str:
    """The text with the fields set in the exception for the prefix, which is added where there is none.

    `fields` are of FIELDS, with a text as `until` and a list as `controls`; those that are absent stay.
    Raises EditError.
    """
    place = _place(text)
    number = _number(text, prefix)
    if number is None:
        return _checked(text, _added(text, place, {"prefix": prefix, **fields}), None, {"prefix": prefix, **fields})
    old = _exceptions(text)[number]
    changed = {key: value for key, value in fields.items() if _plain(old.get(key)) != _plain(value)}
    result = text
    for key, value in changed.items():
        items = _place(result).value
        assert isinstance(items, SequenceNode)
        result = _with_field(result, items.value[number], key, value)
    return _checked(text, result, number, changed) if changed else text


def drop(text: str, prefix: str) -> str:
    """The text without the exception for the prefix; comments on lines of their own stay. Raises EditError."""
    number = _number(text, prefix)
    if number is None:
        return text
    place = _place(text)
    assert place.key is not None
    items = place.value
    assert isinstance(items, SequenceNode)
    if items.flow_style:
        start, end = _flow_span(text, items, number)
        result = text[:start] + text[end:]
    else:
        start, end = _block_span(text, items, number)
        result = text[:start] + text[end:]
        if len(items.value) == 1:
            after = _colon(text, place.key)
            result = text[:after] + " []" + text[after:start] + text[end:]
    return _checked(text, result, number, None)


def find(text: str, prefix: str) -> dict[str, Any] | None:
    """The exception for the prefix, as it is written."""
    number = _number(text, prefix)
    return None if number is None else {key: _plain(value) for key, value in _exceptions(text)[number].items()}


def _problems(text: str, today: datetime.date) -> list[tuple[int, Problem]]:
    """What is wrong with the policy in the text, each with its line; templates and vaulted values are not judged."""
    root = compose(text)
    found = []
    for problem in read_policy(_load(text).get(VARIABLE), today)[1]:
        line, open_ended = _line(root, problem.path)
        if not open_ended:
            found.append((line, problem))
    return found


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class _Loader(yaml.SafeLoader):
    """Values as Ansible reads them (YAML 1.1); what has a tag of its own (!vault, !unsafe) stays text."""


def _timestamp(loader: _Loader, node: yaml.ScalarNode) -> object:
    try:
        return loader.construct_yaml_timestamp(node)
    except ValueError:
        return loader.construct_scalar(node)  # the 31st of February: whoever reads the policy says where


_Loader.add_multi_constructor("!", lambda loader, _tag, node: loader.construct_scalar(node))
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _timestamp)


def _load(text: str) -> dict[str, Any]:
    try:
        data = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        # PyYAML lets through what Python says of a value that is not what its tag promises: `!!int a`, `!!bool z`.
        raise EditError(0, f"is no YAML: {' '.join(str(error).split())}", "mend the YAML") from error
    return data if isinstance(data, dict) else {}


def _exceptions(text: str) -> list[Any]:
    exceptions: list[Any] = _load(text)[VARIABLE].get(LIST) or []
    return exceptions


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime.date) else value


def _number(text: str, prefix: str) -> int | None:
    """Which exception is for the prefix."""
    place = _place(text)
    if not isinstance(place.value, SequenceNode):
        return None
    wanted = ipaddress.ip_network(prefix)
    for number, item in enumerate(_exceptions(text)):
        try:
            if isinstance(item, dict) and ipaddress.ip_network(str(item.get("prefix"))) == wanted:
                return number
        except ValueError:
            continue  # a template, or broken: not the one that is looked for
    return None


def _place(text: str) -> _Place:
    if text.startswith(VAULT_HEADER):
        raise EditError(1, "the file is encrypted", "keep the policy in a file of its own, outside the vault")
    try:
        root = compose(text)
    except FileProblemError as error:
        raise EditError(error.line, error.reason, "mend the YAML") from error
    pair = _only(root, VARIABLE)
    if pair is None:
        raise EditError(0, f"{VARIABLE} is not in the file", "name the file that sets it")
    key, policy = pair
    line = key.start_mark.line + 1
    if not isinstance(policy, MappingNode) or policy.flow_style or _is_alias(key, policy):
        raise EditError(line, f"{VARIABLE} is not written out as lines of keys", "write it so in this file")
    pair = _only(policy, LIST)
    if pair is None:
        return _Place(policy, None, None)
    key, value = pair
    empty = isinstance(value, ScalarNode) and value.value in ("", "null", "~") and not value.style
    if _is_alias(key, value) or not (empty or isinstance(value, SequenceNode)):
        mend = "write the list itself in this file"
        raise EditError(key.start_mark.line + 1, f"{VARIABLE}.{LIST} is a template, an alias or no list", mend)
    return _Place(policy, key, value)


def _only(mapping: Node | None, name: str) -> tuple[Node, Node] | None:
    """The key of that name and its value. Of a key that is there twice Ansible takes the last one: none is edited."""
    pairs: list[tuple[Node, Node]] = mapping.value if isinstance(mapping, MappingNode) else []
    found = [pair for pair in pairs if pair[0].value == name]
    if len(found) > 1:
        first, second = (key.start_mark.line + 1 for key, _ in found[:2])
        raise EditError(second, f"the key '{name}' is there already, in line {first}", "keep one of the two")
    return found[0] if found else None


def _is_alias(key: Node, value: Node) -> bool:
    return bool(value.start_mark.index < key.end_mark.index)


def _added(text: str, place: _Place, fields: Mapping[str, Any]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    items = place.value
    column: int
    if isinstance(items, SequenceNode) and items.value and items.flow_style:
        at = items.value[-1].end_mark.index
        return f"{text[:at]}, {_flow(fields)}{text[at:]}"
    if isinstance(items, SequenceNode) and items.value:
        column, after, head = _dashes(text, items), _end(text, items), ""
        flow = bool(getattr(items.value[-1], "flow_style", True))
    elif place.key is not None and items is not None:
        if isinstance(items, SequenceNode) or items.value:  # [], null or ~: cut it
            text = text[: items.start_mark.index].rstrip(" ") + text[items.end_mark.index :]
        column, after, head, flow = place.key.start_mark.column + 2, _colon(text, place.key), "", False
    else:
        # Of its first key, since an anchor stands where the mapping begins.
        column, after, flow = place.policy.value[0][0].start_mark.column + 2, _end(text, place.policy), False
        head = " " * (column - 2) + f"{LIST}:{newline}"
    at = _line_end(text, after)
    if not text[:at].endswith("\n"):
        head = newline + head
    if flow:
        item = " " * column + f"- {_flow(fields)}{newline}"
    else:
        pairs = [f"{key}: {_value(key, fields[key])}" for key in FIELDS if key in fields]
        item = "".join(" " * column + ("  " if number else "- ") + pair + newline for number, pair in enumerate(pairs))
    return text[:at] + head + item + text[at:]


def _with_field(text: str, item: MappingNode, key: str, value: object) -> str:
    for name, old in item.value:
        if name.value != key:
            continue
        if _is_alias(name, old):
            raise EditError(name.start_mark.line + 1, f"'{key}' is an alias", "write the value itself there")
        if isinstance(old, ScalarNode) and old.style in ("'", '"'):
            return text[: old.start_mark.index] + _quoted(value, old.style) + text[old.end_mark.index :]
        return f"{text[: _colon(text, name)]} {_value(key, value)}{text[_end_of_value(text, name, old) :]}"
    name, last = item.value[-1]
    end = _end_of_value(text, name, last)
    if item.flow_style:
        return f"{text[:end]}, {key}: {_value(key, value)}{text[end:]}"
    at = _line_end(text, end)
    newline = "\r\n" if "\r\n" in text else "\n"
    before = "" if text[:at].endswith("\n") else newline
    return f"{text[:at]}{before}{' ' * item.start_mark.column}{key}: {_value(key, value)}{newline}{text[at:]}"


def _flow(fields: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_value(key, fields[key])}" for key in FIELDS if key in fields) + "}"


def _value(key: str, value: Any) -> str:
    """A value as YAML on one line: dates and IPv4 prefixes plain, what people write in quotes."""
    if key == "controls":
        return "[" + ", ".join(value) + "]"
    if key == "until" or (key == "prefix" and ":" not in value):
        return str(value)
    return _quoted(value, '"')


def _quoted(value: object, style: str) -> str:
    if style == "'" and str(value).isprintable():
        return "'" + str(value).replace("'", "''") + "'"
    return json.dumps(str(value), ensure_ascii=False)


def _colon(text: str, key: Node) -> int:
    """Behind the colon of a key."""
    found = text.find(":", key.end_mark.index)
    if found < 0:  # '? key', without a value
        raise EditError(key.start_mark.line + 1, f"the key '{key.value}' has no colon", "write it as 'key: value'")
    return found + 1


def _end_of_value(text: str, key: Node, value: Node) -> int:
    if isinstance(value, ScalarNode) and not value.value and not value.style:
        return _colon(text, key)  # nothing there: the parser puts it at the next token
    return _end(text, value)


def _end(text: str, node: Node) -> int:
    """Behind the last character of a node that is no comment and no space."""
    if isinstance(node, MappingNode) and not node.flow_style and node.value:
        return _end_of_value(text, *node.value[-1])
    if isinstance(node, SequenceNode) and not node.flow_style and node.value:
        return _end(text, node.value[-1])
    return len(text[: node.end_mark.index].rstrip())


def _line_end(text: str, position: int) -> int:
    """Behind the line break of the line that the position is in."""
    found = text.find("\n", position)
    return len(text) if found < 0 else found + 1


def _dashes(text: str, items: SequenceNode) -> int:
    """The column of the dashes of a list. An anchor or a tag stands where the list begins."""
    if text[items.start_mark.index] != "-":
        line = items.start_mark.line + 1
        raise EditError(line, f"{VARIABLE}.{LIST} has an anchor or a tag", "take it away, or edit by hand")
    return int(items.start_mark.column)


def _block_span(text: str, items: SequenceNode, number: int) -> tuple[int, int]:
    """All lines of an item, from its dash on."""
    column = _dashes(text, items)
    start = text.rfind("\n", 0, items.value[number].start_mark.index) + 1
    while text[start + column : start + column + 1] != "-" or text[start : start + column].strip():
        start = text.rfind("\n", 0, start - 1) + 1
    return start, _line_end(text, _end(text, items.value[number]))


def _flow_span(text: str, items: SequenceNode, number: int) -> tuple[int, int]:
    """An item of a list in brackets, with one of the commas beside it."""
    item = items.value[number]
    start, end = item.start_mark.index, item.end_mark.index
    if number + 1 < len(items.value):
        end = items.value[number + 1].start_mark.index
    elif number:
        start = items.value[number - 1].end_mark.index
    if "#" in text[start : item.start_mark.index] + text[item.end_mark.index : end]:
        raise EditError(
            item.start_mark.line + 1, "a comment stands between exceptions in brackets", "write one exception a line"
        )
    return start, end


def _checked(before: str, after: str, number: int | None, fields: Mapping[str, Any] | None) -> str:
    """The text after the edit, if what it says is what it said before with just this change."""
    wanted = copy.deepcopy(_load(before))
    exceptions = wanted[VARIABLE].get(LIST) or []
    if number is None:
        exceptions = [*exceptions, dict(fields or {})]
    elif fields is None:
        exceptions = exceptions[:number] + exceptions[number + 1 :]
    else:
        exceptions[number] |= fields
    wanted[VARIABLE][LIST] = exceptions
    if _comparable(_load(after)) != _comparable(wanted):
        raise EditError(0, "the file is written in a way that cannot be edited safely", "edit the exception by hand")
    return after


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    return [_comparable(item) for item in value] if isinstance(value, list) else _plain(value)


def _line(node: Node | None, path: tuple[str | int, ...]) -> tuple[int, bool]:
    """The line of a path, and whether a template or a vaulted value on the way hides what is there."""
    line = 0
    for part in path:
        if isinstance(node, MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    hidden = isinstance(node, ScalarNode) and ("{{" in node.value or str(node.tag).startswith("!"))
    return line + 1, hidden
