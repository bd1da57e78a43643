# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A submission host and a web server on loopback, real ones, that keep what they get."""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of `localhost` that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@dataclass
class Mailbox:
    """What a submission host has taken, and how it behaves."""

    port: int = 0
    mails: list[tuple[str, str, bytes]] = field(default_factory=list)  # sender, recipient, octets
    logins: list[str] = field(default_factory=list)
    refused: str = ""  # a recipient that is answered 550
    broken: bool = False  # hangs up at DATA
    farewell: str = "221 farewell"
    offers_tls: bool = True


class _Smtp(socketserver.StreamRequestHandler):
    box: Mailbox
    tls: ssl.SSLContext | None

    def handle(self) -> None:
        sender = recipient = ""
        self._say("220 localhost ESMTP")
        while raw := self.rfile.readline():  # a new file after STARTTLS
            line = raw.decode("utf-8", "replace").strip()
            verb = line.split(" ")[0].upper()
            if verb == "EHLO":
                offers = ["250-localhost", "250-AUTH PLAIN"]
                if self.box.offers_tls and self.tls:
                    offers.append("250-STARTTLS")
                self._say("\r\n".join([*offers, "250 8BITMIME"]))
            elif verb == "STARTTLS" and self.tls:
                self._say("220 go on")
                self.connection = self.tls.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            elif verb == "AUTH":
                self.box.logins.append(base64.b64decode(line.split(" ")[2]).decode().replace("\0", "/"))
                self._say("235 well" if self.box.logins[-1].endswith("/right") else "535 5.7.8 no")
            elif verb == "MAIL":
                sender = line.partition("<")[2].partition(">")[0]
                self._say("250 well")
            elif verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                self._say("550 5.1.1 nobody of that name" if recipient == self.box.refused else "250 well")
            elif verb == "DATA":
                if self.box.broken:
                    return
                self._say("354 go on")
                octets = b""
                for part in iter(self.rfile.readline, b".\r\n"):
                    octets += part.removeprefix(b".") if part.startswith(b"..") else part
                self.box.mails.append((sender, recipient, octets))
                self._say("250 2.0.0 taken")
            elif verb == "QUIT":
                self._say(self.box.farewell)
                return
            else:
                self._say("250 well")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class _Threaded(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up, or likes no certificate, is part of some tests."""


@contextmanager
def submission(pair: tuple[Path, Path] | None = None) -> Iterator[Mailbox]:
    """A submission host; with a certificate and its key it offers STARTTLS."""
    box = Mailbox()
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
    handler = type("Handler", (_Smtp,), {"box": box, "tls": context})
    with _Threaded(("127.0.0.1", 0), handler) as server:
        box.port = server.server_address[1]
        with _served(server):
            yield box


@dataclass
class Desk:
    """What a web server was posted."""

    port: int = 0
    posts: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    location: str = ""


@contextmanager
def web(pair: tuple[Path, Path] | None = None) -> Iterator[Desk]:
    """A web server, over TLS with a certificate and its key."""
    desk = Desk()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers["Content-Length"]))
            desk.posts.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(desk.status)
            if desk.location:
                self.send_header("Location", desk.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        desk.port = server.server_address[1]
        with _served(server):
            yield desk


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
