# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report as JUnit XML, for the test view of a CI server.

A suite is a host, a test case is a finding; its first test case says whether the host was audited at
all. A violation is a `failure`. What is unknown is an `error`, not `skipped`: CI servers show skipped
tests as harmless, and a proof that could not be had is not. Expired exceptions fail in the suite `policy`.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from . import EXPIRED, FINE, NOT_AUDITED, Host, Report, where

_RESULT = {VIOLATED: "failure", UNKNOWN: "error"}
# A test case: class name, name, result ("" passes), message, text.
_Case = tuple[str, str, str, str, str]


def document(report: Report) -> str:
    """XML 1.0. Names of test cases stay the same from run to run, so that a CI server shows their history."""
    root = ElementTree.Element("testsuites", name="isp.hardening")
    suites = [("policy", 0.0, list(_policy(report)))]
    suites += [
        (host.name, host.seconds, list(_cases(host))) for host in sorted(report.hosts, key=lambda host: host.name)
    ]
    for name, seconds, cases in suites:
        _suite(root, name, seconds, cases, report.started)
    _count(root, [case for _, _, cases in suites for case in cases])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _policy(report: Report) -> Iterator[_Case]:
    for one in report.exceptions:
        name = f"the exception of {one.prefix} is in force"
        text = f"owner: {one.owner}\nreason: {one.reason}\ncontrols: {', '.join(one.controls)}"
        ended = one.status == EXPIRED
        yield (
            "policy",
            name,
            "failure" if ended else "",
            f"it ended on {one.until}" if ended else "",
            text if ended else "",
        )


def _cases(host: Host) -> Iterator[_Case]:
    well = host.state in FINE and host.verdict != NOT_AUDITED
    yield f"{host.name}.run", "the host is audited", "" if well else "error", "" if well else host.outcome, ""
    for finding in host.findings:
        name = ", ".join(filter(None, (finding.title, where(finding))))
        if finding.verdict == COMPLIANT:
            yield f"{host.name}.{finding.control}", name, "", "", ""
        else:
            yield f"{host.name}.{finding.control}", name, _RESULT[finding.verdict], finding.reason, _text(finding)


def _text(finding: Finding) -> str:
    shown = [("packet", finding.packet), ("why", finding.reason)]
    shown += [(f"line {one.line}" if one.line else "evidence", one.text) for one in finding.evidence]
    shown.append(("mend", finding.mend))
    return "\n".join(f"{name}: {text}" for name, text in shown if text)


def _suite(root: ElementTree.Element, name: str, seconds: float, cases: list[_Case], started: str) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    _count(suite, cases)
    suite.set("time", f"{seconds:.1f}")
    if started:
        suite.set("timestamp", started)
    for class_name, case_name, result, message, text in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=class_name, name=case_name)
        if result:
            ElementTree.SubElement(case, result, message=message, type=result).text = text


def _count(element: ElementTree.Element, cases: list[_Case]) -> None:
    results = [result for _, _, result, _, _ in cases]
    element.set("tests", str(len(cases)))
    element.set("failures", str(results.count("failure")))
    element.set("errors", str(results.count("error")))
    element.set("skipped", "0")
