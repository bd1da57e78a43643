# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write docs/controls.md from the catalogue in plugins/module_utils/controls.py: `python tools/controls.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "controls.md"
DIRECTIONS = {"up": "up", "down": "down", "both": "up and down", "": "—"}

sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.isp.hardening.plugins.module_utils.controls import CONTROLS, KINDS, Control  # noqa: E402


def page() -> str:
    """docs/controls.md as it has to be."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Controls"
    yield ""
    yield "<!-- Written by `make docs` from plugins/module_utils/controls.py. -->"
    yield ""
    yield "What must hold, why, what brings it about and what proves it. Ids are stable: findings, reports, exceptions"
    yield "and `isp_policy.controls` name a control by its id. *Up* is from the subscriber to the network, *down* from"
    yield "the network to the subscriber. Every control holds for IPv4 and IPv6 alike."
    yield ""
    yield "| id | control | direction | severity | default |"
    yield "|---|---|---|---|---|"
    for control in CONTROLS.values():
        anchor = control.id.lower()
        cells = control.title, DIRECTIONS[control.direction], control.severity, _default(control)
        yield f"| [{control.id}](#{anchor}) | " + " | ".join(cells) + " |"
    for control in CONTROLS.values():
        yield ""
        yield f"## {control.id}"
        yield ""
        yield f"**{control.title}.**"
        yield ""
        yield control.rationale
        yield ""
        yield f"- Severity: {control.severity}"
        if control.direction:
            yield f"- Direction: {DIRECTIONS[control.direction]}"
        yield f"- Default: {_default(control)}"
        if control.switch and not control.switch.invariant:
            yield f"- Exceptions: {'possible, see policy.md' if control.switch.exceptions else 'none'}"
        yield f"- Implemented by: {'; '.join(control.implemented_by)}"
        yield f"- Proved by: {'; '.join(control.proved_by)}"
        yield f"- Sources: {'; '.join(control.sources)}"


def _default(control: Control) -> str:
    switch = control.switch
    if switch is None or switch.invariant:
        return "always on"
    if not switch.default:
        return "off"
    return "on" if switch.kinds == KINDS else f"on, for pools of kind {', '.join(switch.kinds)}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
