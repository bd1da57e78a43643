# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Test messages: ordinary, spam by agreement (GTUBE), a virus by agreement (EICAR) in its wrappings.

Both agreed texts are put together at run time, so that no file of this project, compiled ones included, is
one of them. A message is octets in CRLF lines, dot-stuffed, without the end of data.

Sources: EICAR, Anti-Malware Testfile; Apache SpamAssassin, GTUBE; RFC 5322, RFC 2045, RFC 5321 4.5.2.
"""

from __future__ import annotations

import base64
import io
import os
import re
import zipfile
from dataclasses import dataclass
from email.utils import formatdate, make_msgid

WRAPPINGS = ("attachment", "zip", "triple zip", "body", "tail behind padding")

# In pieces, each backwards.
_EICAR = ("ZP\\4[PA@%P!O5X", "$}7)CC7)^P(45X", "DRADNATS-RACIE", "SET-SURIVITNA-", "*H+H$!ELIF-T")
_GTUBE = ("1NDAQBDJ4C*SJX", "*NENDI2*3NBSN.", "DRADNATS-EBUTG", "TSET-EBU-ITNA-", "X43.C*LIAME-")


def eicar() -> bytes:
    """The 68 octets that every scanner calls a virus."""
    return _whole(_EICAR)


def _whole(pieces: tuple[str, ...]) -> bytes:
    return "".join(piece[::-1] for piece in pieces).encode("ascii")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who it says it is from and to, and what tells this message from every other."""

    sender: str
    recipient: str
    host: str
    token: str

    def head(self, subject: str) -> str:
        return (
            f"From: <{self.sender}>\r\nTo: <{self.recipient}>\r\nSubject: {subject} {self.token}\r\n"
            f"Date: {formatdate()}\r\nMessage-ID: {make_msgid(self.token, self.host)}\r\nMIME-Version: 1.0\r\n"
        )


def ordinary(envelope: Envelope) -> bytes:
    """A message that nothing is wrong with; its token makes it new to every cache of verdicts."""
    return _plain(envelope, "Test message", f"This is a test of the mail host. Nobody need answer. {envelope.token}")


def gtube(envelope: Envelope) -> bytes:
    """A message that every spam filter calls spam."""
    return _plain(envelope, "Test of the spam filter", _whole(_GTUBE).decode())


def infected(envelope: Envelope, wrapping: str, padding: int) -> bytes:
    """The virus in one of WRAPPINGS. `padding` is the size in octets of what stands before the tail."""
    subject = f"Test of the virus scanner: {wrapping},"
    if wrapping == "body":
        return _plain(envelope, subject, eicar().decode())
    if wrapping == "attachment":
        return _mixed(envelope, subject, [("test.com", eicar())])
    if wrapping == "zip":
        return _mixed(envelope, subject, [("test.zip", _zipped(f"{envelope.token}.com", eicar()))])
    if wrapping == "triple zip":
        return _mixed(envelope, subject, [("test.zip", _triple(envelope.token, eicar()))])
    # Encoded, three octets become four, and a line of 76 characters brings its CRLF.
    before = b"\0" * max(padding * 76 // 78 * 3 // 4, 1)
    return _mixed(envelope, subject, [("padding.bin", before), ("test.com", eicar())])


def _plain(envelope: Envelope, subject: str, text: str) -> bytes:
    head = envelope.head(subject) + "Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    return _stuffed((head + text + "\r\n").encode("ascii"))


def _mixed(envelope: Envelope, subject: str, files: list[tuple[str, bytes]]) -> bytes:
    boundary = f"=_{envelope.token}"
    pieces = [envelope.head(subject).encode() + f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n'.encode()]
    pieces.append(f"--{boundary}\r\nContent-Type: text/plain\r\n\r\nThis is a test of the mail host.\r\n".encode())
    for name, content in files:
        head = (
            f'--{boundary}\r\nContent-Type: application/octet-stream; name="{name}"\r\n'
            f'Content-Disposition: attachment; filename="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        )
        pieces.append(head.encode() + base64.encodebytes(content).replace(b"\n", b"\r\n"))
    return _stuffed(b"\r\n".join([pieces[0], *pieces[1:], f"--{boundary}--\r\n".encode()]))


def encrypted(envelope: Envelope) -> bytes:
    """A zip of which a scanner can see nothing but that it is encrypted: noise, and the flag that says so."""
    archive = _zipped(f"{envelope.token}.bin", os.urandom(200))
    # PKWARE APPNOTE 4.4.4: bit 0 of the flags, which stand at 6 in a file's own head and at 8 in the directory's.
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = archive.index(mark) + place
        archive = archive[:at] + bytes([archive[at] | 1]) + archive[at + 1 :]
    return _mixed(envelope, "Test of the virus scanner: encrypted,", [("test.zip", archive)])


def _triple(token: str, content: bytes) -> bytes:
    for name in (f"{token}.com", "inner.zip", "middle.zip"):
        content = _zipped(name, content)
    return content


def _zipped(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return target.getvalue()


def _stuffed(message: bytes) -> bytes:
    """A dot that begins a line is doubled (RFC 5321 4.5.2)."""
    return re.sub(rb"(?m)^\.", b"..", message)
