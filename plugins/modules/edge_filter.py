# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of this name; it runs on the controller."""

DOCUMENTATION = """
module: edge_filter
short_description: Audit, and make true, the subscriber filters of one router
description:
  - Reads the running configuration over one login, proves it against the policy packet by packet, and, where something
    does not hold, plans the least change, proves every state on its way, pushes it with the platform's rollback timer
    armed, logs in afresh, reads and proves again, and confirms.
  - A configuration that keeps every obligation is left alone, whatever its text looks like.
  - In check mode nothing is sent but the commands that read; the findings are the same. With C(--diff) it shows what
    would change.
  - Works over C(ansible_connection=isp.hardening.netmiko), and over Ansible's own C(ssh) for Linux routers.
version_added: 1.0.0
author: isp.hardening contributors
options:
  policy:
    description: The policy, as docs/policy.md has it.
    type: dict
    required: true
  attachments:
    description: Where subscribers hang on this router, and of which pools.
    type: list
    elements: dict
    required: true
  template:
    description: The Jinja2 template that lays out the filters; C(PLATFORM.j2) of the role when it is not given.
    type: path
  rollback_minutes:
    description: >-
      After how many minutes the router takes an unconfirmed change back by itself, 3 to 59: less leaves no time to send
      and to prove, and EOS counts no further.
    type: int
    default: 5
  backup_dir:
    description: Directory on the controller for the configuration as it was before a push.
    type: path
    default: backups
  history_dir:
    description: >-
      Directory on the controller for the configuration as it was last audited, one file a host, without secrets. The
      next audit says which packets have another fate since. Nothing is kept where it is not given.
    type: path
  hygiene:
    description: >-
      Look for lines of the filters in force that could go as well (H1 to H4); they are notes, and no findings. It costs
      about a second for 10,000 lines.
    type: bool
    default: false
  impact:
    description:
      - A gate before every push, going by recorded flows, see M(isp.hardening.filter_impact). A push is refused, and
        nothing is sent, when it would newly deny more than the budget, or anything to an address of the never-list or
        to an exempt subscriber; when the flows cannot be read; and when none is of those at a place that it changes.
      - What is not known counts as denied. In check mode it only says what it would do. No gate where it is not given.
      - Needs numpy on the controller, and lz4 where nfcapd compresses; C(pip install isp-hardening[signals]).
    type: dict
    suboptions:
      flows:
        description: Files of nfcapd on the controller, or directories of them.
        type: list
        elements: path
        required: true
      never:
        description:
          - What no push may cut, a C(prefix) and a C(reason) each; C(isp_signals) has the list. The exceptions of
            O(policy) are added.
          - A flow that such an address has sent counts, and one that it has answered; TCP that nobody has answered is
            a mere attempt to reach it.
        type: list
        elements: dict
        required: true
        suboptions:
          prefix:
            description: An address or a prefix.
            type: str
            required: true
          reason:
            description: What is there.
            type: str
            required: true
      budget:
        description: How many may newly be denied something.
        type: dict
        default: {}
        suboptions:
          subscribers:
            description: Subscribers, IPv6 ones by their /64.
            type: int
            default: 0
          flows:
            description: Flows. No limit where it is not given.
            type: int
          established:
            description: Established mail sessions.
            type: int
            default: 0
      alarmed:
        description: Addresses or prefixes that detectors have found, to be told of in the message.
        type: list
        elements: str
        default: []
  restore:
    description: >-
      Put back the filters and bindings of this backup instead of making the policy true. A directory stands for the
      newest backup in it.
    type: path
"""

EXAMPLES = """
- name: Prove the filters, and mend what does not hold
  isp.hardening.edge_filter:
    policy: "{{ isp_policy }}"
    attachments: "{{ isp_attachments }}"

- name: The same, unless it would cut a mail session that was there yesterday, or more than 50 subscribers
  isp.hardening.edge_filter:
    policy: "{{ isp_policy }}"
    attachments: "{{ isp_attachments }}"
    impact:
      flows: [/var/cache/nfdump/2026/11/25]
      never: "{{ (isp_signals | isp.hardening.signals_host(isp_policy, isp_mail)).never }}"
      budget: {subscribers: 50, established: 0}
"""

RETURN = """
state:
  description: >-
    How it ended: audited, unchanged, changed, rolled_back, refused, unreachable, login_refused, rejected, session_lost
    or failed.
  type: str
  returned: always
mode:
  description: Whether it was a check, in which nothing is changed, or apply.
  type: str
  returned: always
findings:
  description: One entry for everything that must hold; docs/report.md has the fields.
  type: list
  elements: dict
  returned: when the configuration could be read
drift:
  description: >-
    What has changed since C(since), the last audit: C(changes), each with C(attachment), C(direction), and the fields
    of a box of M(isp.hardening.filter_diff); C(left_out), how many boxes are not told; C(problem), why they could not
    be compared.
  type: dict
  returned: when there is a history
hygiene:
  description: >-
    Notes on lines that could go, one for each filter and kind, with C(control) (H1 to H4), C(filter), C(family),
    C(title), C(lines) (number, text, reason) and C(more), how many lines are left out.
  type: list
  elements: dict
  returned: when they were asked for
impact:
  description: >-
    With a gate, what the push would do to the flows: the fields of M(isp.hardening.filter_impact), C(protected), the
    addresses of the never-list and the exempt subscribers that would be cut, and C(refused), why the push is refused,
    empty when it is not.
  type: dict
  returned: when there is something to push
steps:
  description: What was done, in order.
  type: list
  elements: str
  returned: when something was pushed
kept:
  description: Places that were left as they are although something does not hold there, and why.
  type: list
  elements: str
  returned: when there are any
backup:
  description: File on the controller with the configuration before the push.
  type: str
  returned: when something was pushed
"""
