#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Fail unless a host has its certificate, and the key to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificate
short_description: A certificate and its key are on the host, and are a pair
description:
  - Fails where one of the files is missing, where they are no pair in PEM form, and where everybody on the host can
    read the key. A daemon that starts without them would offer no TLS, or not start at all.
  - Changes nothing. Needs Python's standard library alone.
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Never changes anything.
    support: none
options:
  certificate:
    description: The certificate with its chain, a path on the host.
    type: str
    required: true
  key:
    description: Its private key, a path on the host.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: The certificate of the host
  isp.hardening.tls_certificate:
    certificate: /etc/ssl/mail/fullchain.pem
    key: /etc/ssl/mail/privkey.pem
"""

RETURN = r"""
msg:
  description: What is wrong with them.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.mail.certificate import problem


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str", "required": True},
            # A path: Ansible takes the name for a secret's otherwise, and hides it in every message.
            "key": {"type": "str", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    if said := problem(module.params["certificate"], module.params["key"]):
        module.fail_json(msg=said)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
