# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that a RADIUS server gives to sessions: what the policy says of them, held against the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .filters import UNKNOWN as NOT_READ
from .filters import Binding, Configuration, Filter
from .findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from .policy import Attachment

_LIST_DIRECTION = {"up": "in", "down": "out"}


def in_sessions(
    configuration: Configuration, attachment: Attachment, direction: str, family: int, binding: Binding | None
) -> list[tuple[str, Binding | None]]:
    """What can be in force there: the configured binding, and one for each filter that RADIUS gives.

    Each comes with the filter's name, "" for what is configured. A binding that names a variable of the session is
    none of its own once it is known what the sessions get.
    """
    given = [
        one.name
        for one in attachment.session_filters or ()
        if (one.direction, one.family) == (direction, family) and (family, one.name) in configuration.filters
    ]
    stages = [configuration.filters[family, name] for name in binding.filters] if binding else []
    places = [_is_a_variable(one) for one in stages]
    found: list[tuple[str, Binding | None]] = [] if given and any(places) else [("", binding)]
    for name in given:
        names: tuple[str, ...] = (name,)
        if any(places):
            names = tuple(name if place else one.name for one, place in zip(stages, places, strict=True))
        chosen = configuration.filters[family, name]
        line, text = (binding.line, binding.text) if binding else (chosen.line, chosen.text or name)
        found.append((name, Binding(attachment.name, _LIST_DIRECTION[direction], family, names, line, text)))
    return found


def _is_a_variable(chosen: Filter) -> bool:
    """Nothing at all is known of it: the session says which filter it is."""
    return bool(chosen.entries) and all(entry.action == NOT_READ for entry in chosen.entries)


def supplied(
    configuration: Configuration, attachments: Sequence[Attachment], host: str, findings: Sequence[Finding]
) -> Iterator[Finding]:
    """C4: where RADIUS authorizes sessions it is known what they get, and what they get exists."""
    title = "the filters that RADIUS gives to sessions are known, and exist"
    told = {(one.attachment, line.line) for one in findings if one.verdict != COMPLIANT for line in one.evidence}
    for attachment in attachments:
        interface = configuration.interfaces.get(attachment.name)
        line, text = (interface.sessions_line, interface.sessions_from) if interface else (0, "")
        evidence = (Evidence(line, text),) if text else ()
        if attachment.session_filters is None:
            if text and (attachment.name, line) not in told:
                yield Finding(
                    "C4", host, attachment.name, "", "", 0, UNKNOWN, title,
                    reason=f"not known: by line {line} a RADIUS server authorizes the sessions of {attachment.name}, "
                    "and may give them other filters than the one that is bound",
                    evidence=evidence,
                    mend=f"list them in session_filters of {attachment.name} in isp_attachments of {host}; [] says "
                    "that RADIUS gives none",
                )  # fmt: skip
            continue
        absent = [one for one in attachment.session_filters if (one.family, one.name) not in configuration.filters]
        for one in absent:
            yield Finding(
                "C4", host, attachment.name, "", one.direction, one.family, VIOLATED, title,
                reason=f"RADIUS gives sessions of {attachment.name} the filter {one.name}, and the router has no IPv"
                f"{one.family} filter of that name",
                evidence=evidence,
                mend=f"define {one.name} on {host}, or correct session_filters of {attachment.name} and what RADIUS "
                "sends",
            )  # fmt: skip
        if not absent and (text or attachment.session_filters):
            yield Finding("C4", host, attachment.name, "", "", 0, COMPLIANT, title, evidence=evidence)
