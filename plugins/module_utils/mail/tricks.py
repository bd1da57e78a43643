# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses that have made mail servers relay for strangers, and the ends that have smuggled a message.

Every recipient leads to one mailbox of the operator, at a domain that the server does not serve, hidden in
some way that a server may unpack after it has looked at the address. No address holds CR or LF: one that
does desynchronises the dialogue, and an answer would belong to another question.

Sources: RFC 5321 (4.1.1.3 and appendix C source routes, 4.1.2 quoting, 4.1.3 literals), RFC 1123 5.2.16
(percent hack), RFC 976 (bang paths), RFC 6531 (UTF-8); Postfix, ADDRESS_REWRITING_README and postconf(5)
(allow_percent_hack, swap_bangpath, resolve_dequoted_address, allow_untrusted_routing).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

# What cannot be a mailbox: an answer to it tells how the server treats any name.
NOBODY = "no-such-mailbox-of-ours"


@dataclass(frozen=True, slots=True)
class Trick:
    """An address between the angle brackets. `control` is an ordinary address whose acceptance explains this one's:

    a server that takes every mailbox of its own domain takes `user%far@own` too, and relays nothing thereby.
    """

    name: str
    address: str
    control: str = ""


def literal(address: str) -> str:
    """An IP address as the domain of a mail address: "[192.0.2.10]", "[IPv6:2001:db8::1]"."""
    ip = ipaddress.ip_address(address)
    return f"[{ip}]" if ip.version == 4 else f"[IPv6:{ip}]"


def recipients(target: str, domain: str, server: str, address: str) -> tuple[Trick, ...]:
    """The 32 ways to name `target`, a mailbox elsewhere, to the server of that name and IP address for `domain`."""
    user, far = target.rsplit("@", 1)
    host = literal(address)
    own, named, numbered = f"{NOBODY}@{domain}", f"{NOBODY}@{server}", f"{NOBODY}@{host}"
    return (
        Trick("plain", f"{user}@{far}"),
        Trick("quoted local part", f'"{user}"@{far}'),
        Trick("mixed case", f"{user.swapcase()}@{_alternating(far)}"),
        Trick("trailing dot", f"{user}@{far}."),
        Trick("spaces around @", f"{user} @ {far}"),
        Trick("space before the closing bracket", f"{user}@{far} "),
        Trick("far name under the own domain", f"{user}@{far}.{domain}"),
        Trick("percent at a subdomain", f"{user}%{far}@relay.{domain}"),
        Trick("percent", f"{user}%{far}", NOBODY),
        Trick("percent at the own domain", f"{user}%{far}@{domain}", own),
        Trick("percent at the own domain with a dot", f"{user}%{far}@{domain}.", own),
        Trick("percent at the server", f"{user}%{far}@{server}", named),
        Trick("percent at the literal", f"{user}%{far}@{host}", numbered),
        Trick("percent twice", f"{user}%{far}%{domain}@{server}", named),
        Trick("bang", f"{far}!{user}", NOBODY),
        Trick("bang at the own domain", f"{far}!{user}@{domain}", own),
        Trick("bang at the literal", f"{far}!{user}@{host}", numbered),
        Trick("bang path over the own domain", f"{domain}!{far}!{user}", NOBODY),
        Trick("bang and percent", f"{far}!{user}%{domain}@{server}", named),
        Trick("source route over the own domain", f"@{domain}:{user}@{far}"),
        Trick("source route over the server", f"@{server}:{user}@{far}"),
        Trick("source route over the literal", f"@{host}:{user}@{far}"),
        Trick("source route over two", f"@{domain},@{server}:{user}@{far}"),
        Trick("source route and percent", f"@{server}:{user}%{far}@{domain}", own),
        Trick("quoted address", f'"{user}@{far}"', NOBODY),
        Trick("quoted address at the own domain", f'"{user}@{far}"@{domain}', own),
        Trick("quoted address at the literal", f'"{user}@{far}"@{host}', numbered),
        Trick("quoted percent at the own domain", f'"{user}%{far}"@{domain}', own),
        Trick("nested quotes", f'"\\"{user}\\"@{far}"@{domain}', own),
        Trick("two @", f"{user}@{far}@{domain}", own),
        Trick("two @ with the literal", f"{user}@{far}@{host}", numbered),
        Trick("wide @ and percent in UTF-8", f"{user}\N{FULLWIDTH COMMERCIAL AT}{far}%{far}@{domain}", own),
    )


def senders(target: str, probe: str, domain: str, server: str, address: str) -> tuple[Trick, ...]:
    """The 8 senders that servers have trusted. `probe` is a mailbox of the operator at no domain of the server."""
    return (
        Trick("null sender", ""),
        Trick("stranger", probe),
        Trick("own domain", f"postmaster@{domain}"),
        Trick("server name", f"postmaster@{server}"),
        Trick("server literal", f"postmaster@{literal(address)}"),
        Trick("localhost", "root@localhost"),
        Trick("no domain", "postmaster"),
        Trick("the recipient itself", target),
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """Octets that only a lenient server takes for the end of a message (RFC 5321 4.1.1.4: CRLF "." CRLF alone)."""

    name: str
    octets: bytes


ENDINGS = (
    Ending("<LF>.<LF>", b"\n.\n"),
    Ending("<LF>.<CR><LF>", b"\n.\r\n"),
    Ending("<CR><LF>.<LF>", b"\r\n.\n"),
    Ending("<CR>.<CR>", b"\r.\r"),
    Ending("<CR>.<CR><LF>", b"\r.\r\n"),
    Ending("<CR><LF>.<CR>", b"\r\n.\r"),
    Ending("<LF>.<CR>", b"\n.\r"),
    Ending("<CR><LF><NUL>.<CR><LF>", b"\r\n\0.\r\n"),
)


def _alternating(text: str) -> str:
    return "".join(sign.upper() if index % 2 else sign for index, sign in enumerate(text))
