#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Speak SMTP to a mail host and say what it does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: smtp_probe
short_description: What a mail host does, asked over SMTP
description:
  - Asks a mail host, from the host that the module runs on, what it relays, to whom it offers AUTH, which TLS it
    speaks, which commands it answers. Run it from outside and from inside of a pool; some holes show from there only.
  - Each case has a connection of its own. The greeting pause of postscreen is waited for, its 450 4.3.2 brings a new
    connection, and 421 (or 450 for too many of anything) brings fewer connections, and later ones.
  - A client that an inbound host refuses whatever it asks sees nothing of its rules, so that all is C(unknown) for it.
  - No message is sent, and DATA is not said, but for the tests that need it, and then only with O(send).
  - A case is C(compliant), C(violated) with its transcript, or C(unknown) where the host deferred, did not answer in
    time, or hung up. Needs Python's standard library alone.
  - Postscreen remembers a client that passed for a day or more and lets it speak early then, so that the test
    C(early_talker) says C(unknown) for such a client.
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Changes nothing on any host. Tests that send a message are left out.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  addresses:
    description: The addresses of the mail host, IPv4 and IPv6. Each is probed.
    type: list
    elements: str
    required: true
  name:
    description: The name of the mail host in DNS. Its certificate is held against it.
    type: str
    required: true
  host:
    description: The host in the findings, usually C(inventory_hostname); O(name) when it is not given.
    type: str
  role:
    description: What the host is for, C(inbound) for an MX, C(outbound) for a host that users send through.
    type: str
    choices: [inbound, outbound]
    required: true
  services:
    description:
      - What is probed, C(smtp) for mail from anyone, C(submission) with STARTTLS, C(submissions) with TLS at once,
        each with its port where it is not 25, 587 and 465.
      - C(smtp) for an inbound host and all three for an outbound one when it is not given.
    type: list
    elements: dict
    suboptions:
      service:
        description: The service.
        type: str
        choices: [smtp, submission, submissions]
        required: true
      port:
        description: Its port.
        type: int
  domains:
    description: The domains that the inbound hosts accept mail for.
    type: list
    elements: str
    required: true
  target:
    description:
      - A mailbox of your own at a domain that the host does not serve. Strangers must not be able to reach it over
        this host.
    type: str
    required: true
  recipients:
    description: The mailboxes that an inbound host must take mail for; C(postmaster) and C(abuse) of every domain
      when it is not given.
    type: list
    elements: str
  ehlo:
    description: The name that the probe greets with; the name of the host that it runs on when it is not given.
    type: str
  stranger:
    description: The sender that stands for a stranger, a mailbox of your own at none of the domains; O(target) when
      it is not given.
    type: str
  tests:
    description:
      - Which tests to run. When it is not given, all but those that have to be asked for, which are C(smuggling),
        C(eicar), C(encrypted) (your policy refuses encrypted archives, and you say so), C(gtube), C(scanner_down) (the
        scanner is down at the moment, and you say so), C(connections) and C(limits) (of recipients, and of a user,
        whose allowance is used up then).
      - C(sender), C(eicar), C(encrypted), C(gtube), C(scanner_down) and C(limits) need O(user), C(sobig) needs a PTR
        record or O(client_name), C(dnsbl) needs O(dnsbl_zone).
      - C(dnsbl) asks the resolver of the host that the module runs on, and tells something of a mail host only there.
    type: list
    elements: str
    choices:
      - early_talker
      - recipients
      - relay
      - sobig
      - commands
      - pipelining
      - auth
      - tls
      - sender
      - dnsbl
      - smuggling
      - eicar
      - encrypted
      - gtube
      - scanner_down
      - connections
      - limits
  send:
    description: Whether messages may be sent, to O(target) through an outbound host and to the first of O(recipients)
      on an inbound one. C(smuggling), C(eicar), C(encrypted), C(gtube), C(scanner_down) and C(limits) need it.
    type: bool
    default: false
  listed:
    description:
      - Whether the DNSBL lists the host that the probe runs on, so that an inbound host must refuse it. What refuses it
        answers in place of the host, so that C(commands), C(pipelining), C(auth), C(tls) and C(smuggling) are left out.
      - With V(false) an inbound host must not refuse it as listed, as one does that takes the DNSBL's error codes for
        listings. When it is not given, such a refusal is V(unknown).
    type: bool
  client_name:
    description: The PTR name of the host that the probe runs on, looked up when it is not given. With it the mail
      host is asked to relay as the worm Sobig did, which looked for the MX of the parent domains of its own name.
    type: str
  dnsbl_zone:
    description: The DNSBL's zone, without a key, as in C(isp_mail.dnsbl.zone).
    type: str
  dnsbl_key:
    description: The key in front of the zone. It is shown nowhere, and a mail host that shows it is reported.
    type: str
  user:
    description: A mailbox of your own that may send through the outbound host.
    type: dict
    suboptions:
      name:
        description: The login.
        type: str
        required: true
      password:
        description: The password. It is sent under TLS only, to a host whose certificate proves its name.
        type: str
        required: true
      sender:
        description: The address that belongs to the login.
        type: str
        required: true
  ca_path:
    description: Certificates of the authorities to trust, in PEM form, a path on the host that the probe runs on.
    type: path
  validate_certs:
    description: Whether the certificate must prove the name before the password is sent.
    type: bool
    default: true
  padding:
    description: Octets in front of the test virus at the tail, less where the host announces a smaller limit. A hole
      in front of that limit is only found where this is not the smaller one.
    type: int
    default: 50000000
  allowed_connections:
    description: How many connections one client may hold, for the test C(connections).
    type: int
    default: 20
  allowed_recipients:
    description: How many recipients one message may have, for the test C(limits).
    type: int
    default: 100
  allowed_burst:
    description: How many recipients a user may write to at once, for the test C(limits), which sends one message more
      than that, and another for what a user may send meanwhile.
    type: int
    default: 20
  parallel:
    description: Connections at once to each service; fewer, and after a pause, as soon as the host wants less.
    type: int
    default: 10
  source:
    description: The address that the probe comes from, where the host that it runs on has several, or one of each
      family. Addresses of a family without one are left out.
    type: list
    elements: str
  greeting_timeout:
    description: Seconds to wait for a greeting.
    type: int
    default: 60
  timeout:
    description: Seconds to wait for a connection and for a reply.
    type: int
    default: 30
  time_limit:
    description: Seconds for everything. What was not asked by then is unknown.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Does the MX relay for a subscriber
  isp.hardening.smtp_probe:
    addresses: [192.0.2.10, "2001:db8:ffff::10"]
    name: mx1.example.net
    host: mx1
    role: inbound
    domains: [example.net]
    target: relay-test@lab.example.org
  delegate_to: probe-in-the-pool

- name: Does the outbound host scan what a user sends
  isp.hardening.smtp_probe:
    addresses: [192.0.2.25]
    name: out1.example.net
    role: outbound
    domains: [example.net]
    target: relay-test@lab.example.org
    user: {name: probe, password: "{{ vault_probe_password }}", sender: probe@example.net}
    tests: [sender, eicar, gtube]
    send: true
"""

RETURN = r"""
findings:
  description: One for each control, service and address family, in the form of all audits of this collection.
  returned: always
  type: list
  elements: dict
tests:
  description: One for each case.
  returned: always
  type: list
  elements: dict
  contains:
    test:
      description: The test that the case belongs to.
      type: str
    case:
      description: What was asked.
      type: str
    control:
      description: The control that it is about.
      type: str
    service:
      description: The service, as C(smtpd on 25).
      type: str
    address:
      description: The address of the mail host, empty for the DNSBL.
      type: str
    verdict:
      description: C(compliant), C(violated) or C(unknown).
      type: str
    reason:
      description: Why it is not compliant.
      type: str
    line:
      description: The exchange that decided.
      type: str
    transcript:
      description: What was said, without secrets, where the case is not compliant.
      type: list
      elements: str
left_out:
  description: The tests that were not run, each with what it needs.
  returned: always
  type: list
  elements: str
"""

import socket
from collections.abc import Sequence
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.report import findings
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.schedule import probe
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.settings import (
    INBOUND,
    OUTBOUND,
    PORTS,
    TESTS,
    BadSettings,
    left_out,
    read_settings,
)

# The mail host has no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "addresses": {"type": "list", "elements": "str", "required": True},
    "name": {"type": "str", "required": True},
    "host": {"type": "str"},
    "role": {"type": "str", "choices": [INBOUND, OUTBOUND], "required": True},
    "services": {
        "type": "list",
        "elements": "dict",
        "options": {
            "service": {"type": "str", "choices": list(PORTS), "required": True},
            "port": {"type": "int"},
        },
    },
    "domains": {"type": "list", "elements": "str", "required": True},
    "target": {"type": "str", "required": True},
    "recipients": {"type": "list", "elements": "str"},
    "ehlo": {"type": "str"},
    "stranger": {"type": "str"},
    "tests": {"type": "list", "elements": "str", "choices": list(TESTS)},
    "send": {"type": "bool", "default": False},
    "listed": {"type": "bool"},
    "client_name": {"type": "str"},
    "dnsbl_zone": {"type": "str"},
    "dnsbl_key": {"type": "str", "no_log": True},
    "user": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "sender": {"type": "str", "required": True},
        },
    },
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "padding": {"type": "int", "default": 50_000_000},
    "allowed_connections": {"type": "int", "default": 20},
    "allowed_recipients": {"type": "int", "default": 100},
    "allowed_burst": {"type": "int", "default": 20},
    "parallel": {"type": "int", "default": 10},
    "source": {"type": "list", "elements": "str"},
    "greeting_timeout": {"type": "int", "default": 60},
    "timeout": {"type": "int", "default": 30},
    "time_limit": {"type": "int", "default": 300},
}


def own_name(towards: str, sources: Sequence[str]) -> str:
    """What the DNS calls this host, by the address that it comes from; "" where it has no name there."""
    try:
        family = socket.AF_INET6 if ":" in towards else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as way:  # connecting UDP sends nothing
            way.bind((next((one for one in sources if (":" in one) == (":" in towards)), ""), 0))
            way.connect((towards, 25))
            name = socket.gethostbyaddr(way.getsockname()[0])[0]
    except OSError:
        return ""
    return name if "." in name else ""


def main() -> None:
    """Read the options, probe, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options = module.params
    if options["client_name"] is None:
        options["client_name"] = next((own_name(one, options["source"] or ()) for one in options["addresses"]), "")
    try:
        settings = read_settings(options, socket.getfqdn(), sends=not module.check_mode)
    except BadSettings as error:
        module.fail_json(msg=str(error))
    results = probe(settings)
    module.exit_json(
        changed=False,
        findings=[finding.as_dict() for finding in findings(results, options["host"] or settings.name)],
        tests=[asdict(result) for result in results],
        left_out=left_out(settings),
    )


if __name__ == "__main__":
    main()
