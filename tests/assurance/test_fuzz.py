# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A short, deterministic run of the fuzzer. The long one: `make assure`; the coverage-guided one: `make fuzz`."""

from __future__ import annotations

import random

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from tests.assurance import fuzz, texts
from tests.assurance.grammar import grammar

INPUTS, CUTS, GARBLED = 1500, 40, 24
# Twice the text may take so many times the work. A sort is allowed, a loop inside a loop is not.
LINEAR = 2.6

pytestmark = pytest.mark.parametrize("network_os", platforms.names())


def test_any_text(network_os: str) -> None:
    assert fuzz.run(network_os, 1, INPUTS)["faults"] == {}


def test_a_text_that_was_cut_off_is_no_compliant_one(network_os: str) -> None:
    if lacks := texts.missing(network_os):
        pytest.skip(f"{network_os} has no {lacks} yet")
    whole, chance = texts.rendered(network_os)[0], random.Random(network_os)
    lines = [len("\n".join(whole.text.split("\n")[:number])) for number in range(whole.text.count("\n"))]
    for position in (*chance.sample(lines, min(CUTS, len(lines))), *chance.sample(range(len(whole.text)), CUTS)):
        fuzz.check_cut(whole, whole.text[:position])


def test_a_garbled_line_is_not_believed(network_os: str) -> None:
    known, chance = fuzz.sound(network_os), random.Random(network_os)
    if not known:
        pytest.skip(f"{network_os} has no text with a known verdict yet")
    for number in range(GARBLED):
        whole = chance.choice(known[:1] if number % 3 else known)
        fuzz.check_garbled(whole, fuzz.garbled(whole, chance))


def test_work_is_linear_in_the_length(network_os: str) -> None:
    """Counted in calls, not in time."""
    chance = random.Random(network_os)
    for text in (
        *(one.text for one in texts.rendered(network_os)[:1]),
        *(_piece(network_os, chance) for _ in range(6)),
    ):
        once, twice = (fuzz.work(network_os, text * times) for times in (8, 16))
        assert twice <= LINEAR * once + 20_000, f"{once} calls for it 8 times, {twice} for 16 times:\n{text}"


def _piece(network_os: str, chance: random.Random) -> str:
    return f"{grammar(network_os).text(chance)}\n"
