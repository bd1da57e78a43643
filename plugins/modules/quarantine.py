#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Quarantine infected subscribers on a Linux edge, or let them go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: quarantine
short_description: Which subscribers a Linux edge holds in quarantine, and until when
description:
  - Holds cases against the limits of the policy, writes what they allow into the state file of the role
    C(isp.hardening.quarantine), and brings it into the kernel in one transaction. Each quarantine ends by itself.
  - Of a subscriber in quarantine, port 25, the Web and the ports of worms are closed, sessions that are open too; the
    portal and everything else stay open.
  - Nothing is cut to fit. When a limit does not hold for the whole run, nothing is added, RV(frozen) says why, and what
    is in force stays.
  - A dry run, which the policy has unless it says otherwise, tells all and changes nothing. Letting go is no dry run.
  - An empty state file is the kill switch. All are let go, and nobody is added until the file is taken away.
  - Runs on the edge. Needs Python's standard library alone.
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows the prefixes in quarantine and until when, before and after.
    support: full
options:
  policy:
    description: The policy of the signals, as the filter C(isp.hardening.signals_host) gives it.
    type: dict
    required: true
  cases:
    description: The cases, as the detectors hand them over.
    type: list
    elements: dict
    default: []
  owners:
    description:
      - Who has the addresses in quarantine now, as M(isp.hardening.address_owner) tells. An action whose address
        belongs to another subscriber by now, or perhaps, ends.
    type: list
    elements: dict
    default: []
  release:
    description:
      - Whom to let go now, each by the key of the case, the subscriber or an address. He is left alone for a day,
        whatever the detectors say; an operator's case of another key counts.
    type: list
    elements: str
    default: []
  by:
    description: Who lets them go, for the audit log.
    type: str
    default: operator
  reason:
    description: Why they are let go, for the audit log.
    type: str
    default: released by hand
  settings:
    description: The settings that the role wrote.
    type: path
    default: /etc/isp-hardening/quarantine.json
"""

EXAMPLES = r"""
- name: Quarantine whom the detectors found
  isp.hardening.quarantine:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    cases: "{{ found.cases }}"

- name: Let a customer go who has called
  isp.hardening.quarantine:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    release: [203.0.113.7]
    by: jane
    reason: has cleaned the computer
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
  description: Names to let go that nothing in force has.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.signals.ledger import Refused, shown, told, warnings
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import (
    QUARANTINE,
    hidden,
    limits_of,
    read_case,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.nftables_service import opened
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import read_owners

# The edge has no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "policy": {"type": "dict", "required": True},
    "cases": {"type": "list", "elements": "dict", "default": []},
    "owners": {"type": "list", "elements": "dict", "default": []},
    "release": {"type": "list", "elements": "str", "default": []},
    "by": {"type": "str", "default": "operator"},
    "reason": {"type": "str", "default": "released by hand"},
    "settings": {"type": "path", "default": "/etc/isp-hardening/quarantine.json"},
}


def main() -> None:
    """Read, let go, decide, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options, check = module.params, module.check_mode
    module.no_log_values |= hidden(options["policy"])
    path = options["settings"]
    if check and not os.path.exists(path):
        module.exit_json(**told([]) | {"changed": bool(options["cases"]), "msg": f"Not checked: no {path} yet."})
    outcomes = []
    try:
        limits = limits_of(options["policy"], QUARANTINE)
        cases = [read_case(one) for one in options["cases"]]
        owners = read_owners(options["owners"])
        ledger, kernel = opened(path)
        if options["release"]:
            by, reason = options["by"], options["reason"]
            outcomes.append(ledger.release(kernel, options["release"], by, reason, check=check))
        if cases or not options["release"]:
            outcomes.append(ledger.apply(kernel, cases, limits, owners=owners, check=check))
    except Refused as error:
        module.fail_json(msg=f"{error}.")
    except (KeyError, TypeError, AttributeError) as error:
        module.fail_json(msg=f"policy: {error} is missing or wrong; give what isp.hardening.signals_host gives")
    except ValueError as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    result = told(outcomes)
    if module._diff and result["changed"]:
        result["diff"] = {"before": shown(outcomes[0].before), "after": shown(outcomes[-1].after)}
    for line in warnings(result):
        module.warn(line)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
