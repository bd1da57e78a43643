# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""smtp_probe against a real Postfix on loopback: the right MX, and the mutants that it must tell from it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.mail.dialogue import Limits
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.report import findings
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.schedule import probe
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.settings import Settings
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.visit import Result
from tests.conftest import Run
from tests.unit.postfix import INBOUND, postfix

TARGET = "relay-test@lab.example.org"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Key and certificate of mx1.example.net, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mx1.example.net"]
    made = subprocess.run([*command, "-keyout", "-", "-out", "-"], capture_output=True, check=True)
    path.write_bytes(made.stdout)
    return str(path)


def probed(port: int, *tests: str, **changes: object) -> list[Result]:
    fixed: dict[str, object] = {
        "role": "inbound",
        "name": "mx1.example.net",
        "addresses": ("127.0.0.1",),
        "ports": (("smtp", port),),
        "domains": ("example.net",),
        "tests": tests,
        "ehlo": "probe.example.org",
        "target": TARGET,
        "recipients": ("postmaster@example.net", "abuse@example.net"),
        "stranger": TARGET,
        "client_name": "h7.pool.example.net",
        "limits": Limits(10, 20, 20, 60),
        "time_limit": 120,
        "pause": 1.0,
    }
    return probe(Settings(**(fixed | changes)))  # type: ignore[arg-type]


def verdicts(results: list[Result]) -> dict[str, str]:
    return {finding.control: finding.verdict for finding in findings(results, "mx1")}


ALL = ("early_talker", "recipients", "relay", "sobig", "commands", "pipelining", "auth", "tls", "smuggling")


@pytest.mark.parametrize("postscreen", [False, True], ids=["smtpd", "postscreen"])
def test_the_right_mx_is_compliant(postscreen: bool, certificate: str) -> None:
    more = {
        "smtpd_tls_chain_files": certificate,
        "postscreen_greet_action": "enforce",
        "smtpd_client_connection_count_limit": "20",
    }
    with postfix(INBOUND | more, postscreen=postscreen) as port:
        results = probed(port, *ALL, "connections")
        again = probed(port, "early_talker") if postscreen else []
    assert {(result.case, result.reason) for result in results if result.verdict != "compliant"} == set()
    assert verdicts(results) == dict.fromkeys(["M2", "M8", "M10", "M12", "M13"], "compliant")
    # postscreen remembers who has passed: what it does to a stranger cannot be seen any more.
    assert [result.verdict for result in again] == (["unknown"] if postscreen else [])


def test_the_deep_tests_of_postscreen_are_passed_by_coming_again() -> None:
    deep = {"postscreen_pipelining_enable": "yes", "postscreen_non_smtp_command_enable": "yes"}
    with postfix(INBOUND | deep, postscreen=True) as port:
        results = probed(port, "recipients", "relay")
    assert {(result.case, result.reason) for result in results if result.verdict != "compliant"} == set()


RELAYS = {
    "the pool in mynetworks": {
        "mynetworks": "127.0.0.0/8", "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    },
    "sender domain": {
        "smtpd_relay_restrictions": "check_sender_access inline:{{example.net=OK}}, reject_unauth_destination",
    },
    "null sender": {
        "smtpd_relay_restrictions": "check_sender_access inline:{{<>=OK}}, reject_unauth_destination",
    },
    "HELO name": {
        "smtpd_relay_restrictions": "check_helo_access inline:{{probe.example.org=OK}}, reject_unauth_destination",
    },
    "too many relay_domains": {"relay_domains": "example.net, example.org", "relay_recipient_maps": "",
                               "parent_domain_matches_subdomains": "relay_domains"},
    "subdomains of the own domain": {"relay_recipient_maps": "", "parent_domain_matches_subdomains": "relay_domains"},
    "open": {"mynetworks": "0.0.0.0/0", "smtpd_relay_restrictions": "permit_mynetworks, reject"},
}  # fmt: skip


@pytest.mark.parametrize("mutant", RELAYS)
def test_a_relay_is_found_with_sender_and_recipient(mutant: str) -> None:
    with postfix(INBOUND | RELAYS[mutant] | {"in_flow_delay": "0"}) as port:
        (finding,) = findings(probed(port, "relay"), "mx1")
    assert (finding.control, finding.verdict) == ("M2", "violated")
    assert "client 127.0.0.1, MAIL FROM:<" in finding.packet
    assert ": 250 " in finding.packet
    assert [line.text for line in finding.evidence if line.text.startswith("C: RCPT TO:<")]


def test_the_percent_hack_is_found_where_it_is_on() -> None:
    """Postfix undoes the hack before it looks at the domain; only a server that trusts the client relays it."""
    trust = {
        "smtpd_relay_restrictions": "check_recipient_access inline:{{lab.example.org=OK}}, reject_unauth_destination"
    }
    with postfix(INBOUND | trust | {"in_flow_delay": "0"}) as port:
        results = probed(port, "relay")
    cases = {result.case.split(",")[0] for result in results if result.verdict == "violated"}
    assert "percent at the literal" in cases or "source route over two" in cases
    assert "plain" in cases


def test_a_deferral_is_not_taken_for_a_refusal() -> None:
    with postfix(INBOUND | {"smtpd_relay_restrictions": "defer_unauth_destination"}) as port:
        (finding,) = findings(probed(port, "relay"), "mx1")
    assert (finding.verdict, "deferred, not refused" in finding.reason) == ("unknown", True)


def test_what_only_the_configuration_shows_is_not_found() -> None:
    with postfix(INBOUND | {"allow_untrusted_routing": "yes"}) as port:
        assert verdicts(probed(port, "relay")) == {"M2": "compliant"}


OTHERS: dict[str, tuple[Mapping[str, str], tuple[str, ...], str, str]] = {
    "VRFY": ({"disable_vrfy_command": "no"}, ("commands",), "M13", "VRFY is answered"),
    "ETRN": ({"smtpd_etrn_restrictions": ""}, ("commands",), "M13", "ETRN is answered"),
    "pipelining": ({"smtpd_forbid_unauth_pipelining": "no"}, ("pipelining",), "M13", "before their time"),
    "smuggling": ({"smtpd_forbid_bare_newline": "no"}, ("smuggling",), "M13", "<LF>.<CR><LF> ends a message"),
    "no postmaster": (
        {"relay_recipient_maps": "inline:{ abuse@example.net=ok }"}, ("recipients",), "M12", "postmaster@example.net",
    ),
    "no connection limit": ({"smtpd_client_connection_count_limit": "0"}, ("connections",), "M10", "21 connections"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", OTHERS)
def test_every_other_mutant_is_found(mutant: str, certificate: str) -> None:
    settings, tests, control, words = OTHERS[mutant]
    with postfix(INBOUND | {"smtpd_tls_chain_files": certificate} | settings) as port:
        (finding,) = findings(probed(port, *tests), "mx1")
    assert (finding.control, finding.verdict) == (control, "violated")
    assert words in finding.reason


def test_the_module_probes_from_any_host(run: Run, tmp_path: Path, certificate: str) -> None:
    with postfix(INBOUND | {"smtpd_tls_chain_files": certificate, "disable_vrfy_command": "no"}) as port:
        options = {
            "addresses": ["127.0.0.1"], "name": "mx1.example.net", "host": "mx1", "role": "inbound",
            "domains": ["example.net"],
            "target": TARGET, "ehlo": "probe.example.org", "services": [{"service": "smtp", "port": port}],
        }  # fmt: skip
        shown = "{{ probe.findings | rejectattr('verdict', 'eq', 'compliant') | map(attribute='control') | join(' ') }}"
        host = "{{ probe.findings[0].host }}"
        tasks = [
            {"isp.hardening.smtp_probe": options, "register": "probe"},
            {
                "ansible.builtin.debug": {
                    "msg": f"{{{{ probe.tests | length }}}} cases, not compliant: {shown} of {host}."
                }
            },
        ]
        (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        python = f"ansible_python_interpreter={sys.executable}"
        answer = run("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", python, str(tmp_path / "play.yml"))
    assert answer.returncode == 0, answer.stdout
    assert "269 cases, not compliant: M13 of mx1." in answer.stdout
