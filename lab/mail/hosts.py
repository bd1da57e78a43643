# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is on the wire of the mail lab: the mail hosts, a subscriber, and the world."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

DOMAIN = "example.net"
DKIM_SELECTOR = "isp1"
DNSBL_KEY = "abcdefghijklmnopqrstuvwxyz"  # nobody's: it only has the length of one
DNSBL_ZONE = f"{DNSBL_KEY}.zen.dq.spamhaus.net"
PREFIXES = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")

NAMESERVER = "203.0.113.100"
DNSBL_SERVER = "203.0.113.101"
WORLD_MX = ("203.0.113.110", "2001:db8:fffe::110")
STORE = "192.0.2.40"  # takes LMTP on port 24

# Both sides of a gateway, where there is one.
GATEWAYS = ("gate1",)
SUBSCRIBERS = ("198.51.100.0/25", "2001:db8:100::/40")
WORLD = ("203.0.113.64/26", "2001:db8:fffe::/48")

# Hosts by the letters of their names: who watches, the subscribers' gateway, and routers with FRR and with BIRD.
SIGNALS = ("watch", "gate", "frr", "bird")
WATCHED = ("watch1", "gate1")  # what it takes to find somebody and to hold him


@dataclass(frozen=True, slots=True)
class Host:
    """A container. `addresses` and the names that they have in DNS, both ways; the first one is the host's own."""

    name: str
    release: str
    addresses: tuple[tuple[str, str], ...]

    @property
    def domain_name(self) -> str:
        return self.addresses[0][1]

    @property
    def image(self) -> str:
        """The kind of image that has all that the host may need."""
        return "signals" if self.name.rstrip("0123456789") in SIGNALS else "mail"

    @property
    def side(self) -> str:
        """mx, outbound, or '' for what is no mail host of the ISP."""
        return {"mx": "mx", "out": "outbound"}.get(self.name.rstrip("0123456789"), "")


HOSTS = (
    Host("mx1", "bookworm", (("192.0.2.21", "mx1.example.net"), ("2001:db8:ffff::21", "mx1.example.net"))),
    Host("mx2", "trixie", (("192.0.2.22", "mx2.example.net"), ("2001:db8:ffff::22", "mx2.example.net"))),
    Host("out1", "bookworm", (("192.0.2.25", "out1.example.net"), ("2001:db8:ffff::25", "out1.example.net"))),
    Host("out2", "trixie", (("192.0.2.26", "out2.example.net"), ("2001:db8:ffff::26", "out2.example.net"))),
    Host(
        "subscriber1",
        "bookworm",
        (
            ("198.51.100.20", "host20.pool.example.net"),
            ("2001:db8:100::20", "host20.pool.example.net"),
            ("198.51.100.21", "host21.pool.example.net"),
            ("2001:db8:100::21", "host21.pool.example.net"),
            ("198.51.100.22", "host22.pool.example.net"),  # infected, where signals are watched
            ("2001:db8:100:22::22", "host22.pool.example.net"),
        ),
    ),
    Host(
        "world",
        "trixie",
        (
            ("203.0.113.77", "mail.example.org"),
            ("2001:db8:fffe::77", "mail.example.org"),
            ("203.0.113.78", "infected.example.org"),
            ("2001:db8:fffe::78", "infected.example.org"),
            ("203.0.113.79", "error.example.org"),
            ("203.0.113.80", "botnet.example.org"),
            (NAMESERVER, "ns.example.org"),
            (DNSBL_SERVER, "dnsbl.example.org"),
            (WORLD_MX[0], "mx.example.org"),
            (WORLD_MX[1], "mx.example.org"),
            (STORE, "store.example.net"),
        ),
    ),
    Host("watch1", "bookworm", (("192.0.2.60", "watch1.example.net"), ("2001:db8:ffff::60", "watch1.example.net"))),
    Host("gate1", "bookworm", (("192.0.2.61", "gate1.example.net"), ("2001:db8:ffff::61", "gate1.example.net"))),
    Host("frr1", "bookworm", (("192.0.2.62", "frr1.example.net"), ("2001:db8:ffff::62", "frr1.example.net"))),
    Host("bird1", "bookworm", (("192.0.2.63", "bird1.example.net"), ("2001:db8:ffff::63", "bird1.example.net"))),
)

# What the blocklist answers, Spamhaus's own test points (RFC 5782, 5) first.
LISTED = (
    ("127.0.0.2", ("127.0.0.2", "127.0.0.4", "127.0.0.10")),
    ("::ffff:7f00:2", ("127.0.0.2",)),
    ("198.51.100.21", ("127.0.0.10",)),  # PBL
    ("2001:db8:100::21", ("127.0.0.10",)),
    ("198.51.100.22", ("127.0.0.4", "127.0.0.10")),  # XBL and PBL
    ("203.0.113.78", ("127.0.0.4",)),  # XBL
    ("2001:db8:fffe::78", ("127.0.0.4",)),
    ("203.0.113.79", ("127.255.255.254",)),  # an error, and no listing
    ("203.0.113.80", ("127.0.0.30",)),  # BCL
)


def chosen(only: list[str]) -> list[Host]:
    """Those named, or all that have to do with mail. Raises ValueError for one that is not there."""
    known = {host.name: host for host in HOSTS}
    for name in only:
        if name not in known:
            raise ValueError(f"there is no host '{name}', only {', '.join(known)}")
    return [known[name] for name in only] or [host for host in HOSTS if host.image == "mail"]


def label(state: Path) -> str:
    """What the names of one lab end in: another state directory is another lab."""
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:6]


def made_name(state: Path, name: str) -> str:
    """A host's container, and its network namespace."""
    return f"isp-lab-{name}-{label(state)}"
