# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The detectors as data: what a contact is, when it failed, which test walks over it, and what it needs to be true.

    D1  new servers on port 25, an hour              flows       residential pools
    D2  share of mail sessions without a mail        flows       needs TCP flags and every packet
    D3  share of servers that never answered         flows       the same; filter logs count as well
    D4  the same per watched port: worms             flows       the same
    D5  new names asked for their MX, an hour        DNS logs    residential pools
    D6  share of mails that are spam                 mail logs
    D7  surge: new alarms of the whole network, an hour

A detector whose data would make it lie is switched off, and a Silence says so: packet sampling makes every session look
short, flows without TCP flags all look answered, and an exporter behind the filter shows nothing of what was blocked.
"""

from __future__ import annotations

import bisect
import datetime
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from ..controls import KINDS
from ..variables import Path, Problems, kind_of, read_flag, read_mapping, shown
from . import walk
from .flows import V4_MAPPED
from .records import Silence

MAIL_PORT = 25

# Ports that worms and bots spread by, and that nobody scans for a good reason from home: telnet and the like of routers
# (Antonakakis et al., "Understanding the Mirai Botnet", USENIX Security 2017: 23, 2323, 5555, 7547), Windows (135, 139,
# 445: Blaster, Sasser, Conficker, WannaCry), SQL Server (1433), RDP (3389).
WORM_PORTS = (23, 135, 139, 445, 1433, 2323, 3389, 5555, 7547)

# A mail session in which no mail was sent, seen from the client: greeting, EHLO, MAIL, RCPT, QUIT and their ACKs.
SHORT_PACKETS, SHORT_OCTETS = 12, 1_500

# How a flow fails. SYN only: the client sent SYN and nothing else, so nobody answered (or a filter did, with RST).
SYN_ONLY, SHORT = "syn_only", "short"

FLOWS, DNS, MAIL, ALARMS = "flows", "DNS queries", "mail logs", "alarms"

# A worm's host is likelier to be a spammer: for three days it needs that much less evidence (ln 50 nats).
AFTER_WORM, AFTER_WORM_TIME = walk.nats(3.912023005428146), 72 * walk.HOUR

CONTACTS_A_DAY, FALSE_ALARMS_A_DAY = 1_000_000.0, 1.0


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector. The two figures of a test are (benign, infected)."""

    name: str
    finds: str
    source: str
    ratio: tuple[float, float] | None = None  # shares of contacts that fail
    rate: tuple[float, float] | None = None  # contacts an hour
    kinds: tuple[str, ...] = KINDS  # pools whose subscribers it looks at
    ports: tuple[int, ...] = ()
    fails: str = ""  # "": no flow fails
    contacts_a_day: float = CONTACTS_A_DAY  # of all benign subjects together
    false_alarms_a_day: float = FALSE_ALARMS_A_DAY
    enabled: bool = True

    @property
    def steps(self) -> walk.Steps:
        """The test as integers. Raises ValueError where the figures make none."""
        return walk.steps(walk.threshold(self.contacts_a_day, self.false_alarms_a_day), self.ratio, self.rate)


DETECTORS: Mapping[str, Detector] = {
    one.name: one
    for one in (
        # The mark of D2 beside the rate: a newcomer that fails is found sooner, one that delivers later.
        Detector("D1", "opens port 25 of many servers", FLOWS, (0.1, 0.5), (2, 20), ("dynamic",), (MAIL_PORT,), SHORT),
        Detector("D2", "opens port 25 and sends no mail", FLOWS, (0.1, 0.5), ports=(MAIL_PORT,), fails=SHORT),
        Detector("D3", "port 25 of nobody answers", FLOWS, (0.2, 0.8), ports=(MAIL_PORT,), fails=SYN_ONLY),
        Detector("D4", "scans a port that worms spread by", FLOWS, (0.2, 0.8), ports=WORM_PORTS, fails=SYN_ONLY),
        Detector("D5", "asks for the mail servers of many names", DNS, None, (1, 20), ("dynamic",)),
        Detector("D6", "sends mail that the spam filter knows", MAIL, (0.2, 0.9)),
        # A benign alarm an hour is what is allowed of all others; a surge in vain once in thirty days.
        Detector("D7", "new alarms of the whole network", ALARMS, None, (1, 10), (), (), "", 24.0, 1 / 30),
    )
}

_KEYS: tuple[str, ...] = ("benign", "infected", "benign_rate", "infected_rate", "ports", "enabled")
_KEYS += ("contacts_a_day", "false_alarms_a_day")


def read_detectors(data: object, path: Path, problems: Problems) -> dict[str, Detector]:
    """The detectors with the figures of an operator: {D2: {benign: 0.1, infected: 0.5}, D5: {enabled: false}, …}."""
    found = dict(DETECTORS)
    for name, figures in read_mapping(data or {}, path, problems, tuple(DETECTORS)).items():
        place = (*path, name)
        tree = read_mapping(figures, place, problems, _KEYS)
        known = len(problems)
        detector = found[name]
        changes: dict[str, Any] = {
            key: _figure(tree[key], (*place, key), problems) for key in _KEYS[-2:] if key in tree
        }
        for pair, keys in (("ratio", _KEYS[:2]), ("rate", _KEYS[2:4])):
            given = {key: _figure(tree[key], (*place, key), problems) for key in keys if key in tree}
            default = getattr(detector, pair)
            if given and default is None:
                problems.add(place, f"{name} has no {pair} to test", f"leave {' and '.join(given)} out")
            elif given:
                changes[pair] = tuple(given.get(key, default[number]) for number, key in enumerate(keys))
        if "ports" in tree:
            changes["ports"] = _ports(tree["ports"], (*place, "ports"), problems, detector)
        if "enabled" in tree:
            changes["enabled"] = read_flag(tree["enabled"], (*place, "enabled"), problems)
        if len(problems) > known:
            continue
        found[name] = replace(detector, **changes)
        try:
            assert found[name].steps
        except ValueError as error:
            problems.add(place, str(error), "the defaults are in the documentation")
    return found


def _figure(data: object, path: Path, problems: Problems) -> float:
    if isinstance(data, int | float) and not isinstance(data, bool) and 0 < data < 1e12:
        return float(data)
    problems.add(path, f"{shown(data)} is {kind_of(data)}, not a number above 0", "write it without quotes")
    return 1.0


def _ports(data: object, path: Path, problems: Problems, detector: Detector) -> tuple[int, ...]:
    if detector.name != "D4":
        problems.add(path, f"{detector.name} has no ports of its own", "only D4 has them")
    elif not isinstance(data, Sequence) or isinstance(data, str) or not data:
        problems.add(path, f"is {kind_of(data)}, not a list of ports", "write it as [135, 139, 445]")
    elif any(isinstance(one, bool) or not isinstance(one, int) or not 0 < one < 65_536 for one in data):
        problems.add(path, f"{shown(data)} holds what is no port", "write numbers from 1 to 65535")
    elif MAIL_PORT in data:
        problems.add(path, "holds 25", "port 25 is that of D1, D2 and D3")
    else:
        return tuple(sorted(set(data)))
    return detector.ports


# A subscriber is one key, in numpy, in SQL and here: IPv4 as the lower half of ::ffff:a.b.c.d, IPv6 as the upper half
# of the address, which is its /64. The two never meet, since nobody has ::/16 (RFC 4291, section 2.4): what says so is
# forged, and has the key 0, which is in no pool. A counterpart
# is taken the same way, so a server counts once however many addresses of its /64 it answers on.


def key_of(address: str) -> int:
    """The key of an address. Raises ValueError for what is none."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if found.version == 6 else None
    if found.version == 4 or mapped:
        return V4_MAPPED | int(mapped or found)
    key = int(found) >> 64
    return key if key >> 48 else 0


def address_of(key: int) -> str:
    """The address of a key, the first of its /64 where it is IPv6."""
    if key >> 48:
        return str(ipaddress.IPv6Address(key << 64))
    return str(ipaddress.IPv4Address(key & 0xFFFF_FFFF))


def shown_key(key: int) -> str:
    """A key for a line that somebody reads."""
    return address_of(key) + ("/64" if key >> 48 else "")


def shown_time(time: int) -> str:
    """A time for a line that somebody reads; what no calendar has is the number."""
    try:
        return f"{datetime.datetime.fromtimestamp(time // 1000, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{time} ms"


class Pools:
    """The subscribers' prefixes as disjoint ranges of keys, sorted. Raises ValueError for a prefix that is none."""

    def __init__(self, pools: Iterable[tuple[str, Iterable[str]]]) -> None:
        ranges = []
        for kind, prefixes in pools:
            for prefix in prefixes:
                network = ipaddress.ip_network(prefix)
                ranges.append((key_of(str(network[0])), key_of(str(network[-1])), kind))
        self.ranges = sorted(ranges)
        for before, after in pairwise(self.ranges):
            if after[0] <= before[1]:
                raise ValueError(f"{shown_key(after[0])} is in two pools, or in two prefixes of one; list it once")
        self._starts = [first for first, _last, _kind in self.ranges]

    def kind(self, key: int) -> str:
        """The kind of the pool that a key is in, "" where it is in none."""
        at = bisect.bisect_right(self._starts, key) - 1
        return self.ranges[at][2] if at >= 0 and key <= self.ranges[at][1] else ""

    def merged(self) -> list[tuple[int, int]]:
        """The ranges of all kinds, neighbours as one."""
        found: list[tuple[int, int]] = []
        for first, last, _kind in self.ranges:
            if found and first == found[-1][1] + 1:
                found[-1] = found[-1][0], last
            else:
                found.append((first, last))
        return found


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the flows that the detectors would go by.

    The last five are of subscribers' TCP to the ports. They count busy subscribers where flows are odd, so that nobody
    blinds the detectors by sending many odd packets.
    """

    flows: int = 0  # of everything that was read
    sampling: int = 0  # the worst of all exporters; 1 none, 0 nobody says
    flags_known: bool = True
    flags_mend: str = "let the exporters send tcpControlBits (element 6)"
    busy: int = 0  # subscribers with BUSY flows and more
    flagless: int = 0  # of these: half of the flows have no flag
    middles: int = 0  # half of the flows have no SYN, and few packets: they are out of the middle of a session
    impossible: int = 0  # half of the flows have SYN only, and are larger than SYNs are
    blocked: int = 0  # flows to port 25: SYN only, or forwardingStatus says dropped

    def __add__(self, other: Facts) -> Facts:
        counts = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self) if one.type == "int"
        }
        return replace(
            self,
            **counts
            | {"sampling": max(self.sampling, other.sampling), "flags_known": self.flags_known and other.flags_known},
        )


BUSY = 5  # flows: whoever has fewer reaches no threshold anyway
ODD_SHARE = 0.2  # of the busy subscribers: so many of them at once are odd by their exporter
# Of a session of which each packet is looked at there is a record with its SYN, and perhaps one behind each active
# timeout. Of a sampled one there are a packet or two, which are seldom the first.
MIDDLE_PACKETS = 3
# The SYNs of one attempt are few and empty: Linux sends 7 of 60 octets (tcp(7), tcp_syn_retries).
SYN_OCTETS = 1_500


def doubt_of_ratios(facts: Facts) -> Silence | None:
    """Why no detector may go by the shape of these flows, None where they may. `detector` is left open."""
    of = f"of {facts.busy} subscribers with {BUSY} TCP flows and more"
    odd = facts.busy * ODD_SHARE
    if facts.sampling > 1:
        return Silence(
            "",
            f"packets are sampled, 1 of {facts.sampling}: every session looks short, and of many only a SYN is seen",
            "export port 25 of the subscribers unsampled, or give filter logs; D1 goes by distinct servers meanwhile",
        )
    # A flood without flags makes a file look as if they were left out, but not the flows of everybody.
    if not facts.flags_known and facts.flagless >= odd:
        return Silence("", "the flows have no TCP flags, so nobody knows which were answered", facts.flags_mend)
    if facts.flagless > odd:
        return Silence("", f"the flows of {facts.flagless} {of} have no TCP flags", facts.flags_mend)
    if facts.middles > odd:
        return Silence(
            "",
            f"the flows of {facts.middles} {of} are a few packets without SYN: an exporter samples and does not say so",
            "switch its sampling off, or let it send its sampling rate (RFC 5477, an options template)",
        )
    if facts.impossible > odd:
        return Silence(
            "",
            f"the flows of {facts.impossible} {of} have SYN alone in {SYN_OCTETS} octets and more: an exporter sends "
            "the flags of the first packet only",
            "let it send those of all packets of a flow (IPFIX element 6, tcpControlBits); some line cards cannot",
        )
    return None


def fit(
    detectors: Mapping[str, Detector], facts: Facts, port_25_blocked: bool
) -> tuple[dict[str, Detector], list[Silence]]:
    """The flow detectors that may run on such flows, changed where they have to be, and what is switched off."""
    wanted = {name: one for name, one in detectors.items() if one.source == FLOWS and one.enabled}
    silences: list[Silence] = []
    doubt = doubt_of_ratios(facts)
    if doubt:
        for name in [name for name, one in wanted.items() if one.fails and not one.rate]:
            del wanted[name]
            silences.append(replace(doubt, detector=name))
        for name, one in wanted.items():
            wanted[name] = replace(one, ratio=None, fails="")
    if port_25_blocked and facts.flows and not facts.blocked and "D3" in wanted:
        silences.append(
            Silence(
                "D3",
                f"the policy blocks port 25, and none of {facts.flows} flows was blocked there: the exporter sits "
                "behind the filter, or nobody tried",
                "export where subscribers come in, before the filter (ingress), or give the filter's log; IPFIX "
                "element 89 (forwardingStatus) shows what was dropped",
            )
        )
    return wanted, silences
