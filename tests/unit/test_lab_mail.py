# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's mail hosts: what their DNS says, what their images are made of, and that they come and go whole."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dns.name
import dns.rdatatype
import dns.reversename
import dns.zone
import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.mail.messages import eicar
from lab import images
from lab.mail import __main__ as lab
from lab.mail import dns as records
from lab.mail import keys, place
from lab.mail.hosts import DNSBL_ZONE, HOSTS, PREFIXES, Host, chosen, made_name
from lab.netns import tool

INVENTORY = Path(__file__).parents[2] / "inventories" / "lab"
HOST_KEY = "A" * 392  # as long as a 2048 bit key in base64


def zone(name: str) -> dns.zone.Zone:
    return dns.zone.from_text(records.zones(HOST_KEY)[name], origin=f"{name.rstrip('.')}.", relativize=False)


def found(name: str, kind: str) -> set[str]:
    """The data of a name in the zone that it is in."""
    place = max((one for one in records.ZONES if f".{name}".endswith(f".{one}")), key=len)
    answer = zone(place).get_rdataset(f"{name}.", kind)
    return {one.to_text() for one in answer or ()}


def test_every_address_is_of_the_documentation_and_has_one_owner() -> None:
    prefixes = [ipaddress.ip_network(prefix) for prefix in PREFIXES]
    addresses = [ipaddress.ip_address(address) for host in HOSTS for address, _ in host.addresses]
    assert len(set(addresses)) == len(addresses)
    assert [one for one in addresses if not any(one in prefix for prefix in prefixes)] == []


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_names_and_addresses_lead_to_each_other(host: Host) -> None:
    for address, name in host.addresses:
        pointer = dns.reversename.from_address(address).to_text(omit_final_dot=True)
        assert found(pointer, "PTR") == {f"{name}."}
        assert address in found(name, "AAAA" if ":" in address else "A")


def test_mail_comes_in_and_leaves_by_different_hosts() -> None:
    assert found("example.net", "MX") == {"10 mx1.example.net.", "10 mx2.example.net."}
    addresses = [address for host in HOSTS if host.side == "outbound" for address, _ in host.addresses]
    (spf,) = found("example.net", "TXT")
    assert spf.strip('"').split()[1:] == [f"ip{6 if ':' in one else 4}:{one}" for one in addresses] + ["-all"]
    assert found("null.example.org", "MX") == {"0 ."}


def test_the_dkim_record_is_the_key_in_pieces_that_dns_can_carry() -> None:
    (record,) = zone("example.net").get_rdataset("isp1._domainkey.example.net.", "TXT")
    assert all(len(piece) <= 255 for piece in record.strings)
    assert b"".join(record.strings) == b"v=DKIM1; k=rsa; p=" + HOST_KEY.encode()


def test_the_root_delegates_every_zone_and_the_blocklist() -> None:
    root = zone(".")
    delegated = {name.to_text(omit_final_dot=True) for name, _ in root.iterate_rdatasets(dns.rdatatype.NS)} - {"."}
    assert delegated == {*records.ZONES, DNSBL_ZONE}


def test_the_blocklist_has_the_test_points_and_no_code_for_anybody_else() -> None:
    lines = [line for text in records.blocklist().values() for line in text.splitlines() if not line.startswith("$")]
    codes: dict[str, set[str]] = {}
    for address, answer in (line.split(maxsplit=1) for line in lines):
        codes.setdefault(address, set()).add(answer.split(":")[1])
    assert codes["127.0.0.2"] == {"127.0.0.2", "127.0.0.4", "127.0.0.10"}
    assert codes["203.0.113.79"] == {"127.255.255.254"}
    assert "127.0.0.1" not in codes
    assert "203.0.113.77" not in codes


def test_the_inventory_has_the_hosts_of_the_lab() -> None:
    groups = yaml.safe_load((INVENTORY / "hosts.yml").read_text())["all"]["children"]
    kinds = {"mx": "mx", "outbound": "out", "probes": "subscriber world", "signals": "watch", "edges": "gate"}
    kinds["blackhole_routers"] = "frr bird"
    for group, letters in kinds.items():
        there = [host.name for host in HOSTS if host.name.rstrip("0123456789") in letters.split()]
        assert list(groups[group]["hosts"]) == there


def test_a_host_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(ValueError, match="there is no host 'mx3', only mx1, mx2, out1, out2, subscriber1, world, "):
        chosen(["world", "mx3"])


def test_another_state_directory_is_another_lab(tmp_path: Path) -> None:
    assert made_name(tmp_path / "one", "mx1") != made_name(tmp_path / "two", "mx1")
    assert made_name(tmp_path / "one", "mx1") == made_name(tmp_path / "two" / ".." / "one", "mx1")


def test_another_list_of_packages_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [(kind, release) for kind in images.KINDS for release in images.KINDS[kind]]
    before = {images.tarball(kind, release).name for kind, release in every}
    assert len(before) == len(every)
    monkeypatch.setattr(images, "BARE", (*images.BARE, "less"))
    assert before.isdisjoint({images.tarball(kind, release).name for kind, release in every})


def test_it_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lab.unavailable() == "containers with networks of their own need root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(lab, "tool", lambda name: "" if name == "podman" else name)
    assert lab.unavailable().startswith("no podman on this machine")
    monkeypatch.setattr(lab, "tool", lambda name: "" if name == "mmdebstrap" else name)
    monkeypatch.setattr(images, "missing", lambda: ["localhost/isp-hardening/mail:trixie"])
    assert "no mmdebstrap on this machine" in lab.unavailable()
    assert "localhost/isp-hardening/mail:trixie" in lab.unavailable()


@pytest.mark.parametrize("writable", [True, False])
def test_what_is_imported_from_a_zip_is_compiled_once(writable: bool, tmp_path: Path) -> None:
    folder = tmp_path / "cache" if writable else tmp_path / "a file" / "cache"
    (tmp_path / "a file").touch()
    source = Path(place.__file__).with_name("zip_cache.py").read_text().replace("/var/tmp/zip-cache", str(folder))
    (tmp_path / "lab_zip_cache.py").write_text(source)
    for value in (1, 2, 2):  # another text is never taken for the one before
        with zipfile.ZipFile(tmp_path / "module.zip", "w") as file:
            file.writestr("package/inside.py", f"VALUE = {value}")
            file.writestr("package/__init__.py", "")
        code = (
            "import lab_zip_cache, sys; sys.path[:0] = ['module.zip']; from package import inside; print(inside.VALUE)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        assert shown == f"{value}\n"
    assert len(list(folder.glob("*inside*"))) == (2 if writable else 0)


def test_the_signature_is_no_virus_itself() -> None:
    (signature,) = (text for path, text in place.mail_host().items() if path.endswith(".ndb"))
    assert bytes.fromhex(signature.rpartition(":")[2]) == eicar()
    assert eicar().decode() not in signature


def not_here() -> str:
    """Why no container can be started here, or ''. Images take minutes to make, which is not for a test."""
    if reason := lab.unavailable():
        return reason
    absent = images.missing(("mail",), tuple({host.release for host in chosen(["mx1", "world"])}))
    return f"there is no {absent[0]}: python -m lab.mail images" if absent else ""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    if reason := not_here():
        pytest.skip(f"the mail hosts cannot run here: {reason}")
    yield tmp_path / "state"
    lab.down(tmp_path / "state")


def left(state: Path) -> list[str]:
    """What is there of a lab."""
    containers = subprocess.run(
        [tool("podman"), "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True
    )
    spaces = subprocess.run([tool("ip"), "netns", "list"], capture_output=True, text=True, check=True)
    names = {made_name(state, name) for name in ("wire", *(host.name for host in HOSTS))}
    there = [line.split()[0] for line in (containers.stdout + spaces.stdout).splitlines() if line]
    return [*(name for name in there if name in names), *([str(state)] if state.exists() else [])]


def ssh(state: Path, host: str, command: str, stdin: str = "") -> str:
    words = [tool("ssh"), "-F", str(state / "ssh_config"), "-o", "BatchMode=yes", host, command]
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


SEND = """import smtplib
with smtplib.SMTP("203.0.113.110", source_address=("192.0.2.21", 0)) as server:
    server.starttls()
    server.sendmail("user1@example.net", ["someone@example.org"], "Subject: x\\r\\n\\r\\n.dot\\r\\n")
    server.mail("user1@example.net")
    print(server.rcpt("refused@example.org")[0], server.rcpt("later@example.org")[0])
with smtplib.LMTP("192.0.2.40", 24) as server:
    server.sendmail("someone@example.org", ["user1@example.net", "user2@example.net"], "Subject: y\\r\\n\\r\\n")
    print(server.getreply()[0])
"""


def test_the_world_answers_a_mail_host(state: Path) -> None:
    said = lab.up(state, ["mx1", "world"], "mail")
    assert "mx1 answers at 192.0.2.21 (Debian bookworm)" in said
    with pytest.raises(lab.Problem, match="it runs already"):
        lab.up(state, ["mx1"], "mail")
    assert ssh(state, "mx1", "dig +short @203.0.113.100 -x 198.51.100.20") == "host20.pool.example.net.\n"
    listed = ".".join(reversed("203.0.113.78".split(".")))
    assert ssh(state, "mx1", f"dig +short @203.0.113.101 {listed}.{DNSBL_ZONE}") == "127.0.0.4\n"
    ssh(state, "mx1", "systemctl start unbound")
    assert ssh(state, "mx1", "dig +short @127.0.0.1 example.org MX") == "10 mx.example.org.\n"
    assert ssh(state, "mx1", "python3 -", SEND) == "550 451\n250\n"  # LMTP: one more for the second
    kept = ssh(state, "world", "cd /var/lib/lab/mail && for file in *.json; do cat $file; echo; done").splitlines()
    first, second = (json.loads(line) for line in kept)
    assert first == {
        "protocol": "smtp", "peer": "192.0.2.21", "helo": "mx1.example.net", "tls": "TLSv1.3",
        "sender": "user1@example.net", "recipients": ["someone@example.org"],
    }  # fmt: skip
    assert (second["protocol"], second["recipients"]) == ("lmtp", ["user1@example.net", "user2@example.net"])
    assert ssh(state, "world", "cat $(ls /var/lib/lab/mail/*.eml | head -1)").splitlines()[-1] == ".dot"
    lab.down(state)
    assert left(state) == []


def test_a_start_that_fails_leaves_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise lab.Problem("the disk is full")

    monkeypatch.setattr(place, "write", fail)
    with pytest.raises(lab.Problem, match="the disk is full"):
        lab.up(state, ["mx1"], "mail")
    assert left(state) == []


def test_down_leaves_what_it_did_not_make(tmp_path: Path) -> None:
    if os.geteuid() == 0 and not tool("podman"):
        pytest.skip("no podman on this machine")
    (tmp_path / "mine").touch()
    (tmp_path / keys.MADE[0]).mkdir()
    lab.down(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]
