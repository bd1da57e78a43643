# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The DNSBL, asked through the resolver of the host that the probe runs on."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable

from ...findings import COMPLIANT, UNKNOWN, VIOLATED
from .visit import Answer, Result

# Spamhaus: wrong zone name, public resolver, too many queries. RFC 5782 knows nothing of 127.255.0.0/16.
_DNSBL_ERRORS = ipaddress.ip_network("127.255.0.0/16")
_LISTINGS = ipaddress.ip_network("127.0.0.0/8")


class NoAnswer(Exception):
    """The resolver could not find out."""


def resolve(name: str) -> tuple[str, ...]:
    """The IPv4 addresses of the name by this host's resolver, none where it has none. Raises NoAnswer."""
    try:
        found = socket.getaddrinfo(f"{name}.", None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return ()
        raise NoAnswer(error.strerror) from None
    except (OSError, UnicodeError) as error:
        raise NoAnswer(str(error)) from None
    return tuple(str(entry[4][0]) for entry in found)


def dnsbl(zone: str, key: str, ask: Callable[[str], tuple[str, ...]], seconds: float = 20.0) -> list[Result]:
    """RFC 5782 chapter 5: the entries that a DNSBL must have, and those that it must not have. `seconds` for each."""
    whole, results = f"{key}.{zone}" if key else zone, []
    entries = (("127.0.0.2", True), ("127.0.0.1", False), ("::ffff:7f00:2", True), ("::ffff:7f00:1", False))
    for address, listed in entries:
        answer = _dnsbl_answer(address, listed, _looked_up(f"{_reversed(address)}.{whole}", ask, seconds))
        asked = ("dnsbl", f"test entry {address}", "M3", f"DNSBL {zone}", "")
        results.append(Result(*asked, answer.verdict, answer.reason, f"{address}: {answer.line}"))
    return results


def _looked_up(name: str, ask: Callable[[str], tuple[str, ...]], seconds: float) -> tuple[str, ...] | None:
    """The addresses of the name; None for no answer in time. The C library's resolver has no deadline to set."""
    found: list[tuple[str, ...]] = []

    def look_up() -> None:
        with contextlib.suppress(NoAnswer):
            found.append(ask(name))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _dnsbl_answer(address: str, listed: bool, codes: tuple[str, ...] | None) -> Answer:
    if codes is None:
        return Answer(VIOLATED, "the DNSBL does not answer: nothing that it lists is refused", "no answer")
    line, ips = " ".join(codes) or "not listed", [ipaddress.ip_address(code) for code in codes]
    if any(ip in _DNSBL_ERRORS for ip in ips):
        return Answer(VIOLATED, "an error of the DNSBL: a wrong zone, a public resolver, too many queries", line)
    if any(ip not in _LISTINGS for ip in ips):
        return Answer(VIOLATED, "no code of a DNSBL: something rewrites answers, or the zone is gone", line)
    if listed and not ips and ":" in address:
        return Answer(UNKNOWN, "the zone has no IPv6 test entry: it may list no IPv6 addresses", line)
    if listed and not ips:
        return Answer(VIOLATED, "the test entry is not listed: nothing is refused", line)
    if not listed and ips:
        return Answer(VIOLATED, "the DNSBL lists everything: all mail is refused", line)
    return Answer(COMPLIANT, line=line)


def _reversed(address: str) -> str:
    """The name of an address in a DNSBL, without the zone (RFC 5782 2.1 and 2.4)."""
    return ipaddress.ip_address(address).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
