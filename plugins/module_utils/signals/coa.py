# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change of Authorization (RFC 5176): tell an access server that a session gets another filter, or ends.

    answer = change_filter(server, session, "quarantine")
    answer.state    ACKNOWLEDGED, REFUSED or SILENT: three things, and none of them is ever taken for another

An answer counts only when its authenticator proves that it comes from somebody who knows the secret, and answers this
request (RFC 2865, 3; RFC 5176, 2.3). Whatever else arrives is not there, so that a forged packet is silence. Silence
says nothing about the session: the request or the answer may be the one that was lost.

The secret is in no text that this file makes. The standard library alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import secrets
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ACKNOWLEDGED, REFUSED, SILENT = "acknowledged", "refused", "silent"

PORT = 3799  # RFC 5176, 2.1
WAITS = (2.0, 4.0, 8.0)  # seconds for an answer to each try: RFC 5080 as FreeRADIUS has it (proxy.conf, coa)
LARGEST = 4096  # octets of a packet (RFC 2865, 3)
HEADER = 20

# Codes (RFC 5176, 2.3) and attributes (RFC 2865, 2866, 2869, 3162, 5176).
DISCONNECT, COA = 40, 43  # the request; ACK and NAK are the next two
USER_NAME, NAS_ADDRESS, FILTER_ID, NAS_IDENTIFIER, SESSION_ID = 1, 4, 11, 32, 44
EVENT_TIMESTAMP, MESSAGE_AUTHENTICATOR, NAS_IPV6_ADDRESS, ERROR_CAUSE = 55, 80, 95, 101

# RFC 5176, 3.5; FreeRADIUS, dictionary.rfc3576 and dictionary.rfc5176.
CAUSES = {
    201: "residual session context removed",
    202: "invalid EAP packet",
    401: "unsupported attribute",
    402: "missing attribute",
    403: "NAS identification mismatch",
    404: "invalid request",
    405: "unsupported service",
    406: "unsupported extension",
    407: "invalid attribute value",
    501: "administratively prohibited",
    502: "request not routable",
    503: "session context not found",
    504: "session context not removable",
    505: "other proxy processing error",
    506: "resources unavailable",
    507: "request initiated",
    508: "multiple session selection unsupported",
}
NO_SESSION = 503

Attribute = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Server:
    """An access server, as it can be asked."""

    address: str
    secret: str = field(repr=False)
    port: int = PORT
    waits: tuple[float, ...] = WAITS


@dataclass(frozen=True, slots=True)
class Target:
    """The session that is meant, as the accounting named it."""

    user_name: str
    session_id: str
    nas_address: str
    nas_identifier: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the access server said, or that it said nothing. `cause` is the Error-Cause of a refusal, 0 without one."""

    state: str
    reason: str
    cause: int = 0


def change_filter(server: Server, target: Target, filter_id: str) -> Answer:
    """Ask for another filter of the session. Raises ValueError for a session that cannot be named."""
    return ask(server, COA, [*identify(target), (FILTER_ID, _text("Filter-Id", filter_id))])


def disconnect(server: Server, target: Target) -> Answer:
    """Ask for the end of the session. Raises ValueError for a session that cannot be named."""
    return ask(server, DISCONNECT, identify(target))


def identify(target: Target) -> list[Attribute]:
    """The attributes that name access server and session (RFC 5176, 3). All of them have to match on the other side.

    Raises ValueError where one is missing: without the session's id another session could be meant.
    """
    if not target.session_id or not target.user_name:
        raise ValueError("the accounting has no Acct-Session-Id or no User-Name for the session; nothing was asked")
    try:
        address = ipaddress.ip_address(target.nas_address)
    except ValueError:
        raise ValueError(f"{target.nas_address!r:.60} is no address of an access server; nothing was asked") from None
    found = [
        (NAS_ADDRESS if address.version == 4 else NAS_IPV6_ADDRESS, address.packed),
        (USER_NAME, _text("User-Name", target.user_name)),
        (SESSION_ID, _text("Acct-Session-Id", target.session_id)),
    ]
    if target.nas_identifier:
        found.append((NAS_IDENTIFIER, _text("NAS-Identifier", target.nas_identifier)))
    return found


def request(code: int, identifier: int, attributes: Iterable[Attribute], secret: bytes) -> bytes:
    """A request with its Message-Authenticator first and its authenticator (RFC 5176, 2.3 and 3.4)."""
    body = _packed([(MESSAGE_AUTHENTICATOR, bytes(16)), *attributes])
    head = struct.pack("!BBH", code, identifier, HEADER + len(body))
    proof = hmac.digest(secret, head + bytes(16) + body, "md5")
    body = _packed([(MESSAGE_AUTHENTICATOR, proof)]) + body[18:]
    return head + _md5(head + bytes(16) + body + secret) + body


def read_answer(packet: bytes, asked: bytes, secret: bytes) -> tuple[int, list[Attribute]] | None:
    """Code and attributes of an answer to the request; None for what does not prove that it is one."""
    if not HEADER <= len(packet) <= LARGEST:
        return None
    code, identifier, length = struct.unpack_from("!BBH", packet)
    if identifier != asked[1] or code not in (asked[0] + 1, asked[0] + 2) or not HEADER <= length <= len(packet):
        return None
    packet = packet[:length]  # what is behind is padding (RFC 2865, 3)
    head, proof, body = packet[:4], packet[4:HEADER], packet[HEADER:]
    if not hmac.compare_digest(proof, _md5(head + asked[4:HEADER] + body + secret)):
        return None
    attributes = _unpacked(body)
    if attributes is None:
        return None
    blank = _packed([(kind, bytes(16) if kind == MESSAGE_AUTHENTICATOR else value) for kind, value in attributes])
    for kind, value in attributes:
        if kind == MESSAGE_AUTHENTICATOR and not hmac.compare_digest(
            value, hmac.digest(secret, head + asked[4:HEADER] + blank, "md5")
        ):
            return None
    return code, attributes


def ask(server: Server, code: int, attributes: Sequence[Attribute]) -> Answer:
    """Send, and send the same again while there is no answer that counts; bounded by the waits of the server."""
    secret = server.secret.encode()
    if not secret:
        raise ValueError(f"no secret for {server.address}; nothing was asked")
    stamped = [*attributes, (EVENT_TIMESTAMP, struct.pack("!I", int(time.time())))]
    asked = request(code, secrets.randbelow(256), stamped, secret)
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    strange = 0
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as udp:
            udp.connect((server.address, server.port))  # so that only its packets come in
            for wait in server.waits:
                with contextlib.suppress(ConnectionRefusedError):  # of the try before
                    udp.send(asked)
                deadline = time.monotonic() + wait
                while (left := deadline - time.monotonic()) > 0:
                    udp.settimeout(left)
                    try:
                        found = read_answer(udp.recv(LARGEST + 1), asked, secret)
                    except TimeoutError:
                        break
                    except ConnectionRefusedError:  # ICMP is no answer, and anybody can send it
                        time.sleep(min(left, 0.1))
                        continue
                    if found:
                        return _judge(server, code, *found)
                    strange += 1
    except OSError as error:
        return Answer(SILENT, f"{server.address}: {error.strerror or error}; whether it knows of the change is unknown")
    said = f"{strange} packets that prove nothing" if strange else "nothing"
    return Answer(
        SILENT,
        f"{server.address} port {server.port} said {said} to {len(server.waits)} tries; is the address, the secret and"
        " the port right, and this host one of its clients?",
    )


def _judge(server: Server, code: int, answered: int, attributes: Iterable[Attribute]) -> Answer:
    name = "CoA" if code == COA else "Disconnect"
    if answered == code + 1:
        return Answer(ACKNOWLEDGED, f"{server.address}: {name}-ACK")
    cause = next((int.from_bytes(value, "big") for kind, value in attributes if kind == ERROR_CAUSE), 0)
    words = CAUSES.get(cause, "a cause that RFC 5176 does not have") if cause else "without a cause"
    return Answer(REFUSED, f"{server.address}: {name}-NAK, {f'{cause} ' if cause else ''}{words}", cause)


def _text(name: str, value: str) -> bytes:
    data = value.encode()
    if not 1 <= len(data) <= 253:
        raise ValueError(f"{name} has {len(data)} octets; RADIUS takes 1 to 253; nothing was asked")
    return data


def _packed(attributes: Iterable[Attribute]) -> bytes:
    return b"".join(bytes((kind, len(value) + 2)) + value for kind, value in attributes)


def _unpacked(body: bytes) -> list[Attribute] | None:
    found, place = [], 0
    while place < len(body):
        length = body[place + 1] if place + 1 < len(body) else 0
        if length < 2 or place + length > len(body):
            return None
        found.append((body[place], body[place + 2 : place + length]))
        place += length
    return found


def _md5(data: bytes) -> bytes:
    # MD5 is what RADIUS has; FIPS builds of Python want to hear that it is no choice of ours.
    return hashlib.md5(data, usedforsecurity=False).digest()
