# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Places where subscribers seem to hang and the policy does not say so, written beside what a person wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from .audit import uncovered
from .filters import Configuration, Interface
from .policy import Attachment, Policy
from .policy_files import VAULT_HEADER, FileProblemError, compose

VARIABLE = "isp_attachments"
_SHOWN = 4  # prefixes of an interface
# Places that are made for sessions, whose addresses no line of the configuration gives.
_TEMPLATE = re.compile(r"template|profile|user-group", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z][\w./-]*")
_OTHER = re.compile(r"y|n|yes|no|on|off|true|false|null", re.IGNORECASE)  # to YAML no text


@dataclass(frozen=True, slots=True)
class Proposal:
    """An attachment for review. No `pools`: sessions hang there, and of which pools the configuration does not say."""

    interface: Interface
    pools: tuple[str, ...]


def proposals(configuration: Configuration, policy: Policy, attachments: Sequence[Attachment]) -> list[Proposal]:
    """What carries a pool and is no attachment yet, then templates and profiles of which nobody knows the pool."""
    names = [attachment.name for attachment in attachments]
    found = [Proposal(interface, pools) for interface, pools in uncovered(configuration, policy, names)]
    known = {*names, *(one.interface.name for one in found)}
    for interface in configuration.interfaces.values():
        for_sessions = _TEMPLATE.search(interface.name) or interface.sessions_from
        if for_sessions and not interface.prefixes and not interface.shutdown and interface.name not in known:
            found.append(Proposal(interface, ()))
    return found


def merged(text: str, found: Sequence[Proposal], elsewhere: bool) -> str:
    """The text of a host's variables with the proposals behind the attachments that it lists.

    Every other byte stays. A place of which the pools are not known is a comment, and is not proposed twice.
    `elsewhere`: the host has attachments already, from whatever file. Raises ValueError when it cannot be done.
    """
    found = [one for one in found if one.pools or f"# - {_entry(one)}" not in text]
    if not found:
        return text
    if "\r\n" in text:
        return merged(text.replace("\r\n", "\n"), found, elsewhere).replace("\n", "\r\n")
    key, items = _place(text)
    if key is None:
        if elsewhere:
            raise ValueError(f"{VARIABLE} of this host is not in this file: name the one that sets it")
        head = text if text.endswith("\n") or not text else f"{text}\n"
        value = VARIABLE + (":\n" if any(one.pools for one in found) else ": []\n")
        return _checked(text, f"{head or '---' + chr(10)}{value}{_lines(found, 2)}", found)
    if isinstance(items, SequenceNode) and items.value and not items.flow_style:
        after = _end(text, items)
        head = text[:after] if text[:after].endswith("\n") else f"{text[:after]}\n"
        return _checked(text, head + _lines(found, items.start_mark.column) + text[after:], found)
    if isinstance(items, SequenceNode) and not items.value:
        start, stop = items.start_mark.index, items.end_mark.index
        line_end = text.find("\n", stop) + 1 or len(text)
        head = text[:start].rstrip(" ") if any(one.pools for one in found) else text[:stop]
        rest = text[stop:line_end]
        rest = rest if rest.endswith("\n") else f"{rest}\n"
        return _checked(text, head + rest + _lines(found, 2) + text[line_end:], found)
    raise ValueError(f"line {key.start_mark.line + 1}: write {VARIABLE} as a list, one item a line after '- '")


def _place(text: str) -> tuple[Node | None, Node | None]:
    """The key and the value of the list in the file."""
    if text.startswith(VAULT_HEADER):
        raise ValueError(f"the file is encrypted: keep {VARIABLE} in a file of its own, outside the vault")
    try:
        root = compose(text)
    except FileProblemError as error:
        raise ValueError(f"line {error.line}: {error.reason}; mend the YAML") from error
    if root is None:
        return None, None
    if not isinstance(root, MappingNode) or root.flow_style:
        raise ValueError("the file is no list of variables, one a line")
    return next(((key, value) for key, value in root.value if key.value == VARIABLE), (None, None))


def _end(text: str, items: SequenceNode) -> int:
    """Behind the last line of the last item, before the comments that follow it."""
    lines = text[: items.end_mark.index].splitlines(keepends=True)
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return len("".join(lines))


def _lines(found: Sequence[Proposal], column: int) -> str:
    margin = " " * column
    said = []
    for one in found:
        rest = len(one.interface.prefixes) - _SHOWN
        prefixes = ", ".join(one.interface.prefixes[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        what = prefixes or "sessions hang there; write their pools, and take the # away"
        said.append(f"{margin}# discovered, for review: line {one.interface.line}: {what}\n")
        said.append(f"{margin}{'' if one.pools else '# '}- {_entry(one)}\n")
    return "".join(said)


def _entry(one: Proposal) -> str:
    name, *pools = (
        word if _PLAIN.fullmatch(word) and not _OTHER.fullmatch(word) else json.dumps(word)
        for word in (one.interface.name, *one.pools)
    )
    return f"{{name: {name}, pools: [{', '.join(pools)}]}}"


def _checked(before: str, after: str, found: Sequence[Proposal]) -> str:
    """The new text says what the old one says, and the proposals besides."""
    old, new = (dict(_said(compose(text)) or ()) for text in (before, after))
    own, then = old.pop(VARIABLE, ()), new.pop(VARIABLE, ())
    added = [dict(one) for one in then[len(own) :]]
    wanted = [{"name": one.interface.name, "pools": one.pools} for one in found if one.pools]
    if old != new or then[: len(own)] != own or added != wanted:
        raise ValueError(f"{VARIABLE} could not be extended without a change elsewhere: extend it by hand")
    return after


def _said(node: Node | None) -> Any:
    """What the nodes say, without where it stands."""
    if isinstance(node, MappingNode):
        return tuple((_said(key), _said(value)) for key, value in node.value)
    if isinstance(node, SequenceNode):
        return tuple(_said(one) for one in node.value)
    return node.value if node else None
