# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an engineer asks of a filter, and what he is told where the question cannot be answered."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.ask import ask

FILTER = """hostname r
ip access-list extended UP
 10 deny tcp any any eq 25
 20 permit ip any any
"""
PLACE = """interface Virtual-Template1
 ip access-group UP in
"""


@pytest.mark.parametrize(
    ("text", "question", "told"),
    [
        (FILTER, {"attachment": "Virtual-Template1", "direction": "up"}, "in the configuration; there are: none"),
        (FILTER + PLACE, {"attachment": "Gi0/1", "direction": "up"}, "there are: Virtual-Template1"),
        (FILTER + PLACE, {"attachment": "Virtual-Template1"}, "an attachment with direction up or down"),
        (FILTER, {"filter": "DOWN"}, "there is no IPv4 filter 'DOWN'; there are: UP"),
        (FILTER, {"filter": "UP", "protocol": "tcp", "destination_ports": ["25-"]}, "is no port or range"),
        (FILTER, {"filter": "UP", "source": ["2001:db8::/32"]}, "is not an IPv4 address"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(text: str, question: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="question 1: ") as refusal:
        ask(platforms.load("cisco_ios").parse(text + "end\n", []), [question])
    assert told in str(refusal.value)


def test_a_place_without_a_filter_lets_everything_pass() -> None:
    configuration = platforms.load("cisco_ios").parse(FILTER + PLACE + "end\n", [])
    question = {"attachment": "Virtual-Template1", "protocol": "tcp", "destination_ports": ["25"]}
    up, down = ask(configuration, [question | {"direction": one} for one in ("up", "down")])
    assert (up["permit"]["found"], down["permit"]["found"]) == ("no", "yes")
