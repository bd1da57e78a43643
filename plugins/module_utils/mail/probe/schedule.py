# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All cases of all services: many at once, within what the server bears."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from ...findings import COMPLIANT, UNKNOWN, VIOLATED
from ..dialogue import Busy, Lost
from . import content, limits, relay, session
from .dnsbl import dnsbl, resolve
from .settings import Settings
from .visit import Again, Answer, Case, Result, Service, Shut, Visit

ATTEMPTS = 5  # at one case


class _Gate:
    """How many connections there may be at once: fewer whenever the server says 421."""

    def __init__(self, limit: int) -> None:
        self._limit, self._open = limit, 0
        self._free = threading.Condition()

    def enter(self) -> None:
        with self._free:
            self._free.wait_for(lambda: self._open < self._limit)
            self._open += 1

    def leave(self, busy: bool) -> None:
        with self._free:
            self._open -= 1
            if busy:
                self._limit = max(1, min(self._limit, self._open + 1) // 2)
            self._free.notify_all()


def probe(settings: Settings) -> list[Result]:
    """Run the tests of the settings on every address and port, all services at once. Never raises on what comes."""
    end = time.monotonic() + settings.time_limit
    services = [Service(address, *port) for address in settings.addresses for port in settings.ports]
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        served = pool.map(lambda service: _serve(settings, service, end), services)
        results = [result for one in served for result in one]
    if "dnsbl" in settings.tests and settings.dnsbl_zone:
        results += dnsbl(settings.dnsbl_zone, settings.dnsbl_key, resolve)
    return results


def _serve(settings: Settings, service: Service, end: float) -> list[Result]:
    """All cases of one service: what needs a stranger first, the many at once, what exhausts the server last."""
    cases = [case for subject in (relay, session, content, limits) for case in subject.cases(settings, service)]
    unreachable = _knock(settings, service) if cases else ""
    if unreachable:
        return [_result(case, service, Answer(UNKNOWN, unreachable)) for case in cases]
    gate = _Gate(settings.parallel)
    secrets_shown: list[Result] = []

    def run(case: Case) -> Result:
        result, shown = _run(case, settings, service, gate, end)
        if shown:
            secrets_shown.append(result)
        return result

    results = []
    first, last = ("early_talker", "recipients"), ("connections",)
    results += [run(case) for test in first for case in cases if case.test == test]
    with ThreadPoolExecutor(max_workers=max(1, settings.parallel)) as pool:
        results += pool.map(run, [case for case in cases if case.test not in first + last])
    results += [run(case) for case in cases if case.test in last]
    for one in secrets_shown[:1]:
        reason = f"a reply shows a secret (hidden here), in case '{one.case}'"
        found = Result("dnsbl", "secret in a reply", "M3", service.name, service.address, VIOLATED, reason, one.line)
        results.append(found)
    return results


def _run(case: Case, settings: Settings, service: Service, gate: _Gate, end: float) -> tuple[Result, bool]:
    """Ask until there is an answer, a few times at most. Returns it, and whether a reply held a secret."""
    answer, shown = Answer(UNKNOWN, "the time limit was over before this case"), False
    transcript: tuple[str, ...] = ()
    for attempt in range(ATTEMPTS):
        gate.enter()
        busy = again = False
        if time.monotonic() >= end:
            gate.leave(busy)
            break
        visit = Visit(settings, service, end)
        try:
            answer = case.ask(visit)
        except Busy as lost:
            answer, busy = Answer(UNKNOWN, str(lost)), True
        except Again as reply:
            answer, again = Answer(UNKNOWN, f"deferred in every of {attempt + 1} connections: {reply}"), True
        except Shut as shut:
            answer = Answer(UNKNOWN, f"refused before the question: {shut}")
        except Lost as lost:
            # A server at its limit may just hang up on whoever comes next.
            answer, again = Answer(UNKNOWN, str(lost)), not visit.transcript and attempt == 0
        finally:
            visit.close()
            gate.leave(busy)
        transcript, shown = visit.transcript, shown or visit.shown_secret
        if not busy and not again:
            break
        time.sleep(max(0.0, min(settings.pause * 2**attempt, end - time.monotonic())))
    return _result(case, service, answer, transcript), shown


def _result(case: Case, service: Service, answer: Answer, transcript: tuple[str, ...] = ()) -> Result:
    asked = (case.test, case.name, case.control, service.name, service.address)
    kept = () if answer.verdict == COMPLIANT else transcript
    return Result(*asked, answer.verdict, answer.reason, answer.line, kept)


def _knock(settings: Settings, service: Service) -> str:
    """Why nothing there can be asked, "" where it can: hundreds of cases need not find out each for itself."""
    source = (settings.source, 0) if settings.source else None
    try:
        socket.create_connection((service.address, service.port), settings.limits.connect, source).close()
    except OSError as error:
        reason = error.strerror or "no answer in time"
        return f"no connection to {service.address} port {service.port}: {reason}"
    return ""
