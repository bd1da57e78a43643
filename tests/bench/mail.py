# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The mail hosts of the lab: what scanning costs, what an audit costs, and what a second run costs."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import ruamel.yaml

from lab.mail.__main__ import down, up
from lab.mail.hosts import HOSTS, WORLD_MX
from lab.netns import tool
from tests.bench.fleet import ROOT, Cost, ansible_playbook

_HERE = Path(__file__).parent
_YAML = ruamel.yaml.YAML(typ="safe")
PEER = _HERE / "peers" / "mail_hosts.yml"
INBOUND = tuple(host.name for host in HOSTS if host.side == "mx")
OUTBOUND = tuple(host.name for host in HOSTS if host.side == "outbound")
MAIL_HOSTS = tuple(host.name for host in HOSTS if host.side)
OCTETS = 20_000
SENDER = "user1@example.net"
PLAIN, SCANNED = 2525, 25  # the same smtpd, without a milter and with it

# What the spam filter leaves out for mail to a recipient, so that the rest shows what it costs.
_PARTS = """
no_clamd { priority = high; rcpt = "no-clamd@example.org";
  apply { symbols_disabled = ["CLAM_VIRUS", "ISP_UNSCANNED"]; } }
no_dkim { priority = high; rcpt = "no-dkim@example.org"; apply { symbols_disabled = ["DKIM_SIGNED"]; } }
no_rules { priority = high; rcpt = "no-rules@example.org";
  apply { symbols_enabled = ["CLAM_VIRUS", "ISP_UNSCANNED", "DKIM_SIGNED"]; } }
nothing { priority = high; rcpt = "nothing@example.org";
  apply { symbols_enabled = ["MIME_GOOD"]; symbols_disabled = ["ISP_UNSCANNED"]; } }
"""
_WAYS = (
    (PLAIN, "friend@example.org"), (SCANNED, "friend@example.org"), (SCANNED, "no-clamd@example.org"),
    (SCANNED, "no-dkim@example.org"), (SCANNED, "no-rules@example.org"), (SCANNED, "nothing@example.org"),
)  # fmt: skip
_READY = (
    "for i in $(seq 600); do ss -Hlx src /var/spool/postfix/rspamd/milter | grep -q . && exit; sleep 0.2; done; exit 1"
)
_OPEN = f"cat >/etc/rspamd/local.d/settings.conf; systemctl restart rspamd; {_READY}"
_CLOSED = f"rm /etc/rspamd/local.d/settings.conf; systemctl restart rspamd; {_READY}"
_DRAINED = """cd /var/spool/postfix
while find incoming active -type f | grep -q .; do sleep 0.2; done
! find deferred -type f | grep ."""
# What the roles have written, and who may read it: each file says whose it is, but for these.
_FILES = (
    "{ grep -rl isp.hardening /etc; ls /etc/clamav/signatures/* /var/lib/clamav/isp-hardening.* /var/lib/rspamd/dkim/* "
    "/var/spool/postfix/etc/resolv.conf 2>/dev/null; } | sort -u | xargs stat -c '%n %U %G %a'"
)
_SERVICES = {
    "/etc/unbound": "unbound", "/etc/resolv.conf": "resolver", "/etc/clamav": "clamav", "/var/lib/clamav": "clamav",
    "/etc/systemd/system/clamav": "clamav", "/etc/redis": "redis", "/etc/rspamd": "rspamd",
    "/var/lib/rspamd": "dkim", "/etc/postfix": "postfix", "/var/spool/postfix": "postfix", "/etc/dovecot": "dovecot",
}  # fmt: skip
_VERSIONS = (
    "postconf -h mail_version; rspamd --version | head -n 1; clamd --version; . /etc/os-release; echo $VERSION_ID"
)


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages a second, and the 50th and 99th percentile of a session in milliseconds."""

    rate: float
    middle: float
    late: float


@dataclass(frozen=True, slots=True)
class Parts:
    """Milliseconds of a message: Postfix alone, with scanning, and what of the difference is whose."""

    plain: float
    scanned: float
    shares: dict[str, float]


@contextmanager
def hosts() -> Iterator[Path]:
    """The mail hosts of the lab as playbooks/mail_hosts.yml makes them; the lab's state directory."""
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as name:
        state = Path(name) / "lab"
        up(state, [], "mail")
        try:
            play(state, ROOT / "playbooks" / "mail_hosts.yml", MAIL_HOSTS)
            yield state
        finally:
            down(state)


def versions(state: Path, host: str) -> str:
    """What runs on an outbound host."""
    postfix, rspamd, clamav, debian = ssh(state, host, _VERSIONS).splitlines()
    numbers = [found[0] for line in (rspamd, clamav) if (found := re.search(r"\d+(\.\d+)+", line))]
    return f"Debian {debian}: Postfix {postfix}, rspamd {numbers[0]}, ClamAV {numbers[1]}"


def ssh(state: Path, host: str, command: str, stdin: str = "") -> str:
    """Run it on a host. Raises RuntimeError with what it said when it fails."""
    ask = [tool("ssh"), "-F", str(state / "ssh_config"), "-o", "BatchMode=yes", host, command]
    done = subprocess.run(ask, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{host}: {command.splitlines()[0]}: {done.stderr.strip()[-2000:] or done.stdout[-2000:]}")
    return done.stdout


# --- scanning


def make_ready(state: Path) -> None:
    """A sink in the world that does less than the outbound hosts, and a port of these that scans nothing."""
    ssh(state, "world", "systemctl stop lab-keeper; systemctl stop 'bench-sink-*'; rm -rf /var/lib/lab/mail")
    for number, address in enumerate(WORLD_MX):
        listen = f"inet:[{address}]:25"
        ssh(state, "world", f"systemd-run --quiet --unit=bench-sink-{number} smtp-sink -u nobody {listen} 500")
    for host in OUTBOUND:
        master = ssh(state, host, "cat /etc/postfix/master.cf")
        ssh(state, host, "cat >/etc/postfix/master.cf && postfix reload", one_port_more(master))


def one_port_more(master: str) -> str:
    """master.cf with port 25 once more, on the port PLAIN."""
    found = re.search(r"^smtp +inet .*\n(?:[ #].*\n)*", master, re.MULTILINE)
    assert found, "no port 25 in master.cf"
    return f"{master}{found[0].replace('smtp', str(PLAIN), 1)}    -o smtpd_milters=\n"


def sink(state: Path, connections: int, messages: int) -> float:
    """Messages a second that the sink alone takes from the load."""
    return _sent(state, WORLD_MX[0], connections, messages, [(25, "friend@example.org")])[0].rate


def side_by_side(
    state: Path, host: str, connections: int, messages: int, rounds: int
) -> tuple[tuple[Sent, float], tuple[Sent, float]]:
    """Without scanning, and with it, by turns: the load, and the messages a second that smtp-source gets rid of."""
    found: dict[int, list[tuple[Sent, list[float], float]]] = {PLAIN: [], SCANNED: []}
    for _ in range(rounds):
        for port, runs in found.items():
            sent, times = _sent(state, _address(host), connections, messages, [(port, "friend@example.org")])
            ssh(state, host, _DRAINED)
            source = _smtp_source(state, _address(host), port, connections, messages)
            ssh(state, host, _DRAINED)
            runs.append((sent, times, source))
    plain, scanned = (_together(runs) for runs in found.values())
    return plain, scanned


def _together(runs: Sequence[tuple[Sent, list[float], float]]) -> tuple[Sent, float]:
    """Of rounds with as many messages each."""
    rate = statistics.harmonic_mean([sent.rate for sent, _, _ in runs])
    source = statistics.harmonic_mean([source for _, _, source in runs])
    return _summary([one for _, times, _ in runs for one in times], rate), source


def parts(state: Path, host: str, messages: int) -> Parts:
    """Where the time of a message goes, one connection at a time: medians of mail with and without each part."""
    ssh(state, host, _OPEN, _PARTS)
    ways = len(_WAYS)
    _sent(state, _address(host), 4, 10 * ways, _WAYS)  # each process of the filter has had one
    times = _load(state, _order(_address(host), 1, messages * ways, _WAYS))["times"]
    ssh(state, host, f"{_DRAINED}; {_CLOSED}")
    plain, scanned, no_clamd, no_dkim, no_rules, nothing = (statistics.median(one) * 1000 for one in times)
    shares = {
        "clamd": scanned - no_clamd,
        "DKIM signature": scanned - no_dkim,
        "rspamd's other rules": scanned - no_rules,
        "the milter's dialogue, and rspamd with one rule": nothing - plain,
    }
    return Parts(plain, scanned, shares)


def _sent(
    state: Path, address: str, connections: int, messages: int, ways: Sequence[tuple[int, str]]
) -> tuple[Sent, list[float]]:
    found = _load(state, _order(address, connections, messages, ways))
    times = [time for way in found["times"] for time in way]
    return _summary(times, messages / found["wall"]), times


def _order(address: str, connections: int, messages: int, ways: Sequence[tuple[int, str]]) -> dict[str, Any]:
    return {
        "address": address, "connections": connections, "messages": messages, "octets": OCTETS, "sender": SENDER,
        "name": "mx1.example.net", "ways": ways,
    }  # fmt: skip


def _load(state: Path, order: dict[str, Any]) -> dict[str, Any]:
    """From an inbound host: port 25 of an outbound one takes its mail without a login, and scans it like a user's."""
    program = (_HERE / "mail_load.py").read_text(encoding="utf-8")
    return dict(json.loads(ssh(state, "mx1", f"python3 - {shlex.quote(json.dumps(order))}", program)))


def _summary(times: Sequence[float], rate: float) -> Sent:
    ordered = sorted(times)
    return Sent(rate, statistics.median(ordered) * 1000, ordered[max(0, -(-len(ordered) * 99 // 100) - 1)] * 1000)


def _smtp_source(state: Path, address: str, port: int, connections: int, messages: int) -> float:
    numbers = f"-s {connections} -m {messages} -l {OCTETS}"
    command = f"smtp-source {numbers} -f {SENDER} -t friend@example.org -M mx1.example.net inet:{address}:{port}"
    began, ended = ssh(state, "mx1", f"date +%s.%N; {command} && date +%s.%N").split()
    return messages / (float(ended) - float(began))


def _address(name: str) -> str:
    return next(host.addresses[0][0] for host in HOSTS if host.name == name)


# --- the audit


def audit(state: Path, host: str, repeat: int) -> tuple[float, float]:
    """Wall seconds of a play with nothing but a ping, and of the same play with mta_audit as the playbook has it."""
    whole = _mail_audit("isp.hardening.mta_audit")
    ping = {**whole, "tasks": [{"ansible.builtin.ping": None}]}
    floor, audited = (min(_one(state, one, host).wall for _ in range(repeat)) for one in (ping, whole))
    return floor, audited


def matrix(state: Path, host: str, parallel: int) -> tuple[int, Cost]:
    """The relay tests of smtp_probe from the world, so many connections at once: the cases, and what the play cost."""
    probe = _mail_audit("isp.hardening.smtp_probe")
    task = next(task for task in probe["tasks"] if "isp.hardening.smtp_probe" in task)
    arguments = {
        **task["isp.hardening.smtp_probe"], "addresses": [_address(host)], "tests": ["relay"],
        "services": [{"service": "smtp"}], "parallel": parallel, "time_limit": 1800,
    }  # fmt: skip
    asked = {"isp.hardening.smtp_probe": arguments, "delegate_to": "world", "register": "probe"}
    sound = "probe.tests | rejectattr('verdict', 'eq', 'compliant') | length == 0"
    told = {"ansible.builtin.assert": {"that": sound, "success_msg": "cases: {{ probe.tests | length }}"}}
    cost = _one(state, {**probe, "tasks": [asked, told]}, host)
    found = re.search(r"cases: (\d+)", (state.parent / "log").read_text())
    assert found
    return int(found[1]), cost


def _mail_audit(module: str) -> dict[str, Any]:
    """The play of playbooks/mail_audit.yml with the first task that has this module, which may not fail here."""
    play = _YAML.load(ROOT / "playbooks" / "mail_audit.yml")[0]
    kept = {name: value for name, value in play.items() if not name.startswith("ignore_")}
    return {**kept, "tasks": [next(task for task in play["tasks"] if module in task)]}


def _one(state: Path, play_data: dict[str, Any], host: str) -> Cost:
    file = state.parent / "play.yml"
    file.write_text(json.dumps([play_data]))
    return play(state, file, [host])


# --- a second run


def again(state: Path, repeat: int) -> tuple[Cost, Cost]:
    """The least of some runs that change nothing, by turns: ours and PEER."""
    collect(state)
    ours = ROOT / "playbooks" / "mail_hosts.yml"
    runs: tuple[list[Cost], list[Cost]] = ([], [])
    for _ in range(repeat):
        runs[0].append(play(state, ours, MAIL_HOSTS, unchanged=True))
        runs[1].append(play(state, PEER, MAIL_HOSTS, unchanged=True))
    first, second = (Cost(*(min(getattr(run, name) for run in one) for name in Cost.__slots__)) for one in runs)
    return first, second


def collect(state: Path) -> None:
    """Every file that the roles have made, for PEER to put there again."""
    folder = state.parent / "files"
    for host in MAIL_HOSTS:
        (folder / host).mkdir(parents=True, exist_ok=True)
        said = ssh(state, host, _FILES).splitlines()
        files: dict[str, list[dict[str, str]]] = {service: [] for service in _SERVICES.values()}
        for line in said:
            path, owner, group, mode = line.split()
            service = next(service for place, service in _SERVICES.items() if path.startswith(place))
            files[service].append({"path": path, "owner": owner, "group": group, "mode": f"0{mode}"})
        (folder / f"{host}.json").write_text(json.dumps({"files": files}))
        pack = f"tar -c -C / {' '.join(line.split()[0][1:] for line in said)}"
        ask = [tool("ssh"), "-F", str(state / "ssh_config"), host, pack]
        with tarfile.open(fileobj=BytesIO(subprocess.run(ask, capture_output=True, check=True).stdout)) as archive:
            archive.extractall(folder / host, filter="data")


def play(state: Path, playbook: Path, limit: Sequence[str], unchanged: bool = False) -> Cost:
    """One run. Raises RuntimeError where a host fails, or changes when it must not."""
    cost = ansible_playbook(
        state.parent, "-i", str(ROOT / "inventories" / "lab"), "--limit", ",".join([*limit, "world"]),
        "-e", f"mail_lab_state={state}", "-e", f"peer_files={state.parent / 'files'}", str(playbook),
    )  # fmt: skip
    said = (state.parent / "log").read_text()
    bad = re.findall(r"^\w+ +: .*(?:unreachable|failed|rescued)=[1-9].*", said, re.MULTILINE)
    bad += re.findall(r"^\w+ +: .*changed=[1-9].*", said, re.MULTILINE) if unchanged else []
    if bad:
        raise RuntimeError(f"{playbook.name}: {bad[0]}\n{said[-4000:]}")
    return cost
