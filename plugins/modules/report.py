# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of this name; it runs on the controller."""

from __future__ import annotations

DOCUMENTATION = """
module: report
short_description: Write the report of a run, and show its summary
description:
  - Takes what M(isp.hardening.edge_filter) left on every router of the play, and what the audits of mail hosts left on
    those, and writes C(report.html), C(report.json) and C(report.xml) (JUnit) on the controller. docs/report.md
    explains them.
  - Runs once for the play, in check mode too. A host of the play without a result is in the report as not audited, one
    with results of the signals alone is in their part of it.
  - Nothing secret is written, and whatever a router sent is cut, escaped and shown as text.
version_added: 1.0.0
author: isp.hardening contributors
options:
  directory:
    description: Directory for the files; it is made, and the files in it are replaced.
    type: path
    required: true
  policy:
    description: The policy, as docs/policy.md has it.
    type: dict
  result:
    description: Name of the variable under which each host's result was registered.
    type: str
    default: edge_filter_result
  mail_results:
    description:
      - Names of the variables under which the results of M(isp.hardening.mta_audit) and M(isp.hardening.smtp_probe)
        were registered, for hosts without O(result). Their findings are put together.
      - The first one may also hold a C(state) and a C(platform), or C(failed) and C(msg), set by the playbook.
    type: list
    elements: str
    default: [mail_result, mta_audit_result, smtp_probe_result, dnsbl_probe_result]
  dns_result:
    description: Name of the variable under which the result of M(isp.hardening.dns_audit) was registered, once for all
      hosts. Each host gets what is about it, and a domain stands for itself.
    type: str
    default: dns_audit_result
  signals_results:
    description:
      - Names of the variables under which the plays of the signals registered their results, on the hosts of the groups
        C(signals), C(edges) and C(blackhole_routers), be they in this play or not.
      - M(isp.hardening.signals_status) says how it stands, the others what they switched off, refused or left out.
        Without any of them the report has no page about the signals.
    type: list
    elements: str
    default:
      - signals_status_result
      - flow_collector_stopped
      - complaints_result
      - spam_suspects_result
      - xbl_sweep_result
      - xbl_stopped
      - quarantine_result
      - quarantine_stopped
      - quarantine_radius_result
      - quarantine_radius_stopped
      - blackhole_result
      - notify_result
  fail_on:
    description: With which verdicts of a host the task fails, once the files are written.
    type: list
    elements: str
    choices: [violated, not audited, unknown]
    default: [violated, not audited, unknown]
"""

EXAMPLES = """
- name: Write the report, and say what it says
  isp.hardening.report:
    directory: reports
    policy: "{{ isp_policy }}"
"""

RETURN = """
files:
  description: The files that were written, by form (html, json, junit).
  type: dict
  returned: always
hosts:
  description: How many hosts have which verdict (violated, not audited, unknown, compliant).
  type: dict
  returned: always
findings:
  description: How many findings have which verdict (violated, unknown, compliant).
  type: dict
  returned: always
"""
