# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.assurance.guided PLATFORM SECONDS: atheris (libFuzzer) mutates texts towards lines never run before.

Needs the dependency group `fuzz`: `make fuzz` brings it. What it checks is what fuzz.check says of any text.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from tests.assurance import fuzz
from tests.assurance.grammar import grammar

LONGEST = 1500  # bytes of a text


def main(network_os: str, seconds: int) -> None:
    """Ends the process: with 0, or as libFuzzer does when a text breaks a promise (it keeps the text)."""
    with atheris.instrument_imports(include=[platforms.__name__]):
        platforms.load(network_os)
    source = grammar(network_os)
    home = fuzz.KEPT / "guided" / network_os
    seeds = home / "corpus"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, lines in enumerate(source.texts):
        for part in range(0, len(lines), 20):
            _put(seeds / f"seed-{number}-{part}", "\n".join(lines[part : part + 40])[:LONGEST])
    words = [word for word in source.words if 1 < len(word) < 40 and word.isascii() and word.isprintable()]
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words]
    _put(home / "words", "".join(f'"{word}"\n' for word in escaped))
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={fuzz.CPU_LIMIT}", "-rss_limit_mb=2048"]
    kept = [f"-dict={home / 'words'}", f"-artifact_prefix={home}/", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, *kept, str(seeds)], lambda data: _one(network_os, data))
    atheris.Fuzz()


def _one(network_os: str, data: bytes) -> None:
    fuzz.check(network_os, data.decode("utf-8", errors="replace"))


def _put(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
