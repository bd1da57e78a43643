# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs in the world, where every message that arrives anywhere is kept: has come what must, and nothing else?

In, as JSON: cases (what ask.py tells of messages), hosts (addresses by name), seconds to wait. Out: what is wrong.
"""

import json
import re
import sys
import time
from pathlib import Path

import dkim

FOLDER = Path("/var/lib/lab/mail")
PROTOCOLS = {"store": "lmtp", "world": "smtp"}
# Of smtp_probe's messages; what ask.py sends has a token.
NEVER = re.compile(rb"^Subject: Test of the (virus scanner|spam filter)", re.MULTILINE)


def read(known):
    """All messages that are there by now."""
    for about in FOLDER.glob("*.json"):
        if about.name not in known:
            known[about.name] = (json.loads(about.read_text()), about.with_suffix(".eml").read_bytes())
    return known


def of(case, messages):
    """Those that came of this case."""
    token = case["token"]
    return [one for one in messages if token.encode() in one[1] or any(token in name for name in one[0]["recipients"])]


def awaited(case, about):
    """Whether this is the message that the case waits for: one recipient may get more than one, as bounces do."""
    wanted = case["arrives"]
    return about["protocol"] == PROTOCOLS[wanted["at"]] and wanted["recipient"] in about["recipients"]


def wrong(case, about, octets, hosts):
    """What is not as it must be of a message that must come."""
    wanted = case["arrives"]
    if "sender" in wanted and about["sender"] != wanted["sender"]:
        return f"came from <{about['sender']}>"
    if "through" in wanted:
        if not re.fullmatch(wanted["through"], about["helo"]):
            return f"came through {about['helo']}"
        if about["peer"] not in hosts[about["helo"]]:
            return f"{about['helo']} came from {about['peer']}"
        if not about["tls"]:
            return "came in the clear"
    if "signed" in wanted:
        domains = re.findall(rb"(?im)^DKIM-Signature:(?:.*\n[ \t])*.*\bd=([^;\s]+)", octets)
        if wanted["signed"].encode() not in domains:
            return "has no DKIM signature"
        if not dkim.verify(octets):
            return "has a DKIM signature that does not verify"
        if dkim.verify(octets.replace(b"This is a test", b"This is a trap", 1)):
            return "was changed, and its DKIM signature verifies"
    return ""


def main():
    given = json.load(sys.stdin)
    cases = [case for case in given["cases"] if case["arrives"]]
    deadline, known = time.monotonic() + given["seconds"], {}
    while True:
        messages = list(read(known).values())
        late = [case for case in cases if not any(awaited(case, about) for about, _ in of(case, messages))]
        if not late or time.monotonic() > deadline:
            break
        time.sleep(1)
    problems = [(case, "did not arrive") for case in late]
    for case in given["cases"]:
        for about, octets in of(case, messages):
            if not case["arrives"]:
                problems.append((case, f"arrived, for {' '.join(about['recipients'])}"))
            elif awaited(case, about) and (reason := wrong(case, about, octets, given["hosts"])):
                problems.append((case, reason))
    told = [f"{case['what']}, from {case['from']} to {case['to']}: {reason}" for case, reason in problems]
    told += [f"arrived: {NEVER.search(octets)[0].decode()}" for _, octets in messages if NEVER.search(octets)]
    json.dump({"arrived": len(cases) - len(late), "wrong": told}, sys.stdout)


if __name__ == "__main__":
    main()
