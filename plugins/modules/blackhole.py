#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Write down which addresses the trigger is to black-hole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: blackhole
short_description: Which addresses the trigger black-holes, and until when
description:
  - Holds cases against the limits of the policy, and writes what they allow into the desired state that the trigger of
    the role C(isp.hardening.blackhole) reads. The trigger judges each route once more, announces it, and lets it go at
    its time without any further run.
  - It takes two independent kinds of evidence, or C(operator) among the sources of a case.
  - Nothing is cut to fit. When a limit does not hold for the whole run, nothing is added, RV(frozen) says why, and what
    is in force stays.
  - A dry run, which the policy has unless it says otherwise, tells all and writes nothing. Letting go by
    hand is no dry run.
  - An empty state file, without a byte in it, is the kill switch. All is withdrawn, and nothing is added until the file
    holds C({}) again.
  - A state file that cannot be understood fails the module, and stays as it is.
  - Runs on the host of the trigger. Needs Python's standard library alone.
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Tells what would be written.
    support: full
  diff_mode:
    description: Shows the state file.
    support: full
options:
  policy:
    description: The policy of the signals, as the filter C(isp.hardening.signals_host) gives it.
    type: dict
    required: true
  kind:
    description:
      - C(source) for subscribers whose packets are to be dropped, which takes a reverse path filter on the routers.
      - C(destination) for subscribers who are under attack.
      - C(inbound) for addresses of others that attack the mail exchangers; an hour at most.
      - Routers discard what goes to an address and, with the filter, what comes from it, whichever kind it is. The kind
        says whose address it may be and for how long.
    type: str
    choices: [source, destination, inbound]
    default: source
  cases:
    description: The cases, as the detectors hand them over.
    type: list
    elements: dict
    default: []
  owners:
    description:
      - Who has the addresses that are black-holed now, as M(isp.hardening.address_owner) tells. One that belongs to
        another subscriber by now, or perhaps, is let go.
    type: list
    elements: dict
    default: []
  release:
    description: The keys of cases that are let go now. They and their subscribers are left alone for a day.
    type: list
    elements: str
    default: []
  state:
    description: The path of the desired state.
    type: path
    default: /var/lib/isp-hardening-blackhole/state.json
"""

EXAMPLES = r"""
- name: Black-hole what two detectors agree upon
  isp.hardening.blackhole:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    cases: "{{ found.cases }}"

- name: An operator lets a customer go
  isp.hardening.blackhole:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    release: [subscriber-4711]
"""

RETURN = r"""
added:
  description: The actions that are new, each with C(key), C(subscriber), C(prefixes), C(until) and C(reason).
  returned: always
  type: list
  elements: dict
kept:
  description: The actions that were in force already.
  returned: always
  type: list
  elements: dict
released:
  description: The actions that end now, each with C(key), C(prefixes) and C(why).
  returned: always
  type: list
  elements: dict
refused:
  description: The cases that nothing is done about, each with C(key) and C(why).
  returned: always
  type: list
  elements: dict
frozen:
  description: Why nothing was added at all; empty when all is well.
  returned: always
  type: str
dry_run:
  description: Whether all this was only told.
  returned: always
  type: bool
unknown:
  description: Keys to let go that nothing in force has.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.signals.blackhole import (
    StateError,
    read_state,
    write_state,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.blackhole_cases import Proposal, propose
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import hidden, read_case
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import read_owners

# The host of the trigger may have no YAML library to read the DOCUMENTATION with; a test holds the two together.
ARGUMENTS = {
    "policy": {"type": "dict", "required": True},
    "kind": {"type": "str", "choices": ["source", "destination", "inbound"], "default": "source"},
    "cases": {"type": "list", "elements": "dict", "default": []},
    "owners": {"type": "list", "elements": "dict", "default": []},
    "release": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "path", "default": "/var/lib/isp-hardening-blackhole/state.json"},
}
NEW = "{}"  # where there is no file yet: armed, and nothing in it


def main() -> None:
    """Read, decide, write, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options = module.params
    module.no_log_values |= hidden(options["policy"])
    path = Path(options["state"])
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else NEW
        proposal = propose(
            options["kind"],
            [read_case(one) for one in options["cases"]],
            options["release"],
            read_state(before),
            options["policy"],
            int(time.time() * 1000),
            read_owners(options["owners"]),
        )
        after = write_state(proposal.state)
        changed = read_state(after) != read_state(before)
        if changed and not module.check_mode:
            replace(path, before, after)
    except StateError as error:
        module.fail_json(msg=f"{path}: {error}. Nothing was changed.")
    except (KeyError, TypeError, AttributeError) as error:
        module.fail_json(msg=f"policy: {error} is missing or wrong; give what isp.hardening.signals_host gives")
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    result = told(proposal) | {"changed": changed}
    result["unknown"] = sorted(set(options["release"]) - {one["key"] for one in result["released"]})
    if changed and module._diff:
        result["diff"] = {"before_header": str(path), "after_header": str(path), "before": before, "after": after}
    for line in (proposal.decision.frozen, *(f"{one['key']}: {one['why']}" for one in result["refused"])):
        if line:
            module.warn(line)
    for key in result["unknown"]:
        module.warn(f"{key}: no case of this key is black-holed as {options['kind']}")
    module.exit_json(**result)


def told(proposal: Proposal) -> dict[str, Any]:
    """The decision as a result of the module."""
    decision = proposal.decision
    return {
        "added": [one.as_dict() for one in decision.add],
        "kept": [one.as_dict() for one in decision.keep],
        "released": [
            {"key": one.action.key, "prefixes": list(one.action.prefixes), "why": one.reason}
            for one in decision.release
        ],
        "refused": [{"key": one.case.key, "why": one.reason} for one in decision.refused],
        "frozen": decision.frozen,
        "dry_run": decision.dry_run,
    }


def replace(path: Path, before: str, after: str) -> None:
    """A new file in the place of the old one, unless somebody, the kill switch say, was faster."""
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=".state.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(after)
            os.fchmod(handle, 0o640)  # the directory of the role gives the trigger's group to it
            file.flush()
            os.fsync(handle)
        if (path.read_text(encoding="utf-8") if path.exists() else NEW) != before:
            raise ValueError(f"{path} was changed meanwhile; run again")
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


if __name__ == "__main__":
    main()
