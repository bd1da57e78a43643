# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Questions to filters, live or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.module_utils.ask import ask
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform
from ansible_collections.isp.hardening.plugins.modules.filter_search import DOCUMENTATION
from ansible_collections.isp.hardening.plugins.plugin_utils.router import (
    Ended,
    ended_result,
    platform_of,
    running_text,
    session_of,
)


class ActionModule(ActionBase):
    """Documented in plugins/modules/filter_search.py."""

    _supports_check_mode = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, arguments = self.validate_argument_spec(argument_spec(DOCUMENTATION))
        try:
            platform = platform_of(arguments["platform"] or variables.get("ansible_network_os"))
            if arguments["config"]:
                text = Path(arguments["config"]).read_text(encoding="utf-8", errors="replace")
            else:
                text = running_text(self, platform, session_of(self, platform))
            attachments = [one["attachment"] for one in arguments["questions"] if one.get("attachment")]
            return result | {
                "answers": ask(platform.parse(text, attachments), arguments["questions"]),
                "changed": False,
            }
        except Ended as end:
            return result | ended_result(end, variables["inventory_hostname"])
        except (NotThisPlatform, OSError, ValueError) as error:
            where = arguments["config"] or variables["inventory_hostname"]
            return result | {"failed": True, "msg": f"{where}: {error}"}
