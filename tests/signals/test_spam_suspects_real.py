# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real packets, the real softflowd and nfcapd, the real kernel's filter: a bot behind it is found, and nobody else."""

from __future__ import annotations

import time
from pathlib import Path

from tests.signals.box import box
from tests.signals.test_nfcapd import Collector
from tests.signals.test_spam_suspects import POLICY, look

# 198.51.100.9 is a bot and 198.51.100.10 has a mail server of its own; 198.51.100.11 retries one dead relay. What
# goes to 203.0.113.0/28 is dropped, and 192.0.2.1 to .14 answer as mail servers do.
TRAFFIC = """
import socket, threading, time

def serve(address):
    listener = socket.create_server((address, 25))
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"220 mx.example.net ESMTP\\r\\n")
            while peer.recv(65536):
                peer.sendall(b"250 ok\\r\\n")

def dial(source, target):
    client = socket.socket()
    client.settimeout(0.3 if target.startswith("203.") else 10)
    client.bind((source, 0))
    try:
        client.connect((target, 25))
        for line in (b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<a@example.net>", b"DATA", b"x" * 1200 + b"\\r\\n."):
            client.recv(4096)
            client.sendall(line + b"\\r\\n")
        client.recv(4096)
    except OSError:
        pass
    client.close()

for last in range(1, 15):
    threading.Thread(target=serve, args=(f"192.0.2.{last}",), daemon=True).start()
time.sleep(0.3)
calls = [("198.51.100.9", f"203.0.113.{last}") for last in range(1, 13)]
calls += [("198.51.100.10", f"192.0.2.{last}") for last in range(1, 15)]
calls += [("198.51.100.11", "203.0.113.1")] * 30
threads = [threading.Thread(target=dial, args=call) for call in calls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_bot_behind_a_filter_is_found_by_real_flows_and_nobody_else(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        collector = Collector(made, "suspects")
        (tmp_path / "traffic.py").write_text(TRAFFIC, encoding="ascii")
        made.run(
            "for last in $(seq 1 14); do for net in 192.0.2 198.51.100 203.0.113; do"
            " ip address add $net.$last/32 dev lo; done; done\n"
            "nft 'add table ip port25; add chain ip port25 in { type filter hook input priority 0; };"
            " add rule ip port25 in ip daddr 203.0.113.0/28 tcp dport 25 drop'\n"
            # softflowd waits for a full buffer of the kernel, so it reads what tcpdump has caught.
            "tcpdump -i lo -w /box/packets --immediate-mode -U tcp >/box/tcpdump 2>&1 & tcpdump=$!\n"
            "until grep -qs listening /box/tcpdump; do sleep 0.05; done\n"
            "python3 /box/traffic.py; sleep 0.2; kill $tcpdump; wait $tcpdump\n"
            "softflowd -r /box/packets -n 127.0.0.1:9995 -v 9 -A milli -p /run/probe.pid >/box/softflowd.out 2>&1\n"
            "sleep 0.3"
        )
        file = collector.close()
        residential = {"kind": "dynamic", "prefixes": ["198.51.100.0/24"]}
        found = look(
            round(time.time() * 1000),
            policy=POLICY | {"pools": {"residential": residential}},
            flow_files=[str(file)],
            hours=1,
            port_25_blocked=True,
        )
    by = {(one["detector"], one["subject"]): one for one in found["alarms"]}
    assert {subject for detector, subject in by if detector in ("D2", "D3")} == {"198.51.100.9"}
    assert by["D3", "198.51.100.9"]["contacts"] == 10
    assert [one["detector"] for one in found["silences"]] == [""]  # there are no identities
