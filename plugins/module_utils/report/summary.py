# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report on a terminal: the headline, controls × hosts, and every cause with packet, lines and mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from . import ENDS_SOON, EXPIRED, FINE, NOT_AUDITED, STATES, Report, duration, headline, severity, where
from .signals import lasting

_COLOURS = {VIOLATED: "1;31", UNKNOWN: "33", COMPLIANT: "32", NOT_AUDITED: "35", "strong": "1", "quiet": "2"}
_SIGNS = {VIOLATED: "✗", UNKNOWN: "?", COMPLIANT: "✓", NOT_AUDITED: "!"}
# Beyond these a terminal is no place to read: the summary says how many more there are, the page shows them.
MOST_COMPLIANT_HOSTS, MOST_CAUSES = 20, 40

_Paint = Callable[[str, str], str]


def summary(report: Report, colour: bool) -> str:
    """Lines of text, with ANSI colours only where `colour` says that a terminal shows them."""

    def paint(text: str, role: str) -> str:
        return f"\x1b[{_COLOURS[role]}m{text}\x1b[0m" if colour else text

    parts = (
        _head(report, paint),
        _table(report, paint),
        _causes(report, paint),
        _drift(report, paint),
        _hosts(report, paint),
        _policy(report, paint),
        _signals(report, paint),
    )
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _head(report: Report, paint: _Paint) -> Iterator[str]:
    worst = next((verdict for verdict, count in report.host_totals.items() if count), NOT_AUDITED)
    yield paint(f"{_SIGNS[worst]} {headline(report)}", worst)
    changed = sum(host.changed for host in report.hosts)
    configured = sum(host.state == "configured" for host in report.hosts)
    done = f"{configured:,} configured, {changed:,} changed" if configured else f"{changed:,} changed"
    pushed = done if report.mode == "apply" else "check: nothing was changed"
    yield paint(
        f"  {pushed} · {report.totals[VIOLATED]:,} violated, {report.totals[UNKNOWN]:,} unknown,"
        f" {report.totals[COMPLIANT]:,} proved · {duration(report)}",
        "quiet",
    )


def _table(report: Report, paint: _Paint) -> Iterator[str]:
    """Controls × hosts. Of hosts that are wholly compliant only the first are rows, the others are counted."""
    compliant = [host for host in report.hosts if host.verdict == COMPLIANT]
    rows = [host for host in report.hosts if host.verdict != COMPLIANT] + compliant[:MOST_COMPLIANT_HOSTS]
    if not rows:
        return
    width = max(len(host.name) for host in rows)
    yield paint("  " + " " * width + "".join(f"{control.id:>5}" for control in report.judged), "strong")
    for host in rows:
        cells = []
        for control in report.judged:
            counts = host.cells.get(control.id)
            verdict = next((one for one in _SIGNS if counts and counts[one]), "")
            number = f"{counts[verdict]}" if counts and verdict in (VIOLATED, UNKNOWN) else ""
            text = f"{number + _SIGNS[verdict] if verdict else '–':>5}"
            cells.append(paint(text, verdict) if verdict else paint(text, "quiet"))
        state = "" if host.state in FINE else f"  {STATES[host.state]}"
        yield f"{paint(_SIGNS[host.verdict], host.verdict)} {host.name:<{width}}{''.join(cells)}{state}"
    if len(compliant) > MOST_COMPLIANT_HOSTS:
        yield paint(
            f"✓ and {len(compliant) - MOST_COMPLIANT_HOSTS:,} more hosts that are compliant in all of it", COMPLIANT
        )
    yield paint("  ✗ violated  ? unknown  ✓ proved  – nothing to judge  ! not audited", "quiet")


def _causes(report: Report, paint: _Paint) -> Iterator[str]:
    causes = [cause for host in report.hosts for cause in host.causes]
    for number, cause in enumerate(causes[:MOST_CAUSES]):
        if number:
            yield ""
        yield from _cause(cause, paint)
    if len(causes) > MOST_CAUSES:
        yield ""
        yield paint(f"… and {len(causes) - MOST_CAUSES:,} more: the page and the JSON file have every one", "strong")


def _cause(cause: tuple[Finding, ...], paint: _Paint) -> Iterator[str]:
    first = cause[0]
    controls = " ".join(dict.fromkeys(finding.control for finding in cause))
    yield f"{paint(f'{_SIGNS[first.verdict]} {first.host}  {controls}', first.verdict)}  {first.reason or first.title}"
    for one in first.evidence:
        yield _row(f"line {one.line}" if one.line else "", one.text, paint)
    if first.mend:
        yield _row("mend", first.mend, paint)
    for finding in cause:
        said = "  ".join(filter(None, (finding.packet or finding.title, where(finding))))
        yield _row(f"{finding.control} {severity(finding.control)}".strip(), said, paint)


def _row(name: str, text: str, paint: _Paint) -> str:
    return f"  {paint(f'{name:>12}', 'quiet')}  {text}"


def _drift(report: Report, paint: _Paint) -> Iterator[str]:
    """What has changed since the last audit, whether the policy minds or not."""
    told = [(host, one) for host in report.hosts for one in host.drift.changes]
    for host, one in told[:MOST_CAUSES]:
        yield f"{paint(f'Δ {host.name}', 'strong')}  {one.change}: {one.packets}"
        yield _row("for example", f"{one.packet}  {one.place}", paint)
        for name, lines in (("before", one.before), ("now", one.after)):
            said = [f"line {line.line}: {line.text}" for line in lines]
            yield _row(name, "".join(said) or "the end of the filter, or no filter", paint)
        if one.reason:
            yield _row("", one.reason, paint)
    rest = len(told) - MOST_CAUSES
    more = sum(host.drift.left_out for host in report.hosts) + max(rest, 0)
    if more:
        yield paint(f"… and {more:,} more changes since the last audit", "strong")
    notes = [(host, sum(len(one.lines) + one.more for one in host.hygiene)) for host in report.hosts if host.hygiene]
    if notes:
        count = sum(lines for _, lines in notes)
        could = "could go as well (H1 to H4): the page has them"
        yield paint(f"  {count:,} lines of filters on {len(notes):,} hosts {could}", "quiet")
    for host in report.hosts:
        if host.drift.problem:
            yield f"{paint(f'! {host.name}', NOT_AUDITED)}  {host.drift.problem}"


def _hosts(report: Report, paint: _Paint) -> Iterator[str]:
    """What did not end well, what was left as it is, and what was changed."""
    for host in report.hosts:
        for place in host.kept:
            yield f"{paint(f'! {host.name}', NOT_AUDITED)}  left as it is: {place}"
        if host.state not in FINE or host.verdict == NOT_AUDITED:
            yield f"{paint(f'! {host.name}', NOT_AUDITED)}  {host.outcome}"
    changed = [host.name for host in report.hosts if host.changed]
    if changed:
        more = f" and {len(changed) - 20:,} more" if len(changed) > 20 else ""
        yield f"{paint('changed', 'strong')}  {', '.join(changed[:20])}{more}"


def _policy(report: Report, paint: _Paint) -> Iterator[str]:
    for status, role in ((EXPIRED, VIOLATED), (ENDS_SOON, UNKNOWN)):
        for one in report.exceptions_that(status):
            name = paint(f"{_SIGNS[role]} exception {one.prefix}", role)
            yield f"{name}  {status}, until {one.until} · {one.owner} · {one.reason}"


def _signals(report: Report, paint: _Paint) -> Iterator[str]:
    """How the signals stand: what must be looked at, then the figures, then what nobody can say."""
    signals = report.signals
    if not signals:
        return
    for alarm in signals.alarms[:MOST_CAUSES]:
        yield f"{paint('! signals', VIOLATED)}  {alarm}"
    counts = ", ".join(f"{count:,} {words}" for words, count in signals.counts.items())
    dry = f" · dry run: {signals.planned:,} more would be held" if signals.dry_run else ""
    yield f"{paint('signals', 'strong')}  {counts}{dry}"
    for one in signals.lists:
        times = f"remediated in {lasting(one.median_seconds)} (median), {lasting(one.p90_seconds)} (p90)"
        again = f"{one.relapsed:,} of {one.watched:,} came again within a week"
        lead = f"own detection was first in {one.led:,}, by {lasting(one.lead_seconds)}"
        yield paint(f"  {one.list}: {one.open:,} open, {one.closed:,} over · {times} · {again} · {lead}", "quiet")
    for silence in signals.silences[:MOST_CAUSES]:
        name = f"? {silence.detector or 'signals'}"
        yield f"{paint(name, UNKNOWN)}  {' · '.join(filter(None, (silence.reason, silence.mend)))}"
    if len(signals.silences) > MOST_CAUSES:
        yield paint(f"… and {len(signals.silences) - MOST_CAUSES:,} more: the page has them", "strong")
    if signals.refused:
        yield paint(f"  nothing is done about {len(signals.refused):,} cases: the page says why", "quiet")
