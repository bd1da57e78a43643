"""The rules keep every obligation, for any policy: two compilers that were written apart must agree."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils import packets
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    Binding,
    Configuration,
    Entry,
    Filter,
    Interface,
)
from ansible_collections.isp.hardening.plugins.module_utils.policy import read_attachments, read_policy
from ansible_collections.isp.hardening.plugins.module_utils.rules import Change, Rule, compile_change

TODAY = datetime.date(2026, 11, 23)


def match_of(rule: Rule, family: int) -> packets.Match:
    """What the rule means, written down without any platform."""
    match: dict[str, packets.Alternatives] = {}
    if rule.protocol:
        match["protocol"] = packets.exactly(packets.PROTOCOLS[rule.protocol], 8)
    for field, prefixes in (("source", rule.sources), ("destination", rule.destinations)):
        if prefixes:
            match[field] = packets.union(*(packets.prefix(text, family) for text in prefixes))
    for field, ranges in (("source_port", rule.source_ports), ("destination_port", rule.destination_ports)):
        if ranges:
            match[field] = packets.union(*(packets.span(low, high, 16) for low, high in ranges))
            match.update(packets.INITIAL)
    if rule.later_fragments:
        match["fragment"] = packets.LATER_FRAGMENT
    if rule.undetermined:
        match["undetermined"] = packets.exactly(1, 1)
    return match


def configuration_of(change: Change) -> Configuration:
    filters = {
        (one.family, one.name): Filter(
            one.name,
            one.family,
            tuple(
                Entry(rule.action, (match_of(rule, one.family),), number, rule.comment)
                for number, rule in enumerate(one.rules, 1)
            ),
            "deny",
            1,
        )
        for one in change.filters
    }
    bindings = tuple(
        Binding(bind.attachment, {"up": "in", "down": "out"}[bind.direction], bind.family, (bind.filter,), 1, "bound")
        for bind in change.binds
    )
    interfaces = {bind.attachment: Interface(bind.attachment, 1) for bind in change.binds}
    return Configuration(filters, bindings, interfaces)


def subprefix(prefix: str, length: int) -> st.SearchStrategy[str]:
    network = ipaddress.ip_network(prefix)
    return st.integers(0, 2 ** (length - network.prefixlen) - 1).map(
        lambda index: f"{network.network_address + index * 2 ** (network.max_prefixlen - length)}/{length}"
    )


POOLS = {
    "residential": {"ipv4": ["198.51.100.0/25"], "ipv6": ["2001:db8:100::/40"]},
    "fibre": {"ipv4": ["198.51.100.128/26", "203.0.113.64/26"], "ipv6": []},
    "business": {"ipv4": ["203.0.113.0/26"], "ipv6": ["2001:db8:300::/40"]},
}
EXCEPTIONS = st.one_of(
    subprefix("198.51.100.0/25", 32), subprefix("203.0.113.64/26", 30), subprefix("2001:db8:100::/40", 64)
)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    kinds = st.sampled_from(["dynamic", "static", "business"])
    return {
        "profile": draw(st.sampled_from(["standard", "strict"])),
        "pools": {name: {**pool, "kind": draw(kinds)} for name, pool in POOLS.items()},
        "smarthosts": draw(st.sampled_from([
            [{"name": "out1", "ipv4": ["192.0.2.25"], "ipv6": ["2001:db8:ffff::25"]}],
            [{"name": "out1", "ipv4": ["192.0.2.25"]}, {"name": "out2", "ipv6": ["2001:db8:ffff::26"]}],
        ])),
        "exceptions": [
            {"prefix": prefix, "owner": "Example", "reason": "test", "until": "2030-01-01",
             "controls": draw(st.lists(st.sampled_from(["P1", "P2", "P3", "P4", "P5"]), min_size=1, unique=True))}
            for prefix in draw(st.lists(EXCEPTIONS, max_size=3, unique=True))
        ],
        "controls": {
            name: {"enabled": draw(st.booleans()),
                   "pools": draw(st.lists(kinds, min_size=1, unique=True))}
            for name in draw(st.lists(st.sampled_from(["P1", "P2", "P3", "P4", "P5", "P6", "P7"]), unique=True))
        },
    }  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(policies(), st.lists(st.sampled_from(list(POOLS)), min_size=1, unique=True))
def test_rules_keep_every_obligation(data: dict[str, Any], pools: list[str]) -> None:
    policy, problems = read_policy(data, TODAY)
    assert policy, problems
    attachments, problems = read_attachments([{"name": "Virtual-Template1", "pools": pools}], policy)
    assert not problems
    findings = audit(configuration_of(compile_change(policy, attachments)), policy, attachments, "r1")
    assert [finding for finding in findings if finding.verdict != "compliant"] == []
    assert len(findings) > 10


def test_nothing_bound_violates_every_denial_and_no_permission() -> None:
    policy, _ = read_policy({"pools": {"residential": {**POOLS["residential"], "kind": "dynamic"}}}, TODAY)
    assert policy
    attachments, _ = read_attachments([{"name": "eth1", "pools": ["residential"]}], policy)
    findings = audit(Configuration({}, (), {"eth1": Interface("eth1", 7)}), policy, attachments, "r1")
    violated = {(finding.control, finding.direction, finding.family) for finding in findings if finding.packet}
    assert violated == {
        (control, direction, family)
        for family in (4, 6)
        for control, direction in [
            ("P1", "up"), ("P2", "down"), ("P3", "down"), ("P4", "up"), ("P4", "down"), ("P5", "up"), ("P5", "down"),
            ("P8", "up"),
        ]
    }  # fmt: skip
