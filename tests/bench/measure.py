# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python measure.py FILE COMMAND...: what a command costs, the processes that it leaves behind included (Linux).

Becomes the parent of every orphan among its descendants (prctl(2), PR_SET_CHILD_SUBREAPER), as the persistent
connections of ansible.netcommon are, so that their CPU seconds count too. FILE gets the figures as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def main(file: Path, command: list[str]) -> int:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    wall = time.monotonic() - began
    _end_orphans()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    file.write_text(
        json.dumps({"code": code, "wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss / 1024})
    )
    return 0


def _end_orphans() -> None:
    """End what is left of the descendants, and wait for each, so that what it used is known."""
    while True:
        for child in _children():
            os.kill(child, signal.SIGTERM)
        try:
            os.wait()
        except ChildProcessError:
            return


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(word) for word in text.split()]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
