# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy of the signals, as the hosts that watch and act need it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.isp.hardening.plugins.module_utils.mail.policy import read_mail
from ansible_collections.isp.hardening.plugins.module_utils.policy import path_text, read_policy
from ansible_collections.isp.hardening.plugins.module_utils.signals.policy import read_signals, signals_host

DOCUMENTATION = r"""
name: signals_host
short_description: The policy of the signals, as the hosts that watch and act need it
description:
  - Reads C(isp_signals), C(isp_policy) and C(isp_mail) whole, with every default in its place.
  - Fails with the first mistake of the policy; playbooks/check.yml shows all of them, with file and line.
version_added: 1.0.0
positional: policy, mail
options:
  _input:
    description: The value of C(isp_signals).
    type: dict
    required: true
  policy:
    description: The value of C(isp_policy).
    type: dict
    required: true
  mail:
    description: The value of C(isp_mail), none where the mail hosts are not yours.
    type: dict
"""

EXAMPLES = r"""
- name: Who is never touched
  ansible.builtin.debug:
    msg: "{{ (isp_signals | isp.hardening.signals_host(isp_policy, isp_mail)).never }}"
"""

RETURN = r"""
_value:
  description:
    - C(never) is a list of C(prefix) and C(reason), the smarthosts, the mail hosts and the exceptions of the policy
      among them; C(watched) has all own prefixes; C(pools) has C(kind) and C(prefixes) by pool; C(smarthosts) has
      prefixes; C(limit) is how many subscribers may be acted against at once.
    - The rest is C(isp_signals) flat, as C(portal), C(resolvers), C(hours), C(inbound_minutes), C(dry_run), C(state).
      C(state) may hold a password.
  type: dict
"""


class FilterModule:
    """Found by the name of its file."""

    def filters(self) -> Mapping[str, Callable[..., Any]]:
        return {"signals_host": read}


def read(isp_signals: object, isp_policy: object, isp_mail: object = None) -> dict[str, Any]:
    """The policy as plain data. Raises AnsibleFilterError with the first mistake, and how to mend it."""
    policy, problems = read_policy(isp_policy, datetime.date.today())
    mail, mail_problems = read_mail(isp_mail, policy) if isp_mail is not None else (None, [])
    signals, signals_problems = read_signals(isp_signals, policy, mail)
    if policy is None or mail_problems or signals is None:
        problem = [*problems, *mail_problems, *signals_problems][0]
        raise AnsibleFilterError(f"{path_text(problem.path)}: {problem.reason}; {problem.mend}")
    return signals_host(signals, policy)
