#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Hold the DNS records of the mail domains and hosts against the policy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_audit
short_description: Whether the DNS says of the mail hosts what the policy says
description:
  - Looks up MX, A, AAAA, PTR, SPF, DKIM, DMARC and MTA-STS records, and tells where they mix inbound with outbound
    hosts (control M1) or do not agree with the policy (control M14).
  - A look-up without an answer is C(unknown). Nothing is changed.
  - Runs where dnspython is, which is the controller as a rule.
version_added: 1.0.0
author:
  - isp.hardening contributors
requirements:
  - dnspython
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Never changes anything.
    support: none
options:
  domains:
    description: The domains that the inbound hosts accept mail for, as in C(isp_mail.domains).
    type: list
    elements: str
    required: true
  inbound:
    description: The hosts that take mail from the world, as in C(isp_mail.inbound).
    type: list
    elements: dict
    required: true
    suboptions: &host
      host:
        description: The host's name in the inventory.
        type: str
        required: true
      name:
        description: The host's name in DNS, which it greets with.
        type: str
        required: true
      ipv4:
        description: Its IPv4 address.
        type: str
      ipv6:
        description: Its IPv6 address.
        type: str
  outbound:
    description: The hosts that send mail to the world, as in C(isp_mail.outbound).
    type: list
    elements: dict
    required: true
    suboptions: *host
  dkim_selector:
    description: The first label of the DKIM key's record, as in C(isp_mail.dkim.selector).
    type: str
    required: true
  resolver:
    description: The address of the one server to ask. Those of the system when it is not given.
    type: str
  port:
    description: The port of O(resolver).
    type: int
    default: 53
  mta_sts_policy:
    description: Whether to read the policy files of MTA-STS too, over HTTPS, where a record announces them.
    type: bool
    default: false
  timeout:
    description: Seconds for one look-up, all its attempts together.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Do the records agree with the policy
  isp.hardening.dns_audit:
    domains: "{{ isp_mail.domains }}"
    inbound: "{{ isp_mail.inbound }}"
    outbound: "{{ isp_mail.outbound }}"
    dkim_selector: "{{ isp_mail.dkim.selector }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
findings:
  description: M1 and M14 for each domain, M14 for each host, in the form of all audits of this collection.
  returned: always
  type: list
  elements: dict
"""

import http.client
import ipaddress

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.urls import open_url

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.mail.dns import (
    DNSPYTHON_MISSING,
    NoAnswer,
    audit,
    resolver,
)
from ansible_collections.isp.hardening.plugins.module_utils.mail.policy import MailHost

LARGEST_POLICY = 65_536  # octets of an MTA-STS policy file; RFC 8461 3.2 gives 64 KiB


def main() -> None:
    """Read the options, look up, tell."""
    module = AnsibleModule(argument_spec(DOCUMENTATION), supports_check_mode=True)
    if DNSPYTHON_MISSING:
        module.fail_json(msg=missing_required_lib("dnspython"), exception=str(DNSPYTHON_MISSING))
    options = module.params
    try:
        hosts = {side: [read_host(one) for one in options[side]] for side in ("inbound", "outbound")}
        if options["resolver"]:
            ipaddress.ip_address(options["resolver"])
    except ValueError as error:
        module.fail_json(msg=f"{error}; write one address, as 192.0.2.10")
    try:
        ask = resolver(options["resolver"], options["port"], options["timeout"])
    except NoAnswer as error:
        module.fail_json(msg=f"{error}; name a server as 'resolver'")

    def fetch(url: str) -> str:
        return policy_file(url, options["timeout"])

    domains = [domain.strip(".").lower() for domain in options["domains"]]
    found = audit(
        domains,
        hosts["inbound"],
        hosts["outbound"],
        options["dkim_selector"],
        ask,
        fetch if options["mta_sts_policy"] else None,
    )
    module.exit_json(changed=False, findings=[finding.as_dict() for finding in found])


def policy_file(url: str, seconds: int) -> str:
    """The text behind the URL. Raises NoAnswer."""
    try:
        answer = open_url(url, timeout=seconds, follow_redirects="none")
        return str(answer.read(LARGEST_POLICY).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{url}: {error}") from None


def read_host(data: dict[str, str | None]) -> MailHost:
    """A host of the options. Raises ValueError for an address that is none."""
    texts = [data[key] or "" for key in ("ipv4", "ipv6")]
    addresses = [str(ipaddress.ip_address(text)) if text else "" for text in texts]
    return MailHost(str(data["host"]), str(data["name"]).strip(".").lower(), *addresses)


if __name__ == "__main__":
    main()
