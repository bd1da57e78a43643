# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two filters compared by their packets: live, from files, or as the role would write them."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.module_utils.difference import as_dict, difference, sides
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    path_text,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.rules import compile_change
from ansible_collections.isp.hardening.plugins.modules.filter_diff import DOCUMENTATION
from ansible_collections.isp.hardening.plugins.plugin_utils.router import (
    Ended,
    ended_result,
    platform_of,
    running_text,
    session_of,
)

_TEMPLATES = Path(__file__).parents[2] / "roles" / "edge_filter" / "templates"


class ActionModule(ActionBase):
    """Documented in plugins/modules/filter_diff.py."""

    _supports_check_mode = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        try:
            _, arguments = self.validate_argument_spec(argument_spec(DOCUMENTATION))
            wanted = [arguments[side] for side in ("before", "after")]
            running: dict[ModuleType, str] = {}
            texts = [self._text(side, variables, running) for side in wanted]
            questions = [
                {name: side.get(name) or arguments[name] for name in ("filter", "attachment")}
                | {"direction": arguments["direction"]}
                for side in wanted
            ]
            before, after, unchanged = sides(texts[0], texts[1], questions, arguments["family"])
            found = difference(before, after, arguments["family"], arguments["limit"], unchanged)
            return result | as_dict(found) | {"changed": False}
        except Ended as end:
            return result | ended_result(end, host)
        except (NotThisPlatform, OSError, ValueError) as error:
            return result | {"failed": True, "msg": f"{host}: {error}"}

    def _text(
        self, side: dict[str, Any], variables: dict[str, Any], running: dict[ModuleType, str]
    ) -> tuple[str, ModuleType]:
        platform = platform_of(side.get("platform") or variables.get("ansible_network_os"))
        if side.get("config"):
            path = Path(side["config"])
            try:
                return path.read_text(encoding="utf-8", errors="replace"), platform
            except OSError as error:
                raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if side.get("policy"):
            return _rendered(platform, side["policy"], side.get("attachments") or []), platform
        if platform not in running:
            running[platform] = running_text(self, platform, session_of(self, platform))
        return running[platform], platform


def _rendered(platform: ModuleType, policy: dict[str, Any], attachments: list[dict[str, Any]]) -> str:
    """What the role would write for the policy on a router that has none of it."""
    known, problems = read_policy(policy, datetime.date.today())
    places: tuple[Attachment, ...] = ()
    if known:
        places, problems = read_attachments(attachments, known)
    if known is None or problems:
        raise ValueError("; ".join(f"{path_text(one.path)} {one.reason}: {one.mend}" for one in problems))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = _TEMPLATES / f"{platform.__name__.rpartition('.')[2]}.j2"
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        platform.fields(compile_change(known, places))
    )
