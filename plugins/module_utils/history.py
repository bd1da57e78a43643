# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has changed on a router since it was last audited: the packets that its filters treat otherwise now."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .audit import bound
from .difference import Side, as_dict, difference, unchanged_beside
from .filters import Configuration, NotThisPlatform
from .policy import Attachment
from .secrets import redact_lines

PLACE_BOXES = 10  # that are told of one attachment, direction and family


def redacted(text: str) -> str:
    """The text as history keeps it."""
    return "\n".join(redact_lines(text.split("\n")))


def drift(platform: ModuleType, before: str, now: str, attachments: Sequence[Attachment]) -> dict[str, Any]:
    """The boxes of every place whose filters changed, from two texts without secrets.

    `problem` says why the two could not be compared, "" where they were.
    """
    told: dict[str, Any] = {"changes": [], "left_out": 0, "problem": ""}
    if before == now:
        return told
    names = [attachment.name for attachment in attachments]
    why = platform.incomplete(before)
    try:
        old, new = platform.parse(before, names), platform.parse(now, names)
    except NotThisPlatform as error:
        why = why or str(error)
    if why:
        return told | {"problem": f"what was audited last cannot be compared: {why}"}
    for place in ((name, direction, family) for name in names for direction in ("up", "down") for family in (4, 6)):
        before_side, now_side = (_side(platform, one, *place) for one in (old, new))
        alike = unchanged_beside(before, now, (before_side, now_side))
        found = as_dict(difference(before_side, now_side, place[2], PLACE_BOXES, alike))
        where = {"attachment": place[0], "direction": place[1]}
        told["changes"] += [{**where, **box} for box in found["boxes"]]
        told["left_out"] += sum(found["left_out"].values())
    return told


def _side(platform: ModuleType, configuration: Configuration, name: str, direction: str, family: int) -> Side:
    binding = bound(configuration, name, direction, family)
    return Side(configuration, binding.filters if binding else (), platform.__name__)
