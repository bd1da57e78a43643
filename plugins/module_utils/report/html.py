# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report as one page that needs nothing but a browser: page.html.j2 with page.css and page.js in it.

Everything is computed here and escaped by Jinja; the template only places it. The page's own content
security policy admits the one style sheet and the one script, by their hashes, and nothing else: what
a router sends could not run even if the escaping had a hole.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ..controls import Control
from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from . import FINE, HOST_VERDICTS, SEVERITIES, Host, Report, duration, headline, moment, natural, severity, where
from .signals import lasting

# How much of a long list stands open; the rest is one click away.
OPEN_FINDINGS, OPEN_NAMES, WORST_CONTROLS = 8, 6, 5


@dataclass(frozen=True)
class _Cause:
    id: str
    verdict: str
    controls: tuple[str, ...]
    title: str
    place: str  # "" where its findings are in several places
    mend: str
    first: Finding
    shown: tuple[Finding, ...]
    more: tuple[Finding, ...]


@dataclass(frozen=True)
class _Cell:
    control: str
    verdict: str  # "" where nothing was judged
    bad: int
    link: str


@dataclass(frozen=True)
class _Section:
    """A host, as the page shows it. `proved` is control, statement and places."""

    id: str
    host: Host
    ended_well: bool
    causes: tuple[_Cause, ...]
    cells: tuple[_Cell, ...]
    proved: tuple[tuple[str, str, tuple[str, ...]], ...]
    added: int
    removed: int


@dataclass(frozen=True)
class _Worst:
    """A control that is violated somewhere, and the sections of the hosts where it is."""

    control: Control
    shown: tuple[_Section, ...]
    more: int


def document(report: Report) -> str:
    """The page, as HTML text in UTF-8."""
    folder = Path(__file__).parent
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    names = _ids(report.hosts)
    sections = tuple(_section(host, names[host.name], report.judged) for host in report.hosts)
    return _template(folder).render(
        report=report,
        headline=headline(report),
        duration=duration(report),
        bar=_bar(report),
        host_verdicts=HOST_VERDICTS,
        worst=_worst(report, sections),
        sections=sections,
        sentence=_sentence,
        severity=severity,
        where=where,
        moment=moment,
        lasting=lasting,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


@cache
def _template(folder: Path) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _ids(hosts: Sequence[Host]) -> dict[str, str]:
    """An anchor for each host: its name as far as letters and digits go, and a number where two would be the same."""
    ids: dict[str, str] = {}
    for host in sorted(hosts, key=lambda host: natural(host.name)):
        stem = "host-" + re.sub(r"[^a-z0-9]+", "-", host.name.lower()).strip("-")
        free = (name for name in (stem, *(f"{stem}-{number}" for number in range(2, len(hosts) + 2))))
        taken = set(ids.values())
        ids[host.name] = next(name for name in free if name not in taken)
    return ids


def _section(host: Host, name: str, judged: Sequence[Control]) -> _Section:
    causes = tuple(_cause(findings, f"{name}--{number}") for number, findings in enumerate(host.causes, 1))
    proved: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding in host.findings:
        if finding.verdict == COMPLIANT:
            proved[finding.control, finding.title].append(where(finding))
    return _Section(
        id=name,
        host=host,
        ended_well=host.state in FINE and bool(host.findings),
        causes=causes,
        cells=tuple(_cell(host, control.id, causes) for control in judged),
        proved=tuple((control, title, tuple(filter(None, places))) for (control, title), places in proved.items()),
        added=sum(line.startswith("+") for line in host.diff),
        removed=sum(line.startswith("-") for line in host.diff),
    )


def _cause(findings: tuple[Finding, ...], name: str) -> _Cause:
    first = findings[0]
    return _Cause(
        id=name,
        verdict=first.verdict,
        controls=tuple(dict.fromkeys(finding.control for finding in findings)),
        title=_sentence(first.reason or first.title),
        place=where(first) if len({where(finding) for finding in findings}) == 1 else "",
        mend=_sentence(first.mend),
        first=first,
        shown=findings[:OPEN_FINDINGS],
        more=findings[OPEN_FINDINGS:],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(host: Host, control: str, causes: Sequence[_Cause]) -> _Cell:
    counts = host.cells.get(control)
    if not counts:
        return _Cell(control, "", 0, "")
    verdict = next(one for one in (VIOLATED, UNKNOWN, COMPLIANT) if counts[one])
    link = next((one.id for one in causes if one.verdict == verdict and control in one.controls), "")
    return _Cell(control, verdict, counts[verdict] if verdict != COMPLIANT else 0, link)


def _bar(report: Report) -> list[tuple[str, float, float]]:
    """The hosts as parts of one bar: verdict, begin and width in per cent."""
    parts, begin = [], 0.0
    for verdict in HOST_VERDICTS:
        width = 100 * report.host_totals[verdict] / max(1, len(report.hosts))
        if width:
            parts.append((verdict, round(begin, 3), round(width, 3)))
        begin += width
    return parts


def _worst(report: Report, sections: Sequence[_Section]) -> list[_Worst]:
    """The controls that are violated, by severity, then by the number of hosts."""
    found = []
    for control in report.judged:
        there = tuple(one for one in sections if control.id in one.host.cells and one.host.cells[control.id][VIOLATED])
        if there:
            found.append((SEVERITIES.index(control.severity), -len(there), natural(control.id), control, there))
    found.sort(key=lambda one: one[:3])
    return [
        _Worst(control, there[:OPEN_NAMES], len(there[OPEN_NAMES:])) for *_, control, there in found[:WORST_CONTROLS]
    ]
