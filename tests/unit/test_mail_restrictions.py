"""What holds for whatever restriction lists: nothing raises, and a refusal that stands first is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.mail.audit import Reading, audit
from ansible_collections.isp.hardening.plugins.module_utils.mail.postfix import Parameters, Postfix, Service, expand
from ansible_collections.isp.hardening.plugins.module_utils.mail.restrictions import (
    Client,
    Envelope,
    answer,
    code_matches,
)
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables
from tests.unit.mail_hosts import MAIL, postfix_of
from tests.unit.test_mail_audit import expected

BASE = dict(postfix_of(MAIL / "inbound").parameters)
LISTS = [f"smtpd_{kind}_restrictions" for kind in ("client", "helo", "sender", "relay", "recipient", "data")]
RULES = st.sampled_from(
    "permit reject defer permit_mynetworks permit_sasl_authenticated permit_auth_destination warn_if_reject "
    "reject_unauth_destination defer_unauth_destination permit_mx_backup defer_if_permit defer_if_reject sleep 1 "
    "check_client_access check_sender_access static:OK static:REJECT static:inside inline:{<>=OK} texthash:/nowhere "
    "inside { } , check_policy_service unix:x reject_rbl_client zen.example.org=127.0.0.[2.. reject_unlisted_sender "
    "reject_non_fqdn_recipient permit_inet_interfaces nonsense $mynetworks".split()
)
VALUES = st.lists(RULES, max_size=8).map(" ".join)
STRANGER = Client("the world", "203.0.113.77")


def settle(table: str) -> str:
    return {"static:OK": "OK", "static:REJECT": "REJECT", "static:inside": "inside"}.get(table, "")


def ask(parameters: Parameters, envelope: Envelope) -> int:
    """The code, with the tables of RULES answered."""
    tables = Tables()
    while True:
        code = answer(parameters, tables, envelope).code
        lacking, files = tables.take()
        if not lacking and not files:
            return code
        tables.answers.update({(table, key): settle(table) for table, key in lacking})
        tables.files.update(dict.fromkeys(files, ""))


@given(st.fixed_dictionaries(dict.fromkeys(LISTS, VALUES)), st.text(max_size=40), st.text(max_size=40))
def test_no_configuration_and_no_address_raises(values: dict[str, str], sender: str, recipient: str) -> None:
    parameters = Parameters({**BASE, **values, "smtpd_restriction_classes": "inside", "inside": "permit inside"})
    assert ask(parameters, Envelope(STRANGER, sender, recipient)) in range(200, 600)


@given(st.fixed_dictionaries(dict.fromkeys(LISTS, VALUES)))
def test_who_refuses_first_relays_for_nobody(values: dict[str, str]) -> None:
    values["smtpd_relay_restrictions"] = f"reject_unauth_destination {values['smtpd_relay_restrictions']}"
    parameters = Parameters({**BASE, **values, "smtpd_restriction_classes": "inside", "inside": "permit"})
    assert ask(parameters, Envelope(STRANGER, "", "far@example.com")) != 250


@given(st.fixed_dictionaries(dict.fromkeys(LISTS, VALUES)), st.text(alphabet="[]0.9;2*=a.", max_size=20))
def test_any_configuration_can_be_audited(values: dict[str, str], sites: str) -> None:
    raw = {**BASE, **values, "postscreen_dnsbl_sites": f"zen.example.org={sites}", "mynetworks": sites}
    services = (Service("smtp", "inet", "postscreen", True), Service("smtpd", "pass", "smtpd", True))
    found = audit(Reading(Postfix(raw, services), Tables()), expected("inbound"))
    assert {"M1", "M2", "M3", "M5", "M12", "M13"} <= {one.control for one in found}


@given(st.text(alphabet="${}()?:=<>!abx {} ", max_size=60))
def test_any_value_expands(value: str) -> None:
    assert len(expand(value, {"a": value, "b": "$a$b", "x": "1"}, depth=15)) >= 0


@pytest.mark.parametrize(
    ("wanted", "code", "hit"),
    [
        ("", "127.255.255.254", True),
        ("127.0.0.[2..11]", "127.0.0.4", True),
        ("127.0.0.[2..11]", "127.255.255.254", False),
        ("127.0.0.[2..11]", "127.0.0.30", False),
        ("127.0.0.[2..11;30]", "127.0.0.30", True),
        ("127.0.[0..255].[1..3]", "127.0.9.2", True),
        ("127.0.0.4", "127.0.0.4", True),
        ("127.0.0", "127.0.0.4", False),
    ],
)
def test_answers_of_a_dnsbl_are_filtered(wanted: str, code: str, hit: bool) -> None:
    assert code_matches(wanted, code) is hit
