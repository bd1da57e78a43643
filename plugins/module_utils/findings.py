# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one record that every audit yields: routers, mail hosts and signals alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

COMPLIANT, VIOLATED, UNKNOWN = "compliant", "violated", "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A line that led to the verdict: its number in the text that was read (0: no line) and its words."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict. `packet` is the witness as a line to read, `fields` its header fields as numbers.

    `control` is an id of controls.py. `direction` is "up" (subscriber to network), "down", or "".
    `family` is 4, 6 or 0 where it makes no difference. `pool` names the pool of the policy, or "".
    """

    control: str
    host: str
    attachment: str
    pool: str
    direction: str
    family: int
    verdict: str
    title: str  # what must hold, as a sentence
    reason: str = ""  # why it does not, or is not known to
    packet: str = ""
    fields: tuple[tuple[str, int], ...] = ()
    evidence: tuple[Evidence, ...] = ()
    mend: str = ""  # what to do
    source: str = ""  # of a mail host, what the verdict goes by: "configuration", "SMTP", "DNS"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for Ansible's results."""
        return asdict(self) | {"fields": dict(self.fields)}
