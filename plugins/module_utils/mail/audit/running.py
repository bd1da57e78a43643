# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M15: what mail has to pass is there at this moment, and the queue has room.

Source: Postfix, postconf(5), queue_minfree and message_size_limit (the SMTP server wants half as much again free as the
largest message, and answers 452 4.3.1 with less).
"""

from __future__ import annotations

from collections.abc import Iterator

from ...findings import COMPLIANT, VIOLATED, Finding
from .base import Audited

_TITLE = "What mail has to pass is running, and there is room for it"
_QUEUE_MEND = "Make room where the queue is, and look for what filled it: mailq, and the accounts that send most."
_MEND = "Start it, and look into its log for why it ended. Until then mail waits at the sender's."


def running(host: Audited) -> Iterator[Finding]:
    for place, why in sorted(host.reading.down.items()):
        verdict, evidence = (VIOLATED, [f"{place}: {why}"]) if why else (COMPLIANT, [])
        yield host.finding("M15", place, verdict, _TITLE, why, evidence, _QUEUE_MEND if place == "queue" else _MEND)


def room(free: int, message_size_limit: int, queue_minfree: int) -> str:
    """Why Postfix takes no mail for want of room, or ''. Bytes."""
    needed = max(message_size_limit + message_size_limit // 2, queue_minfree)
    return f"{free} bytes are free, Postfix wants {needed}: it refuses all mail (452 4.3.1)." if free < needed else ""
