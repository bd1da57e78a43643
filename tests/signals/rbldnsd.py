# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The real rbldnsd in a box, with zones of a test's making; and our code beside it, on Debian's own Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.signals.box import Box

PORT = 5301
MODULES = "ansible_collections/isp/hardening/plugins/module_utils/signals"
_ROOT = Path(__file__).resolve().parents[2]
_ASK = """
import json, sys
import dns.message, dns.query, dns.reversename, dns.name
found = []
for zone, address in json.load(sys.stdin):
    name = dns.reversename.from_address(address).split(3)[0].concatenate(dns.name.from_text(zone))
    answer = dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", port={port}, timeout=5)
    found.append(sorted(record.address for rrset in answer.answer for record in rrset))
json.dump(found, sys.stdout)
"""


class Rbldnsd:
    """The daemon: `serve` begins anew with these zones, `ask` gives the A records."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def serve(self, zones: Mapping[str, Sequence[tuple[str, str]]], port: int = PORT) -> None:
        """A zone has datasets: (kind, text)."""
        words = []
        for zone, datasets in zones.items():
            for number, (kind, text) in enumerate(datasets):
                file = self.box.directory / f"{zone}.{number}"
                file.write_text(text, encoding="latin-1", newline="")
                words.append(f"{zone}:{kind}:/box/{file.name}")
        self.stop(port)
        daemon = f"rbldnsd -n -b 127.0.0.1/{port} -p /tmp/rbldnsd.{port} -c 0 {' '.join(words)}"
        self.box.run(f"{daemon} >/tmp/log.{port} 2>&1 &")
        there = f"for try in $(seq 100); do test -s /tmp/rbldnsd.{port} && exit; sleep 0.05; done"
        self.box.run(f"{there}; cat /tmp/log.{port}; exit 1")

    def stop(self, port: int = PORT) -> None:
        """The daemon is gone, and its port silent."""
        self.box.run(
            f"test -s /tmp/rbldnsd.{port} && kill $(cat /tmp/rbldnsd.{port}); rm -f /tmp/rbldnsd.{port}; sleep 0.1",
            check=False,
        )

    def warnings(self, port: int = PORT) -> str:
        """What it said while it loaded."""
        return self.box.run(f"cat /tmp/log.{port}").stdout

    def ask(self, questions: Sequence[tuple[str, str]], port: int = PORT) -> list[list[str]]:
        """The A records of each (zone, address)."""
        (self.box.directory / "questions").write_text(json.dumps(questions))
        (self.box.directory / "ask.py").write_text(_ASK.format(port=port))
        answered: list[list[str]] = json.loads(self.box.run("/usr/bin/python3 /box/ask.py </box/questions").stdout)
        return answered

    def install(self) -> None:
        """The code as the role signals_library would install it."""
        there = self.box.directory / "library" / MODULES
        if not there.exists():
            source = _ROOT / "plugins" / "module_utils" / "signals"
            shutil.copytree(source, there, ignore=shutil.ignore_patterns("__pycache__"))

    def run_module(self, name: str, *arguments: str, **options: Any) -> Any:
        """`python3 -m …signals.NAME ARGUMENTS`, on Debian's own Python."""
        self.install()
        module = f"{MODULES.replace('/', '.')}.{name}"
        return self.box.run(f"PYTHONPATH=/box/library /usr/bin/python3 -m {module} {' '.join(arguments)}", **options)
