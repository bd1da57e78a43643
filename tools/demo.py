# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make demo`: a small ISP on this machine, audited, mended, audited again, and left alone by a third run.

Then one of its subscribers is infected: found by what he does, quarantined, told, and released.

The demo holds itself to account: it ends with an error unless the first audit finds every planted mistake and nothing
else, the lab's own evaluator confirms every packet, the second audit finds nothing, the last run changes nothing, and
the infected subscriber, no other, loses port 25 until he is released.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lab import engine
from lab.__main__ import CONFIGS, STATE, Problem, ask, down, up
from lab.mail import __main__ as mail
from lab.mail.hosts import HOSTS as MAIL_LAB
from lab.mail.hosts import WATCHED
from lab.mail.place import PLANTED

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / ".cache" / "inventory"  # a copy of inventories/lab, for the demo mends the policy too
REPORTS = ROOT / "reports" / "demo"
MUST_PERMIT = ("P9", "P10")
ADDRESS = {4: IPv4Address, 6: IPv6Address}

MAIL_HOSTS = ("mx1", "out2")  # of four: one of each side, and with each release of Debian
ROTATION = 3.0  # seconds until the collector of inventories/lab has finished a file

Document = dict[str, Any]


class Unexpected(Exception):
    """The demo did not show what it promises."""


def main() -> int:
    """Exit code 0, or 1 with the reason on standard error."""
    began = time.monotonic()
    shutil.rmtree(INVENTORY, ignore_errors=True)
    shutil.rmtree(REPORTS, ignore_errors=True)
    shutil.copytree(ROOT / "inventories" / "lab", INVENTORY)
    try:
        end()
        chapter("A small ISP: routers of every kind, an MX and an outbound host, with realistic mistakes")
        started = [*up(STATE, ()).splitlines(), *mail_hosts()]
        print("\n".join(started))
        left_out = [line for line in started if " was left out: " in line]
        hosts = [line.split()[0] for line in started if " answers at " in line]
        story([name for name in hosts if name not in WATCHED])
        if set(WATCHED) <= set(hosts):
            infection()
    except (Unexpected, Problem, engine.Problem, subprocess.CalledProcessError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        end()
    chapter(f"Done in {time.monotonic() - began:.0f} seconds")
    print("\n".join(left_out))
    print("Open the reports:")
    for page in sorted(REPORTS.glob("*/report.html")):
        print(f"  {page.relative_to(ROOT)}")
    return 0


def end() -> None:
    """Take down what runs of the lab."""
    down(STATE)
    mail.down(mail.STATE)


def mail_hosts() -> list[str]:
    """Start the mail hosts where that can be; what answers, or why they are left out."""
    if reason := mail.unavailable():
        return [f"{name} was left out: {reason}" for name in (*MAIL_HOSTS, *WATCHED)]
    around = [host.name for host in MAIL_LAB if host.image == "mail" and not host.side]
    return mail.up(mail.STATE, [*MAIL_HOSTS, *around, *WATCHED], "mail", planted=True).splitlines()


def story(hosts: list[str]) -> None:
    """The four runs, and what a person does between the first and the second."""
    chapter("1. Audit: nothing is changed")
    before = play("audit", "1-audit", hosts)
    print(f"\n{found_what_was_planted(before, hosts)}\n{judged(before)}")

    chapter("2. What no push can mend, a person does: the policy")
    for mend in mends(before):
        print(mend)

    chapter("3. Mend: plan, prove, push, read again, prove, confirm")
    play("site", "2-push", hosts)

    chapter("4. Audit again")
    after = play("audit", "3-audit", hosts)
    if not after["clean"]:
        raise Unexpected("the second audit is not clean")

    chapter("5. The same run once more changes nothing")
    again = play("site", "4-again", hosts)
    changed = [host["name"] for host in again["hosts"] if host["changed"]]
    if changed or not again["clean"]:
        raise Unexpected(f"the last run changed {', '.join(changed) or 'nothing, and is not clean'}")
    print("\nNothing was changed.")


INFECTED, NEIGHBOUR = ("198.51.100.22", "2001:db8:100:22::22"), ("198.51.100.20", "2001:db8:100::20")
MX = {4: "203.0.113.110/32", 6: "2001:db8:fffe::110/128"}  # of the world
VICTIMS = {4: "203.0.113.64/26", 6: "2001:db8:fffe::200/120"}
COLLECTOR = "192.0.2.60:2055"
KNOCK = "python3 /usr/local/sbin/lab-infected"


def infection() -> None:
    """One subscriber tries one mail host after the other, and what comes of it."""
    chapter("6. A subscriber is infected: a SYN to port 25 of one host after the other")
    play("flow_collector", "", WATCHED)
    inside("gate1", "systemd-run --quiet --unit=lab-capture tcpdump -U -Q in -i eth0 -w /run/lab-packets tcp port 25")
    held({"the infected": INFECTED, "a neighbour": NEIGHBOUR}, closed=())
    for source in INFECTED:
        answered = inside("subscriber1", f"{KNOCK} {source} {VICTIMS[ip_address(source).version]} 30")
        print(f"{source} opened port 25 of 30 hosts; {answered} answered")
    # Of a live interface softflowd waits for a full buffer of the kernel, so it reads what was caught.
    export = f"softflowd -r /run/lab-packets -v 9 -A milli -n {COLLECTOR} -p /run/lab-exporter.pid"
    inside("gate1", f"systemctl stop lab-capture && {export} 2>/dev/null >&2")
    time.sleep(ROTATION)

    chapter("7. Found by flows and by a blocklist, quarantined, told")
    found = play("signals", "5-signals", WATCHED)["signals"]
    shown(found)
    held({"the infected": INFECTED, "a neighbour": NEIGHBOUR}, closed=INFECTED)
    letter = inside("world", "grep -l '^To: customer22@example.org' /var/lib/lab/mail/*.eml | head -1 | xargs cat")
    print(f"\nThe mail that he got:\n\n{letter.partition(chr(10) * 2)[2].strip()}")

    chapter("8. He has cleaned his computer: released by hand")
    play("release", "", WATCHED, release=INFECTED[0], by="jane", reason="has cleaned the computer")
    held({"who was infected": INFECTED}, closed=())


def inside(host: str, command: str) -> str:
    """What a command says in a container. Raises Unexpected when it fails."""
    ssh = ["ssh", "-F", str(mail.STATE / "ssh_config"), host, command]
    done = subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unexpected(f"{host}: {command}: {done.stderr or done.stdout}")
    return done.stdout.strip()


def held(subscribers: Mapping[str, Sequence[str]], closed: Sequence[str]) -> None:
    """Ask with packets. Raises Unexpected where port 25 is open to one of `closed`, or closed to somebody else."""
    for who, addresses in subscribers.items():
        for address in addresses:
            answered = inside("subscriber1", f"{KNOCK} {address} {MX[ip_address(address).version]} 1")
            if answered != ("0 of 1" if address in closed else "1 of 1"):
                raise Unexpected(f"port 25 of the world, asked by {address} ({who}): {answered}")
            print(f"Port 25 of the world is {'closed' if address in closed else 'open'} to {address} ({who}).")


def shown(found: Document) -> None:
    """What the report says. Raises Unexpected unless it is the one subscriber, by what he did and by a blocklist."""
    suspects = {one["subject"]: one for one in found["suspects"]}
    actions, listed = found["actions"], {one["network"] for one in found["listings"]}
    if len(actions) != 1 or found["alarms"] or not suspects or INFECTED[0] not in listed:
        raise Unexpected(f"the signals are not what was planted: {json.dumps(found, indent=1)}")
    for subject, one in suspects.items():
        print(f"\n{subject}, {', '.join(one['detectors'])}:", *one["evidence"], sep="\n  ")
    (one,) = actions
    print(f"\nIn quarantine until {one['until']}: {', '.join(one['prefixes'])} ({one['subscriber']})")


def chapter(title: str) -> None:
    """A headline, at once, whoever reads the output."""
    print(f"\n━━ {title} ━━\n", flush=True)


def play(playbook: str, report: str, hosts: Sequence[str], **variables: str) -> Document:
    """Run a playbook on the hosts, and read the report that it wrote, where it writes one."""
    directory = REPORTS / report
    variables |= {"report_directory": str(directory), "edge_filter_backup_dir": "backups/demo"}
    subprocess.run(
        [
            "ansible-playbook",
            "--inventory", str(INVENTORY),
            "--limit", ",".join(hosts),
            "--extra-vars", json.dumps(variables),
            f"playbooks/{playbook}.yml",
        ],
        cwd=ROOT,
        check=not report,
    )  # fmt: skip
    if not report:
        return {}
    try:
        return dict(json.loads((directory / "report.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise Unexpected(f"playbooks/{playbook}.yml ended without a report") from None


def violations(report: Document) -> Iterator[tuple[str, Document]]:
    """Each finding that is not compliant, with its host."""
    for host in report["hosts"]:
        for finding in host["findings"]:
            if finding["verdict"] != "compliant":
                yield host["name"], finding


def found_what_was_planted(report: Document, hosts: list[str]) -> str:
    """A sentence about it. Raises Unexpected for what was missed, and for what was not planted."""
    names = ("attachment", "direction", "family", "control")
    blank = dict.fromkeys(names, "") | {"family": 0}
    yaml = YAML(typ="safe")
    rows = [{"host": file.stem, **row} for file in CONFIGS.glob("*.yml") for row in yaml.load(file)]
    rows = [row for row in rows + yaml.load(PLANTED.with_suffix(".yml")) if row["host"] in hosts]
    planted = {(row["host"], *((blank | row)[name] for name in names)) for row in rows}
    found = set()
    for host, finding in violations(report):
        if not finding["control"].startswith("M"):
            found.add((host, *((blank | finding)[name] for name in names)))
        elif finding["verdict"] == "violated":  # a closed port leaves open what would be said there, and is no mistake
            found.add((host, *(blank | {"control": finding["control"]}).values()))
    wrong = [f"missed: {one}" for one in sorted(planted - found)]
    wrong += [f"not planted: {one}" for one in sorted(found - planted)]
    if wrong:
        raise Unexpected("the audit does not find what was planted:\n  " + "\n  ".join(wrong))
    return f"All {len(planted)} planted mistakes were found, and nothing else."


def judged(report: Document) -> str:
    """Ask the lab, which shares no code with the audit, about every packet. Raises Unexpected where it disagrees."""
    packets = 0
    for host, finding in violations(report):
        if "fields" not in finding:
            continue
        fate = "deny" if finding["control"] in MUST_PERMIT else "permit"
        address = ADDRESS[finding["family"]]
        packet = finding["fields"] | {"family": finding["family"]}
        packet |= {name: str(address(packet[name])) for name in ("source", "destination")}
        question = {"attachment": finding["attachment"], "direction": finding["direction"], "packet": packet}
        (answer,) = ask(STATE, host, [json.dumps(question)])
        if answer != fate:
            raise Unexpected(f"{host}, {finding['control']}: the lab says {answer} to {finding['packet']}: {finding}")
        packets += 1
    return f"The routers' own evaluator confirms the packet of each finding that has one: {packets}."


def mends(report: Document) -> Iterator[str]:
    """Do what C1 and C3 ask a person to do, in the copy of the inventory; a line to read for each."""
    yaml = YAML()
    for host, finding in violations(report):
        if finding["control"] == "C1":
            file = INVENTORY / "host_vars" / f"{host}.yml"
            variables = yaml.load(file)
            entry = {"name": finding["attachment"], "pools": [finding["pool"]], "replace_foreign": True}
            variables["isp_attachments"].append(entry)
            yaml.dump(variables, file)
            yield f"{host}: {finding['attachment']} is now in isp_attachments"
    for exception in report["policy"]["exceptions"]:
        if exception["status"] == "expired":
            file = INVENTORY / "group_vars" / "all" / "policy.yml"
            arguments = {"path": str(file), "prefix": exception["prefix"], "state": "absent"}
            command = ["ansible", "localhost", "-m", "isp.hardening.policy_exception", "-a", json.dumps(arguments)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unexpected(f"policy_exception failed: {done.stdout}{done.stderr}")
            yield f"policy: the expired exception for {exception['prefix']} is removed"


if __name__ == "__main__":
    sys.exit(main())
