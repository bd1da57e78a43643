# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one task per router: read, parse, prove, plan, push, read again over a fresh login, prove, confirm."""

from __future__ import annotations

import datetime
import difflib
import gc
import os
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.filters import UNKNOWN, Configuration
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding
from ansible_collections.isp.hardening.plugins.module_utils.history import drift, redacted
from ansible_collections.isp.hardening.plugins.module_utils.hygiene import hygiene
from ansible_collections.isp.hardening.plugins.module_utils.plan import (
    Management,
    Plan,
    Refused,
    propose,
    restoring,
    same_in_force,
)
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    Policy,
    path_text,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.push import Router, push
from ansible_collections.isp.hardening.plugins.module_utils.secrets import redact_lines
from ansible_collections.isp.hardening.plugins.modules.edge_filter import DOCUMENTATION
from ansible_collections.isp.hardening.plugins.plugin_utils.router import (
    Ended,
    ended_result,
    platform_of,
    running_text,
    session_of,
)
from ansible_collections.isp.hardening.plugins.plugin_utils.what_if import gate

_SPEC = argument_spec(DOCUMENTATION)


class ActionModule(ActionBase):
    """Documented in plugins/modules/edge_filter.py."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        gc.disable()  # this process ends with the task, and to look for garbage in what it came with costs half of it
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        result["host"] = variables["inventory_hostname"]
        result["mode"] = "check" if self._task.check_mode else "apply"
        started = time.monotonic()
        result["started"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            _, arguments = self.validate_argument_spec(_SPEC)
            if not 3 <= arguments["rollback_minutes"] <= 59:
                raise Ended("failed", f"rollback_minutes is {arguments['rollback_minutes']}: give 3 to 59")
            self._work(arguments, variables, result)
        except Ended as end:
            result |= ended_result(end, result["host"])
        return result | {"seconds": round(time.monotonic() - started, 3)}

    def _work(self, arguments: dict[str, Any], variables: dict[str, Any], result: dict[str, Any]) -> None:
        platform = platform_of(self._templar.template(variables.get("ansible_network_os")))
        result["platform"] = platform.__name__.rpartition(".")[2]
        policy, attachments = _read_policy(arguments)
        names = [attachment.name for attachment in attachments]
        router = session_of(self, platform)
        running = running_text(self, platform, router)
        before = platform.parse(running, names)
        findings = audit(before, policy, attachments, result["host"], platform.LINK_LOCAL)
        result |= _told(findings, before)
        if arguments["hygiene"]:
            result["hygiene"] = [note.as_dict() for note in hygiene(before, policy, attachments)]
        if arguments["history_dir"]:
            history = Path(arguments["history_dir"]) / f"{result['host']}.cfg"
            result |= _since(history, platform, running, attachments)
        try:
            if arguments["restore"]:
                plan = restoring(platform, running, _backup_text(arguments["restore"]), names)
            else:
                render = self._renderer(platform, arguments["template"])
                management = self._management(platform)
                plan = propose(platform, running, policy, attachments, findings, render, management)
        except Refused as refused:
            raise Ended("refused", str(refused)) from refused
        result["kept"] = list(plan.kept)
        result["changed"] = bool(plan.lines)
        if plan.lines:
            result["diff"] = [_diff(running, plan.predicted, result["host"])]
        if plan.lines and arguments["impact"]:
            self._weigh(arguments["impact"], platform, (running, plan.predicted), (policy, attachments), result)
        if self._task.check_mode or not plan.lines:
            result["state"] = "audited" if self._task.check_mode else "unchanged"
        else:
            self._push(arguments, platform, router, plan, (running, before), (policy, attachments), result)
        if plan.kept and not self._task.check_mode:
            result |= {"failed": True, "msg": f"{result['host']}: {'; '.join(plan.kept)}"}

    def _weigh(
        self,
        wanted: dict[str, Any],
        platform: ModuleType,
        texts: tuple[str, str],
        of: tuple[Policy, Sequence[Attachment]],
        result: dict[str, Any],
    ) -> None:
        """What the push would do to recorded flows; beyond the budget it is not made."""
        result["impact"] = gate(wanted, [(text, platform) for text in texts], *of)
        why = result["impact"]["refused"]
        if why and not self._task.check_mode:
            raise Ended("refused", f"{why}; nothing was changed")
        if why:
            result["msg"] = f"{result['host']}: the push would be refused: {why}"

    def _push(
        self,
        arguments: dict[str, Any],
        platform: ModuleType,
        router: Router,
        plan: Plan,
        old: tuple[str, Configuration],
        wanted: tuple[Policy, Sequence[Attachment]],
        result: dict[str, Any],
    ) -> None:
        policy, attachments = wanted
        host = result["host"]
        result["backup"] = _keep(Path(arguments["backup_dir"]), host, old[0])

        def proved(now: Configuration) -> str:
            if arguments["restore"] and not same_in_force(now, platform.parse(plan.predicted, names)):
                return "the filters are not those of the backup"
            for one in audit(now, policy, attachments, host, platform.LINK_LOCAL):
                if one.verdict != COMPLIANT and (one.attachment, one.direction, one.family) in plan.places:
                    return (
                        f"{one.attachment} ({one.direction}, IPv{one.family}) does not prove: {one.title}; {one.reason}"
                    )
            return ""

        names = [attachment.name for attachment in attachments]
        outcome = push(platform, router, plan, old[1], names, proved, arguments["rollback_minutes"])
        result["steps"] = list(outcome.steps)
        message = outcome.message
        if outcome.text and not platform.incomplete(outcome.text):
            now = platform.parse(outcome.text, names)
            if arguments["history_dir"]:
                try:
                    _write(Path(arguments["history_dir"]) / f"{host}.cfg", redacted(outcome.text))
                except Ended as end:  # what became of the router is said all the same
                    message = f"{message}; {end}"
            result |= _told(audit(now, policy, attachments, host, platform.LINK_LOCAL), now)
        if outcome.state != "changed":
            result["changed"] = outcome.changed
            raise Ended(outcome.state, message)
        result |= {"state": "changed", "msg": f"{host}: {message}"}

    def _renderer(self, platform: ModuleType, template: str | None) -> Any:
        name = template or f"{platform.__name__.rpartition('.')[2]}.j2"
        path = Path(self._find_needle("templates", name))
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            compiled = environment.from_string(path.read_text(encoding="utf-8"))
        except jinja2.TemplateError as error:
            raise Ended("refused", f"{path}: {error}") from error

        def render(fields: dict[str, object]) -> str:
            try:
                return compiled.render(fields)
            except jinja2.TemplateError as error:
                raise Refused(f"{path}: {error}; nothing was changed") from error

        return render

    def _management(self, platform: ModuleType) -> Management | None:
        if platform.DEVICE_TYPE:
            controller, router = self._connection.addresses()
            return Management(controller, router, self._connection.get_option("port"))
        return None  # a forward chain does not see what comes to the router itself


def _read_policy(arguments: dict[str, Any]) -> tuple[Policy, tuple[Attachment, ...]]:
    policy, problems = read_policy(arguments["policy"], datetime.date.today())
    attachments: tuple[Attachment, ...] = ()
    if policy:
        attachments, problems = read_attachments(arguments["attachments"], policy)
    if policy is None or problems:
        lines = [f"{path_text(problem.path)} {problem.reason}: {problem.mend}" for problem in problems]
        raise Ended("failed", "the policy is not right, and nothing was connected to: " + "; ".join(lines))
    return policy, attachments


def _told(findings: Sequence[Finding], configuration: Configuration) -> dict[str, Any]:
    sure: set[int] = set()
    doubtful = {doubt.line for doubt in configuration.doubts}
    for one in configuration.filters.values():
        for entry in one.entries:
            (doubtful if entry.doubt or entry.action == UNKNOWN else sure).add(entry.line)
    return {
        "findings": [finding.as_dict() for finding in findings],
        "lines_read": configuration.filter_lines,
        "lines_understood": configuration.filter_lines - len(doubtful - sure),
    }


def _diff(before: str, after: str, host: str) -> dict[str, str]:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{host} running", f"{host} planned", lineterm=""
    )
    return {"prepared": "\n".join(redact_lines(lines)) + "\n"}


def _keep(directory: Path, host: str, text: str) -> str:
    """The configuration holds secrets: the file is for its owner alone.

    Named by UTC, because the last name is the last backup, and so fine that no second run takes its place.
    """
    path = directory / host / f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S.%fZ}.cfg"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Ended(
            "failed", f"the backup {path} cannot be written: {error.strerror}; set backup_dir; nothing was changed"
        ) from error
    return str(path)


def _since(
    history: Path, platform: ModuleType, running: str, attachments: Sequence[Attachment]
) -> dict[str, dict[str, Any]]:
    """What has changed since the last audit; what is audited now takes its place."""
    now = redacted(running)
    told = {}
    try:
        since = datetime.datetime.fromtimestamp(history.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
        before = history.read_text(encoding="utf-8", errors="replace")
        told["drift"] = {"since": since, **drift(platform, before, now, attachments)}
    except FileNotFoundError:
        pass  # the first audit
    except OSError as error:
        raise Ended("failed", f"the history {history} cannot be read: {error.strerror}; nothing was changed") from error
    _write(history, now)
    return told


def _write(path: Path, text: str) -> None:
    """The file whole or not at all, for its owner alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:  # mode 0600
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise Ended("failed", f"the history {path} cannot be written: {error.strerror}; set history_dir") from error


def _backup_text(path: str) -> str:
    backup = Path(path)
    try:
        if backup.is_dir():
            backup = max(backup.glob("*.cfg"), default=backup / "*.cfg")
        return backup.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Ended("failed", f"the backup {shlex.quote(path)} cannot be read: {error}; nothing was changed") from error
