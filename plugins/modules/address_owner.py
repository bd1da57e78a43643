#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Tell which subscriber had an address."""

from __future__ import annotations

DOCUMENTATION = r"""
module: address_owner
short_description: Which subscriber had an address at a time
description:
  - Looks into RADIUS accounting, DHCP leases, port blocks of a CGN and static assignments.
  - Nobody is guessed. What is not certain is C(unknown) or C(ambiguous), with the reason, as an address that changed
    hands within the skew of the clocks, or one behind a CGN without the port.
  - Runs on the host that has the files. Needs Python's standard library alone.
extends_documentation_fragment: isp.hardening.identity
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Never changes anything.
    support: none
options:
  addresses:
    description: Addresses, or prefixes of one subscriber as a /64.
    type: list
    elements: str
    required: true
  time:
    description: When, in milliseconds since 1970 UTC. Now when it is not given.
    type: int
  port:
    description: The source port, without which an address of a CGN is nobody's.
    type: int
"""

EXAMPLES = r"""
- name: Who was that
  isp.hardening.address_owner:
    addresses: [203.0.113.7]
    identity: {radius: ["/var/log/freeradius/radacct/*/detail-*"]}
"""

RETURN = r"""
owners:
  description: For each address C(address), C(state), C(subscriber), C(prefixes), C(reason) and C(source).
  returned: always
  type: list
  elements: dict
told:
  description: What could not be read, or is in doubt, each with C(reason) and C(mend).
  returned: always
  type: list
  elements: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import IDENTITY, sources_of, tell

# The host may have no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "addresses": {"type": "list", "elements": "str", "required": True},
    "time": {"type": "int"},
    "port": {"type": "int"},
    "identity": IDENTITY,
}


def main() -> None:
    """Read, look up, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options = module.params
    when = time.time_ns() // 1_000_000 if options["time"] is None else options["time"]
    try:
        sources = sources_of(options["identity"])
        owners = tell(sources, options["addresses"], when, options["port"])
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    for one in sources.told:
        module.warn(f"{one.reason}; {one.mend}")
    told = [{"reason": one.reason, "mend": one.mend} for one in sources.told]
    module.exit_json(changed=False, owners=owners, told=told)


if __name__ == "__main__":
    main()
