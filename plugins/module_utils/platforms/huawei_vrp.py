# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Huawei VRP8: NE40E, ME60, NetEngine 8000 as routers and as BRAS. Texts of VRP5 are read too.

Attachments are interfaces by their names and `user-group NAME`: subscribers of a BRAS hang in a user group, which
their domain (or RADIUS) gives them. Documents: [NE] NE40E V800R012C10, Configuration Guide; [8K] NetEngine 8000 F1A,
Command Reference; [CE] CloudEngine V300R023, Command Reference; [S] S-series switches and AC, the same.
What is modelled, and where it is written:
- Rules are asked in the order of their numbers; a rule without one gets the next multiple of the step ([CE] ACL
  Matching Process). `match-order auto` asks the more precise rule first ([8K] acl number); how precision is counted
  differs, so such a list is certain only where it decides the same in every order.
- A number that comes again merges: what the new rule says takes the place of what the old one says of the same, the
  rest of the old one stays ([8K] undo rule, [CE] rule: "Configuration Impact").
- `A 0` is a host, `A 0.0.0.255` has a wildcard, `A 24` a length ([CE] rule (Advanced ACL view) (TCP)).
- In advanced IPv4 lists a rule with layer 4 conditions applies to whole packets and first fragments; a permit applies
  to later fragments too, on its layer 3 conditions, a deny does not ([CE] the same). For other lists, and for a permit
  whose behavior drops, this is not documented, and in doubt.
- `fragment-type`: fragment is every fragment, non-fragment none, non-subseq whole packets and first fragments,
  fragment-subseq later ones, fragment-spe-first first ones ([NE] ACL parameters). A plain `fragment` is all fragments
  ([S] AC, rule (basic ACL6 view)) or later ones (VRP5 [memory]): in doubt for first ones.
- `tcp-flag established` is ACK or RST, a number the value of all six flags, `mask` says of which ([CE] rule (Advanced
  ACL6 view) (tcp)). `bit-match` is about one flag. What names say about the flags that they do not name is in doubt.
- Only the first extension header of an IPv6 packet can be matched ([NE] Configuration Precautions for Class-based QoS);
  whether TCP and UDP are sought behind it is not documented: in doubt until rules have denied those headers by number.
- User lists (6000-9999, or `ucl`): a rule has a user group or an address at either end, never both, and every rule
  needs a group in the system view's policy ([NE] Configuring a User ACL Rule).
- Traffic from users meets the rules with `source user-group` of the system view's inbound policy, traffic to users
  those with `destination user-group` of its outbound policy, neither meets lists of interfaces; rules from users to
  users act only with match-type destination-user; the inbound policy's rules towards users see what comes in on
  network interfaces that have no policy ([8K] traffic-policy match-type destination-user inbound).
- A policy on a BAS interface of layer 2 or 3 subscribers does nothing ([NE] Precautions); on one of leased lines it
  does ([NE] Configuring PUPP), and how it meets the system view's policy is in doubt.
- A rule that denies drops whatever the behavior says; what a rule permits has the behavior's fate ([8K] permit | deny).
  What no classifier takes is forwarded ([S] FAQ, Relationship Between an ACL and a Traffic Policy).
- A list that does not exist or has no rules matches nothing ([CE] ACL Matching Process), so a policy passes on to its
  next classifier, and `traffic-filter` and `packet-filter` permit, as they permit what no rule matches [memory].
- `operator and` wants every `if-match` and each rule of a list together with the others, `or` any ([NE] Configuring a
  Traffic Classifier). A classifier of a smaller precedence comes first ([8K] classifier behavior).
- `ip urpf strict` on an interface is a strict source check; as the action of a behavior it is one for what the
  classifier takes ([NE] Configuring URPF; that it is one for IPv6 lists too: [memory]). Without it, whether a BRAS
  drops sources that no session has is in doubt: for PPP it has to be enabled ([NE] Enabling URPF for PPP Users).
- `traffic-policy ucl upstream match-source-ip` in a domain has user lists see addresses in place of groups ([NE] Adding
  a User Group to a Domain): what such users meet is unknown.
- Addresses of subscribers: `ip-pool` and `ipv6-pool` of the domain that has the user group ([NE] examples). Where the
  domain's authentication scheme asks RADIUS, sessions may get another group or policy (Filter-Id, HW-Policy-Name,
  AVPair subscriber:traffic-policy-in).
- Two phases: `commit trial SECONDS persist ID` outlives its session, `commit persist ID` confirms it from any session,
  `abort trial persist ID` takes it back; nobody can change anything meanwhile ([CE] commit, abort trial; [NE] Two-Phase
  Validation Mode). `configuration exclusive` keeps others out until then ([CE] configuration exclusive).
- Port names: [CE] rule (Advanced ACL view) (TCP), (UDP); names of ICMP types: [memory]. Words of rejections beside
  "Error: Unrecognized command", "Wrong parameter", "Incomplete command": [memory].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..filters import Configuration
from ..plan import Push
from ..rules import Change
from . import _vrp_places, _vrp_push, _vrp_text

ALIASES = ("huawei", "huawei_vrpv8", "vrp", "ne", "ce", "community.network.ce", "huawei.vrp.vrp")
DEVICE_TYPE = "huawei_vrpv8"
READ = ("display current-configuration",)
REJECTED = (r"^\s*Error: ?.*", r"^\s*Failed to .*")
ANSWERS = ((r"\[Y/N\]:? ?$", "y"),)
PUSH = Push(
    arm=("configuration exclusive", "system-view"),
    commit=("commit trial {seconds} persist {session}", "return", "undo configuration exclusive"),
    confirm=("system-view", "commit persist {session}"),
    abort=("system-view", "abort trial persist {session}", "return"),
    save=("return", "save"),
)
LIVE = False
WHOLE = False
LINK_LOCAL = True
PER_ATTACHMENT = True  # a rule for subscribers names their group, so no list serves two places
SHARED_BINDING = True  # a policy holds both families, and that of the system view all groups


def incomplete(text: str) -> str:
    """Why the text is not a whole running configuration of VRP, "" when it is."""
    return _vrp_text.incomplete(text)


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:  # noqa: ARG001 - filters do not depend on them
    """Filters, bindings and interfaces of the text. Raises NotThisPlatform when it holds nothing of VRP."""
    return _vrp_places.parse(text)


def fields(change: Change, running: str = "") -> dict[str, object]:
    """The variables of roles/edge_filter/templates/huawei_vrp.j2. Raises ValueError for what VRP cannot say."""
    return _vrp_push.fields(change, running)


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text."""
    return _vrp_push.lines(rendered)


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete lists of ours and their classifiers, given as (family, name)."""
    return _vrp_push.remove(filters)


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running text after the commit that all commands wait for. Raises ValueError for an unknown command."""
    return _vrp_push.apply(running, lines)


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that bring the backup's policies and lists back on these attachments."""
    return _vrp_push.restore(running, backup, names)
