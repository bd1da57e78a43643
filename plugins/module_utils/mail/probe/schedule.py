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
from .settings import INBOUND, Settings
from .visit import Again, Answer, Case, Result, Service, Shut, Visit

ATTEMPTS = 5  # at one case
# How often in a row the server may say that it is too much: with the pauses between, a minute, in which Postfix counts.
PATIENCE = 8
LAST = ("connections", "limits")


class _Gate:
    """How many connections there may be at once, and when: fewer and later each time that the server wants less."""

    def __init__(self, limit: int, pause: float, end: float) -> None:
        self._limit, self._open = limit, 0
        self._pause, self._end = pause, end
        self._closed_until = self._closed_at = 0.0
        self._in_a_row, self._said = 0, ""
        self._free = threading.Condition()

    def enter(self) -> str:
        """Wait for a turn. Returns why there is none any more, "" where there is."""
        with self._free:
            while True:
                now = time.monotonic()
                if self._in_a_row >= PATIENCE:
                    return self._said
                if now >= self._end:
                    return "the time limit was over before this case"
                if now >= self._closed_until and self._open < self._limit:
                    self._open += 1
                    return ""
                self._free.wait(
                    min(self._closed_until, self._end) - now if now < self._closed_until else self._end - now
                )

    def leave(self, began: float, said: str) -> None:
        """`said`: what the server said of its limits to who entered at `began`."""
        with self._free:
            self._open -= 1
            # Who came before the last pause tells nothing new.
            if said and began >= self._closed_at:
                self._said, self._closed_at = said, time.monotonic()
                self._closed_until = self._closed_at + self._pause * 2**self._in_a_row
                self._in_a_row += 1
                self._limit = max(1, min(self._limit, self._open + 1) // 2)
            elif began >= self._closed_at:
                self._in_a_row = 0
            self._free.notify_all()


class _Server:
    """One service: its cases, and what came of them."""

    def __init__(self, settings: Settings, service: Service, end: float) -> None:
        self.settings, self.service, self.end = settings, service, end
        self.cases = [one for subject in (relay, session, content, limits) for one in subject.cases(settings, service)]
        self.results: list[Result] = []
        self._gate = _Gate(settings.parallel, settings.pause / 4, end)
        self._shown: list[Result] = []
        # Why nothing can be learned here, and what was said then.
        self._why_not = _knock(settings, service) if self.cases else ""
        self._said: tuple[str, ...] = ()

    def early(self) -> None:
        """What needs a stranger first, then the many at once."""
        # What comes of a refused client is what these two are about.
        first = [case for case in self.cases if case.test == "early_talker" or case.name == relay.UNLISTED]
        self._some(sorted(first, key=lambda case: case.test))
        cases = [case for case in self.cases if case.test not in LAST and case not in first]
        if cases and not self._why_not and self.settings.role == INBOUND and not self.settings.listed:
            self._turned_away()
        self._some([case for case in cases if case.test == "recipients"])
        with ThreadPoolExecutor(max_workers=max(1, self.settings.parallel)) as pool:
            self.results += pool.map(self._run, [case for case in cases if case.test != "recipients"])

    def late(self) -> None:
        """What exhausts the server; and what every case may have seen."""
        self._some([case for case in self.cases if case.test in LAST])
        for one in self._shown[:1]:
            reason = f"a reply shows a secret (hidden here), in case '{one.case}'"
            asked = ("dnsbl", "secret in a reply", "M3", self.service.name, self.service.address)
            self.results.append(Result(*asked, VIOLATED, reason, one.line))

    def _some(self, cases: list[Case]) -> None:
        self.results += map(self._run, cases)

    def _turned_away(self) -> None:
        """One question first: who is not heard, or has no answer, need not ask hundreds."""
        found = self._run(Case("", "", "", relay.turned_away))
        if found.verdict != COMPLIANT:
            self._why_not, self._said = found.reason, found.transcript

    def _run(self, case: Case) -> Result:
        """Ask until there is an answer, a few times at most."""
        if self._why_not:
            return _result(case, self.service, Answer(UNKNOWN, self._why_not), self._said)
        attempt, shown = 0, False
        transcript: tuple[str, ...] = ()
        while True:
            if why := self._gate.enter():
                answer, transcript = Answer(UNKNOWN, why), transcript or self._said
                break
            began, busy, again = time.monotonic(), "", False
            visit = Visit(self.settings, self.service, self.end)
            try:
                answer = case.ask(visit)
            except Busy as lost:
                busy = str(lost)
            except Again as reply:
                answer, again = Answer(UNKNOWN, f"deferred in every of {attempt + 1} connections: {reply}"), True
            except Shut as shut:
                answer = Answer(UNKNOWN, f"refused before the question: {shut}")
            except Lost as lost:
                # A server at its limit may just hang up on whoever comes next.
                answer, again = Answer(UNKNOWN, str(lost)), not visit.transcript and attempt == 0
            finally:
                visit.close()
                self._gate.leave(began, busy)
            transcript, shown = visit.transcript, shown or visit.shown_secret
            if busy:
                self._said = transcript
                continue
            attempt += 1
            if not again or attempt == ATTEMPTS:
                break
            time.sleep(max(0.0, min(self.settings.pause * 2 ** (attempt - 1), self.end - time.monotonic())))
        result = _result(case, self.service, answer, transcript)
        if shown:
            self._shown.append(result)
        return result


def probe(settings: Settings) -> list[Result]:
    """Run the tests of the settings on every address and port, all services at once. Never raises on what comes."""
    end = time.monotonic() + settings.time_limit
    services = [Service(address, *port) for address in settings.reached for port in settings.ports]
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        servers = list(pool.map(lambda service: _Server(settings, service, end), services))
        list(pool.map(_Server.early, servers))
    for server in servers:
        server.late()  # one service after the other: a user's limits are those of all
    results = [result for server in servers for result in server.results]
    if "dnsbl" in settings.tests and settings.dnsbl_zone:
        results += dnsbl(settings.dnsbl_zone, settings.dnsbl_key, resolve)
    return results


def _result(case: Case, service: Service, answer: Answer, transcript: tuple[str, ...] = ()) -> Result:
    asked = (case.test, case.name, case.control, service.name, service.address)
    kept = () if answer.verdict == COMPLIANT else transcript
    return Result(*asked, answer.verdict, answer.reason, answer.line, kept)


def _knock(settings: Settings, service: Service) -> str:
    """Why nothing there can be asked, "" where it can: hundreds of cases need not find out each for itself."""
    own = settings.source_for(service.address)
    try:
        socket.create_connection(
            (service.address, service.port), settings.limits.connect, (own, 0) if own else None
        ).close()
    except OSError as error:
        reason = error.strerror or "no answer in time"
        return f"no connection to {service.address} port {service.port}: {reason}"
    return ""
