# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An engineer's question to a filter: words in, packets and lines out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .audit import bound
from .filters import DENY, PERMIT, Configuration
from .packets import (
    EXTENSIONS,
    INITIAL,
    LATER_FRAGMENT,
    PROTOCOLS,
    STATES,
    TCP_FLAGS,
    Alternatives,
    Match,
    exactly,
    flags_all,
    packet_text,
    prefix,
    span,
    union,
)
from .search import Answer, Question, Search

_PORT_PROTOCOLS = ("tcp", "udp", "sctp", "udplite")
_FRAGMENTS: Mapping[str, Match] = {
    "none": {"fragment": exactly(0, 2), "undetermined": exactly(0, 1)},
    "first": {"fragment": exactly(1, 2)},
    "later": {"fragment": LATER_FRAGMENT},
    "any": {},
}
_FOUND = {True: "yes", False: "no", None: "unknown"}


def ask(configuration: Configuration, questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each question whether a permitted and a denied packet exist, which, and by which lines.

    A question names a `filter`, or an `attachment` with a `direction` (up or down), and a `family` (4 or 6); what else
    it gives narrows the header space. Raises ValueError with the question's number when one cannot be understood.
    """
    searches: dict[int, Search] = {}
    answers = []
    for number, question in enumerate(questions, 1):
        try:
            family = int(question.get("family") or 4)
            chosen = stages(configuration, question, family)
            scope = header_space(question, family)
        except ValueError as error:
            raise ValueError(f"question {number}: {error}") from error
        search = searches.setdefault(family, Search(configuration, family))
        permit, deny = search.ask(chosen, [Question(PERMIT, (scope,)), Question(DENY, (scope,))])
        answers.append({
            "question": {key: value for key, value in question.items() if value is not None}, "filters": list(chosen),
            "permit": _told(permit, family), "deny": _told(deny, family),
        })  # fmt: skip
    return answers


def header_space(question: Mapping[str, Any], family: int) -> Match:
    """The packets that a question is about. Without `fragments` these are packets whose ports can be read."""
    match: dict[str, Alternatives] = {}
    protocol = str(question.get("protocol") or "").lower()
    if protocol:
        match["protocol"] = exactly(_number(protocol, PROTOCOLS, 255, "protocol"), 8)
    for field in ("source", "destination"):
        given = _list(question.get(field))
        if given:
            match[field] = union(*(prefix(str(text), family) for text in given))
    for name, field in (("source_ports", "source_port"), ("destination_ports", "destination_port")):
        given = _list(question.get(name))
        if given and protocol not in _PORT_PROTOCOLS:
            raise ValueError(f"{name} goes with protocol {', '.join(_PORT_PROTOCOLS)}")
        if given:
            match[field] = union(*(_ports(str(text)) for text in given))
    flags = _list(question.get("tcp_flags"))
    if flags:
        if protocol != "tcp":
            raise ValueError("tcp_flags goes with protocol tcp")
        names = [str(flag).lower() for flag in flags]
        for name in names:
            _number(name, TCP_FLAGS, -1, "TCP flag")
        match["tcp_flags"] = flags_all(names, [name for name in TCP_FLAGS if name not in names])
    for name, field, bits in (("icmp_type", "icmp_type", 8), ("icmp_code", "icmp_code", 8), ("dscp", "tos", 6)):
        if question.get(name) is not None:
            value = _number(str(question[name]), {}, (1 << bits) - 1, name)
            match[field] = ((value << 2, 0b11111100),) if name == "dscp" else exactly(value, bits)
    if question.get("state"):
        match["state"] = exactly(_number(str(question["state"]), STATES, -1, "state"), 3)
    if question.get("extension"):
        match["extension"] = exactly(_number(str(question["extension"]), EXTENSIONS, -1, "extension"), 3)
    fragments = question.get("fragments")
    if fragments and fragments not in _FRAGMENTS:
        raise ValueError(f"fragments is '{fragments}', not one of {', '.join(_FRAGMENTS)}")
    return {**match, **(_FRAGMENTS[fragments] if fragments else INITIAL)}


def stages(configuration: Configuration, question: Mapping[str, Any], family: int) -> tuple[str, ...]:
    """The filters that the question is about, in their order. Raises ValueError where there are none such."""
    name, attachment, direction = (question.get(key) for key in ("filter", "attachment", "direction"))
    if name:
        if (family, name) not in configuration.filters:
            here = sorted(known for version, known in configuration.filters if version == family)
            raise ValueError(f"there is no IPv{family} filter '{name}'; there are: {', '.join(here[:20]) or 'none'}")
        return (str(name),)
    if not attachment or direction not in ("up", "down"):
        raise ValueError("name a filter, or an attachment with direction up or down")
    # Of a place that the text does not have, "no filter, so everything passes" would be a guess.
    known = {*configuration.interfaces, *(one.attachment for one in configuration.bindings)}
    if attachment not in known:
        raise ValueError(
            f"there is no attachment '{attachment}' in the configuration;"
            f" there are: {', '.join(sorted(known)[:20]) or 'none'}"
        )
    binding = bound(configuration, str(attachment), str(direction), family)
    return binding.filters if binding else ()


def _told(answer: Answer, family: int) -> dict[str, Any]:
    return {
        "found": _FOUND[answer.found],
        "packet": packet_text(answer.packet, family) if answer.packet else "",
        "fields": dict(answer.packet or {}),
        "lines": [{"line": entry.line, "text": entry.text} for entry in answer.entries],
        "reason": answer.reason,
    }


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _ports(text: str) -> Alternatives:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if low > high or high > 65535:
        raise ValueError(f"'{text}' is no port or range such as 25 or 137-139")
    return span(low, high, 16)


def _number(text: str, names: Mapping[str, int], highest: int, what: str) -> int:
    if text in names:
        return names[text]
    if text.isdecimal() and int(text) <= highest:
        return int(text)
    raise ValueError(f"'{text}' is no {what}" + (f"; known: {', '.join(names)}" if names else f" (0 to {highest})"))
