# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How far a long run is: a line per router in place of its whole result, and on a terminal one that moves."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ansible import constants as C  # noqa: N812 - its name everywhere in Ansible
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, UNKNOWN, VIOLATED
from ansible_collections.isp.hardening.plugins.module_utils.report import (
    FINE,
    HOST_VERDICTS,
    NOT_AUDITED,
    STATES,
    VERDICTS,
    host_verdict,
)
from ansible_collections.isp.hardening.plugins.module_utils.report.text import clean

DOCUMENTATION = """
name: progress
type: stdout
short_description: One line per router, and how far the run is
version_added: 1.0.0
author: isp.hardening contributors
description:
  - Shows what M(isp.hardening.edge_filter) found as one line per router instead of the whole result; every other task
    looks as with the default callback.
  - On a terminal a last line moves along, with the verdicts so far and the time left. Elsewhere (a log, CI) there is
    one line for each router and nothing moves.
  - With C(-v) the whole results are shown as well.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as C(stdout_callback=isp.hardening.progress) in ansible.cfg, or C(ANSIBLE_STDOUT_CALLBACK) in the environment
"""

_SIGNS = {VIOLATED: "✗", UNKNOWN: "?", COMPLIANT: "✓", NOT_AUDITED: "!"}
_COLOURS = {VIOLATED: C.COLOR_ERROR, UNKNOWN: C.COLOR_WARN, COMPLIANT: C.COLOR_OK, NOT_AUDITED: C.COLOR_UNREACHABLE}
_WORDS = {VIOLATED: "violated", UNKNOWN: "unknown", COMPLIANT: "proved"}


class CallbackModule(Default):
    """The default callback, but for the results of edge_filter."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "isp.hardening.progress"

    def __init__(self) -> None:
        super().__init__()
        self._hosts = 0
        self._done: Counter[str] = Counter()
        self._task = ""
        self._began = 0.0
        self._moving = sys.stdout.isatty()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        super().v2_playbook_on_play_start(play)
        self._hosts = len(play.get_variable_manager()._inventory.get_hosts(play.hosts))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._clear()
        super().v2_playbook_on_task_start(task, is_conditional)
        self._task, self._done, self._began = task._uuid, Counter(), time.monotonic()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._clear()
        super().v2_playbook_on_stats(stats)

    def v2_on_file_diff(self, result: Any) -> None:
        self._clear()
        super().v2_on_file_diff(result)

    def v2_runner_on_ok(self, result: Any) -> None:
        if not self._told(result):
            super().v2_runner_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not self._told(result):
            super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if not self._told(result):
            super().v2_runner_on_unreachable(result)

    def _told(self, result: Any) -> bool:
        """Show the result as one line, where it is one of edge_filter. Whether it was."""
        found = result.result
        if found.get("state") not in STATES or "host" not in found:
            return False
        self._clear()
        self._handle_warnings_and_exception(result)
        verdict, words = _words(found)
        self._done[verdict] += 1
        number = sum(self._done.values())
        line = f"[{number:>{len(str(self._hosts))}}/{self._hosts}] {_SIGNS[verdict]} {result.host.get_name()}  {words}"
        self._display.display(line, color=_COLOURS[verdict])
        if self._run_is_verbose(result):
            self._display.display(self._dump_results(found))
        if self._moving and number < self._hosts:
            self._display.display(self._status(number) + "\r", screen_only=True, newline=False)
        return True

    def _clear(self) -> None:
        """Take the moving line away before anything else is printed."""
        if self._moving and self._done:
            self._display.display("\x1b[2K", screen_only=True, newline=False)

    def _status(self, number: int) -> str:
        """'12 of 200 · 3 violated · 9 compliant · 40 s left', no wider than the terminal."""
        left = (time.monotonic() - self._began) / number * (self._hosts - number)
        time_left = f"about {left:.0f} s left" if left < 100 else f"about {left / 60:.0f} min left"
        counts = [f"{self._done[verdict]} {verdict}" for verdict in HOST_VERDICTS if self._done[verdict]]
        text = " · ".join([f"{number} of {self._hosts}", *counts, time_left])
        return text[: shutil.get_terminal_size().columns - 1]


def _words(result: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on the host, and what was found: '2 violated, 51 proved; changed'."""
    counts = Counter(finding["verdict"] for finding in result.get("findings") or ())
    verdict = host_verdict(result["state"], counts)
    words = ", ".join(f"{counts[one]} {_WORDS[one]}" for one in VERDICTS if counts[one])
    if result["state"] not in FINE:
        message = str(result.get("msg") or STATES[result["state"]]).removeprefix(f"{result['host']}: ")
        words = "; ".join(filter(None, (words, clean(message))))
    elif result["state"] != "audited":
        words += f"; {result['state']}"
    return verdict, words or STATES[result["state"]]
