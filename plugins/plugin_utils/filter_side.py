# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One side of a comparison of filters, as filter_diff and filter_impact take it: a file, a policy, or the router."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    path_text,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.rules import compile_change
from ansible_collections.isp.hardening.plugins.plugin_utils.router import platform_of, running_text, session_of

_TEMPLATES = Path(__file__).parents[2] / "roles" / "edge_filter" / "templates"


def side_text(
    action: ActionBase, side: Mapping[str, Any], variables: Mapping[str, Any], running: dict[ModuleType, str]
) -> tuple[str, ModuleType]:
    """The configuration of the side and its platform. The router is read once for both, and kept in `running`.

    Raises ValueError and OSError with what is wrong with the side, Ended where the router cannot be read.
    """
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
        running[platform] = running_text(action, platform, session_of(action, platform))
    return running[platform], platform


def side_question(side: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Which filters of the side are meant: its own names, or those for both sides."""
    names = {name: side.get(name) or arguments[name] for name in ("filter", "attachment")}
    return names | {"direction": arguments["direction"]}


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
    change = compile_change(known, places, getattr(platform, "PER_ATTACHMENT", False))
    text = environment.from_string(template.read_text(encoding="utf-8")).render(platform.fields(change))
    # Where ours takes the place of what is there, the commands say so, and are no configuration by themselves.
    return list(platform.apply("", platform.lines(text)))[-1] if platform.WHOLE else text
