# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python3 mail_load.py JSON: mail over SMTP from this host, a connection for each message. Prints what it took as JSON.

smtp-source tells no time of a single session and sends the same text again; a scanner remembers what it has read.
Runs in a container of the lab: standard library alone. The JSON names the address, the connections at once, the
messages, the octets of each, the sender, and ways: pairs of port and recipient, which the messages take in turn.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from email.utils import formatdate
from typing import Any

WORDS = "the of mail and to a in from is was for on that with as at by it invoice we you your order meeting".split()


def message(number: int, sender: str, recipient: str, octets: int) -> bytes:
    """Plain text and an attachment, neither sent before."""
    noise = os.urandom(octets * 5 // 8)
    text = "\r\n".join(
        " ".join(WORDS[octet % len(WORDS)] for octet in noise[start : start + 12]) for start in range(0, 240, 12)
    )
    # Not noise from its first octet: two of those are enough for a scanner to take it for an archive.
    attached = base64.encodebytes(b"%bench\n" + noise).replace(b"\n", b"\r\n")
    token = noise[:8].hex()
    head = (
        f"From: Bench <{sender}>\r\nTo: <{recipient}>\r\nSubject: Minutes of meeting {number}\r\n"
        f"Date: {formatdate()}\r\nMessage-ID: <{token}@{sender.partition('@')[2]}>\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/mixed; boundary="{token}"\r\n\r\n'
        f"--{token}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{text}\r\n"
        f'--{token}\r\nContent-Type: application/octet-stream; name="{token}.dat"\r\n'
        f'Content-Disposition: attachment; filename="{token}.dat"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    )
    return head.encode() + attached + f"--{token}--\r\n.\r\n".encode()


async def session(address: str, port: int, name: str, sender: str, recipient: str, body: bytes) -> None:
    """One message from connect to the reply to QUIT. Raises RuntimeError for any refusal."""
    reader, writer = await asyncio.open_connection(address, port)

    async def reply(expected: bytes) -> None:
        while (line := await reader.readline())[3:4] == b"-":
            pass
        if not line.startswith(expected):
            raise RuntimeError(f"port {port}, {recipient}: {line.decode(errors='replace').strip() or 'hung up'}")

    await reply(b"220")
    for command, expected in (
        (f"EHLO {name}", b"250"), (f"MAIL FROM:<{sender}>", b"250"), (f"RCPT TO:<{recipient}>", b"250"),
        ("DATA", b"354"),
    ):  # fmt: skip
        writer.write(command.encode() + b"\r\n")
        await reply(expected)
    writer.write(body)
    await reply(b"250")
    writer.write(b"QUIT\r\n")
    await reply(b"221")
    writer.close()


async def load(order: dict[str, Any]) -> dict[str, Any]:
    """Send all; the whole time, and that of each session by way."""
    ways = order["ways"]
    times: list[list[float]] = [[] for _ in ways]
    numbers = iter(range(order["messages"]))

    async def worker() -> None:
        for number in numbers:
            way = number % len(ways)
            port, recipient = ways[way]
            body = message(number, order["sender"], recipient, order["octets"])
            began = time.perf_counter()
            await session(order["address"], port, order["name"], order["sender"], recipient, body)
            times[way].append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(order["connections"])))
    return {"wall": time.perf_counter() - began, "times": times}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(json.loads(sys.argv[1])))))
