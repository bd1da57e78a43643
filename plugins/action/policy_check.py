# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy, the attachments and the mail hosts, checked on the controller before anything connects."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.inventory_check import (
    VARIABLES,
    HostVariables,
    Verdict,
    check_inventory,
)
from ansible_collections.isp.hardening.plugins.module_utils.policy import PolicyException, Problem
from ansible_collections.isp.hardening.plugins.module_utils.policy_files import read_files
from ansible_collections.isp.hardening.plugins.modules.policy_check import DOCUMENTATION


class ActionModule(ActionBase):
    """Documented in plugins/modules/policy_check.py."""

    BYPASS_HOST_LOOP = True
    _supports_check_mode = True
    _supports_diff = True
    _requires_connection = False

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec(DOCUMENTATION))
        variables = task_vars or {}
        raw: dict[str, Mapping[str, Any]] = {}
        unloaded: dict[str, str] = {}
        for name in variables["groups"]["all"]:
            try:
                raw[name] = variables["hostvars"].raw_get(name)
            except AnsibleError as error:
                unloaded[name] = str(error)
        constants: dict[int, object] = {}
        hosts = [self._host(name, own, constants) for name, own in raw.items()]
        inventories = [source for source in variables.get("ansible_inventory_sources") or [] if os.path.exists(source)]
        names = {*variables["groups"], *variables["groups"]["all"]}
        files = read_files(inventories, variables.get("playbook_dir", ""), os.getcwd(), names)
        if not files.problems:  # else they are why, and tell the line
            hosts += [_unloaded(name, reason) for name, reason in unloaded.items()]
        return result | _told(check_inventory(hosts, files, datetime.date.today()))

    def _host(self, name: str, own: Mapping[str, Any], constants: dict[int, object]) -> HostVariables:
        values: dict[str, object] = {}
        problems: list[Problem] = []
        for variable in VARIABLES:
            if variable not in own:
                continue
            raw = own[variable]
            try:
                # Hosts share the objects of their group's files: what has no template is made plain once.
                if id(raw) not in constants and _constant(raw):
                    constants[id(raw)] = _plain(raw)
                values[variable] = constants[id(raw)] if id(raw) in constants else self._templated(raw, own)
            except AnsibleError as error:
                values[variable] = None
                mend = "mend the expression, or set what it needs"
                problems.append(Problem((variable,), f"cannot be templated: {error}", mend))
        return HostVariables(name, tuple(own["group_names"]), values, tuple(problems))

    def _templated(self, raw: object, own: Mapping[str, Any]) -> object:
        return _plain(self._templar.copy_with_new_env(available_variables=own).template(raw))


def _unloaded(name: str, reason: str) -> HostVariables:
    problem = Problem(("variables",), f"cannot be loaded: {' '.join(reason.split())}", "mend what sets them")
    return HostVariables(name, (), {}, (problem,))


def _constant(value: object) -> bool:
    """Whether it is sure that templating the value would give the value."""
    if isinstance(value, Mapping):
        return all(_constant(item) for item in value.values())
    if isinstance(value, list):
        return all(_constant(item) for item in value)
    if isinstance(value, str):
        return "{" not in value
    return value is None or isinstance(value, int | float | datetime.date)


def _plain(value: Any) -> object:
    """Templated data as plain data: Ansible's containers render their items when they are taken out."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _told(verdict: Verdict) -> dict[str, Any]:
    result: dict[str, Any] = {
        "changed": False,
        "problems": [asdict(mistake) | {"hosts": list(mistake.hosts)} for mistake in verdict.mistakes],
        "expired": [_exception(one) for one in verdict.expired],
        "expiring": [_exception(one) for one in verdict.expiring],
        "routers": list(verdict.routers),
        "mail_hosts": list(verdict.mail_hosts),
        "warnings": list(verdict.warnings),
    }
    if verdict.mistakes:
        count = "1 mistake" if len(verdict.mistakes) == 1 else f"{len(verdict.mistakes)} mistakes"
        lines = [f"{count} in the policy, and nothing was connected to:", *map(str, verdict.mistakes)]
        return result | {"failed": True, "msg": "\n".join(lines)}
    hosts = f"{len(verdict.routers)} routers"
    if verdict.mail_hosts:
        hosts += f" and {len(verdict.mail_hosts)} mail hosts"
    return result | {"msg": f"the policy is good for {hosts}"}


def _exception(exception: PolicyException) -> dict[str, Any]:
    return asdict(exception) | {"until": exception.until.isoformat(), "controls": list(exception.controls)}
