# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""lab-infected SOURCE PREFIX COUNT: what a spam trojan does first: a SYN to port 25 of one host after the other.

Nothing is ever sent on a connection that comes about. Prints how many did.
"""

from __future__ import annotations

import ipaddress
import itertools
import select
import socket
import sys
import time
from collections.abc import Sequence

_PORT = 25
_PATIENCE = 1.5  # seconds, for all of them together
_PAUSE = 0.02  # between two SYNs


def main(arguments: Sequence[str]) -> int:
    source, prefix, count = arguments
    network = ipaddress.ip_network(prefix)
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    opened = []
    for address in itertools.islice(network.hosts(), int(count)):
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setblocking(False)
        one.bind((source, 0))
        one.connect_ex((str(address), _PORT))
        opened.append(one)
        time.sleep(_PAUSE)
    pending, end = list(opened), time.monotonic() + _PATIENCE
    while pending and (left := end - time.monotonic()) > 0:
        answered = select.select([], pending, [], left)[1]  # accepted or refused
        pending = [one for one in pending if one not in answered]
    print(f"{sum(map(_connected, opened))} of {len(opened)}")
    return 0


def _connected(one: socket.socket) -> bool:
    with one:
        try:
            one.getpeername()
        except OSError:
            return False
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
