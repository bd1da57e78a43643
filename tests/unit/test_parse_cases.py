# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a parser makes of a text, packet by packet and line by line.

A case is a folder tests/platforms/<os>/parse-<name>/ with running.cfg and expect.yml. In that: `packets`, each a list
(`list`, `family`, both kept until the next row changes them), header fields and what happens (`is`: permit, deny or
unknown; `line`: the line that decides); `bindings`, `interfaces`, `doubts` (lines outside lists) and `unread` (lines
in lists that are unknown or in doubt), each whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.filters import UNKNOWN, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.packets import (
    EXTENSIONS,
    PROTOCOLS,
    TCP_FLAGS,
    address_value,
)

ROOT = Path(__file__).parent.parent / "platforms"
CASES = sorted(path.parent for path in ROOT.glob("*/parse-*/expect.yml"))
NUMBERS = (
    "source_port", "destination_port", "icmp_type", "icmp_code", "undetermined", "tos", "ttl", "length", "options",
)  # fmt: skip
FRAGMENTS = {"none": 0, "first": 1, "later": 2}
ADDRESSES = {4: ("198.51.100.7", "203.0.113.9"), 6: ("2001:db8:100::7", "2001:db8:ffff::9")}


def packet(row: dict[str, Any], family: int) -> dict[str, int]:
    """A TCP SYN from a subscriber to port 80, but for the fields that the row has."""
    source, destination = ADDRESSES[family]
    flags = row.get("tcp_flags", ["syn"])
    usual = {"source_port": 49152, "destination_port": 80, "ttl": 64, "length": 60}
    numbers = {name: int(row.get(name, usual.get(name, 0))) for name in NUMBERS}
    protocol = row.get("protocol", "tcp")
    return numbers | {
        "protocol": protocol if isinstance(protocol, int) else PROTOCOLS[protocol],
        "source": address_value(row.get("source", source), family),
        "destination": address_value(row.get("destination", destination), family),
        "tcp_flags": sum(TCP_FLAGS[name] for name in flags),
        "fragment": FRAGMENTS[row.get("fragment", "none")],
        "extension": EXTENSIONS[row.get("extension", "none")],
        "state": 0,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_parse(case: Path) -> None:
    expected = yaml.safe_load((case / "expect.yml").read_text())
    configuration = platforms.load(case.parent.name).parse((case / "running.cfg").read_text())
    name, family = "", 4
    for row in expected.get("packets", ()):
        name, family = str(row.get("list", name)), row.get("family", family)
        actions, entries = evaluate(configuration, family, name, packet(row, family))
        found = {"is": actions.pop() if len(actions) == 1 else UNKNOWN}
        if "line" in row:
            found["line"] = entries[-1].line if entries else 0
        assert {key: row[key] for key in found} == found, f"{name}: {row}"
    if "bindings" in expected:
        assert [
            f"{one.attachment} {one.direction} {one.family} {' '.join(one.filters)}" for one in configuration.bindings
        ] == expected["bindings"]
    for name, wanted in expected.get("interfaces", {}).items():
        interface = configuration.interfaces[name]
        found = {key: list(value) if isinstance(value := getattr(interface, key), tuple) else value for key in wanted}
        assert found == wanted, name
    assert [doubt.line for doubt in configuration.doubts] == expected.get("doubts", [])
    unread = {
        entry.line
        for chosen in configuration.filters.values()
        for entry in chosen.entries
        if entry.action == UNKNOWN or (entry.doubt and "not documented" not in entry.doubt)
    }
    assert sorted(unread) == expected.get("unread", [])
    if "filters" in expected:
        assert {f"{kind} {name}" for kind, name in configuration.filters} == set(expected["filters"])
