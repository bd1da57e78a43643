# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Long filters to prove: running configurations of every platform, and lists that are made to be hard."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.policy import Attachment, Policy, read_policy
from ansible_collections.isp.hardening.plugins.module_utils.rules import Change, Rule, RuleSet, compile_change

POOLS = 64
_TEMPLATES = Path(__file__).parents[2] / "roles" / "edge_filter" / "templates"
_NETWORKS = [
    str(subnet)
    for network in ("198.51.100.0/24", "203.0.113.0/24")
    for subnet in ipaddress.ip_network(network).subnets(new_prefix=29)
]


def policy() -> Policy:
    """64 dynamic pools and two smarthosts, all controls on."""
    found, problems = read_policy(
        {
            "pools": {f"pool{number}": {"kind": "dynamic", "ipv4": [_NETWORKS[number]]} for number in range(POOLS)},
            "smarthosts": [{"name": "out1", "ipv4": ["192.0.2.25"]}, {"name": "out2", "ipv4": ["192.0.2.26"]}],
            "controls": {"P6": True, "P7": True},
        },
        datetime.date(2026, 11, 23),
    )
    assert found, problems
    return found


def bare(network_os: str) -> tuple[str, str]:
    """A place for subscribers, and the running configuration of a router that has no filter yet."""
    file = Path(__file__).parents[1] / "platforms" / network_os / "bare.yml"
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found["attachment"], found["running"]


def attachment(network_os: str) -> Attachment:
    """Where all the pools hang."""
    return Attachment(bare(network_os)[0], tuple(f"pool{number}" for number in range(POOLS)))


def long_list(network_os: str, lines: int, holes: bool) -> str:
    """A running configuration whose upward filter has about so many lines: those of single customers, then ours.

    With `holes` the denies of port 25 are absent at its end, so that every pool violates P1.
    """
    whole = compile_change(policy(), [attachment(network_os)])
    filters = []
    for one in whole.filters:
        rules = one.rules
        if one.direction == "up":
            kept = tuple(rule for rule in rules if not (holes and rule.comment == "P1 port 25 egress"))
            # A rule of ours has the 64 pools in it, and becomes as many lines.
            ours = sum(max(len(rule.sources), 1) * max(len(rule.destinations), 1) for rule in kept)
            rules = (*itertools.islice(_customers(random.Random(lines)), lines - ours), *kept)
        filters.append(RuleSet(one.name, one.family, one.direction, rules))
    return _written(network_os, Change(tuple(filters), whole.binds))


def _customers(chance: random.Random) -> Iterator[Rule]:
    """Rules about one customer's address each, none of which permits what the policy forbids."""
    hosts = [str(host) for text in _NETWORKS[:POOLS] for host in ipaddress.ip_network(text)]
    while True:
        source, other = chance.choice(hosts), ipaddress.ip_address(chance.randrange(1 << 24, 223 << 24))
        shape = chance.randrange(4)
        if shape == 0:
            port = chance.choice([22, 80, 443, 8080])
            yield Rule("permit", "tcp", (source,), (str(other),), destination_ports=((port, port),))
        elif shape == 1:
            network = ipaddress.ip_network((int(other), 24), strict=False)
            yield Rule("deny", "tcp", (source,), (str(network),), destination_ports=((25, 25),))
        elif shape == 2:
            yield Rule("permit", "tcp", (source,), (str(other),), destination_ports=((5000, 6000),))
        else:
            yield Rule("deny", "udp", (source,), destination_ports=((137, 139),))


def _written(network_os: str, change: Change) -> str:
    """The change as the platform would hold it, laid out by the role's own template."""
    platform = platforms.load(network_os)
    name, running = bare(network_os)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_TEMPLATES / f"{network_os}.j2").read_text(encoding="utf-8"))
    rendered = template.render(platform.fields(change))
    if platform.LIVE and not platform.WHOLE:  # apply() would give the text after each of the lines
        opening = f"interface {name}\n"
        lists, _, bindings = rendered.partition(opening)
        return running.replace(opening, lists + opening + bindings.replace("!\n", ""))
    *_, text = platform.apply(running, platform.lines(rendered))
    return str(text)


def discontiguous(lines: int) -> str:
    """Wildcard masks without order, in both addresses."""
    chance = random.Random(1)

    def address() -> str:
        wildcard = chance.getrandbits(32) | chance.getrandbits(32)
        return f"{_dotted(chance.getrandbits(32) & ~wildcard)} {_dotted(wildcard)}"

    return _ios(lines, lambda: f"{chance.choice(['permit udp', 'deny tcp', 'deny ip'])} {address()} {address()}")


def overlapping(lines: int) -> str:
    """Wide prefixes and wide port ranges, nested in each other and cutting through each other."""
    chance = random.Random(2)

    def address() -> str:
        wildcard = (1 << chance.randrange(20, 33)) - 1
        return f"{_dotted(chance.getrandbits(32) & ~wildcard)} {_dotted(wildcard)}"

    def ports() -> str:
        low, high = sorted(chance.sample(range(65536), 2))
        return f"range {low} {high}"

    return _ios(
        lines,
        lambda: (
            f"{chance.choice(['permit', 'deny'])} {chance.choice(['tcp', 'udp'])} {address()} {ports()} "
            f"{address()} {ports()}"
        ),
    )


def satisfiability(lines: int) -> str:
    """A line for each clause of a random 3-SAT formula over the 64 address bits, hardest at 4.26 clauses a bit."""
    chance = random.Random(3)

    def clause() -> str:
        value = mask = 0
        for position in chance.sample(range(64), 3):
            mask |= 1 << position
            value |= chance.getrandbits(1) << position
        free = ~mask & (1 << 64) - 1
        source, destination = f"{_dotted(value >> 32)} {_dotted(free >> 32)}", f"{_dotted(value)} {_dotted(free)}"
        return f"deny ip {source} {destination}"

    return _ios(lines, clause)


HARD: dict[str, tuple[Callable[[int], str], int]] = {
    "discontiguous wildcards": (discontiguous, 10_000),
    "heavy overlap": (overlapping, 10_000),
    "3-SAT": (satisfiability, 272),
}


def _ios(lines: int, line: Callable[[], str]) -> str:
    body = [f" {number * 10} {line()}" for number in range(1, lines + 1)]
    return "\n".join(
        [
            "hostname r", "interface Virtual-Template1", " ip unnumbered Loopback0", " ip access-group UP in", "!",
            "ip access-list extended UP", *body, f" {lines * 10 + 10} permit ip any any", "!", "end", "",
        ]
    )  # fmt: skip


def _dotted(value: int) -> str:
    return str(ipaddress.IPv4Address(value & 0xFFFFFFFF))
