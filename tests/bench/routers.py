# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python routers.py DIRECTORY COUNT: many of the lab's IOS routers in one process, until its standard input ends."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

from lab.__main__ import CONFIGS
from lab.routers import kind
from lab.routers.base import Router
from lab.server import Access, Lab


def device(number: int) -> Router:
    """bng1 of the lab under another name."""
    text = (CONFIGS / "bng1.cfg").read_text(encoding="utf-8")
    name = f"bench{number:03}"
    return kind("cisco_ios")(name, text.replace("bng1", name))


async def run(directory: Path, count: int) -> None:
    """Serve on free ports of loopback; DIRECTORY/ports.json and known_hosts tell where."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # clients hang up without a word
    lab = Lab([device(number) for number in range(1, count + 1)])
    await lab.open(Access(), {}, directory)
    (directory / "known_hosts").write_text(lab.known_hosts)
    print(json.dumps(lab.ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await lab.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
