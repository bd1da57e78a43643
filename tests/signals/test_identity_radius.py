# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a real FreeRADIUS writes into its detail file is read: told by radclient as an access server would."""

from __future__ import annotations

import shutil
from pathlib import Path

from ansible_collections.isp.hardening.plugins.module_utils.signals.identity import owner, read_sources, sessions
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import KNOWN, UNKNOWN
from tests.signals.box import box

PACKET = r"""Acct-Status-Type = %s
Acct-Session-Id = "0001"
User-Name = "al\"ice müller@example.net"
NAS-IP-Address = 192.0.2.1
NAS-Port-Id = "ge-0/0/1.100"
Calling-Station-Id = "00-00-5E-00-53-01"
Framed-IP-Address = 203.0.113.7
Framed-IPv6-Prefix = 2001:db8:1::/64
Delegated-IPv6-Prefix = 2001:db8:ff::/56
Class = 0x616263
"""
NAME = 'al"ice müller@example.net'


def test_what_freeradius_writes_is_read(tmp_path: Path) -> None:
    with box(tmp_path) as inside:
        inside.run("chown -R freerad /var/log/freeradius; freeradius -l /box/radius.log")
        for status in ("Start", "Interim-Update", "Stop"):
            (tmp_path / "packet").write_text(PACKET % status)
            said = inside.run("radclient -f /box/packet -r 5 -t 1 127.0.0.1:1813 acct testing123")
            assert "Received Accounting-Response" in said.stdout
            inside.run("sleep 1.1")
        inside.run("cat /var/log/freeradius/radacct/*/detail-* >/box/detail && chmod 644 /box/detail")
        shutil.copy(tmp_path / "detail", tmp_path / "written")
    text = (tmp_path / "written").read_text()
    first, _, last = (
        int(line.rpartition(" ")[2]) * 1000 for line in text.splitlines() if line.startswith("\tTimestamp")
    )
    sources = read_sources({"radius": [str(tmp_path / "written")]}, skew_ms=0)
    assert sources.told == ()
    for address in ("203.0.113.7", "2001:db8:1::5", "2001:db8:ff:7::5"):
        found = owner(sources, address, first + 1)
        assert (found.state, found.subscriber, found.source) == (KNOWN, NAME, "radius")
        assert owner(sources, address, last + 1).state == UNKNOWN
    (session,) = sessions(sources, NAME, first + 1)
    assert (session.session_id, session.user_name, session.nas_address) == ("0001", NAME, "192.0.2.1")
    by_class = read_sources({"radius": [str(tmp_path / "written")]}, subscriber="Class", skew_ms=0)
    assert owner(by_class, "203.0.113.7", first + 1).subscriber == "0x616263"
