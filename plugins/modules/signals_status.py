# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""How the signals stand on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signals_status
short_description: How the signals stand, for the report and for Prometheus
description:
  - Reads what the detectors, the XBL monitor and the notices keep in the state of C(isp_signals), and which actions the
    state files of the quarantine and of the black-hole trigger have in force on this host. Nothing is asked or changed.
  - What cannot be read is told in C(problems). A host without any of it has nothing to tell.
  - With O(textfile) the figures go into a file for the textfile collector of Prometheus' node exporter as well;
    docs/grafana.json is a dashboard for them. Names and addresses of subscribers are not in it.
version_added: 1.0.0
author: isp.hardening contributors
options:
  state:
    description:
      - Where the state lies, as C(isp_signals.state) says; empty on a host that has only actions.
      - A DSN may hold a password, so it is never shown.
    type: str
    default: ""
  quarantine:
    description: State file of the quarantine.
    type: path
    default: /var/lib/isp-hardening-quarantine/state.json
  quarantine_radius:
    description: State file of the quarantine by RADIUS.
    type: path
    default: /var/lib/isp-hardening-quarantine-radius/state.json
  blackhole:
    description: State file of the black-hole trigger.
    type: path
    default: /var/lib/isp-hardening-blackhole/state.json
  textfile:
    description: File for the textfile collector, in its directory and with a name that ends in C(.prom).
    type: path
attributes:
  check_mode:
    description: The file is not written.
    support: full
"""

EXAMPLES = r"""
- name: How do the signals stand
  isp.hardening.signals_status:
    state: "{{ (isp_signals | isp.hardening.signals_host(isp_policy, isp_mail | default(none))).state }}"
    textfile: /var/lib/prometheus/node-exporter/isp_signals.prom
  register: signals_status_result
"""

RETURN = r"""
signals:
  description:
    - C(generated), and what is known then; times are milliseconds since 1970 UTC.
    - C(suspects) of the last day (C(subject), C(detectors), C(time), C(score), C(evidence)); C(surge) (C(time),
      C(evidence)); C(listings) that are open (C(network), C(list), C(began), C(seen), C(subscriber), C(detail));
      C(lists), the figures by list (C(open), C(closed), C(median) and C(p90) time to remediate, C(relapsed) of
      C(watched), C(led) and C(lead) of own detection); C(asked), when a list last answered; C(frozen), why its last
      answer did not count; C(actions) in force (C(kind), C(key), C(subscriber), C(prefixes), C(since), C(until),
      C(reason), C(sources), C(by)); C(notices) of the last week; C(killed), whose kill switch is on; C(problems).
  returned: always
  type: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.signals import metrics, status

# The host may have no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "default": "", "no_log": True},
    "quarantine": {"type": "path", "default": "/var/lib/isp-hardening-quarantine/state.json"},
    "quarantine_radius": {"type": "path", "default": "/var/lib/isp-hardening-quarantine-radius/state.json"},
    "blackhole": {"type": "path", "default": "/var/lib/isp-hardening-blackhole/state.json"},
    "textfile": {"type": "path"},
}


def main() -> None:
    """Read, write the file, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options = module.params
    files = {name: options[name] for name in status.FILES}
    found = status.read(options["state"], files, time.time_ns() // 1_000_000)
    changed = False
    if options["textfile"] and not module.check_mode:
        try:
            changed = metrics.write(options["textfile"], metrics.exposition(found))
        except OSError as error:
            module.fail_json(msg=f"{options['textfile']}: {error.strerror}; make its directory", signals=found)
    for problem in found["problems"]:
        module.warn(problem)
    module.exit_json(changed=changed, signals=found)


if __name__ == "__main__":
    main()
