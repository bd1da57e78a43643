# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One mutant of tests/mail/mutants.yml on a real Postfix, read by mta_audit and asked by smtp_probe.

Runs in a network namespace that has every address on its loopback (test_mail_agreement.py makes it): the mail host,
a blocklist on 127.0.0.1 port 53, the world and the pool. A row comes in by standard input, the verdicts go out by
standard output. The outbound host has no milter here, so that what scans stays out of it.
"""

from __future__ import annotations

import base64
import json
import re
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rrset

from ansible_collections.isp.hardening.plugins.module_utils.findings import Finding
from ansible_collections.isp.hardening.plugins.module_utils.mail.dialogue import Limits
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.report import findings
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.schedule import probe
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.settings import Settings, User
from ansible_collections.isp.hardening.plugins.modules import mta_audit
from tests.unit.mail_hosts import MAIL
from tests.unit.postfix import SUPPORT, running
from tests.unit.test_mail_audit import KEY, expected

HOSTS = {"inbound": ("mx1.example.net", "192.0.2.10"), "outbound": ("out1.example.net", "192.0.2.25")}
# What the blocklist says of an address; others are not listed.
WORLD, LISTED, ERROR, POOL = "203.0.113.77", "203.0.113.78", "203.0.113.79", "198.51.100.7"
CODES = {LISTED: "127.0.0.4", ERROR: "127.255.255.254", "127.0.0.2": "127.0.0.2"}
NAMES = {WORLD: "host7.example.net", POOL: "198-51-100-7.pool.example.net"}
USER = User("user@example.net", "secret", "user@example.net")
TARGET = "relay-test@example.org"
# What differs from a host on the wire: a pause is no longer than the blocklist needs on a busy machine, for postscreen
# decides at its end by what has been answered until then. Nothing leaves the namespace.
HERE = """\
inet_interfaces = all
inet_protocols = ipv4
maillog_file_prefixes = /
alias_maps =
in_flow_delay = 0
postscreen_greet_wait = 3s
smtpd_milters =
non_smtpd_milters =
smtpd_sasl_path = inet:127.0.0.1:12345
smtpd_sasl_type = dovecot
smtpd_tls_security_level = may
"""
# What to ask about a control, and from where.
QUESTIONS: dict[str, tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]] = {
    # First: postscreen knows who has passed, and lets them talk early.
    "M13": ((WORLD, ("early_talker", "commands", "pipelining", "smuggling"), {}),),
    "M1": ((WORLD, ("recipients",), {}),),
    "M2": ((WORLD, ("relay", "sobig"), {}), (POOL, ("relay", "sobig"), {})),
    "M3": ((ERROR, ("recipients",), {"listed": False}), (LISTED, ("recipients",), {"listed": True})),
    "M5": ((LISTED, ("recipients",), {"listed": True}),),
    "M8": ((WORLD, ("auth", "tls"), {}),),
    "M9": ((WORLD, ("sender",), {}),),
    "M12": ((WORLD, ("recipients",), {}),),
}


class Blocklist(socketserver.BaseRequestHandler):
    """A DNS server for the one zone."""

    def handle(self) -> None:
        octets, answerer = self.request
        query = dns.message.from_wire(octets)
        answer = dns.message.make_response(query)
        name = query.question[0].name.to_text().lower()
        found = re.fullmatch(rf"(\d+)\.(\d+)\.(\d+)\.(\d+)\.{KEY}\.zen\.dq\.spamhaus\.net\.", name)
        code = CODES.get(".".join(reversed(found.groups()))) if found else None
        if code and query.question[0].rdtype == 1:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", code))
        elif not code:
            answer.set_rcode(3)
        answerer.sendto(answer.to_wire(), self.client_address)


class Logins(socketserver.StreamRequestHandler):
    """Dovecot's authentication protocol, as far as Postfix speaks it: the one user, by PLAIN."""

    def handle(self) -> None:
        self.wfile.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t" + b"0" * 32 + b"\nDONE\n")
        for line in self.rfile:
            words = line.decode().rstrip("\n").split("\t")
            if words[0] != "AUTH":
                continue
            said = next((word.removeprefix("resp=") for word in words if word.startswith("resp=")), "")
            right = base64.b64decode(said).decode() == f"\0{USER.name}\0{USER.password}"
            verdict = f"OK\t{words[1]}\tuser={USER.name}" if right else f"FAIL\t{words[1]}"
            self.wfile.write(f"{verdict}\n".encode())


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class LoginServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def configure(etc: Path, side: str, edit: Mapping[str, Any], certificate: str) -> None:
    """The sound host of the side in `etc`, then the edit, by postconf as on a real host."""

    def text(name: str) -> str:
        path = MAIL / side / name
        return path.read_text().replace("TABLES", str(etc)) if path.exists() else ""

    for table in (MAIL / side / "tables").iterdir():
        (etc / table.name).write_text(table.read_text())
    services = re.sub(r"^(\S+\s+\S+\s+\S\s+\S\s+)y", r"\1n", text("services"), flags=re.MULTILINE)
    own = {tuple(line.split()[:2]) for line in services.splitlines()}
    support = [line for line in SUPPORT if tuple(line.split()[:2]) not in own]
    (etc / "master.cf").write_text(services + "\n".join(support) + "\n")
    (etc / "main.cf").open("a").write(text("postconf") + HERE + f"smtpd_tls_chain_files = {certificate}\n")
    for path, content in edit.get("files", {}).items():
        (etc / Path(path).name).write_text(content)
    overrides = [re.sub(r"\s*=\s*", "=", line, count=1) for line in text("overrides").splitlines()]
    for option, lines in (
        ("-P", overrides),
        ("-e", edit.get("postconf", [])),
        ("-P", edit.get("master", [])),
        ("-M", edit.get("services", [])),
    ):
        for line in lines:
            subprocess.run(
                ["postconf", "-c", str(etc), option, line.replace("/etc/postfix", str(etc))],
                capture_output=True,
                check=True,
            )


def configuration(side: str, etc: Path) -> list[Finding]:
    """What mta_audit finds."""
    return mta_audit.prove(mta_audit.Host(str(etc)), expected(side))


def asked(side: str, controls: list[str], certificate: str) -> list[Finding]:
    """What smtp_probe finds, from everywhere that a control has to be asked from."""
    name, address = HOSTS[side]
    ports = (("smtp", 25),) if side == "inbound" else (("smtp", 25), ("submission", 587))
    found = []
    for control in controls:
        for source, tests, more in QUESTIONS.get(control, ()):
            fixed: dict[str, Any] = {
                "role": side, "name": name, "addresses": (address,), "ports": ports, "domains": ("example.net",),
                "tests": tests, "ehlo": NAMES.get(source, "mail.example.org"), "target": TARGET, "stranger": TARGET,
                "recipients": ("postmaster@example.net", "abuse@example.net"), "client_name": NAMES.get(source, ""),
                "dnsbl_key": KEY, "user": USER if side == "outbound" else None, "source": (source,),
                "trust": ssl.create_default_context(cafile=certificate), "limits": Limits(10, 20, 20, 60),
                "time_limit": 120, "pause": 0.5,
            }  # fmt: skip
            found += findings(probe(Settings(**fixed | more)), "host1")
    return found


def main() -> None:
    row = json.load(sys.stdin)
    side, controls = row["side"], list(dict.fromkeys(one["control"] for one in row["findings"]))
    if not row["findings"]:
        controls = list(QUESTIONS) if side == "inbound" else ["M13", "M1", "M2", "M8", "M9"]
    blocklist = socketserver.ThreadingUDPServer(("127.0.0.1", 53), Blocklist)
    logins = LoginServer(("127.0.0.1", 12345), Logins)
    with served(blocklist), served(logins), tempfile.TemporaryDirectory(prefix="isp-postfix-") as name:
        folder = Path(name)
        folder.chmod(0o755)

        def prepare(etc: Path) -> None:
            configure(etc, side, row["edit"], row["certificate"])

        with running(folder, prepare, HOSTS[side][1], 25) as etc:
            read, heard = configuration(side, etc), asked(side, controls, row["certificate"])
    told = {
        "configuration": [(one.control, one.pool, one.verdict, one.reason) for one in read],
        "probe": [(one.control, one.attachment, one.verdict, one.reason, one.packet) for one in heard],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
