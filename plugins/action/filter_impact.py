# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recorded flows through two filters: live, from files, or as the role would write them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.doc_fragments.sides import ModuleDocFragment as Sides
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import FlowFileError
from ansible_collections.isp.hardening.plugins.modules.filter_impact import DOCUMENTATION
from ansible_collections.isp.hardening.plugins.plugin_utils.filter_side import side_question, side_text
from ansible_collections.isp.hardening.plugins.plugin_utils.router import Ended, ended_result
from ansible_collections.isp.hardening.plugins.plugin_utils.what_if import what_if


class ActionModule(ActionBase):
    """Documented in plugins/modules/filter_impact.py."""

    _supports_check_mode = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        try:
            _, arguments = self.validate_argument_spec(argument_spec(DOCUMENTATION, Sides.DOCUMENTATION))
            wanted = [arguments[side] for side in ("before", "after")]
            running: dict[ModuleType, str] = {}
            texts = [side_text(self, side, variables, running) for side in wanted]
            found = what_if(texts, [side_question(side, arguments) for side in wanted], arguments)
            return result | found | {"changed": False}
        except Ended as end:
            return result | ended_result(end, host)
        except (FlowFileError, NotThisPlatform, OSError, ValueError) as error:
            return result | {"failed": True, "msg": f"{host}: {error}"}
