# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/platforms.md is what the platforms' files say, and each statement there has its evidence."""

from __future__ import annotations

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from tools import platforms as generator


def test_the_page_is_what_the_files_say() -> None:
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page(), "docs/platforms.md is stale: run `make docs`"


@pytest.mark.parametrize("name", platforms.names())
def test_every_platform_states_what_it_rests_on(name: str) -> None:
    told = generator.statements(platforms.load(name))
    assert len(told) >= 5
    assert {level for level, _ in told} <= {generator.KERNEL, generator.DOCUMENT, generator.MEMORY}


def test_the_verifier_s_platforms_are_found() -> None:
    assert {"cisco_ios", "arista_eos", "juniper_junos"} <= generator.verified() <= set(platforms.names())
