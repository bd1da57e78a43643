# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where subscribers hang on a router, proposed to whoever keeps its variables."""

from __future__ import annotations

import datetime
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.module_utils.discovery import merged, proposals
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.history import redacted
from ansible_collections.isp.hardening.plugins.module_utils.policy import path_text, read_attachments, read_policy
from ansible_collections.isp.hardening.plugins.modules.attachments import DOCUMENTATION
from ansible_collections.isp.hardening.plugins.plugin_utils.router import (
    Ended,
    ended_result,
    platform_of,
    running_text,
    session_of,
)


class ActionModule(ActionBase):
    """Documented in plugins/modules/attachments.py."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        try:
            _, arguments = self.validate_argument_spec(argument_spec(DOCUMENTATION))
            policy, problems = read_policy(arguments["policy"], datetime.date.today())
            known = read_attachments(arguments["attachments"], policy) if policy else ((), problems)
            if policy is None or known[1]:
                said = "; ".join(f"{path_text(one.path)} {one.reason}: {one.mend}" for one in known[1])
                raise Ended("failed", f"the policy is not right, and nothing was connected to: {said}")
            platform = platform_of(self._templar.template(variables.get("ansible_network_os")))
            text = running_text(self, platform, session_of(self, platform))
            found = proposals(platform.parse(text, [one.name for one in known[0]]), policy, known[0])
            path = Path(os.path.realpath(arguments["path"]))
            try:
                before = path.read_bytes().decode("utf-8") if path.exists() else ""  # its line breaks as they are
                after = merged(before, found, bool(known[0]))
                if after != before and not self._task.check_mode:
                    _replace(path, after)
            except (OSError, ValueError) as error:
                raise Ended("failed", f"{path}: {error}; nothing was written") from error
        except Ended as end:
            return result | ended_result(end, host)
        return result | {
            "changed": after != before,
            "path": str(path),
            "diff": _diff(before, after, str(path)),
            "proposals": [
                {
                    "name": one.interface.name,
                    "pools": list(one.pools),
                    "line": one.interface.line,
                    "prefixes": list(one.interface.prefixes),
                }
                for one in found
            ],
        }


def _diff(before: str, after: str, path: str) -> dict[str, str]:
    """A file of variables can hold the router's password."""
    return {"before": redacted(before), "after": redacted(after), "before_header": path, "after_header": path}


def _replace(path: Path, text: str) -> None:
    """The file whole or not at all, with the rights that it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, mode)
    os.replace(file.name, path)
