#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Quarantine infected subscribers by another filter for their RADIUS sessions, or let them go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: radius_quarantine
short_description: Which subscribers the access servers hold in quarantine, and until when
description:
  - Holds cases against the limits of the policy, writes what they allow into the state file of the role
    C(isp.hardening.quarantine_radius), and asks the access servers for another filter of the sessions, by a CoA-Request
    (RFC 5176). The service of the role asks for the normal filter when an action is over.
  - O(identity) says which sessions a subscriber has. An access server acknowledges, refuses or is silent, and
    RV(sessions) says which. None of them is ever taken for another; silence is asked again by the service.
  - Nothing is cut to fit. When a limit does not hold for the whole run, nothing is added, RV(frozen) says why, and what
    is in force stays.
  - A dry run, which the policy has unless it says otherwise, tells all and asks nobody. Letting go is no dry run.
  - An empty state file is the kill switch. All are let go, and nobody is added until the file is taken away.
  - An action whose address belongs to another subscriber by now ends.
  - A session that begins during a quarantine gets the filter with the next run of this module; a RADIUS server that
    knows the state file can give it at once.
  - Runs on the host of the role. Needs Python's standard library alone.
extends_documentation_fragment: isp.hardening.identity
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Tells what would change. No access server is asked.
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
    default: /etc/isp-hardening/quarantine_radius.json
"""

EXAMPLES = r"""
- name: Quarantine whom the detectors found
  isp.hardening.radius_quarantine:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    cases: "{{ found.cases }}"
    identity: {radius: ["/var/log/freeradius/radacct/*/detail-*"]}
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
sessions:
  description:
    - The sessions that were asked about and have another state now, each with C(key), C(session), C(state) and C(why).
    - C(state) is C(acknowledged), C(refused) or C(silent); C(ended) where the session was disconnected; C(released)
      where it has the normal filter again; C(not asked) where it could not be asked.
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

from ansible_collections.isp.hardening.plugins.module_utils.signals.coa_service import opened, run, told_sessions
from ansible_collections.isp.hardening.plugins.module_utils.signals.ledger import (
    Outcome,
    Refused,
    shown,
    told,
    warnings,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import (
    QUARANTINE,
    hidden,
    limits_of,
    read_case,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import IDENTITY, sources_of
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Silence

# The host may have no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "policy": {"type": "dict", "required": True},
    "cases": {"type": "list", "elements": "dict", "default": []},
    "identity": IDENTITY,
    "release": {"type": "list", "elements": "str", "default": []},
    "by": {"type": "str", "default": "operator"},
    "reason": {"type": "str", "default": "released by hand"},
    "settings": {"type": "path", "default": "/etc/isp-hardening/quarantine_radius.json"},
}


def main() -> None:
    """Read, let go, decide, ask, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options, check = module.params, module.check_mode
    module.no_log_values |= hidden(options["policy"])
    path = options["settings"]
    if check and not os.path.exists(path):
        result = told([]) | {"changed": bool(options["cases"]), "sessions": []}
        module.exit_json(**result, msg=f"Not checked: no {path} yet.")
    outcomes: list[Outcome] = []
    silences: tuple[Silence, ...] = ()
    refused: list[dict[str, str]] = []
    try:
        limits = limits_of(options["policy"], QUARANTINE)
        cases = [read_case(one) for one in options["cases"]]
        ledger, radius = opened(path)
        if options["release"]:
            by, reason = options["by"], options["reason"]
            outcomes.append(ledger.release(radius, options["release"], by, reason, check=check))
        if cases or not options["release"]:
            sources = sources_of(options["identity"])
            silences = sources.told
            outcome, without = run(ledger, radius, cases, limits, sources, check=check)
            outcomes.append(outcome)
            refused = [{"key": one.case.key, "why": one.reason} for one in without]
    except Refused as error:
        module.fail_json(msg=f"{error}.")
    except (KeyError, TypeError, AttributeError) as error:
        module.fail_json(msg=f"policy: {error} is missing or wrong; give what isp.hardening.signals_host gives")
    except ValueError as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    result = told(outcomes)
    result["refused"] += refused
    result["sessions"] = told_sessions(outcomes)
    if module._diff and result["changed"]:
        result["diff"] = {"before": shown(outcomes[0].before), "after": shown(outcomes[-1].after)}
    for line in (*warnings(result), *(f"{one.reason}; {one.mend}" for one in silences)):
        module.warn(line)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
