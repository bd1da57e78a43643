# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The records that the parts of the signals hand to each other.

    Contact ─► walk ─► Alarm ─┐                    ┌─► quarantine
    Listing ─► episode ───────┼─► owner ─► Case ─► limits ─► Decision ─► black-hole
    Complaint ────────────────┘                    └─► notices

Times are whole milliseconds since 1970-01-01 UTC. Addresses and prefixes are canonical text (ipaddress).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KNOWN, UNKNOWN, AMBIGUOUS = "known", "unknown", "ambiguous"


@dataclass(frozen=True, slots=True)
class Contact:
    """A subject did something to an object: the one kind of evidence that every detector walks over.

    `subject` is an address, or a login name (D6). `object` is what counts once: a server's address, a name asked for.
    """

    detector: str  # "D1" .. "D7"
    subject: str
    object: str
    time: int
    fail: bool


@dataclass(frozen=True, slots=True)
class Alarm:
    """A walk that reached its threshold. `evidence` are lines that an abuse desk can read to the customer."""

    detector: str
    subject: str
    time: int  # of the contact that raised it
    score: float
    contacts: int  # until the alarm
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """A detector that would lie on this data and was switched off, or data that was left out: told, never hidden."""

    detector: str  # "" where it is a source that is missing
    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Who had an address at a time. Only KNOWN has a subscriber; nothing is done about the other two."""

    state: str
    subscriber: str = ""
    prefixes: tuple[str, ...] = ()  # all that the subscriber had at that time: /32, /64 or longer
    reason: str = ""
    source: str = ""  # "radius" | "dhcp" | "cgn" | "static"


@dataclass(frozen=True, slots=True)
class Case:
    """One infected subscriber, as long as the episode lasts: what is known, and what could be acted upon.

    `key` stays the same for all runs that see the same episode.
    """

    key: str
    subscriber: str
    prefixes: tuple[str, ...]
    sources: tuple[str, ...]  # what says so, each once: "D1" .. "D7", "XBL", "complaint", "operator"
    since: int
    evidence: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for Ansible's results."""
        return asdict(self)
