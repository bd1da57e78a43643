# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the long runs really did: figures.json, from which docs/assurance.md is written.

Runs note their figures in .cache, and `settle` adds those to figures.json, so that the page is stale at no time.
"""

from __future__ import annotations

import datetime
import fcntl
import json
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("figures.json")
NOTES = Path(__file__).parents[2] / ".cache" / "assurance" / "figures.jsonl"
Figures = dict[str, dict[str, dict[str, Any]]]


def read() -> Figures:
    """{kind of run: {platform: figures}}, {} before the first run."""
    found: Figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    return found


def note(kind: str, network_os: str, found: dict[str, Any]) -> None:
    """The figures of one run; several may run at the same time."""
    NOTES.parent.mkdir(parents=True, exist_ok=True)
    with NOTES.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps([kind, network_os, found | {"date": str(datetime.date.today())}]) + "\n")


def settle() -> None:
    """Take the notes over: inputs of fuzzing add up, a run over mutants takes the place of the one before."""
    if not NOTES.exists():
        return
    figures = read()
    with NOTES.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for line in file:
            kind, network_os, found = json.loads(line)
            here = figures.setdefault(kind, {})
            if kind != "mutation":
                before = here.get(network_os, {})
                found |= {name: round(found[name] + before.get(name, 0), 1) for name in found if name != "date"}
            here[network_os] = found
        file.truncate(0)
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
