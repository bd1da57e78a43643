# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""dns_audit: a zone per mistake, served by a real server on loopback, and SPF against an independent reading."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.findings import Finding
from ansible_collections.isp.hardening.plugins.module_utils.mail.dns import (
    BadSpf,
    Fetch,
    Mechanism,
    NoAnswer,
    Records,
    audit,
    check_host,
    permitted,
    read_spf,
    resolver,
)
from ansible_collections.isp.hardening.plugins.module_utils.mail.policy import MailHost
from ansible_collections.isp.hardening.plugins.modules import dns_audit
from tests.conftest import Run

INBOUND = [MailHost("mx1", "mx1.example.net", "192.0.2.10", "2001:db8:ffff::10")]
OUTBOUND = [MailHost("out1", "out1.example.net", "192.0.2.25", "2001:db8:ffff::25")]
PLAYBOOK = ("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
KEY = "A" * 392  # as long as an RSA key of 2048 bits


def pointer(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer


# What agrees with the policy. A test adds records, or takes some away.
ZONE = f"""
example.net MX 10 mx1.example.net.
mx1.example.net A 192.0.2.10
mx1.example.net AAAA 2001:db8:ffff::10
out1.example.net A 192.0.2.25
out1.example.net AAAA 2001:db8:ffff::25
{pointer("192.0.2.10")} PTR mx1.example.net.
{pointer("192.0.2.25")} PTR out1.example.net.
{pointer("2001:db8:ffff::10")} PTR mx1.example.net.
{pointer("2001:db8:ffff::25")} PTR out1.example.net.
example.net TXT "v=spf1 ip4:192.0.2.25 ip6:2001:db8:ffff::25 -all"
example.net TXT "something-else=1"
isp1._domainkey.example.net TXT "v=DKIM1; k=rsa; p={KEY[:200]}" "{KEY[200:]}"
_dmarc.example.net TXT "v=DMARC1; p=reject"
"""

Zone = dict[tuple[str, str], list[str]]


def zone_of(text: str) -> Zone:
    zone: Zone = {}
    for line in text.strip().splitlines():
        name, kind, value = line.split(maxsplit=2)
        zone.setdefault((name, kind), []).append(value)
    return zone


@contextmanager
def served(zone: Zone, *, silent: bool = False) -> Iterator[int]:
    """A DNS server on loopback with these records; the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                query, client = server.recvfrom(4096)
                if query == b"end":
                    return
                if not silent:
                    server.sendto(answered(zone, query), client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"end", server.getsockname())
            thread.join()


def answered(zone: Zone, query: bytes) -> bytes:
    asked = dns.message.from_wire(query)
    answer = dns.message.make_response(asked)
    answer.flags |= dns.flags.AA | dns.flags.RA
    question = asked.question[0]
    name = question.name
    kind = dns.rdatatype.to_text(question.rdtype)
    bare = name.to_text().rstrip(".").lower()
    if any(value == "SERVFAIL" for value in zone.get((bare, kind), [])):
        answer.set_rcode(dns.rcode.SERVFAIL)
        return answer.to_wire()
    if (bare, "CNAME") in zone:
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", *zone[bare, "CNAME"]))
        name = dns.name.from_text(zone[bare, "CNAME"][0])
        bare = name.to_text().rstrip(".")
    if (bare, kind) in zone:
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *zone[bare, kind]))
    elif not any(known == bare for known, _ in zone):
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer.to_wire()


def changed(*, without: str = "", plus: str = "") -> Zone:
    """The good zone without the lines that hold a text, and with others."""
    lines = [line for line in ZONE.strip().splitlines() if not (without and without in line)]
    assert not without or len(lines) < len(ZONE.strip().splitlines()), "nothing was taken away"
    return zone_of("\n".join([*lines, *plus.strip().splitlines()]))


def audited(zone: Zone, fetch: Fetch | None = None) -> list[Finding]:
    with served(zone) as port:
        return audit(["example.net"], INBOUND, OUTBOUND, "isp1", resolver("127.0.0.1", port, 3), fetch)


def found(findings: list[Finding], control: str, place: str = "example.net") -> Finding:
    (one,) = [one for one in findings if one.control == control and one.attachment == f"DNS {place}"]
    return one


def test_the_right_zone_is_compliant_everywhere() -> None:
    findings = audited(zone_of(ZONE))
    assert [(one.control, one.attachment, one.verdict) for one in findings] == [
        ("M1", "DNS example.net", "compliant"),
        ("M14", "DNS example.net", "compliant"),
        ("M14", "DNS mx1.example.net", "compliant"),
        ("M14", "DNS out1.example.net", "compliant"),
    ]
    assert all(one.evidence and not one.reason for one in findings)


SPF = "v=spf1"
OTHERS = """o.example.org TXT "v=spf1 mx:e.example.net"
e.example.net MX 1 f.example.org.
f.example.org A 203.0.113.7"""
INCLUDES = """v.example.org TXT "v=spf1 ip4:192.0.2.25 ip6:2001:db8:ffff::25 include:w.example.org -all"
w.example.org TXT "v=spf1 +all\""""
MISTAKES = [
    # what is wrong, taken away, added, control, place, words of the reason
    ("an outbound host is an MX", "", "example.net MX 20 out1.example.net.", "M1", "", "outbound host out1"),
    (
        "an MX name at an outbound address", "", "mx1.example.net A 192.0.2.25", "M1", "",
        "mx1.example.net is at the outbound address 192.0.2.25",
    ),
    (
        "an outbound address behind IPv6 only", "", "mx1.example.net AAAA 2001:db8:ffff::25", "M1", "",
        "outbound address 2001:db8:ffff::25",
    ),
    ("a strange MX", "", "example.net MX 20 mx.example.org.", "M14", "", "mx.example.org is no inbound host"),
    ("no MX", " MX ", "", "M14", "", "no MX records"),
    ("a null MX", " MX ", "example.net MX 0 .", "M14", "", "null MX"),
    (
        "an alias behind the MX", " MX ",
        "example.net MX 10 mx.example.net.\nmx.example.net CNAME mx1.example.net.", "M14", "",
        "mx.example.net is an alias of mx1.example.net",
    ),
    ("no PTR", pointer("192.0.2.10"), "", "M14", "mx1.example.net", "PTR of 192.0.2.10 is none"),
    (
        "a PTR to a pool name", pointer("192.0.2.25"), f"{pointer('192.0.2.25')} PTR host25.pool.example.net.", "M14",
        "out1.example.net", "PTR of 192.0.2.25 is host25.pool.example.net",
    ),
    ("no AAAA", "out1.example.net AAAA", "", "M14", "out1.example.net", "no AAAA record 2001:db8:ffff::25"),
    ("one address more", "", "out1.example.net A 192.0.2.26", "M14", "out1.example.net", "A record 192.0.2.26"),
    ("no SPF", SPF, "", "M14", "", "no SPF record"),
    ("two SPF", "", 'example.net TXT "v=spf1 -all"', "M14", "", "2 SPF records"),
    (
        "the MX in SPF", SPF, 'example.net TXT "v=spf1 mx ip4:192.0.2.25 ip6:2001:db8:ffff::25 -all"', "M1", "",
        "inbound address 192.0.2.10",
    ),
    ("the world in SPF", SPF, 'example.net TXT "v=spf1 +all"', "M1", "", "whole world"),
    (
        "too wide an SPF", SPF, 'example.net TXT "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:ffff::25 -all"', "M14", "",
        "192.0.2.0/24 pass by 'ip4:192.0.2.0/24'",
    ),
    (
        "no end", SPF, 'example.net TXT "v=spf1 ip4:192.0.2.25 ip6:2001:db8:ffff::25"', "M14", "",
        "neither -all nor ~all",
    ),
    (
        "a neutral end", SPF, 'example.net TXT "v=spf1 ip4:192.0.2.25 ip6:2001:db8:ffff::25 ?all"', "M14", "",
        "neither -all nor ~all",
    ),
    (
        "IPv6 forgotten in SPF", SPF, 'example.net TXT "v=spf1 ip4:192.0.2.25 -all"', "M14", "",
        "outbound address 2001:db8:ffff::25",
    ),
    (
        "denied before it is permitted", SPF,
        'example.net TXT "v=spf1 -ip4:192.0.2.25 ip4:192.0.2.25 ip6:2001:db8:ffff::25 -all"', "M14", "",
        "outbound address 192.0.2.25",
    ),
    ("SPF that nobody understands", SPF, 'example.net TXT "v=spf1 ipv4:192.0.2.25 -all"', "M14", "", "no mechanism"),
    ("a length that no prefix has", SPF, 'example.net TXT "v=spf1 mx/64 -all"', "M14", "", "'mx/64' has a length"),
    (
        "the world in SPF by include", SPF, 'example.net TXT "v=spf1 redirect=v.example.org"\n' + INCLUDES, "M14", "",
        "::/0 pass by 'include:w.example.org (all)'",
    ),
    ("SPF in a circle", SPF, 'example.net TXT "v=spf1 include:example.net -all"', "M14", "", "more than 10"),
    (
        "others in SPF by include", SPF,
        'example.net TXT "v=spf1 a:out1.example.net include:o.example.org ~all"\n' + OTHERS,
        "M14", "", "203.0.113.7/32 pass by 'include:o.example.org (mx:e.example.net)'",
    ),
    ("no DKIM key", "_domainkey", "", "M14", "", "no DKIM key record"),
    ("a revoked key", "_domainkey", 'isp1._domainkey.example.net TXT "v=DKIM1; p="', "M14", "", "revoked"),
    ("a short key", "_domainkey", f'isp1._domainkey.example.net TXT "p={KEY[:120]}"', "M14", "", "1024"),
    ("a broken key", "_domainkey", 'isp1._domainkey.example.net TXT "p=%%%"', "M14", "", "no base64"),
    ("a key on trial", "_domainkey", f'isp1._domainkey.example.net TXT "t=y; p={KEY[:248]}"', "M14", "", "t=y"),
    ("no DMARC", "_dmarc", "", "M14", "", "no DMARC record"),
    ("two DMARC", "", '_dmarc.example.net TXT "v=DMARC1; p=none"', "M14", "", "2 DMARC records"),
    ("DMARC without a policy", "_dmarc", '_dmarc.example.net TXT "v=DMARC1; rua=x"', "M14", "", "no policy"),
    ("MTA-STS without an id", "", '_mta-sts.example.net TXT "v=STSv1; id=a-b"', "M14", "", "no id"),
]  # fmt: skip


@pytest.mark.parametrize(("without", "plus", "control", "place", "reason"), [row[1:] for row in MISTAKES],
                         ids=[row[0] for row in MISTAKES])  # fmt: skip
def test_a_mistake_is_found_with_its_record(without: str, plus: str, control: str, place: str, reason: str) -> None:
    findings = audited(changed(without=without, plus=plus))
    one = found(findings, control, place or "example.net")
    assert one.verdict == "violated"
    assert reason in one.reason
    assert one.packet
    assert one.mend


@pytest.mark.parametrize(
    "spf",
    [
        "v=spf1 ip4:192.0.2.25 ip6:2001:db8:ffff::25 ~all",
        "V=SPF1 a:out1.example.net -ALL",
        "v=spf1 redirect=spf.example.net",
        "v=spf1 redirect=spf.example.net.",
        "v=spf1 include:spf.example.net -all ip4:192.0.2.0/24 ptr",
        "v=spf1 include:spf.example.net -all",
        "v=spf1 ip4:192.0.2.25/32 ip6:2001:db8:ffff::25/128 exp=why.example.net -all",
    ],
)
def test_spf_in_other_words_is_compliant(spf: str) -> None:
    more = f'example.net TXT "{spf}"\nspf.example.net TXT "v=spf1 a:out1.example.net -all"'
    findings = audited(changed(without=SPF, plus=more))
    assert [one.verdict for one in findings] == ["compliant"] * 4, [one.reason for one in findings]


def test_the_same_records_in_another_order_are_the_same_report() -> None:
    more = [f"example.net MX 10 mx{number}.example.org." for number in range(5)]
    more += [f"out1.example.net A 203.0.113.{number}" for number in range(5)]
    first = audited(changed(plus="\n".join(more)))
    second = audited(changed(plus="\n".join(reversed(more))))
    assert first == second
    reason = found(first, "M14", "out1.example.net").reason
    assert re.findall(r"203\.0\.113\.(\d)", reason) == list("01234")


def test_a_second_pointer_is_no_contradiction() -> None:
    findings = audited(changed(plus=f"{pointer('192.0.2.10')} PTR mail.example.net."))
    assert {one.verdict for one in findings} == {"compliant"}


@pytest.mark.parametrize(
    "terms",
    [
        "exists:%{i}.spf.example.net",
        "ip4:192.0.2.25 ip6:2001:db8:ffff::25 ptr",
        "ip4:192.0.2.25 ip6:2001:db8:ffff::25 include:i.example.net",
    ],
)
def test_what_depends_on_the_message_is_unknown(terms: str) -> None:
    more = f'example.net TXT "v=spf1 {terms} -all"\ni.example.net TXT "v=spf1 exists:x.example.net -all"'
    findings = audited(changed(without=SPF, plus=more))
    assert [found(findings, control).verdict for control in ("M1", "M14")] == ["unknown"] * 2


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ("", True),
        ('_dmarc.example.net TXT "v=DMARC1; p=reject"', False),
        ('_dmarc.net TXT "v=DMARC1; p=reject"', True),
    ],
)
def test_a_domain_inherits_dmarc_of_its_organisation(more: str, missing: bool) -> None:
    with served(zone_of(f"example.net A 192.0.2.1\n{more}")) as port:
        ask = resolver("127.0.0.1", port, 3)
        one = found(audit(["a.sub.example.net"], [], [], "isp1", ask), "M14", "a.sub.example.net")
    assert ("_dmarc.a.sub.example.net: no DMARC record" in one.reason) == missing


def test_a_server_failure_is_unknown_and_not_an_absent_record() -> None:
    one = found(audited(changed(without=" MX ", plus="example.net MX SERVFAIL")), "M14")
    assert (one.verdict, "example.net MX" in one.reason) == ("unknown", True)


def test_a_silent_server_is_unknown_within_its_time() -> None:
    with served({}, silent=True) as port:
        findings = audit(["example.net"], INBOUND, OUTBOUND, "isp1", resolver("127.0.0.1", port, 0.3))
    assert {one.verdict for one in findings} == {"unknown"}
    assert "no answer within 0.3 s" in findings[0].reason


STS = '_mta-sts.example.net TXT "v=STSv1; id=20260101"'


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        ("version: STSv1\nmode: enforce\nmx: mx1.example.net\nmax_age: 86400\n", "compliant"),
        ("version: STSv1\r\nmode: enforce\r\nmx: *.example.net\r\nmax_age: 86400\r\n", "compliant"),
        ("version: STSv1\nmode: enforce\nmx: old.example.net\nmax_age: 86400\n", "violated"),
        ("version: STSv1\nmode: enforce\nmx: mx1.example.net\n", "violated"),
        ("<html>not found</html>", "violated"),
        (None, "unknown"),
    ],
)
def test_the_policy_file_is_held_against_the_inbound_hosts(policy: str | None, verdict: str) -> None:
    def fetch(url: str) -> str:
        assert url == "https://mta-sts.example.net/.well-known/mta-sts.txt"
        if policy is None:
            raise NoAnswer("refused")
        return policy

    assert found(audited(changed(plus=STS), fetch), "M14").verdict == verdict


@pytest.mark.parametrize("error", [http.client.BadStatusLine("?"), http.client.IncompleteRead(b""), OSError("no TLS")])
def test_a_web_server_that_speaks_no_http_is_no_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_url(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dns_audit, "open_url", open_url)
    with pytest.raises(NoAnswer, match=r"https://mta-sts\.example\.net/: "):
        dns_audit.policy_file("https://mta-sts.example.net/", 1)


def test_a_system_without_a_dns_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_resolv_conf(*_: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", read_resolv_conf)
    with pytest.raises(NoAnswer, match="names no DNS server"):
        resolver(None, 53, 1)


def test_the_policy_file_is_read_only_when_asked() -> None:
    assert found(audited(changed(plus=STS)), "M14").verdict == "compliant"


def test_a_dead_server_is_not_asked_for_every_domain() -> None:
    domains = [f"d{number}.example.net" for number in range(200)]
    began = time.monotonic()
    with served({}, silent=True) as port:
        findings = audit(domains, INBOUND, OUTBOUND, "isp1", resolver("127.0.0.1", port, 0.2))
    assert {one.verdict for one in findings} == {"unknown"}
    assert time.monotonic() - began < 5


# -- SPF against an independent reading --------------------------------------------------------------------------

SMALL = [ipaddress.ip_address(f"192.0.2.{number}") for number in range(16)]
TERMS = st.lists(
    st.tuples(st.sampled_from("+-~?"), st.integers(28, 32), st.sampled_from(SMALL)), min_size=0, max_size=6
)


@given(TERMS, TERMS, st.sampled_from("+-~?"))
def test_spf_permits_what_the_words_say(outer: list, inner: list, end: str) -> None:  # type: ignore[type-arg]
    def text(terms: list) -> str:  # type: ignore[type-arg]
        return " ".join(f"{sign}ip4:{ip}/{length}" for sign, length, ip in terms)

    zone = {
        "example.net": f"v=spf1 include:i.example.net {text(outer)} {end}all",
        "i.example.net": f"v=spf1 {text(inner)}",
    }
    _, mechanisms = read_spf("example.net", lambda name, _: Records(name, (zone[name],)))

    def naive(terms: list, ip: ipaddress.IPv4Address) -> str:  # type: ignore[type-arg]
        for sign, length, base in terms:
            if int(ip) >> (32 - length) == int(base) >> (32 - length):
                return str(sign)
        return ""

    for ip in SMALL:
        expected = "+" if naive(inner, ip) == "+" else naive(outer, ip) or end
        assert check_host(mechanisms, ip) == expected
        if expected == "+":
            assert any(ip in network for _, network in permitted(mechanisms)), "a permitted address is never forgotten"


@given(st.text(max_size=80))
def test_no_record_breaks_the_reading(text: str) -> None:
    def ask(name: str, kind: str) -> Records:
        return Records(name, (f"v=spf1 {text}",) if kind == "TXT" else ())

    try:
        _, mechanisms = read_spf("example.net", ask)
    except BadSpf:
        return
    assert all(isinstance(one, Mechanism) for one in mechanisms)


# -- the module --------------------------------------------------------------------------------------------------


def play(port: int, path: Path) -> Path:
    """A playbook that audits with the server on this port and shows what is not compliant."""
    hosts = {"inbound": INBOUND, "outbound": OUTBOUND}
    options = {side: [{"host": one.host, "name": one.name, "ipv4": one.ipv4, "ipv6": one.ipv6} for one in these]
               for side, these in hosts.items()}  # fmt: skip
    options |= {"domains": ["example.net"], "dkim_selector": "isp1", "resolver": "127.0.0.1", "port": port}
    wrong = "{{ audit.findings | rejectattr('verdict', 'eq', 'compliant') | map(attribute='control') | join(' ') }}"
    tasks = [
        {"isp.hardening.dns_audit": options, "register": "audit"},
        {"ansible.builtin.debug": {"msg": f"not compliant: {wrong}."}},
    ]
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return path


def test_the_module_asks_the_given_server(run: Run, tmp_path: Path) -> None:
    with served(changed(plus="example.net MX 20 out1.example.net.")) as port:
        answer = run(*PLAYBOOK, str(play(port, tmp_path / "play.yml")))
    assert answer.returncode == 0, answer.stdout
    assert "not compliant: M1." in answer.stdout


def test_without_dnspython_the_module_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dns.py").write_text("raise ImportError('no dnspython here')\n")
    answer = run(*PLAYBOOK, str(play(53, tmp_path / "play.yml")), env={"PYTHONPATH": str(tmp_path)})
    assert answer.returncode == 2
    assert "Failed to import the required Python library (dnspython)" in answer.stdout
