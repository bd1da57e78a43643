#!/usr/bin/python3
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs in the world: the MX of example.org (SMTP) and the mailbox store (LMTP). Keeps every message as two files.

NUMBER.eml holds the octets as they came, NUMBER.json who brought them: protocol, peer, helo, tls, sender, recipients.
A recipient refused@… gets 550, later@… gets 451.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP

CERTIFICATE, KEY = "/etc/ssl/mail/fullchain.pem", "/etc/ssl/mail/privkey.pem"
ANSWERS = {"refused": "550 5.1.1 No such mailbox here", "later": "451 4.2.0 Not now"}


class Keeper:
    """aiosmtpd asks it for each recipient and each message."""

    def __init__(self, folder: Path, protocol: str) -> None:
        self._folder = folder
        self._protocol = protocol

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):  # noqa: N802 - the name is aiosmtpd's
        if refusal := ANSWERS.get(address.partition("@")[0]):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - the name is aiosmtpd's
        tls = server.transport.get_extra_info("ssl_object")
        number = f"{time.time_ns():020}"
        about = {
            "protocol": self._protocol,
            "peer": session.peer[0],
            "helo": session.host_name,
            "tls": tls.version() if tls else "",
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
        }
        (self._folder / f"{number}.eml").write_bytes(envelope.original_content)
        # The name that is looked for comes last, and whole.
        partial = self._folder / f"{number}.part"
        partial.write_text(json.dumps(about))
        partial.rename(self._folder / f"{number}.json")
        # LMTP answers for each recipient (RFC 2033, 4.2).
        answers = len(envelope.rcpt_tos) if self._protocol == "lmtp" else 1
        return "\r\n".join([f"250 2.0.0 kept as {number}"] * answers)


async def main(folder: Path, store: str, *mx: str) -> None:
    """Serve for ever."""
    folder.mkdir(parents=True, exist_ok=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    loop = asyncio.get_running_loop()
    await loop.create_server(
        lambda: SMTP(
            Keeper(folder, "smtp"), hostname="mx.example.org", tls_context=context, enable_SMTPUTF8=True,
            data_size_limit=None, loop=loop,
        ),
        mx,
        25,
    )  # fmt: skip
    await loop.create_server(
        lambda: LMTP(Keeper(folder, "lmtp"), hostname="store.example.net", data_size_limit=None, loop=loop), store, 24
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
