# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of rates, over a network so small that its figures mean little: it says what it is, and a threshold does."""

from __future__ import annotations

import re

from tests.bench import signals_rates


def test_rates_are_called_synthetic_and_fall_with_the_threshold() -> None:
    page = signals_rates.section(0.05)
    assert page.strip().splitlines()[0] == "### Whom the detectors find (synthetic)"
    rows = [line.split("|")[2:-1] for line in page.splitlines() if line.startswith("| ln 10^")]
    assert len(rows) == len(signals_rates.HEIGHTS)
    for column in zip(*rows, strict=True):
        figures = [float(cell.replace(",", "").replace("%", "")) for cell in column]
        assert figures == sorted(figures, reverse=True)
    found = dict(re.findall(r"^\| ([a-z0-9 ]+) \| [\d,]+ \| (.*) \|$", page, re.MULTILINE))
    assert found["misconfigured"] == found["p2p"] == found["normal"] == "0 | 0 | 0 | 0"
    assert found["worm"].split(" | ")[3].startswith("10 (")
