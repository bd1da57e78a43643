# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recorded flows through the filters of before and after, for those who ask: filter_impact, and the gate of a push.

numpy is loaded here and not above: who has no flows needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.isp.hardening.plugins.module_utils.difference import sides
from ansible_collections.isp.hardening.plugins.module_utils.policy import Attachment, Policy
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import FlowFileError, read_flows
from ansible_collections.isp.hardening.plugins.plugin_utils.router import Ended

Texts = Sequence[tuple[str, ModuleType]]  # before and after, each with its platform


def what_if(texts: Texts, questions: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What filter_impact returns. Raises ValueError and FlowFileError with what is wrong, Ended without numpy."""
    impact = _library()
    families = [arguments["family"]] if arguments["family"] else [4] if arguments["filter"] else [4, 6]
    places = []
    for family in families:
        subscribers = tuple(one for one in arguments["subscribers"] if (":" in one) == (family == 6))
        if arguments["subscribers"] and not subscribers:
            continue
        before, after, unchanged = sides(texts[0], texts[1], questions, family)
        name = questions[1]["attachment"] or questions[1]["filter"]
        places.append(impact.Place(name, arguments["direction"], family, before, after, unchanged, subscribers))
    found: dict[str, Any] = impact.impact(places, read_flows(arguments["flows"]), arguments["alarmed"]).as_dict()
    return found


def gate(wanted: Mapping[str, Any], texts: Texts, policy: Policy, attachments: Sequence[Attachment]) -> dict[str, Any]:
    """What a push from the first text to the second would do to the flows; `refused` says why it must not be made.

    What keeps it from being known is such a reason.
    """
    impact = _library()
    protected = [impact.Protected(one["prefix"], one["reason"]) for one in wanted["never"]]
    protected += [impact.Protected(one.prefix, f"exempt until {one.until}: {one.owner}") for one in policy.exceptions]
    try:
        if not wanted["never"]:
            raise ValueError("impact.never is empty; give it the list of isp_signals, with your servers in it")
        places = impact.changed(texts, policy, attachments)
        if not places:
            return {"refused": ""}  # lists that go, and are bound nowhere
        found = impact.impact(places, read_flows(wanted["flows"]), wanted["alarmed"], protected)
    except (FlowFileError, OSError, ValueError) as error:
        return {"refused": f"it is not known what it would do to the recorded flows: {error}"}
    return {"refused": impact.refusal(found, impact.Budget(**wanted["budget"])), **found.as_dict()}


def _library() -> ModuleType:
    try:
        from ansible_collections.isp.hardening.plugins.module_utils.signals import impact
    except ImportError as error:
        raise Ended("failed", missing_required_lib(str(error.name), reason="to read recorded flows")) from error
    return impact
