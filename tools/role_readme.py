# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the README.md of every role from its meta/argument_specs.yml: `python tools/role_readme.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
PLAYBOOKS = ROLES.parent / "playbooks"

# Ansible's documentation markup as Markdown.
_MARKUP = (
    (re.compile(r"\b[CVOEP]\(([^)]*)\)"), r"`\1`"),
    (re.compile(r"\bM\(([^)]*)\)"), r"`\1`"),
    (re.compile(r"\bB\(([^)]*)\)"), r"**\1**"),
    (re.compile(r"\bI\(([^)]*)\)"), r"*\1*"),
    (re.compile(r"\bL\(([^,)]*), *([^)]*)\)"), r"[\1](\2)"),
    (re.compile(r"\bU\(([^)]*)\)"), r"<\1>"),
)


def argument_specs(role: Path) -> Mapping[str, Mapping[str, Any]]:
    """The entry points of a role, each with its `options`."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    return dict(specs["argument_specs"])


def readme(role: Path) -> str:
    """The README of the role in this folder, as Markdown."""
    return "\n".join(_page(role)) + "\n"


def _page(role: Path) -> Iterator[str]:
    specs = argument_specs(role)
    yield f"# Role isp.hardening.{role.name}"
    yield ""
    yield "<!-- Written by `make docs` from meta/argument_specs.yml. -->"
    for entry_point, spec in specs.items():
        yield ""
        if entry_point != "main":
            yield f"## Entry point {entry_point}"
            yield ""
        yield f"**{_text(spec['short_description'])}**"
        for paragraph in _paragraphs(spec.get("description", [])):
            yield ""
            yield paragraph
        yield from _table(spec.get("options", {}), "")
    yield ""
    yield "## Use"
    yield ""
    for playbook in sorted(PLAYBOOKS.glob("*.yml")):
        if f"isp.hardening.{role.name}\n" in playbook.read_text(encoding="utf-8"):
            yield f"As in [playbooks/{playbook.name}](../../playbooks/{playbook.name})."
    for other in sorted(ROLES.glob("*/meta/main.yml")):
        if f"isp.hardening.{role.name}\n" in other.read_text(encoding="utf-8"):
            yield f"Comes with the role [{other.parts[-3]}](../{other.parts[-3]}/README.md)."


def _table(options: Mapping[str, Mapping[str, Any]], prefix: str) -> Iterator[str]:
    if not options:
        return
    yield ""
    yield "| Variable | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for name, option in options.items():
        yield f"| `{prefix}{name}` | {_type(option)} | {_default(option)} | {_meaning(option)} |"
    for name, option in options.items():
        step = "[]." if option.get("type") == "list" else "."
        yield from _table(option.get("options", {}), f"{prefix}{name}{step}")


def _type(option: Mapping[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def _default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    if "default" not in option:
        return ""
    default = option["default"]
    words = default if isinstance(default, str) else yaml.safe_dump(default, default_flow_style=True, width=10_000)
    return f"`{words.splitlines()[0]}`" if words else "empty"


def _meaning(option: Mapping[str, Any]) -> str:
    text = " ".join(_paragraphs(option.get("description", [])))
    choices = option.get("choices")
    if choices:
        text += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    return text.replace("|", "\\|")


def _paragraphs(description: str | list[str]) -> list[str]:
    return [_text(part) for part in ([description] if isinstance(description, str) else description)]


def _text(words: str) -> str:
    for pattern, markdown in _MARKUP:
        words = pattern.sub(markdown, words)
    return " ".join(words.split())


def main() -> None:
    """Write every role's README."""
    for specs in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = specs.parent.parent
        (role / "README.md").write_text(readme(role), encoding="utf-8")


if __name__ == "__main__":
    main()
