# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/assurance.md, from the figures that the long runs left and from what the tests say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.isp.hardening.plugins.module_utils import platforms

from . import records
from .fuzz import CPU_LIMIT, MEMORY_LIMIT

PAGE = Path(__file__).parents[2] / "docs" / "assurance.md"
_KINDS = ("violated, with a packet", "unknown", "unknown, and nothing has changed", "told to be cut off",
          "told to be none of the platform", "nothing raised")  # fmt: skip

_TEXT = Path(__file__).with_name("page.txt")


def page() -> str:
    """The page as it has to be."""
    figures = records.read()
    return _TEXT.read_text(encoding="utf-8").format(
        cpu=CPU_LIMIT,
        memory=MEMORY_LIMIT >> 30,
        mutation="\n".join(_mutation(figures.get("mutation", {}))),
        fuzz="\n".join(_fuzz(figures.get("grammar", {}), figures.get("guided", {}))),
    )


def _mutation(told: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| platform | texts | mutants | violated | unknown | nothing changed | cut off | not the platform's "
        "| nothing raised | faults | packets | judged by the lab | witnesses | confirmed | run |"
    )
    yield "|---|" + "--:|" * 13 + "---|"
    for name in platforms.names():
        yield _row(name, told[name]) if name in told else f"| {name} |" + " – |" * 13 + " not yet |"
    unread = [(name, text.partition(":")[0]) for name, one in told.items() for text in one["otherwise"]]
    if unread:
        yield ""
        yield "Texts with a feature that the lab's router lacks; the naive evaluator alone judged their mutants:"
        yield ", ".join(f"{name} `{text}`" for name, text in unread) + "."
    yield from (f"\nWithout the lab's word: {name} ({one['lab']})." for name, one in told.items() if one["lab"])


def _row(name: str, found: Mapping[str, Any]) -> str:
    counts = [found["outcomes"].get(kind, 0) for kind in _KINDS]
    rest = [found["packets"], found["judged"], found["witnesses"], found["confirmed"]]
    numbers = [found["texts"], found["mutants"], *counts, len(found["faults"]), *rest]
    return f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + f" | {found['date']} |"


def _fuzz(grammar: Mapping[str, Any], guided: Mapping[str, Any]) -> Iterator[str]:
    yield "| platform | grammar: texts | taken as the platform's | CPU-s | guided: texts | last run |"
    yield "|---|--:|--:|--:|--:|---|"
    total = {"grammar": 0, "guided": 0}
    for name in platforms.names():
        one, other = grammar.get(name, {}), guided.get(name, {})
        total["grammar"] += int(one.get("inputs", 0))
        total["guided"] += int(other.get("inputs", 0))
        last = max(one.get("date", ""), other.get("date", "")) or "not yet"
        numbers = [one.get("inputs", 0), one.get("taken", 0), one.get("cpu", 0), other.get("inputs", 0)]
        yield f"| {name} | " + " | ".join(f"{number:,.0f}" for number in numbers) + f" | {last} |"
    yield f"| all | {total['grammar']:,} | | | {total['guided']:,} | |"
    yield ""
    yield f"Together {sum(total.values()):,} texts; the aim of the long run is 10,000,000."
