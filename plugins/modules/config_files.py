#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Install the configuration of a service once its own daemon has accepted it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: The configuration files of a service, once its own check has accepted them
description:
  - Installs the files of one service together. Where any of them changes, the directory O(base) is copied, the new
    files are put into the copy, and the service's own check reads it there; only then each file is replaced, by
    rename, with its owner and mode set before. When the check refuses, or one file cannot be replaced, all files
    stay as they were.
  - A symlink at a path is replaced by the file; what it led to is left alone. Directories that are missing are made.
  - The content of a secret file is in no diff, no log and no message, nor is what a check says of it.
  - Needs Python's standard library alone.
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: The same checks, and nothing is written outside of the copy. Where the service is not installed yet,
      RV(msg) says what could not be checked.
    support: full
  diff_mode:
    description: Shows each file, without what looks like a password; of a secret file only that it changes.
    support: full
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The absolute path.
        type: str
        required: true
      content:
        description: The whole file.
        type: str
      secret_content:
        description: The whole file, where it must not be shown. Exactly one of the two is given.
        type: str
      owner:
        description: The owner.
        type: str
        default: root
      group:
        description: The group.
        type: str
        default: root
      mode:
        description: The permissions, as an octal number in quotes.
        type: str
        default: "0644"
  absent:
    description: Files that must not be there.
    type: list
    elements: str
    default: []
  base:
    description:
      - The directory of the configuration, as C(/etc/unbound). In the text files of its copy every path that begins
        with it leads into the copy, so that includes are those of the copy.
    type: str
    required: true
  validate:
    description: Commands that must end with 0, each a list of words. C({stage}) stands for the copy of O(base).
    type: list
    elements: list
    default: []
  environment:
    description: Environment variables of the commands. C({stage}) stands for the copy here too.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Unbound's own settings
  isp.hardening.config_files:
    base: /etc/unbound
    files:
      - path: /etc/unbound/unbound.conf.d/isp-hardening.conf
        content: "{{ lookup('ansible.builtin.template', 'unbound.conf.j2') }}"
    validate:
      - [unbound-checkconf, "{stage}/unbound.conf"]
  notify: Reload unbound
"""

RETURN = r"""
files:
  description: The paths that changed, or would change in check mode.
  returned: always
  type: list
  elements: str
msg:
  description: What could not be checked in check mode, as the service is not installed yet.
  returned: when there is something to say
  type: str
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.config_files import (
    HalfDone,
    Refused,
    check,
    diff,
    install,
    plan,
    program,
    read_wanted,
    stage,
)

# The mail host has no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "str", "required": True},
            "content": {"type": "str"},
            "secret_content": {"type": "str", "no_log": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
        },
        "mutually_exclusive": [("content", "secret_content")],
        "required_one_of": [("content", "secret_content")],
    },
    "absent": {"type": "list", "elements": "str", "default": []},
    "base": {"type": "str", "required": True},
    "validate": {"type": "list", "elements": "list", "default": []},
    "environment": {"type": "dict", "default": {}},
}


class QuietModule(AnsibleModule):
    """A module that leaves no line in the system log.

    Ansible would log the list of files as Python writes it, with \\n for line ends, and not know a secret again in it.
    """

    def log(self, msg: str, log_args: object = None) -> None:
        """Nothing."""


def main() -> None:
    """Compare, check, replace, tell."""
    module = QuietModule(ARGUMENTS, supports_check_mode=True)
    options = module.params
    base = options["base"].rstrip("/")
    missing: list[str] = []  # what is not installed yet
    try:
        wanted = read_wanted(options["files"], options["absent"])
        steps = [step for step in plan(wanted, options["absent"], missing.append) if step.changed]
        programs = {command[0] for command in options["validate"] if not program(command)}
        missing += [f"{name} is not installed" for name in sorted(programs)]
        if missing and not module.check_mode:
            raise Refused("; ".join(missing))
        if not os.path.isdir(base) and module.check_mode:
            missing.append(f"{base} is not there")
        if steps and not missing:
            with tempfile.TemporaryDirectory(dir=module.tmpdir) as copy:
                stage(base, copy, steps)
                environment = {name: str(value) for name, value in options["environment"].items()}
                check(options["validate"], environment, base, copy, steps)
        if not module.check_mode:
            install(steps)
    except HalfDone as error:
        module.fail_json(msg=f"{error}.")
    except (Refused, OSError) as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    result = {"changed": bool(steps), "files": [step.path for step in steps]}
    if missing:
        result["msg"] = f"Not checked: {', '.join(missing)}."
        module.warn(result["msg"])
    if module._diff:
        result["diff"] = [diff(step) for step in steps]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
