# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make demo`: a small ISP on this machine, audited, mended, audited again, and left alone by a third run.

The demo holds itself to account: it ends with an error unless the first audit finds every planted mistake and nothing
else, the lab's own evaluator confirms every packet, the second audit finds nothing, and the last run changes nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lab import engine
from lab.__main__ import CONFIGS, STATE, Problem, ask, down, up
from lab.mail import __main__ as mail
from lab.mail.hosts import HOSTS as MAIL_LAB
from lab.mail.place import PLANTED

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / ".cache" / "inventory"  # a copy of inventories/lab, for the demo mends the policy too
REPORTS = ROOT / "reports" / "demo"
MUST_PERMIT = ("P9", "P10")
ADDRESS = {4: IPv4Address, 6: IPv6Address}

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
        chapter("A small ISP: routers of every kind, two MXs and two outbound hosts, with realistic mistakes")
        started = [*up(STATE, ()).splitlines(), *mail_hosts()]
        print("\n".join(started))
        left_out = [line for line in started if " was left out: " in line]
        hosts = [line.split()[0] for line in started if " answers at " in line]
        story(hosts)
    except (Unexpected, Problem, engine.Problem) as error:
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
        return [f"{host.name} was left out: {reason}" for host in MAIL_LAB if host.side]
    return mail.up(mail.STATE, [], "mail", planted=True).splitlines()


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


def chapter(title: str) -> None:
    """A headline, at once, whoever reads the output."""
    print(f"\n━━ {title} ━━\n", flush=True)


def play(playbook: str, report: str, hosts: list[str]) -> Document:
    """Run a playbook on the hosts, and read the report that it wrote."""
    directory = REPORTS / report
    subprocess.run(
        [
            "ansible-playbook",
            "--inventory", str(INVENTORY),
            "--limit", ",".join(hosts),
            "--extra-vars", json.dumps({"report_directory": str(directory), "edge_filter_backup_dir": "backups/demo"}),
            f"playbooks/{playbook}.yml",
        ],
        cwd=ROOT,
        check=False,
    )  # fmt: skip
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
        answer = ask(STATE, host, finding["attachment"], finding["direction"], json.dumps(packet))
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
