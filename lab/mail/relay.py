# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ssh's ProxyCommand: what ssh says goes to sshd on loopback of the network namespace that this runs in, and back."""

import os
import select
import socket


def main() -> None:
    """Until one side ends."""
    with socket.create_connection(("127.0.0.1", 22)) as server:
        while True:
            ready, _, _ = select.select([0, server], [], [])
            if server in ready:
                if not (answer := server.recv(65536)):
                    return
                while answer:
                    answer = answer[os.write(1, answer) :]
            if 0 in ready:
                if not (said := os.read(0, 65536)):
                    return
                server.sendall(said)


if __name__ == "__main__":
    main()
