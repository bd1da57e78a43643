#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Prove the controls of a mail host on the configuration that its daemons really have."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mta_audit
short_description: Audit the effective configuration of a mail host
description:
  - Reads Postfix (C(postconf), C(postconf -M), C(postconf -P), tables by C(postmap -q)), rspamd
    (C(rspamadm configdump -j)), C(clamd.conf), C(clamav-milter.conf), the resolver and Redis on the host, whoever
    configured them, and proves the controls M1 to M13 and M15.
  - Evaluates the restriction lists of every SMTP service of C(master.cf) as Postfix does, and tells who may relay
    what from where, with the client, the sender and the recipient that get through.
  - Changes nothing. What cannot be read or evaluated has the verdict V(unknown).
  - Needs nothing but Python's standard library on the host. Run it as root, otherwise tables and sockets may not be
    readable.
author:
  - isp.hardening contributors
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Never changes anything.
    support: none
options:
  name:
    description: The host in the findings, usually C(inventory_hostname).
    type: str
    required: true
  side:
    description: What the host is for.
    type: str
    choices: [inbound, outbound]
    required: true
  domains:
    description: The domains that the inbound hosts take mail for.
    type: list
    elements: str
    required: true
  pools:
    description: The subscribers' prefixes by the name of their pool.
    type: dict
    default: {}
  addresses:
    description: The host's own addresses.
    type: list
    elements: str
    default: []
  relays:
    description: Addresses and prefixes that may send through an outbound host without a login, as the inbound hosts.
    type: list
    elements: str
    default: []
  message_size_limit:
    description: The largest message, in bytes.
    type: int
    required: true
  dnsbl_zone:
    description: The DNSBL zone of the policy, without its key.
    type: str
    default: zen.spamhaus.org
  dnsbl_key:
    description: The key of the DNSBL. No finding shows it.
    type: str
    default: ""
  port_25_from_pool:
    description: Whether subscribers may send over port 25 of an outbound host without a login.
    type: bool
    default: false
  hostname:
    description: The host's name in DNS, which an outbound host says in its C(EHLO). Not asked for where it is empty.
    type: str
    default: ""
  outbound:
    description: Names and addresses of the outbound hosts, through which an inbound host sends its bounces.
    type: list
    elements: str
    default: []
  config_directory:
    description: Where C(main.cf) and C(master.cf) are, if not where C(postconf) looks by itself.
    type: path
    default: ""
seealso:
  - module: isp.hardening.smtp_probe
"""

EXAMPLES = r"""
- name: Audit the inbound hosts
  hosts: mx
  tasks:
    - name: Prove the controls on the configuration
      isp.hardening.mta_audit:
        name: "{{ inventory_hostname }}"
        side: inbound
        domains: "{{ isp_mail.domains }}"
        pools:
          residential: ["198.51.100.0/25", "2001:db8:100::/40"]
        addresses: ["192.0.2.10"]
        hostname: mx1.example.net
        outbound: ["out1.example.net", "192.0.2.25"]
        message_size_limit: "{{ isp_mail.message_size_limit }}"
      register: mta_audit
"""

RETURN = r"""
findings:
  description: A verdict per control and service.
  returned: always
  type: list
  elements: dict
  sample:
    - control: M2
      host: mx1
      attachment: smtp (smtpd)
      pool: residential
      direction: up
      family: 0
      verdict: violated
      title: Nobody relays who may not, the pool least of all
      reason: "24 of 900 questions are accepted, from: pool residential, without a name."
      packet: "client 198.51.100.7, MAIL FROM:<>, RCPT TO:<relay-test@example.com>: 250"
      fields: {}
      evidence:
        - {line: 0, text: "main.cf mynetworks = 127.0.0.0/8 198.51.100.0/24"}
      mend: "Let smtpd_relay_restrictions end the question first: reject_unauth_destination before any permit."
      source: configuration
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.isp.hardening.plugins.module_utils.findings import Finding
from ansible_collections.isp.hardening.plugins.module_utils.mail import rspamd
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit import Expected, Reading, audit
from ansible_collections.isp.hardening.plugins.module_utils.mail.audit.running import room
from ansible_collections.isp.hardening.plugins.module_utils.mail.postfix import (
    Parameters,
    Postfix,
    inside,
    read_parameters,
    read_services,
    words,
)
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables, is_table, table_type

_SECONDS = 60  # for one command; a table may ask a server over the network, and rspamadm takes its time on a busy host
_ROUNDS = 12
_DUMPED = ("hash", "btree", "lmdb", "dbm", "cdb", "sdbm")  # postmap -s lists them
_TEXT = ("texthash", "cidr", "regexp", "pcre")  # a file of lines
_MOST = 100_000  # entries of a table that are looked at


class Host:
    """The commands and files of the host, read once."""

    def __init__(self, config_directory: str) -> None:
        self.directory = ["-c", config_directory] if config_directory else []
        self.unreadable: dict[str, str] = {}

    def run(self, *command: str, text: str = "") -> str:
        """What a command prints; OSError says why it does not."""
        path = shutil.which(command[0], path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
        if path is None:
            raise OSError(f"{command[0]} is not installed")
        try:
            done = subprocess.run(
                [path, *command[1:]],
                input=text,
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # a banner or a text of REJECT may be in another encoding
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as reason:
            raise OSError(f"{command[0]} did not end within {_SECONDS} seconds") from reason
        complaints = done.stderr.strip().splitlines()
        if command[0] == "postmap":  # 1 is "nothing found" too, and warnings of main.cf come with every answer
            complaints = [line for line in complaints if re.search(r"(?:fatal|panic|error):", line)]
        if done.returncode and (complaints or command[0] != "postmap"):
            raise OSError(complaints[-1] if complaints else f"{command[0]} ended with {done.returncode}")
        return done.stdout

    def postfix(self) -> Postfix | None:
        """Postfix's configuration, None (and a reason) without."""
        try:
            parameters = read_parameters(self.run("postconf", *self.directory))
            if self.directory:  # Postfix 3.10 tells its default
                parameters["config_directory"] = self.directory[1]
            if (origin := parameters.get("myorigin", "")).startswith("/"):  # Debian: the name is that file's first line
                parameters["myorigin"] = ((self.file(origin) or "").splitlines() or [""])[0].strip()
            table, overrides = (self.run("postconf", *self.directory, option) for option in ("-M", "-P"))
            jailed = Parameters(parameters).number("compatibility_level") < 1
            return Postfix(parameters, read_services(table, overrides, jailed))
        except OSError as reason:
            self.unreadable["postconf"] = str(reason)
        return None

    def rspamd(self) -> rspamd.Tree | None:
        """rspamd's tree, None (and a reason) without."""
        try:
            return rspamd.read(self.run("rspamadm", "configdump", "-j"))
        except (OSError, ValueError) as reason:
            self.unreadable["rspamd"] = str(reason)
        return None

    def file(self, *paths: str) -> str | None:
        """The first of the files that is there: "" where none is, None where it cannot be read."""
        for path in paths:
            try:
                return Path(path).read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue
            except OSError:
                return None
        return ""

    def ask(self, tables: Tables) -> bool:
        """Answers what the last evaluation lacked; False when it lacked nothing."""
        lacking, files = tables.take()
        for path in files:
            tables.files[path] = self.file(path)
        questions: dict[str, list[str]] = {}
        for table, key in lacking:
            tables.answers[table, key] = ""
            if key and not re.search(r"[\r\n\t]", key):
                questions.setdefault(table, []).append(key)
        for table, keys in questions.items():
            try:
                name = table.removeprefix("proxy:")
                printed = self.run(
                    "postmap", *self.directory, "-q", "-", name, text="".join(f"{one}\n" for one in keys)
                )
                for line in printed.splitlines():
                    key, _, value = line.partition("\t")
                    tables.answers[table, key] = value
            except OSError as reason:
                tables.broken[table] = str(reason)
        return bool(lacking or files)

    def dump(self, table: str) -> tuple[tuple[str, str], ...]:
        """The entries of a table that can be listed."""
        kind, name = table_type(table), inside(table).removeprefix("proxy:").partition(":")[2]
        if kind == "inline":
            pairs = (inside(one).partition("=") for one in words(inside(name)))
            return tuple((key.strip(), value.strip()) for key, _, value in pairs)
        if kind in _TEXT and name.startswith("{"):
            rows = (inside(one).split(None, 1) for one in words(inside(name)))
            return tuple((row[0], row[1].strip() if row[1:] else "") for row in rows if row)
        try:
            if kind in _DUMPED:
                lines = self.run("postmap", *self.directory, "-s", table.removeprefix("proxy:")).splitlines()
            elif kind in _TEXT and name.startswith("/"):
                lines = (self.file(name) or "").splitlines()
            else:
                return ()
        except OSError:
            return ()
        rows = (line.split(None, 1) for line in lines[:_MOST] if line.strip() and line[0] not in "# \t")
        return tuple((row[0], row[1].strip() if row[1:] else "") for row in rows)


def tables_named(postfix: Postfix) -> Iterator[str]:
    """The tables whose entries tell what to ask for."""
    seen: set[str] = set()
    for service in postfix.services:
        if service.command not in ("smtpd", "postscreen"):
            continue
        parameters: Parameters = postfix.effective(service)
        names = [name for name in parameters.raw if re.fullmatch(r"smtpd_\w+_restrictions", name)]
        names += ["mynetworks", "relay_domains", "postscreen_access_list", "smtpd_milter_maps"]
        names += [*parameters.words("smtpd_restriction_classes")]
        for name in names:
            for word in parameters.words(name):
                if is_table(word) and word not in seen:
                    seen.add(word)
                    yield word


def answers(server: str) -> bool:
    """Whether a Redis says anything to PING; that it wants a password is an answer too."""
    path = server.startswith(("/", "."))
    name, _, port = server.rpartition(":")
    host = name.strip("[]")
    try:
        with socket.socket(socket.AF_UNIX) if path else socket.create_connection((host, int(port)), 2) as connection:
            connection.settimeout(2)
            if path:
                connection.connect(server)
            connection.sendall(b"PING\r\n")
            return bool(connection.recv(64))
    except (OSError, ValueError):
        return False


def sources() -> dict[int, str]:
    """By family, the address from which the routes let this host speak to the world. Nothing is sent."""
    found = {}
    for family, number, world in ((socket.AF_INET, 4, "203.0.113.1"), (socket.AF_INET6, 6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((world, 9))
            found[number] = probe.getsockname()[0]
    return found


def prove(host: Host, expected: Expected) -> list[Finding]:
    """The verdicts. While rspamd dumps its configuration, which takes longer than all the rest, a first look at

    Postfix finds the questions to its tables; its verdicts are not used.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        dump = pool.submit(host.rspamd)
        reading = read(host)
        audit(reading, expected)
        host.ask(reading.tables)
        reading = with_rspamd(reading, dump.result(), expected.domains)
    findings = audit(reading, expected)
    for _ in range(_ROUNDS):
        if not host.ask(reading.tables):
            break
        findings = audit(reading, expected)
    return findings


def with_rspamd(reading: Reading, tree: rspamd.Tree | None, domains: tuple[str, ...]) -> Reading:
    """What was read, and rspamd with what it leans on."""
    if tree is None:
        return reading
    return replace(
        reading,
        rspamd=tree,
        down={**reading.down, "clamd": no_clamd()} if rspamd.has_local_clamd(tree) else reading.down,
        redis={
            server: answers(server)
            for server in rspamd.redis_servers(tree, "ratelimit")
            if not server.startswith("service=")  # the DNS names them, by SRV records
        },
        keys={path: Path(path).exists() for path in rspamd.key_files(tree, domains).values()},
    )


def read(host: Host) -> Reading:
    """Everything that the audit goes by, but rspamd."""
    postfix = host.postfix()
    queue = postfix.effective()["queue_directory"] if postfix else ""
    unbound = [str(path) for path in sorted(Path("/etc/unbound").glob("**/*.conf"))]
    return Reading(
        postfix,
        Tables(),
        dumps={table: host.dump(table) for table in tables_named(postfix)} if postfix else {},
        clamd=host.file("/etc/clamav/clamd.conf", "/etc/clamd.conf", "/etc/clamd.d/scan.conf"),
        clamav_milter=host.file("/etc/clamav/clamav-milter.conf", "/etc/clamav-milter.conf"),
        opendkim=host.file("/etc/opendkim.conf"),
        resolv=host.file("/etc/resolv.conf"),
        chroot_resolv=host.file(f"{queue}/etc/resolv.conf") if queue and chrooted(postfix) else "",
        unbound="\n".join(host.file(path) or "" for path in unbound),
        sources=sources(),
        down=down(postfix) if postfix else {},
        unreadable=host.unreadable,
    )


def down(postfix: Postfix) -> dict[str, str]:
    """What mail has to pass here, each with why it cannot at this moment, or ""."""
    parameters = postfix.effective()
    queue = parameters["queue_directory"]
    smtpd = [postfix.effective(service) for service in postfix.services if service.command == "smtpd"]
    milters = {milter for port in smtpd for one in port.words("smtpd_milters") for milter in words(inside(one))[:1]}
    found = {milter: no_milter(milter, queue) for milter in milters}
    if any("clamav" in milter for milter in milters):
        found["clamd"] = no_clamd()
    try:
        space = os.statvfs(queue)
        limits = (parameters.number(name) for name in ("message_size_limit", "queue_minfree"))
        found["queue"] = room(space.f_bavail * space.f_frsize, *limits)
    except OSError as reason:
        found["queue"] = f"{queue}: {reason.strerror}"
    return found


def no_milter(milter: str, queue: str) -> str:
    """Why nobody answers at a milter's address ("inet:127.0.0.1:11332", "unix:/run/x"), or ""."""
    kind, _, place = milter.partition(":")
    try:
        if kind == "inet":
            port, _, host = place.partition("@") if "@" in place else place.rpartition(":")[::-1]
            # The port may be a service's name, which create_connection looks up.
            with socket.create_connection((host.strip("[]") or "127.0.0.1", port), 2):
                return ""
        if kind not in ("unix", "local"):
            return f"{kind} is no kind of milter: inet, unix and local are."
        # A path from the root is one in the chroot where smtpd has one.
        path = next((one for one in (f"{queue}/{place}", place) if Path(one).exists()), place)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(path)
    except (OSError, ValueError) as reason:
        return f"It does not answer ({reason}): what milter_default_action says happens to all mail."
    return ""


def no_clamd() -> str:
    """Why clamd scans nothing, or "". Nobody connects to it: where systemd listens for it, that would start it."""
    for process in Path("/proc").glob("[0-9]*/comm"):
        try:
            if process.read_text().strip() == "clamd":
                return ""
        except OSError:  # it has just ended
            continue
    return "It does not run: nothing is scanned, and mail waits for it."


def chrooted(postfix: Postfix | None) -> bool:
    """Whether a service that asks the DNS runs in the chroot, and so reads a resolv.conf of its own."""
    names = ("smtpd", "smtp", "postscreen", "dnsblog")
    return postfix is not None and any(one.chroot and one.command in names for one in postfix.services)


def wrong(parameters: dict[str, object]) -> str:
    """What is wrong with the parameters, "" for nothing."""
    pools = parameters["pools"]
    if not isinstance(pools, dict) or not all(isinstance(prefixes, list) for prefixes in pools.values()):
        return "pools is to be a list of prefixes by name, as {residential: [198.51.100.0/25]}"
    named = [("pools", prefix) for prefixes in pools.values() for prefix in prefixes]
    for name in ("addresses", "relays"):
        several = parameters[name]
        named += [(name, one) for one in several] if isinstance(several, list) else []
    for name, prefix in named:
        try:
            ip_network(prefix)
        except ValueError as reason:
            return f"{name}: {reason}; write a prefix as 198.51.100.0/25"
    return "" if parameters["domains"] else "domains is empty; name the domains that the inbound hosts take mail for"


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "side": {"type": "str", "choices": ["inbound", "outbound"], "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "pools": {"type": "dict", "default": {}},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "relays": {"type": "list", "elements": "str", "default": []},
            "message_size_limit": {"type": "int", "required": True},
            "dnsbl_zone": {"type": "str", "default": "zen.spamhaus.org"},
            "dnsbl_key": {"type": "str", "default": "", "no_log": True},
            "port_25_from_pool": {"type": "bool", "default": False},
            "hostname": {"type": "str", "default": ""},
            "outbound": {"type": "list", "elements": "str", "default": []},
            "config_directory": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    if problem := wrong(given):
        module.fail_json(msg=problem)
    expected = Expected(
        given["name"],
        given["side"],
        tuple(given["domains"]),
        {name: tuple(prefixes) for name, prefixes in given["pools"].items()},
        given["message_size_limit"],
        tuple(given["relays"]),
        tuple(given["addresses"]),
        given["dnsbl_zone"],
        given["dnsbl_key"],
        given["port_25_from_pool"],
        given["hostname"],
        tuple(given["outbound"]),
    )
    findings = prove(Host(given["config_directory"]), expected)
    module.exit_json(
        changed=False, findings=[replace(finding, source="configuration").as_dict() for finding in findings]
    )


if __name__ == "__main__":
    main()
