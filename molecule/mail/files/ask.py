# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs on a probe host: asks mail hosts what the rows of a table say, many at once, and tells what came out.

In, as JSON: probe, clients, hosts (by group), rows, password, secret. Out: a case for each row, client address and
mail host, with what was said and whether that is what must come out. See answers.yml for the rows.
"""

import base64
import json
import re
import secrets
import shlex
import smtplib
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

AT_ONCE = 8  # of all questions
TO_ONE_HOST = 4  # of one client: a mail host bears 20, and smtp_probe asks besides
SECONDS = 90


def cases(given):
    """A row is asked from each address of its client, to every host of its group that has one of that family."""
    for row in given["rows"]:
        client = given["clients"][row["client"]]
        if client["host"] != given["probe"]:
            continue
        for source in client["addresses"]:
            for host in given["hosts"][row["to"]]:
                token = f"t{secrets.token_hex(8)}"
                login = base64.b64encode(f"\0{row.get('user', '')}\0{given['password']}".encode()).decode()
                address = host["ipv6" if ":" in source else "ipv4"]
                words = {
                    "address": address,
                    "at": f"[{address}]" if ":" in address else address,
                    "client": source,
                    "files": given["files"],
                    "helo": client["name"],
                    "login": login,
                    "name": host["name"],
                    "password": given["password"],
                    "recipients": ",".join(f"r{number}@example.org" for number in range(row.get("recipients", 0))),
                    "token": token,
                    "user": row.get("user", ""),
                }
                yield {"row": row, "source": source, "host": host["host"], "token": token, "words": words}


def filled(text, words, change=str):
    """The text with the {words} in it; other braces stay, as a regular expression needs them."""
    return re.sub(r"\{(\w+)\}", lambda found: change(words[found[1]]) if found[1] in words else found[0], text)


def swaks(row, words):
    """The reply that decided: the last one before QUIT, or the first that swaks was not content with."""
    common = (
        "--server {address} --local-interface {client} --helo {helo} --from sender@example.org --timeout 60 "
        "--header 'Subject: Test {token}' "
    )
    user = "--auth PLAIN --auth-user {user} --auth-password {password} "
    arguments = shlex.split(common + (user if "user" in row else "") + row["swaks"])
    command = ["swaks", *(filled(one, words) for one in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    replies, more = [], False
    for line in done.stdout.splitlines():
        if re.match(r" *~?-*>.*\bQUIT$", line):
            break
        # <- content, <** not content, ~ under TLS
        if found := re.match(r"<([-~*]+) +(\d{3}[ -].*)", line):
            if more:
                replies[-1][1] += f" {found[2][4:]}"
            else:
                replies.append(["*" in found[1], f"{found[2][:3]} {found[2][4:]}"])
            more = found[2][3] == "-"
    if replies:
        return next((text for bad, text in replies if bad), replies[-1][1])
    return (done.stdout + done.stderr).strip()[-300:]


def say(row, words):
    """The reply to the last command, after EHLO. What follows a 354 is the message."""
    source = (words["client"], 0)
    if row.get("port") == 465:
        trust = ssl.create_default_context(cafile="/etc/ssl/mail/ca.pem")
        trust.check_hostname = False  # it is reached by its address
        server = smtplib.SMTP_SSL(
            words["address"], 465, words["helo"], timeout=SECONDS, source_address=source, context=trust
        )
    else:
        server = smtplib.SMTP(
            words["address"], row.get("port", 25), words["helo"], timeout=SECONDS, source_address=source
        )
    with server:
        code, text = server.ehlo()
        for command in row["say"]:
            if code == 354:
                server.send(filled(command, words).replace("\n", "\r\n") + "\r\n.\r\n")
                code, text = server.getreply()
            else:
                code, text = server.docmd(filled(command, words))
            if code >= 400:
                break
        return f"{code} {text.decode(errors='replace')}".replace("\n", " ")


def command(row, words):
    """All that a program says."""
    arguments = [filled(one, words) for one in shlex.split(row["command"])]
    done = subprocess.run(arguments, input="QUIT\n", capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout + done.stderr


KINDS = {"swaks": swaks, "say": say, "command": command}


def ask(case):
    """One case: `times` in a row where the row says so; the first must be `first` then, the last is what counts."""
    row, words = case["row"], case["words"]
    kind = next(name for name in KINDS if name in row)
    said = []
    for _ in range(row.get("times", 1)):
        try:
            said.append(KINDS[kind](row, words))
        except (OSError, smtplib.SMTPException, subprocess.TimeoutExpired) as error:
            said.append(f"{type(error).__name__}: {error}")
    expected = filled(row["expect"], words, re.escape)
    good = bool(re.search(expected, said[-1], re.DOTALL))
    if "first" in row:
        good = good and bool(re.search(row["first"], said[0]))
    shown = said[-1] if len(said) == 1 or re.search(row.get("first", ""), said[0]) else f"first {said[0]}; {said[-1]}"
    return {
        "what": row["what"],
        "from": case["source"],
        "to": case["host"],
        "said": shown[-600:],
        "expect": expected,
        "good": good,
        "token": case["token"],
        "arrives": {name: filled(text, words) for name, text in row.get("arrives", {}).items()},
    }


def virus_zip(path):
    """The test virus of EICAR, which stands here backwards so that this file is none."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("test.com", r"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\4[PA@%P!O5X"[::-1])


def encrypted_zip(path):
    """A ZIP with the classic encryption (APPNOTE 6.1), which Python reads and does not write."""
    content, name = b"quarterly figures\n", b"figures.txt"
    check = zlib.crc32(content)
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(key, octet):
        return ~zlib.crc32(bytes([octet]), ~key & 0xFFFFFFFF) & 0xFFFFFFFF

    def update(octet):
        keys[0] = crc(keys[0], octet)
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for octet in b"secret":
        update(octet)
    coded = bytearray()
    for octet in bytes(11) + bytes([check >> 24]) + content:
        mask = (keys[2] & 0xFFFF) | 2
        coded.append(octet ^ ((mask * (mask ^ 1)) >> 8 & 255))
        update(octet)
    fields = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 0x21, check, len(coded), len(content), len(name), 0)
    local = b"PK\3\4" + fields + name + bytes(coded)
    central = b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)


def main():
    given = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        given["files"] = folder
        virus_zip(Path(folder) / "virus.zip")
        encrypted_zip(Path(folder) / "encrypted.zip")
        gates = {}
        every = list(cases(given))
        for case in every:
            gates.setdefault((case["source"], case["host"]), threading.Semaphore(TO_ONE_HOST))

        def through(case):
            with gates[case["source"], case["host"]]:
                return ask(case)

        # What takes long comes first.
        every.sort(key=lambda case: -case["row"].get("times", 1))
        asked = list(pool.map(through, every))
    # No reply may hold it, and neither does this one.
    for case in asked:
        if given["secret"] in case["said"]:
            case["good"] = False
            case["said"] = "a reply with the key of the DNSBL: " + case["said"].replace(given["secret"], "<key>")
    json.dump(asked, sys.stdout)


if __name__ == "__main__":
    main()
