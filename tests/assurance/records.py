# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the long runs really did: figures.json, from which docs/assurance.md is written."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("figures.json")


def read() -> dict[str, Any]:
    """{part: {platform: figures}}, {} before the first run."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    return found


def change(edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the figures; several runs may do so at the same time."""
    with FIGURES.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        figures = json.loads(text) if text else {}
        edit(figures)
        file.truncate(0)
        file.write(json.dumps(figures, indent=1, sort_keys=True) + "\n")
