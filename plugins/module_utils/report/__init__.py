# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run found, as one `Report`; summary.py, json.py, junit.py and html.py are its four forms.

`read` is the only door: every text that comes through it is bounded, free of control characters and
free of secrets, so that no form has to think of a hostile router. All of it is sorted: the same input
gives the same bytes.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..controls import CONTROLS, CRITICAL, HIGH, LOW, MEDIUM, Control
from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from ..policy import Policy
from ..secrets import redact_lines
from .signals import Signals, read_signals
from .text import clean, number_of, text_of, texts_of

NOT_AUDITED = "not audited"  # of a host: nothing could be judged
VERDICTS = (VIOLATED, UNKNOWN, COMPLIANT)
HOST_VERDICTS = (VIOLATED, NOT_AUDITED, UNKNOWN, COMPLIANT)  # worst first; one for each host
SEVERITIES = (CRITICAL, HIGH, MEDIUM, LOW, "")
# What became of a host, and how it is said. Those of _FINE ended as they should.
STATES = {
    "audited": "audited",
    "unchanged": "already as it should be, nothing was changed",
    "changed": "changed, then read again and proved",
    "configured": "made to be as the policy says, then audited",
    "rolled_back": "the change was taken back: the router has its old configuration",
    "refused": "refused, and nothing was sent",
    "unreachable": "unreachable",
    "login_refused": "the login was refused",
    "rejected": "the router rejected a line",
    "session_lost": "the session was lost",
    "failed": "failed",
}
FINE = frozenset(("audited", "unchanged", "changed", "configured"))
IN_FORCE, ENDS_SOON, EXPIRED = "in force", "ends soon", "expired"
SOON = datetime.timedelta(days=30)

# What a person can still read; the rest is counted.
MOST_EVIDENCE, MOST_DIFF_LINES = 50, 2_000


@dataclass(frozen=True)
class Change:
    """Packets that have another fate at a place than they had when the host was last audited.

    `change` is "denied, now permitted", "permitted, now denied" or "unknown", `packet` one of them, `before` and
    `after` the lines that decide it, none where the end of the filter does.
    """

    attachment: str
    direction: str
    family: int
    change: str
    packets: str
    packet: str
    before: tuple[Evidence, ...]
    after: tuple[Evidence, ...]
    reason: str

    @property
    def place(self) -> str:
        return " · ".join((self.attachment, self.direction, f"IPv{self.family}"))


@dataclass(frozen=True)
class Drift:
    """What has changed since the last audit. `since` is "" where there was none; `problem` why it cannot be said."""

    since: str
    changes: tuple[Change, ...]
    left_out: int
    problem: str

    def __bool__(self) -> bool:
        return bool(self.changes or self.problem)


@dataclass(frozen=True)
class Note:
    """Lines of one filter that could go; `reasons` are as many as `lines`. `more`: how many are left out."""

    control: str
    filter: str
    family: int
    title: str
    lines: tuple[Evidence, ...]
    reasons: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Host:
    """One host of the run. `verdict` is one of HOST_VERDICTS; `findings` are sorted, the worst first."""

    name: str
    platform: str
    address: str
    state: str
    message: str
    verdict: str
    findings: tuple[Finding, ...]
    kept: tuple[str, ...]  # places that stay as they are although something does not hold there, and why
    diff: tuple[str, ...]  # unified, without file headers: what was pushed, or would be
    steps: tuple[str, ...]
    backup: str
    seconds: float
    lines_read: int
    lines_understood: int
    drift: Drift
    hygiene: tuple[Note, ...]

    @cached_property
    def cells(self) -> Mapping[str, Counter[str]]:
        """How many findings of each verdict, by control."""
        cells: dict[str, Counter[str]] = defaultdict(Counter)
        for finding in self.findings:
            cells[finding.control][finding.verdict] += 1
        return cells

    @property
    def changed(self) -> bool:
        return self.state == "changed"

    @property
    def outcome(self) -> str:
        """What became of the host, in a sentence."""
        if self.state in FINE and not self.findings:
            return "nothing was judged: no attachment and no control applied"
        return f"{STATES[self.state]}: {self.message}" if self.message else STATES[self.state]

    @cached_property
    def causes(self) -> tuple[tuple[Finding, ...], ...]:
        """What is not compliant, put together where one thing is the reason: one line, one missing binding."""
        groups: dict[object, list[Finding]] = defaultdict(list)
        for one in self.findings:
            if one.verdict != COMPLIANT:
                groups[one.verdict, one.reason, one.evidence, one.mend].append(one)
        return tuple(map(tuple, groups.values()))


@dataclass(frozen=True)
class Exemption:
    """An exception of the policy. `status` is IN_FORCE, ENDS_SOON or EXPIRED."""

    prefix: str
    owner: str
    reason: str
    until: str
    controls: tuple[str, ...]
    status: str


@dataclass(frozen=True)
class Addresses:
    """A pool or a smarthost of the policy; a smarthost has no kind."""

    name: str
    kind: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A whole run. `hosts` begin with the worst; `controls` are those of the catalogue, then unknown ids."""

    version: str
    mode: str  # "check": nothing was changed; "apply"
    started: str  # ISO 8601, or ""
    finished: str
    profile: str
    pools: tuple[Addresses, ...]
    smarthosts: tuple[Addresses, ...]
    exceptions: tuple[Exemption, ...]
    controls: tuple[Control, ...]
    hosts: tuple[Host, ...]
    signals: Signals | None = None

    @cached_property
    def host_totals(self) -> Mapping[str, int]:
        found = Counter(host.verdict for host in self.hosts)
        return {verdict: found[verdict] for verdict in HOST_VERDICTS}

    @cached_property
    def totals(self) -> Mapping[str, int]:
        found = Counter(finding.verdict for host in self.hosts for finding in host.findings)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @cached_property
    def judged(self) -> tuple[Control, ...]:
        """The controls that at least one finding is about."""
        seen = {control for host in self.hosts for control in host.cells}
        return tuple(control for control in self.controls if control.id in seen)

    def exceptions_that(self, status: str) -> tuple[Exemption, ...]:
        return tuple(one for one in self.exceptions if one.status == status)

    @property
    def clean(self) -> bool:
        """There are hosts, all of them were audited and are compliant, and no exception has expired."""
        compliant = self.host_totals[COMPLIANT]
        return compliant == len(self.hosts) > 0 and not self.exceptions_that(EXPIRED)


def policy_summary(policy: Policy, today: datetime.date) -> dict[str, Any]:
    """What a report says of a policy, as plain data for `read`."""
    status = {
        True: [(one, ENDS_SOON if one.until - today <= SOON else IN_FORCE) for one in policy.exceptions],
        False: [(one, EXPIRED) for one in policy.expired],
    }
    return {
        "profile": policy.profile,
        "pools": [
            {"name": one.name, "kind": one.kind, "prefixes": [*one.ipv4, *one.ipv6]} for one in policy.pools.values()
        ],
        "smarthosts": [{"name": one.name, "prefixes": [*one.ipv4, *one.ipv6]} for one in policy.smarthosts],
        "exceptions": [
            {
                "prefix": one.prefix, "owner": one.owner, "reason": one.reason, "until": one.until.isoformat(),
                "controls": list(one.controls), "status": said,
            }
            for one, said in status[False] + status[True]
        ],
    }  # fmt: skip


def read(run: Mapping[str, Any]) -> Report:
    """A run as plain data (docs/report.md has its shape) as a Report.

    A host or a finding that lacks something is shown with what there is, and a verdict or a state that
    is none of ours counts as `unknown` and `failed`: a report leaves nothing out.
    """
    policy = run.get("policy") or {}
    hosts = sorted((_host(one) for one in run.get("hosts", ())), key=_worst_host_first)
    unlisted = {finding.control for host in hosts for finding in host.findings} - set(CONTROLS)
    return Report(
        version=text_of(run.get("version")),
        mode="apply" if run.get("mode") == "apply" else "check",
        started=text_of(run.get("started")),
        finished=text_of(run.get("finished")),
        profile=text_of(policy.get("profile")),
        pools=tuple(_addresses(one) for one in policy.get("pools", ())),
        smarthosts=tuple(_addresses(one) for one in policy.get("smarthosts", ())),
        exceptions=tuple(_exemption(one) for one in policy.get("exceptions", ())),
        controls=(
            *CONTROLS.values(),
            *(Control(id, id, "", (), "", "", (), ()) for id in sorted(unlisted, key=natural)),
        ),
        hosts=tuple(hosts),
        signals=read_signals(run.get("signals") or ()),
    )


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that puts P2 before P10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part)


def where(finding: Finding) -> str:
    """The place of a finding in one line: 'Virtual-Template1 · residential · up · IPv4', and its source."""
    family = f"IPv{finding.family}" if finding.family else ""
    source = f"evidence: {finding.source}" if finding.source else ""
    parts = (finding.attachment, finding.pool, finding.direction, family, source)
    return " · ".join(part for part in parts if part)


def _addresses(raw: Mapping[str, Any]) -> Addresses:
    return Addresses(text_of(raw.get("name")), text_of(raw.get("kind")), texts_of(raw.get("prefixes")))


def _exemption(raw: Mapping[str, Any]) -> Exemption:
    status = raw.get("status")
    return Exemption(
        prefix=text_of(raw.get("prefix")),
        owner=text_of(raw.get("owner")),
        reason=text_of(raw.get("reason")),
        until=text_of(raw.get("until")),
        controls=texts_of(raw.get("controls")),
        status=status if status in (IN_FORCE, ENDS_SOON) else EXPIRED,
    )


def _host(raw: Mapping[str, Any]) -> Host:
    name = text_of(raw.get("host"))
    findings = tuple(sorted((_finding(one, name) for one in raw.get("findings") or ()), key=_worst_finding_first))
    state = raw["state"] if raw.get("state") in STATES else "failed"
    return Host(
        name=name,
        platform=text_of(raw.get("platform")),
        address=text_of(raw.get("address")),
        state=state,
        message=text_of(" ".join(str(raw.get("message") or "").split())),  # ssh tells several lines
        verdict=host_verdict(state, {finding.verdict for finding in findings}),
        findings=findings,
        kept=texts_of(raw.get("kept")),
        diff=_diff(str(raw.get("diff") or "")),
        steps=texts_of(raw.get("steps")),
        backup=text_of(raw.get("backup")),
        seconds=round(float(raw.get("seconds") or 0), 1),
        lines_read=number_of(raw.get("lines_read")),
        lines_understood=number_of(raw.get("lines_understood")),
        drift=_drift(raw.get("drift") or {}),
        hygiene=tuple(_note(one) for one in raw.get("hygiene") or ()),
    )


def _note(raw: Mapping[str, Any]) -> Note:
    lines = raw.get("lines") or ()
    return Note(
        control=text_of(raw.get("control")),
        filter=text_of(raw.get("filter")),
        family=raw["family"] if raw.get("family") in (4, 6) else 0,
        title=text_of(raw.get("title")),
        lines=tuple(Evidence(number_of(one.get("line")), text_of(one.get("text"))) for one in lines),
        reasons=tuple(text_of(one.get("reason")) for one in lines),
        more=number_of(raw.get("more")),
    )


def _drift(raw: Mapping[str, Any]) -> Drift:
    return Drift(
        since=text_of(raw.get("since")),
        changes=tuple(_change(one) for one in raw.get("changes") or ()),
        left_out=number_of(raw.get("left_out")),
        problem=text_of(raw.get("problem")),
    )


def _change(raw: Mapping[str, Any]) -> Change:
    before, after = (
        tuple(
            Evidence(number_of(one.get("line")), text_of(one.get("text")))
            for one in (raw.get(side) or {}).get("lines", ())
        )
        for side in ("before", "after")
    )
    return Change(
        attachment=text_of(raw.get("attachment")),
        direction=raw["direction"] if raw.get("direction") in ("up", "down") else "",
        family=raw["family"] if raw.get("family") in (4, 6) else 0,
        change=text_of(raw.get("change")),
        packets=text_of(raw.get("packets")),
        packet=text_of(raw.get("packet")),
        before=before[-1:],
        after=after[-1:],
        reason=text_of(raw.get("reason")),
    )


def host_verdict(state: str, found: Collection[str]) -> str:
    """The worst of the verdicts found. A host that did not end well is never called compliant."""
    if VIOLATED in found:
        return VIOLATED
    if not found:
        return NOT_AUDITED
    return UNKNOWN if UNKNOWN in found or state not in FINE else COMPLIANT


def _finding(raw: Mapping[str, Any], host: str) -> Finding:
    evidence = [Evidence(number_of(one.get("line")), text_of(one.get("text"))) for one in raw.get("evidence") or ()]
    if len(evidence) > MOST_EVIDENCE:
        evidence[MOST_EVIDENCE:] = [Evidence(0, f"… and {len(evidence) - MOST_EVIDENCE:,} more lines")]
    return Finding(
        control=text_of(raw.get("control")),
        host=host,
        attachment=text_of(raw.get("attachment")),
        pool=text_of(raw.get("pool")),
        direction=raw["direction"] if raw.get("direction") in ("up", "down") else "",
        family=raw["family"] if raw.get("family") in (4, 6) else 0,
        verdict=raw["verdict"] if raw.get("verdict") in VERDICTS else UNKNOWN,
        title=text_of(raw.get("title")),
        reason=text_of(raw.get("reason")),
        packet=text_of(raw.get("packet")),
        fields=tuple(
            sorted((text_of(name), number_of(value)) for name, value in dict(raw.get("fields") or {}).items())
        ),
        evidence=tuple(evidence),
        mend=text_of(raw.get("mend")),
        source=text_of(raw.get("source")),
    )


def _diff(text: str) -> tuple[str, ...]:
    """The lines of a unified diff, without its file headers."""
    lines = text.splitlines()
    if [line[:4] for line in lines[:2]] == ["--- ", "+++ "]:
        lines = lines[2:]
    shown = [clean(line) for line in redact_lines(lines[:MOST_DIFF_LINES])]
    return (
        (*shown, f"… and {len(lines) - MOST_DIFF_LINES:,} more lines") if len(lines) > MOST_DIFF_LINES else tuple(shown)
    )


def severity(control: str) -> str:
    return CONTROLS[control].severity if control in CONTROLS else ""


def _worst_finding_first(finding: Finding) -> tuple[Any, ...]:
    return (
        VERDICTS.index(finding.verdict), SEVERITIES.index(severity(finding.control)), natural(finding.control),
        natural(finding.attachment), finding.direction, finding.family, finding.pool, finding.title, finding.packet,
    )  # fmt: skip


def _worst_host_first(host: Host) -> tuple[Any, ...]:
    worst = host.findings[0] if host.findings else None
    rank = SEVERITIES.index(severity(worst.control)) if worst and worst.verdict == VIOLATED else 0
    return HOST_VERDICTS.index(host.verdict), rank, natural(host.name)


def headline(report: Report) -> str:
    """The run in one sentence for somebody who reads nothing else."""
    total, counts = len(report.hosts), report.host_totals
    if not total and report.signals:
        figures = ", ".join(f"{count:,} {words}" for words, count in report.signals.counts.items() if count)
        alarms = "Look at the alarms of the signals: " if report.signals.alarms else "The signals: "
        return alarms + (figures or "nobody is suspect")
    if not total:
        return "No host was in the run"
    if report.clean:
        return "The one host keeps the policy" if total == 1 else f"All {total:,} hosts keep the policy"
    said = {
        VIOLATED: "violate{s} the policy",
        NOT_AUDITED: "could not be audited",
        UNKNOWN: "{is_are} not known to keep it",
    }
    parts: list[str] = []
    for verdict, words in said.items():
        if count := counts[verdict]:
            of = f"{count:,} of {total:,} host{'s' * (total > 1)}" if not parts else f"{count:,}"
            parts.append(f"{of} {words.format(s='s' * (count == 1), is_are='is' if count == 1 else 'are')}")
    if not parts:
        count = len(report.exceptions_that(EXPIRED))
        return f"Every host keeps the policy, but {count:,} exception{'s have' if count > 1 else ' has'} expired"
    return ", ".join(parts)


def duration(report: Report) -> str:
    """'2026-11-23 09:14:07 UTC, 12 s', with as much as is known."""
    try:
        begin, end = (datetime.datetime.fromisoformat(text) for text in (report.started, report.finished))
        seconds = (end - begin).total_seconds()
    except (ValueError, TypeError):
        return moment(report.finished or report.started)
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{moment(report.started)}, {took}"


def moment(text: str) -> str:
    """An ISO 8601 time as people read it, in its own zone; anything else as it is."""
    try:
        return f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S %Z}".strip()
    except ValueError:
        return text
