# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.bench.verdicts: real routers, all their lists and all the questions of the verdict table.

Every answer that there is such a packet comes with one. In a process of its own, as tests.bench.proof measures.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from ansible_collections.isp.hardening.plugins.module_utils.filters import DENY, PERMIT
from ansible_collections.isp.hardening.plugins.module_utils.platforms import cisco_ios
from ansible_collections.isp.hardening.plugins.module_utils.search import Question, Search
from tests.bench.proof import ROOT
from tests.corpus.test_verdicts import DATA, QUESTIONS, WHOLE

ROUTERS = DATA / "configs" / "stanford-atpg" / "atpg" / "data" / "Stanford_backbone"


@dataclass(frozen=True, slots=True)
class Answered:
    """CPU seconds of parsing and of asking, and how much there was."""

    parse: float
    ask: float
    routers: int
    filters: int
    questions: int
    packets: int


def answered(repeat: int) -> Answered | None:
    """The best of some runs; None where the routers' configurations are not beside the checkout."""
    if not ROUTERS.is_dir():
        return None
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.bench.verdicts"]
    runs = [
        Answered(**json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
        for _ in range(repeat)
    ]
    return min(runs, key=lambda run: run.parse + run.ask)


def _measure() -> Answered:
    gc.disable()  # as the action has it
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(ROUTERS.iterdir())]
    began = time.process_time()
    configurations = [cisco_ios.parse(text) for text in texts]
    parsed = time.process_time()
    filters = questions = packets = 0
    for configuration in configurations:
        search = Search(configuration, 4)
        for family, name in configuration.filters:
            if family == 4:
                filters += 1
                for question in QUESTIONS.values():
                    scope = ({**WHOLE, **question},)
                    answers = search.ask([name], [Question(PERMIT, scope), Question(DENY, scope)])
                    questions += len(answers)
                    packets += sum(answer.packet is not None for answer in answers)
    return Answered(parsed - began, time.process_time() - parsed, len(texts), filters, questions, packets)


if __name__ == "__main__":
    json.dump(asdict(_measure()), sys.stdout)
