# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a router is to believe the black-hole trigger, as ranges of prefixes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.isp.hardening.plugins.module_utils.signals.blackhole import SHORTEST, StateError, shield
from ansible_collections.isp.hardening.plugins.module_utils.signals.blackhole_cases import guards_of

DOCUMENTATION = r"""
name: blackhole_guards
short_description: What a router is to believe the black-hole trigger
description:
  - Which routes may come from the trigger at all, and which must not, for the templates of a router.
  - What is never black-holed stands for its whole /64 where it is a part of one, so that a route for the /64 around a
    server is refused by the same line as one for the server.
version_added: 1.0.0
positional: inbound
options:
  _input:
    description: The policy of the signals, as the filter C(isp.hardening.signals_host) gives it.
    type: dict
    required: true
  inbound:
    description: Whether addresses of others may come too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: What may come
  ansible.builtin.debug:
    msg: "{{ (isp_signals | isp.hardening.signals_host(isp_policy) | isp.hardening.blackhole_guards).ipv6.allowed }}"
"""

RETURN = r"""
_value:
  description:
    - For C(ipv4) and C(ipv6) the lists C(allowed) and C(never), each entry with C(prefix), its C(length), and the
      shortest and the longest routes in it that are meant, C(low) and C(high).
    - C(cap) is how many routes of a family there may be.
  type: dict
"""

LONGEST = {4: 32, 6: 128}


class FilterModule:
    """Found by the name of its file."""

    def filters(self) -> Mapping[str, Callable[..., Any]]:
        return {"blackhole_guards": read}


def read(policy: Mapping[str, Any], inbound: bool = False) -> dict[str, Any]:
    """The guards as plain data. Raises AnsibleFilterError where the policy makes no sense."""
    if not isinstance(inbound, bool):  # 'false' of an inventory in INI is a text, and true
        raise AnsibleFilterError(f"inbound is {inbound!r:.20}; write true or false")
    try:
        cap = guards_of(policy).cap
        never = shield({one["prefix"]: one["reason"] for one in policy["never"]})
        own = [prefix for pool in policy["pools"].values() for prefix in pool["prefixes"]]
    except (StateError, KeyError, TypeError, AttributeError) as error:
        raise AnsibleFilterError(
            f"policy of the signals: {error}; give what isp.hardening.signals_host gives"
        ) from None
    allowed = ["0.0.0.0/0", "::/0"] if inbound else own
    families = {
        f"ipv{version}": {"allowed": _ranges(allowed, version), "never": _ranges(never, version)} for version in (4, 6)
    }
    return families | {"cap": cap}


def _ranges(prefixes: Iterable[str], version: int) -> list[dict[str, Any]]:
    networks = [network for network in map(ipaddress.ip_network, prefixes) if network.version == version]
    return [
        {
            "prefix": str(network),
            "length": network.prefixlen,
            "low": max(SHORTEST[version], network.prefixlen),
            "high": LONGEST[version],
        }
        for network in ipaddress.collapse_addresses(networks)  # type: ignore[type-var]  # of one family
    ]
