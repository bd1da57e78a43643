# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How much one client may have."""

from __future__ import annotations

from collections.abc import Iterator

from ...findings import COMPLIANT, VIOLATED
from ..dialogue import Busy
from .settings import Settings
from .visit import Answer, Case, Service, Visit, refusal


def cases(settings: Settings, _: Service) -> Iterator[Case]:
    """The case of the test connections."""
    if "connections" in settings.tests:
        yield Case("connections", f"{settings.allowed_connections + 1} at once", "M10", _connections)


def _connections(visit: Visit) -> Answer:
    allowed = visit.settings.allowed_connections
    held = [visit.connect() for _ in range(allowed + 1)]
    for number, dialogue in enumerate(held, 1):
        line = f"client {dialogue.client}, connection {number} while the others are held"
        try:
            reply = dialogue.greeting()
        except Busy as busy:
            return Answer(COMPLIANT, line=f"{line}: {busy}")
        if not reply.accepted:
            return refusal(f"{line}: {reply}", reply)
    return Answer(VIOLATED, f"{allowed + 1} connections of one client are served", f"{line}: {reply}")
