# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The mail part of the policy: what it reads as, and what it never tells. Its mistakes are in tests/errors/mail-*."""

from __future__ import annotations

import copy
import datetime
import string
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.filter.mail_host import read
from ansible_collections.isp.hardening.plugins.module_utils.inventory_check import HostVariables, check_inventory
from ansible_collections.isp.hardening.plugins.module_utils.mail.policy import (
    KEYS,
    MailHost,
    MailPolicy,
    mail_host,
    read_mail,
)
from ansible_collections.isp.hardening.plugins.module_utils.policy import Policy, read_policy
from ansible_collections.isp.hardening.plugins.module_utils.policy_files import Files

POLICY: dict[str, Any] = {
    "pools": {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"], "ipv6": ["2001:db8:100::/40"]}},
    "smarthosts": [{"name": "out1", "ipv4": ["192.0.2.25"], "ipv6": ["2001:db8:ffff::25"]}],
}
MAIL: dict[str, Any] = {
    "domains": ["Example.NET.", "example.org"],
    "postmaster": "Post.Master@example.net",
    "inbound": [{"host": "mx1", "name": "mx1.example.net", "ipv4": "192.0.2.10", "ipv6": "2001:DB8:ffff:0::10"}],
    "outbound": [{"host": "out1", "name": "out1.example.net", "ipv4": "192.0.2.25", "ipv6": "2001:db8:ffff::25"}],
    "mailbox_store": {"host": "[192.0.2.40]"},
    "dkim": {"selector": "isp1", "key_file": "/home/mail/isp1.key"},
    "tls": {"certificate": "/etc/ssl/mail/chain.pem", "key": "/etc/ssl/mail/key.pem"},
}
KEY = "abcdefghijklmnopqrstuvwxyz"


def policy() -> Policy:
    found, problems = read_policy(POLICY, datetime.date(2026, 11, 23))
    assert found, problems
    return found


def mail(**changes: object) -> MailPolicy:
    found, problems = read_mail(MAIL | changes, policy())
    assert found, problems
    return found


def test_names_and_addresses_are_canonical_and_the_rest_has_defaults() -> None:
    found = mail()
    assert found.domains == ("example.net", "example.org")
    assert found.postmaster == "Post.Master@example.net"
    assert found.inbound == (MailHost("mx1", "mx1.example.net", "192.0.2.10", "2001:db8:ffff::10"),)
    assert found.inbound[0].addresses == ("192.0.2.10", "2001:db8:ffff::10")
    assert (found.store_host, found.store_port) == ("[192.0.2.40]", 24)
    assert found.message_size_limit == found.scanner_size_limit == 26_214_400
    assert (found.per_user_hour, found.per_user_burst, found.recipients_per_message) == (100, 20, 100)
    assert (found.dnsbl_query_zone, found.port_25_from_pool) == ("zen.spamhaus.org", False)


@pytest.mark.parametrize(
    ("dnsbl", "asked"),
    [
        ({}, "zen.spamhaus.org"),
        ({"key": KEY}, f"{KEY}.zen.dq.spamhaus.net"),
        ({"zone": "zen.dnsbl.example"}, "zen.dnsbl.example"),
        ({"zone": "zen.dnsbl.example", "key": KEY.upper()}, f"{KEY}.zen.dnsbl.example"),
    ],
)
def test_a_key_stands_before_the_zone(dnsbl: dict[str, str], asked: str) -> None:
    found = mail(dnsbl=dnsbl)
    assert found.dnsbl_query_zone == asked
    assert KEY not in repr(found)


@pytest.mark.parametrize("host", ["[192.0.2.40]", "[2001:db8::40]", "[store.example.net]", "store.example.net"])
def test_the_store_is_a_next_hop_as_postfix_writes_it(host: str) -> None:
    assert mail(mailbox_store={"host": host, "port": 2424}).store_host == host


@given(st.text(string.ascii_letters + string.digits + "-_.$ ", min_size=3).filter(lambda text: len(text.strip()) != 26))
def test_a_bad_key_is_never_echoed(key: str) -> None:
    secret = f"Q{key}Q"  # no word of ours has both
    for dnsbl in ({"key": secret}, {"zone": f"{secret}.zen.dq.spamhaus.net"}):
        found, problems = read_mail(MAIL | {"dnsbl": dnsbl}, policy())
        if found is None:
            assert secret not in repr(problems)
        else:
            assert len(secret) == 26


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = [(key,) for key in MAIL] + [("inbound", 0, key) for key in KEYS["host"]]
PLACES += [
    (section, key) for section in ("mailbox_store", "dnsbl", "dkim", "tls", "rates", "probe") for key in KEYS[section]
]


@given(JUNK, st.sampled_from(PLACES))
def test_nothing_that_a_place_can_hold_raises(junk: object, place: tuple[str | int, ...]) -> None:
    data = copy.deepcopy(MAIL)
    for section in ("dnsbl", "rates", "probe"):
        data[section] = {}
    inner: Any = data
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = junk
    found, problems = read_mail(data, policy())
    assert (found is None) == bool(problems)
    assert all(
        problem.path[0] in ("isp_mail", "isp_policy") and problem.reason and problem.mend for problem in problems
    )
    read_mail(junk, policy())


def test_an_inventory_of_mail_hosts_alone_is_good() -> None:
    values = {"isp_policy": POLICY, "isp_mail": MAIL}
    hosts = [HostVariables("mx1", ("mx",), values), HostVariables("out1", ("outbound",), values)]
    verdict = check_inventory(hosts, Files((), (), ()), datetime.date(2026, 11, 23))
    assert (verdict.mistakes, verdict.warnings) == ((), ())
    assert verdict.mail_hosts == ("mx1", "out1")


def test_a_mail_host_without_the_mail_policy_is_a_mistake_only_where_there_is_one() -> None:
    values = {"isp_policy": POLICY, "isp_mail": MAIL}
    router = {"isp_policy": POLICY, "isp_attachments": [], "ansible_network_os": "cisco_ios"}
    hosts = [HostVariables("r1", (), router), HostVariables("mx1", ("mx",), {"isp_policy": POLICY})]
    assert check_inventory(hosts, Files((), (), ()), datetime.date(2026, 11, 23)).mistakes == ()
    hosts.append(HostVariables("out1", ("outbound",), values))
    (mistake,) = check_inventory(hosts, Files((), (), ()), datetime.date(2026, 11, 23)).mistakes
    assert str(mistake).startswith("host mx1: isp_mail: is not set for host 'mx1' of group 'mx'; set isp_mail")


def test_a_host_gets_the_policy_flat_and_what_it_is() -> None:
    found = mail_host(mail(dnsbl={"key": KEY}), policy(), "out1")
    assert (found["side"], found["name"], found["addresses"]) == (
        "outbound",
        "out1.example.net",
        ["192.0.2.25", "2001:db8:ffff::25"],
    )
    assert found["relays"] == found["inbound"][0]["addresses"] == ["192.0.2.10", "2001:db8:ffff::10"]
    assert found["pools"] == {"homes": ["198.51.100.0/24", "2001:db8:100::/40"]}
    assert found["dnsbl_asked"] == "dnsbl.internal"
    assert found["dnsbl_query_zone"] == f"{KEY}.zen.dq.spamhaus.net"
    assert (found["message_size_limit"], found["probe_hosts"]) == (26_214_400, ("localhost",))
    assert mail_host(mail(), policy(), "mx1")["side"] == "inbound"


def test_the_filter_names_the_first_mistake_and_a_host_that_is_none() -> None:
    with pytest.raises(AnsibleFilterError, match=r"isp_mail\.postmaster: 'nobody' is no mail address; write it as"):
        read(MAIL | {"postmaster": "nobody"}, POLICY, "mx1")
    with pytest.raises(AnsibleFilterError, match="host 'mx9' is no mail host of isp_mail; list it"):
        read(MAIL, POLICY, "mx9")
    assert read(MAIL, POLICY, "mx1")["host"] == "mx1"
