# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option `identity` of the modules that act on subscribers; its argument spec is IDENTITY in signals/owners.py."""

from __future__ import annotations


class ModuleDocFragment:
    """What they say of it."""

    DOCUMENTATION = r"""
options:
  identity:
    description: Who had which address.
    type: dict
    default: {}
    suboptions:
      radius:
        description: Detail files of FreeRADIUS, or patterns.
        type: list
        elements: str
      radacct:
        description: The table radacct as CSV or dump.
        type: list
        elements: str
      isc_dhcp:
        description: Lease files of ISC DHCP.
        type: list
        elements: str
      kea:
        description: Lease files of Kea.
        type: list
        elements: str
      cgn:
        description: Logs of port blocks.
        type: list
        elements: str
      static:
        description: Assignments, subscriber by prefix.
        type: dict
      cgn_prefixes:
        description: Prefixes that many subscribers share.
        type: list
        elements: str
      subscriber:
        description: The RADIUS attribute that names a customer.
        type: str
        choices: [User-Name, Class, NAS-Port-Id, Calling-Station-Id]
      zone:
        description: The time zone of dumps that do not say theirs.
        type: str
"""
