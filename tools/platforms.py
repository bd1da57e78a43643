# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write docs/platforms.md from the files in plugins/module_utils/platforms: `python tools/platforms.py`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "platforms.md"
VERDICTS = ROOT / "tests" / "corpus" / "test_verdicts.py"

sys.path[:0] = [str(ROOT / ".collections"), str(ROOT)]

from ansible_collections.isp.hardening.plugins.module_utils import platforms  # noqa: E402
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet  # noqa: E402

KERNEL, DOCUMENT, MEMORY = "kernel", "vendor document", "memory"
_OPEN = re.compile(r"\b(not documented|unknown|in doubt|not read|doubts?\b|not judged)", re.IGNORECASE)
_STRICT = (
    ("fragments behind the first, of TCP (profile `strict`)", Rule("deny", "tcp", later_fragments=True), (4, 6)),
    ("incomplete header chains (profile `strict`)", Rule("deny", undetermined=True), (6,)),
)


def page() -> str:
    """docs/platforms.md as it has to be."""
    return "\n".join(_lines()) + "\n"


def title(platform: ModuleType) -> str:
    """The platform's name: the first line of its file's docstring, up to what it says beyond the name."""
    first = (platform.__doc__ or "").strip().splitlines()[0]
    return re.split(r"[:.](?:\s|$)", first)[0]


def statements(platform: ModuleType) -> list[tuple[str, str]]:
    """What the docstring states, bullet by bullet, each with its level of evidence."""
    found: list[list[str]] = []
    for line in (platform.__doc__ or "").splitlines():
        if line.startswith("- "):
            found.append([line[2:]])
        elif line.startswith("  ") and found:
            found[-1].append(line.strip())
        elif line.strip():
            found.append([])  # a paragraph ends the bullet above it
    return [(_evidence(platform, text), text) for bullet in found if (text := " ".join(bullet))]


def _evidence(platform: ModuleType, text: str) -> str:
    if "[memory]" in text:
        return MEMORY
    tested = '"kernel" means' in (platform.__doc__ or "")
    return KERNEL if tested and re.search(r"\bkernel[);]", text) else DOCUMENT


def verified() -> frozenset[str]:
    """Platforms that have rows in the tables of an independent verifier."""
    table = re.search(r"^PLATFORMS = \{(.*?)\}", VERDICTS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return frozenset(re.findall(r': "(\w+)"', table[1] if table else ""))


def unwritten(name: str, platform: ModuleType) -> list[str]:
    """What of the policy the platform has no words for, by its own refusal."""
    bare = yaml.safe_load((ROOT / "tests" / "platforms" / name / "bare.yml").read_text(encoding="utf-8"))
    found = []
    for what, rule, families in _STRICT:
        refused = [f"IPv{family}" for family in families if not _writes(platform, bare["attachment"], family, rule)]
        if refused:
            found.append(f"{what}: no condition in {' and '.join(refused)}")
    return found


def _writes(platform: ModuleType, place: str, family: int, rule: Rule) -> bool:
    name = f"ISP-UP{family}-00000000"
    whole = RuleSet(name, family, "up", (rule, Rule("permit", comment="everything else")))
    try:
        platform.fields(Change((whole,), (Bind(place, "up", family, name),)))
    except ValueError:
        return False
    return True


def _lines() -> Iterator[str]:
    yield "# Platforms"
    yield ""
    yield "<!-- Written by `make docs` from plugins/module_utils/platforms/. -->"
    yield ""
    yield "`ansible_network_os` is one of the names in the first column, or any of the other names. The statements that"
    yield "a parser rests on are in its file, bullet by bullet; here they are with the level of their evidence:"
    yield ""
    yield "- **kernel**: seen with crafted packets in a real kernel, by a test;"
    yield "- **verifier**: lists of the platform agree with an independent verifier's verdicts on configurations that"
    yield "  nobody here wrote (`tests/corpus`);"
    yield f"- **{DOCUMENT}**: the document and its section are named;"
    yield f"- **{MEMORY}**: nothing at hand confirms it. What a wrong memory could open stays in doubt."
    yield ""
    yield (
        "| `ansible_network_os` | platform | other names | reached by | lines act "
        "| kernel | document | memory | verifier |"
    )
    yield "|---|---|---|---|---|--:|--:|--:|---|"
    checked = verified()
    for name in platforms.names():
        platform = platforms.load(name)
        count = Counter(level for level, _ in statements(platform))
        others = ", ".join(f"`{alias}`" for alias in platform.ALIASES)
        yield (
            f"| [`{name}`](#{name}) | {title(platform)} | {others} | {_reached(platform)} "
            f"| {'at once' if platform.LIVE else 'with the commit'} | {count[KERNEL] or '–'} "
            f"| {count[DOCUMENT] or '–'} | {count[MEMORY] or '–'} | {'yes' if name in checked else '–'} |"
        )
    for name in platforms.names():
        yield from _section(name, platforms.load(name))


def _reached(platform: ModuleType) -> str:
    return f"netmiko `{platform.DEVICE_TYPE}`" if platform.DEVICE_TYPE else "Ansible's ssh"


def _section(name: str, platform: ModuleType) -> Iterator[str]:
    push = platform.PUSH
    yield ""
    yield f"## {name}"
    yield ""
    yield f"{title(platform)}. Parser and semantics: [{name}.py](../plugins/module_utils/platforms/{name}.py)."
    yield ""
    yield f"- Read by: {_commands(platform.READ)}"
    act = "one by one, at once" if platform.LIVE else "together, with the commit"
    changed = "all of our configuration is replaced" if platform.WHOLE else "new filters beside the old, then bound"
    yield f"- A change: {changed}; lines act {act}."
    yield f"- Safety net: armed by {_commands(push.arm)};"
    yield f"  in force by {_commands(push.commit)};"
    yield f"  confirmed over a fresh login by {_commands(push.confirm)};"
    yield f"  taken back by {_commands(push.abort)}."
    for what in unwritten(name, platform):
        yield f"- Cannot write: {what}."
    told = statements(platform)
    for heading, chosen in (
        ("Rests on memory", [text for level, text in told if level == MEMORY]),
        ("Seen in the kernel", [text for level, text in told if level == KERNEL]),
        ("Said by documents", [text for level, text in told if level == DOCUMENT]),
    ):
        if chosen:
            yield ""
            yield f"{heading}:"
            yield ""
            for text in chosen:
                mark = " *(stays open)*" if _OPEN.search(text) else ""
                yield f"- {_markdown(text)}{mark}"


def _commands(commands: tuple[str, ...]) -> str:
    told = [f"`{one}`" if len(one) < 80 and "\n" not in one else "a script (see the file)" for one in commands]
    return ", ".join(dict.fromkeys(told)) or "no command of its own"


def _markdown(text: str) -> str:
    """Outside of code, what Markdown would take for its own."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([*_<>\[\]|])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
