#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action policy_check, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: policy_check
short_description: Check the policy and the attachments of the whole inventory
description:
  - Reads O(ignore:isp_policy), O(ignore:isp_mail), O(ignore:isp_signals), O(ignore:isp_attachments) and
    C(ansible_network_os) of all hosts of the inventory, whatever the limit is, and fails with every mistake at once.
    Each one tells file, line, reason and mend.
  - Runs once, on the controller. Nothing connects.
  - Warns of exceptions that expired or do so within 14 days, of exceptions without effect and of pools that hang
    on no attachment.
  - The whole variable tree is described in C(docs/policy.md).
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Never changes anything.
    support: none
options: {}
seealso:
  - module: isp.hardening.policy_exception
"""

EXAMPLES = r"""
- name: Check everything before anything connects
  hosts: all
  gather_facts: false
  tasks:
    - name: Check the policy
      isp.hardening.policy_check:
"""

RETURN = r"""
problems:
  description: Every mistake.
  returned: always
  type: list
  elements: dict
  contains:
    place:
      description: File and line as C(file:line), empty where the variable is in no file that can be read.
      type: str
    hosts:
      description: The hosts that have it, empty for a mistake of a file.
      type: list
      elements: str
    variable:
      description: Where in the variable tree, as C(isp_policy.pools.residential.ipv4[0]).
      type: str
    reason:
      description: What is wrong.
      type: str
    mend:
      description: What to do.
      type: str
expired:
  description: Exceptions past their last day. They count as absent.
  returned: always
  type: list
  elements: dict
  sample:
    - {prefix: 198.51.100.7/32, owner: Example GmbH, reason: own MX, until: "2027-01-31", controls: [P1], pool: homes}
expiring:
  description: Exceptions whose last day is at most 14 days away, in the form of RV(expired).
  returned: always
  type: list
  elements: dict
routers:
  description: The hosts that were taken for routers.
  returned: always
  type: list
  elements: str
mail_hosts:
  description: The hosts of the groups C(mx) and C(outbound), where O(ignore:isp_mail) is set.
  returned: always
  type: list
  elements: str
"""
