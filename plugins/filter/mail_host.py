# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy as one mail host needs it: what the templates of the mail roles place."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.isp.hardening.plugins.module_utils.mail.policy import mail_host, read_mail
from ansible_collections.isp.hardening.plugins.module_utils.policy import path_text, read_policy

DOCUMENTATION = r"""
name: mail_host
short_description: The mail policy, as one host needs it
description:
  - Reads C(isp_mail) and C(isp_policy) whole, with every default in its place, and adds what the host is.
  - Fails with the first mistake of the policy; playbooks/check.yml shows all of them, with file and line.
version_added: 1.0.0
positional: policy, host
options:
  _input:
    description: The value of C(isp_mail).
    type: dict
    required: true
  policy:
    description: The value of C(isp_policy).
    type: dict
    required: true
  host:
    description: The host's name in the inventory, as C(inventory_hostname).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Who is the world to talk to
  ansible.builtin.debug:
    msg: "{{ (isp_mail | isp.hardening.mail_host(isp_policy, inventory_hostname)).addresses }}"
"""

RETURN = r"""
_value:
  description:
    - C(side) is C(inbound) or C(outbound); C(host), C(name), C(ipv4), C(ipv6) and C(addresses) are the host's own,
      C(pools) has the prefixes of both families by pool, C(relays) the addresses of all inbound hosts.
    - C(inbound) and C(outbound) are all mail hosts, each with C(host), C(name), C(ipv4), C(ipv6) and C(addresses).
    - The rest is C(isp_mail) flat, as C(dnsbl_zone), C(dkim_selector), C(tls_key). C(dnsbl_asked) is the zone that
      Postfix asks; C(dnsbl_key) and C(dnsbl_query_zone), which holds it, are secrets.
  type: dict
"""


class FilterModule:
    """Found by the name of its file."""

    def filters(self) -> Mapping[str, Callable[..., Any]]:
        return {"mail_host": read}


def read(isp_mail: object, isp_policy: object, host: str) -> dict[str, Any]:
    """The mapping of one host. Raises AnsibleFilterError with the first mistake, and how to mend it."""
    policy, problems = read_policy(isp_policy, datetime.date.today())
    mail, mail_problems = read_mail(isp_mail, policy)
    if policy is None or mail is None:
        problem = [*problems, *mail_problems][0]
        raise AnsibleFilterError(f"{path_text(problem.path)}: {problem.reason}; {problem.mend}")
    try:
        return mail_host(mail, policy, host)
    except KeyError:
        mend = "list it in isp_mail.inbound or isp_mail.outbound, or take it out of the groups of mail hosts"
        raise AnsibleFilterError(f"host '{host}' is no mail host of isp_mail; {mend}") from None
