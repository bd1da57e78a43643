# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a lab has of its own: ssh keys, a certificate authority, the DKIM key, users. Made anew by each `up`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..engine import run
from .hosts import DKIM_SELECTOR, DOMAIN, Host, made_name

MADE = ("ssh", "ssh_config", "tls", "dkim", "users")  # in the state directory
USERS = tuple(f"user{number}@{DOMAIN}" for number in range(1, 6))
PASSWORD = "lab-only-1"

_ALIKE = """Host *
  User root
  IdentityFile "{state}/ssh/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{state}/ssh/known_hosts"
  StrictHostKeyChecking yes
"""
_ONE = """Host {name}
  HostKeyAlias {name}
  ProxyCommand nsenter --net=/run/netns/{made_name} {python} -SEs "{relay}"
"""


def make(state: Path, hosts: list[Host]) -> None:
    """All of MADE."""
    for folder in ("ssh", "tls", "dkim"):
        (state / folder).mkdir(mode=0o700, parents=True)
    users = state / "users"
    users.touch(mode=0o600)
    hashed = run("openssl", "passwd", "-6", PASSWORD).strip()
    users.write_text("".join(f"{user}:{{SHA512-CRYPT}}{hashed}\n" for user in USERS))
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(
            pool.map(
                lambda step: step(), (lambda: _ssh(state, hosts), lambda: _tls(state, hosts), lambda: _dkim(state))
            )
        )


def dkim_record(state: Path) -> str:
    """The public half of the DKIM key, as its DNS record has it."""
    lines = run("openssl", "pkey", "-in", str(state / "dkim" / f"{DKIM_SELECTOR}.key"), "-pubout").splitlines()
    return "".join(line for line in lines if not line.startswith("-"))


def _ssh(state: Path, hosts: list[Host]) -> None:
    folder = state / "ssh"
    known = []
    for name in ("id_ed25519", *(host.name for host in hosts)):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
        known.append(f"{name} {(folder / f'{name}.pub').read_text()}")
    (folder / "known_hosts").write_text("".join(known[1:]))
    relay = Path(__file__).with_name("relay.py")
    (state / "ssh_config").write_text(
        "".join(
            _ONE.format(name=host.name, made_name=made_name(state, host.name), python=sys.executable, relay=relay)
            for host in hosts
        )
        + _ALIKE.format(state=state)
    )


def _tls(state: Path, hosts: list[Host]) -> None:
    """ca.pem, and for each host NAME.pem (the chain) and NAME.key."""
    folder = state / "tls"
    authority = ("-subj", "/CN=Mail lab", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _certificate(folder, "ca", *authority)
    for host in hosts:
        names = ",".join(sorted({f"DNS:{name}" for _, name in host.addresses}))
        own = ("-subj", f"/CN={host.domain_name}", "-addext", "basicConstraints=critical,CA:FALSE")
        signer = ("-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"))
        _certificate(folder, host.name, *own, "-addext", f"subjectAltName={names}", *signer)
        with (folder / f"{host.name}.pem").open("a") as chain:
            chain.write((folder / "ca.pem").read_text())


def _certificate(folder: Path, name: str, *options: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    files = ("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"))
    run("openssl", "req", "-x509", "-days", "30", *key, *files, *options)


def _dkim(state: Path) -> None:
    run("openssl", "genrsa", "-out", str(state / "dkim" / f"{DKIM_SELECTOR}.key"), "2048")
