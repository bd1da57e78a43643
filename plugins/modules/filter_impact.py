# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of this name; it runs on the controller."""

DOCUMENTATION = """
module: filter_impact
short_description: Who would a change of a filter cut off, or let through, going by recorded flows
description:
  - Sends recorded flows through two filters, and counts those that only one of them lets through. Each side is a file,
    the running configuration of the router, or what the role edge_filter would write for a policy.
  - A flow is judged by the packets that its record proves, every one of which must pass. A SYN without ACK is a lone
    SYN; SYN with ACK is a session, of the client where only the destination's port is below 1024, of the server where
    only the source's is, and either of them otherwise. Packets are whole, without options and extension headers.
  - What is not known, because of a line that was not understood or that asks for what records lack (DSCP, TTL, length),
    is told as unknown, with the line.
  - Nothing is changed. As a gate before a push it is O(isp.hardening.edge_filter#module:impact).
extends_documentation_fragment: isp.hardening.sides
version_added: 1.0.0
author: isp.hardening contributors
requirements:
  - numpy on the controller, and lz4 where nfcapd compresses; C(pip install isp-hardening[signals])
options:
  filter:
    description: Name of the filter (ACL, firewall filter, C(table chain)) on both sides.
    type: str
  attachment:
    description: Instead of a filter, where subscribers hang; all that is in force there counts.
    type: str
  direction:
    description: C(up) is from the subscriber, who is then the source of a flow, C(down) is to it.
    type: str
    choices: [up, down]
    required: true
  family:
    description: IP version. Both where an attachment is named and none is given, 4 for a filter.
    type: int
    choices: [4, 6]
  flows:
    description:
      - Files of nfcapd (nfdump) on the controller, or directories of them. They must be whole.
      - Record where all traffic of the subscribers is seen, in front of the filter.
    type: list
    elements: path
    required: true
  subscribers:
    description: Prefixes of the subscribers that hang there; flows of others are left out. All when it is not given.
    type: list
    elements: str
    default: []
  alarmed:
    description: Addresses or prefixes that detectors have found; they are counted apart.
    type: list
    elements: str
    default: []
"""

EXAMPLES = """
- name: Whom would the policy cut off that the running filter lets through
  isp.hardening.filter_impact:
    after: {policy: "{{ isp_policy }}", attachments: "{{ isp_attachments }}"}
    attachment: Virtual-Template1
    direction: up
    subscribers: [198.51.100.0/25, "2001:db8:100::/40"]
    flows: [/var/cache/nfdump/2026/11/25]
"""

RETURN = """
flows:
  description: How many flows were read.
  type: int
  returned: always
seen:
  description: How many of them are of the subscribers.
  type: int
  returned: always
unseen:
  description: The places whose subscribers none of the flows is of. What would happen there is not known.
  type: list
  elements: str
  returned: always
since:
  description: Time of the first flow, milliseconds since 1970 UTC; 0 without flows. C(until) is that of the last one.
  type: int
  returned: always
denied:
  description: >-
    What would newly be denied. C(subscribers) (IPv6 by /64), C(alarmed) of them, C(flows), C(octets), C(sessions)
    (established mail sessions, to or from ports 25, 465, 587), C(destinations) (C(address), C(protocol), C(port),
    C(flows), C(octets), those with most flows first), C(examples) (C(place), C(packet), C(before) and C(after) with the
    deciding lines).
  type: dict
  returned: always
permitted:
  description: What would newly be permitted, with the keys of RV(denied).
  type: dict
  returned: always
unknown:
  description: What may make a difference, with the keys of RV(denied). The examples have the lines in doubt.
  type: dict
  returned: always
at_most:
  description: RV(denied) and what of RV(unknown) may be denied, together.
  type: dict
  returned: always
notes:
  description: What makes the counts less than exact, as sampling.
  type: list
  elements: str
  returned: always
"""
