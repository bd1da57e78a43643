# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of this name; it runs on the controller."""

DOCUMENTATION = """
module: attachments
short_description: Write the places where subscribers seem to hang into a host's variables, for review
description:
  - Reads the router over its connection and looks for interfaces that carry addresses of the policy's pools, and for
    templates and profiles of sessions, that O(attachments) does not name.
  - They are added to C(isp_attachments) in the file, each with the line of the configuration and its prefixes. Where
    the configuration does not say which pools hang there, the entry is a comment to complete.
  - What a person wrote stays as it is, comments included. Nothing is changed on the router.
version_added: 1.0.0
author: isp.hardening contributors
attributes:
  check_mode:
    description: Reports what would be added and writes nothing.
    support: full
  diff_mode:
    description: Shows the lines that are added.
    support: full
options:
  policy:
    description: The value of C(isp_policy).
    type: dict
    required: true
  attachments:
    description: The value of C(isp_attachments), as far as there is one.
    type: list
    elements: dict
    default: []
  path:
    description: The YAML file on the controller that sets C(isp_attachments) of the host, or will.
    type: path
    required: true
"""

EXAMPLES = """
- name: Propose attachments
  isp.hardening.attachments:
    policy: "{{ isp_policy }}"
    attachments: "{{ isp_attachments | default([]) }}"
    path: "{{ inventory_dir }}/host_vars/{{ inventory_hostname }}.yml"
"""

RETURN = """
proposals:
  description: What was found, with C(name), C(pools) (none where they are not known), C(line) and C(prefixes).
  type: list
  elements: dict
  returned: always
path:
  description: The file.
  type: str
  returned: always
"""
