# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A clock that runs with real time and that a test can push forward."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Timer:
    """A callback that is due at a moment of its clock, until it ran or was cancelled."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback


class Clock:
    """Timers fire when somebody looks: `settle` runs what is due, so no thread and no event loop is needed.

    `lock` guards the router that owns the clock: the server's thread executes while a test advances.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._began = time.monotonic()
        self._pushed = 0.0
        self._timers: list[Timer] = []

    def now(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._began + self._pushed

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.now() + seconds, callback)
        self._timers.append(timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Without effect on a timer that has fired already."""
        if timer in self._timers:
            self._timers.remove(timer)

    def settle(self) -> None:
        """Run the timers that are due, the earliest first."""
        with self.lock:
            while due := [timer for timer in self._timers if timer.due <= self.now()]:
                first = min(due, key=lambda timer: timer.due)
                self._timers.remove(first)
                first.callback()

    def advance(self, seconds: float) -> None:
        """Push the clock forward, and let what is due by then happen at once."""
        with self.lock:
            self._pushed += seconds
            self.settle()
