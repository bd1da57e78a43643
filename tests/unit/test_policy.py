# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the readers make of good policies; what they say about bad ones is in tests/errors."""

from __future__ import annotations

import copy
import datetime
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.controls import KINDS, SWITCHES
from ansible_collections.isp.hardening.plugins.module_utils.mail import policy as mail
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    KEYS,
    Attachment,
    Policy,
    PolicyException,
    Pool,
    Problem,
    Setting,
    Smarthost,
    Term,
    path_text,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.rules import Rule
from ansible_collections.isp.hardening.plugins.module_utils.signals import policy as signals

ROOT = Path(__file__).resolve().parent.parent.parent
TODAY = datetime.date(2026, 11, 23)
POOLS: dict[str, Any] = {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"], "ipv6": ["2001:db8:100::/40"]}}
EXCEPTION = {"prefix": "198.51.100.7/32", "owner": "Example GmbH", "reason": "own MX", "until": "2027-01-31"}


def good(data: object) -> Policy:
    policy, problems = read_policy(data, TODAY)
    assert problems == []
    assert policy is not None
    return policy


def test_a_policy_of_every_key() -> None:
    policy = good(
        yaml.safe_load((ROOT / "docs" / "policy.md").read_text().split("```yaml\n")[1].split("```")[0])["isp_policy"]
    )
    assert policy.profile == "standard"
    assert policy.pools == {
        "residential": Pool("residential", "dynamic", ("198.51.100.0/25",), ("2001:db8:100::/40",)),
        "offices": Pool("offices", "business", ("203.0.113.0/24",), ()),
    }
    assert policy.smarthosts == (Smarthost("out1", ("192.0.2.25/32",), ("2001:db8:ffff::25/128",)),)
    reason = "own mail server until the move to a static address"
    until = datetime.date(2027, 1, 31)
    assert policy.exceptions == (
        PolicyException(
            "198.51.100.7/32", "Example GmbH, ticket 4711", reason, until, ("P1", "P2", "P3"), "residential"
        ),
    )
    assert policy.expired == ()
    assert policy.controls["P6"] == Setting(True, KINDS)
    assert policy.controls["P7"] == Setting(True, ("dynamic",))
    rule = Rule(
        "permit",
        "tcp",
        ("198.51.100.0/25",),
        ("192.0.2.80/32",),
        ((1024, 65535),),
        ((80, 80), (443, 443)),
        comment="the portal",
    )
    assert policy.before == (Term(rule, ("up",), (4,)),)
    assert policy.after == ()


def test_what_is_left_out_has_the_documented_defaults() -> None:
    policy = good({"pools": POOLS})
    assert (policy.profile, policy.smarthosts, policy.exceptions, policy.before, policy.after) == (
        "standard",
        (),
        (),
        (),
        (),
    )
    on = {name for name, setting in policy.controls.items() if setting.enabled}
    assert list(policy.controls) == list(SWITCHES)
    assert on == SWITCHES.keys() - {"P6", "P7"}
    assert {name for name, setting in policy.controls.items() if setting.kinds == ("dynamic",)} == {"P1", "P2", "P3"}


@pytest.mark.parametrize(
    ("switch", "setting"),
    [
        (True, Setting(True, ("dynamic",))),
        (False, Setting(False, ("dynamic",))),
        ({}, Setting(True, ("dynamic",))),
        ({"enabled": False}, Setting(False, ("dynamic",))),
        ({"pools": ["static", "dynamic", "static"]}, Setting(True, ("static", "dynamic"))),
    ],
)
def test_switches(switch: object, setting: Setting) -> None:
    assert good({"pools": POOLS, "controls": {"P1": switch}}).controls["P1"] == setting


def test_an_invariant_may_be_named_as_it_is() -> None:
    assert good({"pools": POOLS, "controls": {"P9": True, "P10": {"pools": list(KINDS)}}}).controls["P9"].enabled


@pytest.mark.parametrize(
    ("until", "in_force"),
    [
        ("2026-11-22", False),
        ("2026-11-23", True),
        (datetime.date(2026, 11, 22), False),
        (datetime.date(2026, 11, 23), True),
    ],
)
def test_an_exception_counts_through_its_last_day(until: object, in_force: bool) -> None:
    policy = good({"pools": POOLS, "exceptions": [EXCEPTION | {"until": until}]})
    assert (len(policy.exceptions), len(policy.expired)) == (int(in_force), int(not in_force))


def test_prefixes_come_out_canonical() -> None:
    pools = {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"], "ipv6": ["2001:0DB8:0100:0::/40"]}}
    policy = good({"pools": pools, "exceptions": [EXCEPTION | {"prefix": "2001:DB8:100:0::7"}]})
    assert policy.pools["homes"].prefixes(6) == ("2001:db8:100::/40",)
    assert policy.exceptions[0].prefix == "2001:db8:100::7/128"
    assert policy.exceptions[0].family == 6


@pytest.mark.parametrize(
    ("term", "families", "directions"),
    [
        ({"protocol": "esp"}, (4, 6), ("up", "down")),
        ({"protocol": "icmp6"}, (6,), ("up", "down")),
        ({"protocol": "icmp", "direction": "down"}, (4,), ("down",)),
        ({"source": ["2001:db8::1"]}, (6,), ("up", "down")),
        ({"destination": ["192.0.2.1"], "direction": "up"}, (4,), ("up",)),
        ({"protocol": "tcp", "family": "ipv6"}, (6,), ("up", "down")),
    ],
)
def test_the_family_of_a_term(term: dict[str, Any], families: tuple[int, ...], directions: tuple[str, ...]) -> None:
    (read,) = good({"pools": POOLS, "terms": {"after": [{"action": "deny"} | term]}}).after
    assert (read.families, read.directions) == (families, directions)


def test_attachments() -> None:
    policy = good({"pools": POOLS})
    data = [
        {"name": "Virtual-Template1", "pools": ["homes"]},
        {"name": "ge-0/0/1.100", "pools": ["homes"], "replace_foreign": True},
    ]
    attachments, problems = read_attachments(data, policy)
    assert problems == []
    assert attachments == (
        Attachment("Virtual-Template1", ("homes",)),
        Attachment("ge-0/0/1.100", ("homes",), replace_foreign=True),
    )
    assert read_attachments([], policy) == ((), [])


INTERFACES = "Virtual-Template1 GigabitEthernet0/0/1.100 xe-0/0/0:1.0 ae0.4094 eth0.100 ppp* $junos-interface lag-1:100"


@pytest.mark.parametrize("name", INTERFACES.split())
def test_interface_names_of_every_vendor(name: str) -> None:
    attachments, problems = read_attachments([{"name": name, "pools": ["homes"]}], good({"pools": POOLS}))
    assert not problems
    assert attachments[0].name == name


def test_values_from_ansibles_own_loader_are_read_and_come_out_plain(tmp_path: Path) -> None:
    """Its strings, dates and containers are subclasses that carry their origin."""
    text = {"isp_policy": {"pools": POOLS, "exceptions": [EXCEPTION | {"until": datetime.date(2027, 1, 31)}]}}
    (tmp_path / "policy.yml").write_text(yaml.safe_dump(text))
    data = DataLoader().load_from_file(str(tmp_path / "policy.yml"))["isp_policy"]
    assert type(data["exceptions"][0]["owner"]) is not str
    policy = good(data)
    assert policy == good(text["isp_policy"])
    exception = policy.exceptions[0]
    for value in (
        exception.owner,
        exception.prefix,
        *policy.pools,
        policy.pools["homes"].kind,
        *policy.pools["homes"].ipv4,
    ):
        assert type(value) is str
    assert type(exception.until) is datetime.date
    (attachment,), _ = read_attachments(DataLoader().load('[{"name": "eth1", "pools": ["homes"]}]'), policy)
    assert [type(text) for text in (attachment.name, *attachment.pools)] == [str, str]


# Pools of a few networks near to each other, so that they meet often.
networks = st.builds(
    lambda third, length: str(ipaddress.ip_network((0xC6330000 + third * 64, length), strict=False)),
    st.integers(0, 16),
    st.integers(22, 28),
)


@given(st.lists(st.lists(networks, min_size=1, max_size=6), min_size=1, max_size=4))
def test_overlaps_are_found_exactly_where_there_are_any(pools: list[list[str]]) -> None:
    data = {f"pool{number}": {"kind": "dynamic", "ipv4": prefixes} for number, prefixes in enumerate(pools)}
    _, problems = read_policy({"pools": data}, TODAY)
    every = [ipaddress.ip_network(prefix) for prefixes in pools for prefix in prefixes]
    # Each prefix that meets another is in some problem, as the one reported or as the one that it meets.
    meeting = {
        str(one)
        for number, one in enumerate(every)
        for other in every[number + 1 :] + every[:number]
        if one.overlaps(other)
    }
    reported = {text for problem in problems for text in re.findall(r"[0-9.]+/[0-9]+", problem.reason)}
    assert reported == meeting


@given(st.lists(networks, min_size=1, max_size=5), networks)
def test_exceptions_lie_in_one_pool_prefix_and_are_smaller(pool: list[str], prefix: str) -> None:
    pool = [str(one) for one in ipaddress.collapse_addresses(ipaddress.IPv4Network(text) for text in pool)]
    policy, problems = read_policy(
        {"pools": {"homes": {"kind": "dynamic", "ipv4": pool}}, "exceptions": [EXCEPTION | {"prefix": prefix}]}, TODAY
    )
    inside = [ipaddress.ip_network(one) for one in pool]
    one = ipaddress.ip_network(prefix)
    assert (policy is not None) == any(one != outer and one.subnet_of(outer) for outer in inside)
    assert (policy is None) == bool(problems)


SOUND: dict[str, Any] = {
    "profile": "strict",
    "pools": POOLS,
    "smarthosts": [{"name": "out1", "ipv4": ["192.0.2.25"]}],
    "exceptions": [EXCEPTION],
    "controls": {"P1": True, "P6": {"enabled": True, "pools": ["dynamic"]}},
    "terms": {"before": [{"action": "permit", "protocol": "tcp", "source_ports": ["1-2"], "source": ["192.0.2.0/24"]}]},
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def places(tree: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from places(tree[key], (*path, key))
    elif isinstance(tree, list):
        for number, item in enumerate(tree):
            yield from places(item, (*path, number))


@given(st.sampled_from(list(places(SOUND))), anything)
def test_no_value_anywhere_ends_in_a_traceback(path: tuple[Any, ...], value: object) -> None:
    tree = {"": copy.deepcopy(SOUND)}
    inner: Any = tree
    for part in ("", *path)[:-1]:
        inner = inner[part]
    inner[("", *path)[-1]] = value
    policy, problems = read_policy(tree[""], TODAY)
    assert (policy is None) == bool(problems)
    for problem in problems:
        assert problem.path[0] == "isp_policy"
        assert "\n" not in problem.reason + problem.mend
        assert path_text(problem.path).startswith("isp_policy")


@given(anything)
def test_no_attachments_end_in_a_traceback(value: object) -> None:
    attachments, problems = read_attachments(value, good({"pools": POOLS}))
    assert problems or attachments == tuple(attachments)
    assert all(isinstance(problem, Problem) for problem in problems)


def test_ten_thousand_prefixes_are_read_in_a_moment() -> None:
    prefixes = [str(ipaddress.ip_network((0x0A000000 + number * 256, 24))) for number in range(10_000)]
    exceptions = [EXCEPTION | {"prefix": prefix.replace("0/24", "7/32")} for prefix in prefixes[:1000]]
    data = {"pools": {"homes": {"kind": "dynamic", "ipv4": prefixes}}, "exceptions": exceptions}
    before = datetime.datetime.now()
    policy = good(data)
    assert len(policy.exceptions) == 1000
    assert datetime.datetime.now() - before < datetime.timedelta(seconds=5)


SECTIONS = {
    "isp_policy": ["policy"],
    "Pools": ["pool"],
    "Smarthosts": ["smarthost"],
    "Exceptions": ["exception"],
    "Controls": ["control"],
    "Terms": ["terms", "term"],
    "isp_attachments": ["attachment", "session_filter"],
    "isp_mail": ["mail"],
    "Mail hosts": ["host"],
    "mailbox_store": ["mailbox_store"],
    "dnsbl": ["dnsbl"],
    "dkim": ["dkim"],
    "tls": ["tls"],
    "rates": ["rates"],
    "probe": ["probe"],
    "isp_signals": ["signals"],
    "Never": ["never"],
    "Portal": ["portal"],
    "Limits": ["limits"],
}


def test_the_page_has_every_key_and_no_other() -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    sections = dict(section.split("\n", 1) for section in re.split(r"(?m)^## ", page)[1:])
    assert sections.keys() == SECTIONS.keys()
    tree = {**KEYS, **mail.KEYS, **signals.KEYS}
    assert {name for names in SECTIONS.values() for name in names} == tree.keys()
    for title, names in SECTIONS.items():
        keys = re.findall(r"(?m)^\| `(\w+)` \|", sections[title])
        assert keys == [key for name in names for key in tree[name]], title


def test_the_examples_of_the_page_are_good() -> None:
    policy_text, attachments_text, mail_text, signals_text = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(), re.DOTALL
    )
    policy = good(yaml.safe_load(policy_text)["isp_policy"])
    assert read_attachments(yaml.safe_load(attachments_text)["isp_attachments"], policy)[1] == []
    mail_policy, problems = mail.read_mail(yaml.safe_load(mail_text)["isp_mail"], policy)
    assert problems == []
    assert signals.read_signals(yaml.safe_load(signals_text)["isp_signals"], policy, mail_policy)[1] == []
