#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Which own addresses are on the XBL, and whose they are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xbl_sweep
short_description: Which own addresses are on the lists of Spamhaus, and whose they are
description:
  - Asks one source about all own prefixes; a DNSBL over DNS, the Spamhaus Intelligence API, or the files of a feed. It
    does what the timer of the role C(isp.hardening.xbl_monitor) does, and never at the same time; while that one is
    asking, it tells what is known so far.
  - An episode is a subscriber on a list. A listing is whose the address was when it came, until the address is off the
    list; a changed lease ends none. Where it is not certain who that was, the address is the subject, and there is no
    case. IPv6 counts by /64. Where the source does not say since when, whoever has the address must have had it at the
    run before; at the first run, or behind a day without one, for 30 days.
  - What may be acted upon of a case is what the subscriber has now, alone and for certain.
  - A source in doubt (its test entries fail, it answers with an error code or lists everything, an API that answers
    HTML, a feed with a line that is not understood) is frozen, which RV(frozen) says. Nothing is listed or delisted
    then, and what was not answered for stays as it was.
  - Without O(identity) there are no cases.
  - The PBL is not followed; it says where no mail should come from, not who is infected.
  - Needs Python's standard library alone, and psycopg where the state is in a PostgreSQL.
extends_documentation_fragment: isp.hardening.identity
version_added: 1.0.0
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Asks and tells, and keeps nothing.
    support: full
  diff_mode:
    description: Changes nothing but the state of the signals.
    support: none
options:
  own:
    description: The own prefixes, as C(watched) of the filter C(isp.hardening.signals_host).
    type: list
    elements: str
    required: true
  source:
    description:
      - C(dns) asks for every IPv4 address, those in use first; for a small space, or a mirror of your own. Of IPv6 only
        what is in use can be asked.
      - C(sia) asks the Spamhaus Intelligence API, block by block.
      - C(feed) reads O(feed); for large spaces.
    type: str
    choices: [dns, sia, feed]
    default: dns
  zone:
    description: The zone of the DNSBL, without the key. The one with a key is C(zen.dq.spamhaus.net).
    type: str
    default: zen.spamhaus.org
  dqs_key:
    description: The key of the Data Query Service. It is shown nowhere.
    type: str
    default: ""
  server:
    description: The address of the resolver, or of the mirror, that is asked. Public resolvers are refused by Spamhaus.
    type: str
    default: 127.0.0.1
  port:
    description: Its port.
    type: int
    default: 53
  rate:
    description: Queries a second; 0 for as many as the server answers, which is for a mirror of your own.
    type: float
    default: 50
  url:
    description: The address of the API.
    type: str
    default: https://api.spamhaus.org
  sia_username:
    description: The user of the API.
    type: str
    default: ""
  sia_password:
    description: The password of that user. It is shown nowhere.
    type: str
    default: ""
  feed:
    description: The files of the feed, as rsync fetches them, no older than a day.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: How rbldnsd(8) reads the file.
        type: str
        choices: [ip4set, ip4tset, ip6trie, ip6tset]
        required: true
      path:
        description: The file.
        type: path
        required: true
  cases:
    description: Cases of other sources, as those of the detectors. Those of the same subscriber become one.
    type: list
    elements: dict
    default: []
  state:
    description: Where the episodes are kept, as C(isp_signals.state) says. It may hold a password, and is never shown.
    type: str
    required: true
  lock:
    description: The file that keeps two runs apart.
    type: path
    default: /var/lib/isp-hardening/xbl.lock
"""

EXAMPLES = r"""
- name: Over the own resolver
  isp.hardening.xbl_sweep:
    own: "{{ (isp_signals | isp.hardening.signals_host(isp_policy, isp_mail)).watched }}"
    zone: zen.dq.spamhaus.net
    dqs_key: "{{ vault_dqs_key }}"
    identity: {kea: [/var/lib/kea/kea-leases4.csv]}
    state: /var/lib/isp-hardening/signals.db
  register: found

- name: From the feed
  isp.hardening.xbl_sweep:
    own: [192.0.2.0/24, 198.51.100.0/24]
    source: feed
    feed: [{kind: ip4tset, path: /srv/feed/xbl}]
    state: /var/lib/isp-hardening/signals.db
"""

RETURN = r"""
frozen:
  description: Why nothing follows from this run; empty when all is well.
  returned: always
  type: str
problems:
  description: What could not be asked, read or decided, each with what to do.
  returned: always
  type: list
  elements: str
came:
  description: Listings that are new, each with C(network), C(list), C(began), C(episode), C(code) and C(detail).
  returned: always
  type: list
  elements: dict
went:
  description: Listings that have ended, in the same form.
  returned: always
  type: list
  elements: dict
still:
  description: How many listings are as they were.
  returned: always
  type: int
unanswered:
  description: How many listings the source did not answer for, so that they stay as they were.
  returned: always
  type: int
episodes:
  description: Those that are open, each with C(id), C(subject), C(subscriber), C(list) and C(began).
  returned: always
  type: list
  elements: dict
figures:
  description:
    - By list, C(open) and C(closed) episodes; C(median) and C(p90) time to remediate in milliseconds, by Kaplan and
      Meier, none where so many are not remediated yet; C(relapsed) within a week, of C(watched); C(led), those that
      own detection knew of before, and C(lead), by how many milliseconds.
  returned: always
  type: dict
cases:
  description: One for each subscriber with an open episode on the XBL, with O(cases).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import read_case
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import IDENTITY
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import StoreError
from ansible_collections.isp.hardening.plugins.module_utils.signals.suspects import merged
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_service import (
    SECRETS,
    Busy,
    Refused,
    known,
    read_settings,
    run,
)

SHOWN = 20  # problems as warnings; the answer has all of them
TEXTS = {"type": "list", "elements": "str"}
# The host may have no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS = {
    "own": {**TEXTS, "required": True},
    "source": {"type": "str", "choices": ["dns", "sia", "feed"], "default": "dns"},
    "zone": {"type": "str", "default": "zen.spamhaus.org"},
    "dqs_key": {"type": "str", "default": "", "no_log": True},
    "server": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 53},
    "rate": {"type": "float", "default": 50},
    "url": {"type": "str", "default": "https://api.spamhaus.org"},
    "sia_username": {"type": "str", "default": ""},
    "sia_password": {"type": "str", "default": "", "no_log": True},
    "feed": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "kind": {"type": "str", "choices": ["ip4set", "ip4tset", "ip6trie", "ip6tset"], "required": True},
            "path": {"type": "path", "required": True},
        },
    },
    "identity": IDENTITY,
    "cases": {"type": "list", "elements": "dict", "default": []},
    "state": {"type": "str", "required": True, "no_log": True},
    "lock": {"type": "path", "default": "/var/lib/isp-hardening/xbl.lock"},
}


def main() -> None:
    """Ask, keep, tell."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options = dict(module.params)
    cases = options.pop("cases")
    secrets = {name: options.pop(name) for name in SECRETS}
    try:
        others = [read_case(one) for one in cases]
        settings = read_settings(options, secrets)
        try:
            outcome = run(settings, keep=not module.check_mode)
        except Busy as busy:
            outcome = known(settings, str(busy))
    except (ValueError, Refused, StoreError) as error:
        module.fail_json(msg=str(error))
    found = outcome.as_dict()
    found["cases"] = [one.as_dict() for one in merged([*others, *outcome.cases])]
    for problem in outcome.problems[:SHOWN]:
        module.warn(problem)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
