# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""isp_signals: what it reads as beside the other variables. Its mistakes are in tests/errors/signals-*."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.isp.hardening.plugins.filter.signals_host import read
from ansible_collections.isp.hardening.plugins.module_utils.policy import read_policy
from ansible_collections.isp.hardening.plugins.module_utils.signals.policy import ROOT_SERVERS, read_signals

POLICY: dict[str, Any] = {
    "pools": {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"], "ipv6": ["2001:db8:100::/40"]}},
    "smarthosts": [{"name": "out1", "ipv4": ["192.0.2.25"], "ipv6": ["2001:db8:ffff::25"]}],
    "exceptions": [
        {"prefix": "198.51.100.7/32", "owner": "Example GmbH", "reason": "own MX", "until": "2999-12-31"},
        {"prefix": "198.51.100.9/32", "owner": "Example Club", "reason": "own MX", "until": "2020-12-31"},
    ],
}
SIGNALS: dict[str, Any] = {
    "subscribers": 20_000,
    "never": [{"prefix": "2001:DB8:ffff::/48", "reason": "servers"}],
    "cgn": ["203.0.113.128/26"],
    "watched": ["203.0.113.0/26"],
}


def protected(**changes: object) -> dict[str, str]:
    return {one["prefix"]: one["reason"] for one in read(SIGNALS | changes, POLICY)["never"]}


def test_who_is_never_touched_is_what_is_listed_and_what_the_policy_says_by_itself() -> None:
    never = protected()
    assert never["2001:db8:ffff::/48"] == "servers"
    assert never["203.0.113.128/26"] == "CGN: many subscribers"
    assert never["192.0.2.25/32"] == never["2001:db8:ffff::25/128"] == "own mail server"
    assert never["198.51.100.7/32"] == "exempt until 2999-12-31: Example GmbH"
    assert "198.51.100.9/32" not in never  # its exception has expired
    with_portal = protected(portal={"ipv6": "2001:db8:f::80"}, resolvers=["203.0.113.53"])
    assert with_portal["2001:db8:f::80/128"] == "portal of the quarantine"
    assert with_portal["203.0.113.53/32"] == "own resolver"
    assert {f"{address}/{128 if ':' in address else 32}" for address in ROOT_SERVERS} <= never.keys()


def test_all_own_prefixes_are_watched() -> None:
    watched = read(SIGNALS, POLICY)["watched"]
    servers = ["192.0.2.25/32", "2001:db8:ffff::25/128"]
    assert watched == ["198.51.100.0/24", "2001:db8:100::/40", *servers, "203.0.113.0/26"]


@pytest.mark.parametrize(("subscribers", "limit"), [(1_000, 1), (1_999, 1), (20_000, 20), (1_000_000, 100)])
def test_the_limit_is_a_thousandth_of_the_subscribers_and_a_hundred_at_most(subscribers: int, limit: int) -> None:
    assert read(SIGNALS | {"subscribers": subscribers}, POLICY)["limit"] == limit


def test_nothing_is_done_unless_the_policy_says_so() -> None:
    assert read(SIGNALS, POLICY)["dry_run"] is True


def test_the_first_mistake_of_any_of_the_variables_is_told() -> None:
    with pytest.raises(AnsibleFilterError, match=r"isp_signals\.never: is empty"):
        read(SIGNALS | {"never": []}, POLICY)
    with pytest.raises(AnsibleFilterError, match=r"isp_policy\.pools"):
        read(SIGNALS, POLICY | {"pools": {}})
    with pytest.raises(AnsibleFilterError, match=r"isp_mail: is a list"):
        read(SIGNALS, POLICY, [])


def test_a_password_is_in_no_message_and_no_repr() -> None:
    secret = "postgresql://signals:hunter2@db.example.net/signals"
    policy, _ = read_policy(POLICY, datetime.date(2026, 11, 26))
    found, problems = read_signals(SIGNALS | {"state": secret}, policy, None)
    assert found
    assert found.state == secret
    assert "hunter2" not in repr(found)
    _, problems = read_signals(SIGNALS | {"state": secret.replace("postgresql", "mysql")}, policy, None)
    assert problems
    assert "hunter2" not in str(problems)
