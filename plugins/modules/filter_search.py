# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of this name; it runs on the controller."""

DOCUMENTATION = """
module: filter_search
short_description: Is there a packet that a filter permits, or denies, and by which line
description:
  - Answers questions about any filter or attachment of a router, live over its connection or offline from a file.
  - Many questions cost one reading. Nothing is changed.
version_added: 1.0.0
author: isp.hardening contributors
options:
  config:
    description: File on the controller with a configuration, or a part of one. Without it the router is read.
    type: path
  platform:
    description: The platform of the configuration; C(ansible_network_os) when it is not given.
    type: str
  questions:
    description: The questions.
    type: list
    elements: dict
    required: true
    suboptions:
      filter:
        description: Name of the filter (ACL, firewall filter, C(table chain)).
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
      protocol:
        description: Name or number of the protocol.
        type: str
      source:
        description: Source addresses or prefixes.
        type: list
        elements: str
      destination:
        description: Destination addresses or prefixes.
        type: list
        elements: str
      source_ports:
        description: Ports or ranges such as C(1024-65535).
        type: list
        elements: str
      destination_ports:
        description: Ports or ranges such as C(137-139).
        type: list
        elements: str
      tcp_flags:
        description: The flags that are set; the others are clear. Any flags when it is not given.
        type: list
        elements: str
      icmp_type:
        description: ICMP type.
        type: int
      icmp_code:
        description: ICMP code.
        type: int
      dscp:
        description: DSCP value.
        type: int
      fragments:
        description: Which fragments. Packets whose ports can be read when it is not given.
        type: str
        choices: [none, first, later, any]
      extension:
        description: The first IPv6 extension header. Any when it is not given.
        type: str
      state:
        description: What connection tracking says of the packet. Any when it is not given.
        type: str
"""

EXAMPLES = """
- name: Can a subscriber reach port 25 anywhere
  isp.hardening.filter_search:
    config: captured/bng1.cfg
    platform: cisco_ios
    questions:
      - {attachment: Virtual-Template1, direction: up, protocol: tcp, destination_ports: ["25"]}
      - {filter: SUBSCRIBERS-IN, protocol: tcp, source: [198.51.100.7], destination_ports: ["587"]}
"""

RETURN = """
answers:
  description: >-
    One for each question, with C(permit) and C(deny); each has C(found) (yes, no or unknown), C(packet) as a line,
    C(fields), and the C(lines) that the packet matched, the deciding one last.
  type: list
  elements: dict
  returned: always
"""
