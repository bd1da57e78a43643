"""Connection tracking forgets the sessions that are closed, so that flow offload, which would pass the filter by, ends.

This kernel may have no flowtable; what is looked at is the table of connections.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.signals import nftables_service

from .box import Box, box

PACKAGE = "ansible_collections/isp/hardening/plugins/module_utils/signals"

NETWORK = """
for name in sub edge world; do ip netns add $name; done
link() { # host, cable, its addresses, the edge's
    ip link add $2 netns edge type veth peer name wan netns $1
    ip -n $1 link set wan up; ip -n edge link set $2 up
    ip -n $1 addr add $3 dev wan; ip -n $1 addr add $4 dev wan nodad
    ip -n edge addr add $5 dev $2; ip -n edge addr add $6 dev $2 nodad
    ip -n $1 route add default via ${5%/*}; ip -n $1 route add default via ${6%/*}
}
link sub cable0 203.0.113.7/24 2001:db8:1:7::7/64 203.0.113.1/24 2001:db8:1:7::1/64
link world cable1 198.51.100.80/24 2001:db8:f::80/64 198.51.100.1/24 2001:db8:f::1/64
ip netns exec edge sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip netns exec edge nft 'table inet others { chain forward {
    type filter hook forward priority 0; policy accept; ct state established accept; }; }'
"""

# Sessions of the subscriber, before and after he is put into quarantine.
SESSIONS = """
import ctypes, json, os, socket, subprocess, sys, threading, time
from ansible_collections.isp.hardening.plugins.module_utils.signals import ledger, limits, nftables_service, records

def into(name):
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None).setns(handle, 0x40000000):
        raise OSError("setns")

def echo(session):
    while data := session.recv(100):
        session.send(data)

def serve(server):
    while True:
        threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

into("world")
for kind, address in ((socket.AF_INET, "198.51.100.80"), (socket.AF_INET6, "2001:db8:f::80")):
    for port in (25, 587):
        server = socket.socket(kind)
        server.bind((address, port))
        server.listen()
        threading.Thread(target=serve, args=(server,), daemon=True).start()

def known():
    told = [subprocess.run(["conntrack", "-L", "-f", family], capture_output=True, text=True).stdout.split("\\n")
            for family in ("ipv4", "ipv6")]
    return [sorted(line.split("dport=")[1].split()[0] for line in lines if "ESTABLISHED" in line) for lines in told]

into("sub")
sessions = [socket.create_connection((address, port), 5)
            for address in ("198.51.100.80", "2001:db8:f::80") for port in (25, 587)]
for session in sessions:
    session.send(b"hello")
    session.recv(100)
into("edge")
before = known()
never = [{"prefix": "198.51.100.0/24", "reason": "own servers"}]
data = {"state": "/box/q/state.json", "audit": "/box/q/audit", "most": 4, "portal": ["198.51.100.80"], "never": never}
open("/box/settings.json", "w").write(json.dumps(data))
books, kernel = nftables_service.opened("/box/settings.json")
case = records.Case("c1", "alice", ("203.0.113.7/32", "2001:db8:1:7::/64"), ("D2",), 0)
books.apply(kernel, [case], limits.Limits("quarantine", 4000, books.never, ttl=limits.HOUR, dry_run=False))
print(json.dumps([before, known()]), flush=True)
os._exit(0)
"""


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Box]:
    with box(tmp_path) as made:
        (tmp_path / PACKAGE).mkdir(parents=True)
        for file in Path(nftables_service.__file__).parent.glob("*.py"):
            shutil.copy(file, tmp_path / PACKAGE / file.name)
        (tmp_path / "sessions.py").write_text(SESSIONS)
        made.run(NETWORK)
        yield made


def test_session_cut_where_flow_offload_would_pass_the_filter_by(edge: Box) -> None:
    before, after = json.loads(edge.run("PYTHONPATH=/box python3 /box/sessions.py").stdout.splitlines()[-1])
    assert before == [["25", "587"], ["25", "587"]]
    assert after == [["587"], ["587"]]
