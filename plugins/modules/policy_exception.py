#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Add, extend and remove exceptions in the YAML file of the policy, in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: policy_exception
short_description: Add, extend or remove an exception in the policy file
description:
  - Edits C(isp_policy.exceptions) in a YAML file in place. Every other line stays as it is, comments, order and
    quoting included.
  - The policy is checked as a whole before anything is written, and the file is replaced in one step.
  - Runs where the file is, which is the controller.
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Reports what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows the lines that change.
    support: full
options:
  path:
    description: The YAML file that sets C(isp_policy), such as C(inventories/mine/group_vars/all/policy.yml).
    type: path
    required: true
  prefix:
    description: The exact address or prefix. It has to be a part of one pool.
    type: str
    required: true
  state:
    description:
      - V(present) adds the exception, or sets what is given in the one that is there.
        To extend it, give O(until) alone.
      - V(absent) removes it. Comments on lines of their own stay.
    type: str
    choices: [present, absent]
    default: present
  owner:
    description: Who answers for the exception, with a ticket or contract number. Needed for a new one.
    type: str
  reason:
    description: Why the exception is needed. Needed for a new one.
    type: str
  until:
    description: Its last day, as V(2027-01-31). Needed for a new one, and never in the past.
    type: str
  controls:
    description: The controls that leave the prefix alone. Without it P1, P2 and P3.
    type: list
    elements: str
requirements:
  - ruamel.yaml
seealso:
  - module: isp.hardening.policy_check
"""

EXAMPLES = r"""
- name: Let a customer run a mail server until the end of January
  isp.hardening.policy_exception:
    path: inventories/mine/group_vars/all/policy.yml
    prefix: 198.51.100.7/32
    owner: Example GmbH, ticket 4711
    reason: own mail server until the move to a static address
    until: "2027-01-31"
  delegate_to: localhost

- name: Extend it
  isp.hardening.policy_exception:
    path: inventories/mine/group_vars/all/policy.yml
    prefix: 198.51.100.7/32
    until: "2027-03-31"
  delegate_to: localhost

- name: Remove it
  isp.hardening.policy_exception:
    path: inventories/mine/group_vars/all/policy.yml
    prefix: 198.51.100.7/32
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
entry:
  description: The exception as it is in the file now, or would be; empty when it is not in it.
  returned: success
  type: dict
  sample:
    prefix: 198.51.100.7/32
    owner: Example GmbH, ticket 4711
    reason: own mail server until the move to a static address
    until: "2027-01-31"
path:
  description: The file.
  returned: success
  type: str
"""

import datetime
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec

try:
    from ansible_collections.isp.hardening.plugins.module_utils import policy_edit
except ImportError as error:
    RUAMEL_MISSING: ImportError | None = error
else:
    RUAMEL_MISSING = None


def main() -> None:
    module = AnsibleModule(argument_spec(DOCUMENTATION), supports_check_mode=True)
    if RUAMEL_MISSING:
        module.fail_json(msg=missing_required_lib("ruamel.yaml"), exception=str(RUAMEL_MISSING))
    path = os.path.realpath(module.params["path"])
    try:
        with open(path, encoding="utf-8", newline="") as file:
            before = file.read()
    except OSError as error:
        module.fail_json(msg=f"{path}: cannot be read: {error.strerror}; name the file that sets isp_policy")
    except UnicodeError:
        module.fail_json(msg=f"{path}: is not UTF-8; save it as UTF-8")
    fields = {key: module.params[key] for key in ("owner", "reason", "until", "controls")}
    given = {key: value for key, value in fields.items() if value is not None}
    prefix = module.params["prefix"]
    wanted = given if module.params["state"] == "present" else None
    try:
        after = policy_edit.edited(before, prefix, wanted, datetime.date.today())
    except policy_edit.EditError as error:
        module.fail_json(msg=f"nothing was written:\n{error.told(path)}")
    if after != before and not module.check_mode:
        try:
            replace(module, path, after)
        except OSError as error:
            module.fail_json(msg=f"{path}: cannot be written: {error.strerror}; nothing was changed")
    module.exit_json(
        changed=after != before,
        path=path,
        entry=policy_edit.find(after, prefix) or {},
        diff={"before": before, "after": after, "before_header": path, "after_header": path},
    )


def replace(module: AnsibleModule, path: str, text: str) -> None:
    """Put the text in the file's place, in one step."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=os.path.dirname(path), prefix=".policy", delete=False
    ) as file:
        file.write(text)
    module.add_cleanup_file(file.name)
    module.atomic_move(file.name, path)


if __name__ == "__main__":
    main()
