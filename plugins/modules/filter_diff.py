# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of this name; it runs on the controller."""

DOCUMENTATION = """
module: filter_diff
short_description: Which packets do two filters treat differently, and by which lines
description:
  - Compares two filters by the packets that they permit and deny, never by their text. Each side is a file, the running
    configuration of the router, or what the role edge_filter would write for a policy; the two may be of different
    vendors.
  - The answer is a list of boxes that hold every packet with another fate, and no other, each with one such packet and
    the deciding line on both sides. Where a line that was not understood leaves it open, the box says so, with its
    number.
  - Nothing is changed.
extends_documentation_fragment: isp.hardening.sides
version_added: 1.0.0
author: isp.hardening contributors
options:
  filter:
    description: Name of the filter (ACL, firewall filter, C(table chain)) on both sides.
    type: str
  attachment:
    description: Instead of a filter, where subscribers hang; all that is in force there counts.
    type: str
  direction:
    description: With an attachment, C(up) is from the subscriber, C(down) is to it.
    type: str
    choices: [up, down]
  family:
    description: IP version.
    type: int
    choices: [4, 6]
    default: 4
  limit:
    description: How many boxes are told; how many are left out is told in any case.
    type: int
    default: 50
"""

EXAMPLES = """
- name: What did last night's change do
  isp.hardening.filter_diff:
    before: {config: backups/bng1/20261125T020000.cfg}
    attachment: Virtual-Template1
    direction: up

- name: Does the new router filter as the old one does
  isp.hardening.filter_diff:
    before: {config: captured/bng1.cfg, platform: cisco_ios, filter: SUBSCRIBERS-IN}
    after: {config: captured/core1.cfg, platform: juniper_junos, filter: subscribers-in}
"""

RETURN = """
boxes:
  description: >-
    Packets with another fate. C(change) is "denied, now permitted", "permitted, now denied" or "unknown"; C(packets)
    are the packets in words; C(packet) is one of them as a line, C(fields) its header; C(before) and C(after) have the
    C(action) and the C(lines) that this packet matched, the deciding one last (none is the end of the filter);
    C(reason) says why it is unknown.
  type: list
  elements: dict
  returned: always
left_out:
  description: How many boxes are not told, by their change.
  type: dict
  returned: always
"""
