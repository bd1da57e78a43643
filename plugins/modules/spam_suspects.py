#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Find subscribers who are infected by what their hosts do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: spam_suspects
short_description: Which subscribers send spam or spread worms, by flows and logs
description:
  - Looks at a window of flows and logs with seven detectors, which all are the same sequential test. C(D1) new servers
    on port 25 an hour, of residential pools; C(D2) mail sessions without a mail; C(D3) servers on port 25 that never
    answered, or that a filter denied; C(D4) the same on the ports that worms spread by; C(D5) names asked for their
    MX, of residential pools; C(D6) mails that are spam, by login or subscriber; C(D7) a surge of new alarms.
  - A server, name or mail counts once however often it is tried, so that retries to a dead relay alarm nothing.
  - A detector that the data would make lie is switched off and told in RV(silences) and as a warning. Sampled flows,
    and flows without TCP flags, switch off C(D2), C(D3) and C(D4). C(D1) goes on by distinct servers.
  - Flows and lines of the future, and files whose clock jumps, are no evidence. A file that cannot be read is left out
    whole and told; when there is no other, the module fails.
  - Addresses of the never-list are no alarms. With O(identity) an alarm becomes a case where it is certain who had the
    address from the first contact to the alarm. What may be acted upon is what that subscriber has now, alone and for
    certain. Nothing is done about anybody here.
  - A run keeps alarms in O(state), and no walk. Let the windows of runs overlap, as 24 hours every 15 minutes do.
  - The counter of a rule or of an access list's line is no source. It counts packets and not servers, and a client that
    retries one relay has more of them than a bot. Let the filter log, or count by subscriber and server.
extends_documentation_fragment: isp.hardening.identity
version_added: 1.0.0
author:
  - isp.hardening contributors
requirements:
  - duckdb, numpy and lz4, for O(flow_files)
attributes:
  check_mode:
    description: Looks, and keeps nothing in O(state).
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  policy:
    description: The policy of the signals, as the filter C(isp.hardening.signals_host) gives it.
    type: dict
    required: true
  flow_files:
    description:
      - Files of nfcapd, directories of them, or patterns. In a directory all files count that nfcapd has finished.
      - The exporters sit in front of the filter (ingress of the subscribers' interfaces), do not sample port 25, and
        send TCP flags.
    type: list
    elements: str
    default: []
  clickhouse:
    description:
      - A ClickHouse with the raw flows of Akvorado instead of O(flow_files).
      - Its column C(TCPFlags), which is off by default, has to be enabled for C(D2), C(D3) and C(D4).
    type: dict
    suboptions:
      url:
        description: Its HTTP interface, as C(https://clickhouse.example.net:8443/).
        type: str
        required: true
      user:
        description: A user who may read.
        type: str
        default: default
      password:
        description: The password.
        type: str
        default: ""
      table:
        description: The raw table, with its database where that is not the user's.
        type: str
        default: flows
  logs:
    description: Logs, compressed with gzip or not.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description:
          - C(postfix) for mails of logins and subscribers that were refused for good, and for unknown recipients at the
            own MX; C(rspamd) for verdicts on them; C(dns) for the text log of unbound (C(log-queries)), the query log
            of BIND, that of dnsmasq (C(log-queries)), or what C(dnstap-read) writes; C(filter) for what nftables, Cisco
            IOS and Junos denied; C(nft_set) for what C(nft -j list set) writes of a set with a counter and a timeout
            for each pair of subscriber and server, which a rule adds where it denies.
          - The times of a C(nft_set) are counted back from when its file was written. Write it again before each run.
        type: str
        choices: [postfix, rspamd, dns, filter, nft_set]
        required: true
      files:
        description: Files or patterns.
        type: list
        elements: str
        required: true
      zone:
        description:
          - The time zone of the host that wrote them, as C(UTC) or C(Europe/Vienna), for lines whose time does not
            say one. Such lines are no evidence without it.
        type: str
        default: ""
      year:
        description: The year of the first line of each file, for lines whose time does not say it (traditional syslog).
        type: int
        default: 0
      prefix:
        description: The prefix of the log rules of nftables that deny, for C(filter). Others' lines do not count.
        type: str
        default: ""
  hours:
    description: How far back to look.
    type: int
    default: 24
  end:
    description: The end of the window, as C(2026-11-26T14:00:00Z); now when it is not given.
    type: str
  port_25_blocked:
    description: Whether the network blocks port 25 for residential pools. It is told when the flows do not show it.
    type: bool
    default: false
  detectors:
    description:
      - >-
        Other figures than the defaults, by detector, as {D2: {benign: 0.1, infected: 0.5}, D5: {enabled: false}}.
      - C(benign) and C(infected) are shares of contacts that fail, C(benign_rate) and C(infected_rate) contacts an
        hour, C(ports) those of C(D4). C(contacts_a_day) of all benign subscribers together and C(false_alarms_a_day)
        set the threshold, which is the logarithm of their quotient.
    type: dict
    default: {}
  cases:
    description: Cases of other sources, as those of a blocklist. Those of the same subscriber become one.
    type: list
    elements: dict
    default: []
  state:
    description:
      - Where alarms are kept, as in C(isp_signals.state). Without it every alarm is new, and a case has another key in
        each run.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Who was busy in the last 24 hours
  isp.hardening.spam_suspects:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    flow_files: [/var/lib/nfdump]
    logs:
      - {kind: rspamd, files: [/var/log/rspamd/rspamd.log], zone: Europe/Vienna}
      - {kind: filter, files: ["/var/log/routers/*.log"], prefix: "port25 "}
      - {kind: nft_set, files: ["/var/lib/edges/*.json"]}
    identity: {radius: ["/var/log/freeradius/radacct/*/detail-*"]}
    state: "{{ isp_signals.state }}"
  register: found

- name: The same hour again, from Akvorado
  isp.hardening.spam_suspects:
    policy: "{{ isp_signals | isp.hardening.signals_host(isp_policy, isp_mail) }}"
    clickhouse: {url: "https://clickhouse.example.net:8443/", user: reader, password: "{{ vault_clickhouse }}"}
    hours: 1
    end: "2026-11-26T14:00:00Z"
"""

RETURN = r"""
alarms:
  description:
    - One for each detector and subject, the earliest. C(subject) is an address (the first of its /64 for IPv6), a login
      for C(D6), and C(network) for C(D7).
    - C(since) and C(time) are when the climb began and when it was enough, in milliseconds; C(score) is in nats;
      C(contacts) are those until then; C(evidence) are lines for the abuse desk.
  returned: always
  type: list
  elements: dict
silences:
  description:
    - What was not looked at, each with C(detector), C(reason) and C(mend), which says what to do; a detector that the
      data would make lie, a file left out, lines without time, an alarm of the never-list, an address that is nobody's
      for certain.
  returned: always
  type: list
  elements: dict
cases:
  description: One for each subscriber, with O(cases), for quarantine, black-hole and notices.
  returned: always
  type: list
  elements: dict
flows:
  description: How many flows were looked at.
  returned: always
  type: int
lines:
  description: How many lines of logs were looked at.
  returned: always
  type: int
"""

import time
from collections.abc import Iterable, Mapping

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.isp.hardening.plugins.module_utils.signals.detection import BadDetection, read_settings, run
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import IDENTITY
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import StoreError

TEXTS = {"type": "list", "elements": "str"}
# A collector has no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "policy": {"type": "dict", "required": True},
    "flow_files": {**TEXTS, "default": []},
    "clickhouse": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "default": "default"},
            "password": {"type": "str", "default": "", "no_log": True},
            "table": {"type": "str", "default": "flows"},
        },
    },
    "logs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "kind": {"type": "str", "choices": ["postfix", "rspamd", "dns", "filter", "nft_set"], "required": True},
            "files": {**TEXTS, "required": True},
            "zone": {"type": "str", "default": ""},
            "year": {"type": "int", "default": 0},
            "prefix": {"type": "str", "default": ""},
        },
    },
    "hours": {"type": "int", "default": 24},
    "end": {"type": "str"},
    "port_25_blocked": {"type": "bool", "default": False},
    "detectors": {"type": "dict", "default": {}},
    "identity": IDENTITY,
    "cases": {"type": "list", "elements": "dict", "default": []},
    "state": {"type": "str", "default": "", "no_log": True},  # a DSN has a password
}


def aloud(silences: Iterable[Mapping[str, str]]) -> list[str]:
    """A warning for each thing to mend, however many there are of it; the result has them all."""
    of: dict[tuple[str, str], list[str]] = {}
    for one in silences:
        of.setdefault((one["detector"], one["mend"]), []).append(one["reason"])
    return [
        f"{detector or 'Sources'}: {reasons[0]}{f' (and {len(reasons) - 1} more)' if reasons[1:] else ''}; {mend}"
        for (detector, mend), reasons in of.items()
    ]


def main() -> None:
    """Read the options, look, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    try:
        found = run(read_settings(module.params, int(time.time() * 1000)), changes=not module.check_mode)
    except (BadDetection, StoreError) as error:
        module.fail_json(msg=str(error))
    except ImportError as error:
        module.fail_json(msg=missing_required_lib(error.name or "duckdb"), exception=str(error))
    for line in aloud(found["silences"]):
        module.warn(line)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
