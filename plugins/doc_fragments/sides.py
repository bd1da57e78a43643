# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two sides of filter_diff and filter_impact."""

from __future__ import annotations


class ModuleDocFragment:
    """What they are made of."""

    DOCUMENTATION = r"""
options:
  before:
    description: The one side; the running configuration of the host where nothing is given.
    type: dict
    default: {}
    suboptions: &side
      config:
        description: File on the controller with a configuration, or a part of one.
        type: path
      policy:
        description: Instead of a file, the value of C(isp_policy) for which the filters would be written.
        type: dict
      attachments:
        description: With a policy, the value of C(isp_attachments).
        type: list
        elements: dict
      platform:
        description: The platform of the side; C(ansible_network_os) when it is not given.
        type: str
      filter:
        description: Name of the filter, where it is another one than O(filter).
        type: str
      attachment:
        description: Name of the attachment, where it is another one than O(attachment).
        type: str
  after:
    description: The other side; the running configuration of the host where nothing is given.
    type: dict
    default: {}
    suboptions: *side
"""
