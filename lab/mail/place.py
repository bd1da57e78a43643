# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands in a container before it starts. No role touches any of it."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from . import dns, keys
from .hosts import DNSBL_SERVER, DNSBL_ZONE, NAMESERVER, STORE, WORLD_MX, Host

CERTIFICATE, KEY = "/etc/ssl/mail/fullchain.pem", "/etc/ssl/mail/privkey.pem"
AUTHORITY = "/etc/ssl/mail/ca.pem"
# What somebody else has made of the mail hosts, with the mistakes of planted.yml.
PLANTED = Path(__file__).with_name("planted")

# The EICAR test file in hexadecimal: as it stands, scanners would take this file for one.
_EICAR = (
    "58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d"
    "5354414e444152442d414e544956495255532d544553542d46494c452124482b482a"
)

_PACKAGES = "/usr/lib/python3/dist-packages"
HOST_KEY, AUTHORIZED = "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/lab_authorized_keys"
_SSHD = f"""ListenAddress 127.0.0.1
HostKey {HOST_KEY}
AuthorizedKeysFile {AUTHORIZED}
UseDNS no
UsePAM no
PrintMotd no
"""

_NSD = "[Service]\nExecStart=\nExecStart=/usr/sbin/nsd -d -c /etc/lab/nsd/nsd.conf\n"
_RBLDNSD = f"""[Unit]
Description=Blocklist of the lab
[Service]
ExecStart=/usr/sbin/rbldnsd -n -f -u rbldns -w /etc/lab/dnsbl -b {DNSBL_SERVER}/53 \
{" ".join(f"{DNSBL_ZONE}:{kind}:{kind}" for kind in ("ip4set", "ip6trie"))}
[Install]
WantedBy=multi-user.target
"""
_KEEPER = f"""[Unit]
Description=MX of example.org and mailbox store of the lab
[Service]
Type=notify
ExecStart=/usr/bin/python3 /usr/local/sbin/lab-keeper /var/lib/lab/mail {STORE} {" ".join(WORLD_MX)}
[Install]
WantedBy=multi-user.target
"""

# Apt's timers would hold its lock and look for a mirror; nobody is there to type a password.
_UNWANTED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
)


def files(state: Path, host: Host, planted: bool = False) -> dict[str, str]:
    """What is written into a host's container, by path. What only root may read: see `secret`."""
    key = (state / "ssh" / host.name).read_text()
    everywhere = {
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"
        + "".join(f"{address} {name} {name.partition('.')[0]}\n" for address, name in host.addresses[:2]),
        "/etc/resolv.conf": f"nameserver {NAMESERVER}\n",
        HOST_KEY: key,
        "/etc/ssh/sshd_config.d/lab.conf": _SSHD,
        AUTHORIZED: (state / "ssh" / "id_ed25519.pub").read_text(),
        AUTHORITY: (state / "tls" / "ca.pem").read_text(),
        f"{_PACKAGES}/lab_zip_cache.py": Path(__file__).with_name("zip_cache.py").read_text(),
        f"{_PACKAGES}/lab_zip_cache.pth": "import lab_zip_cache\n",
    }
    certificate = {
        CERTIFICATE: (state / "tls" / f"{host.name}.pem").read_text(),
        KEY: (state / "tls" / f"{host.name}.key").read_text(),
    }
    if host.side:
        return everywhere | certificate | mail_host() | (_planted(host) if planted else {})
    if host.name == "world":
        return everywhere | certificate | _world(state)
    if host.image == "signals":
        return everywhere | {"/var/lib/dhcp/dhcpd.leases": leases()}
    return everywhere | {"/usr/local/sbin/lab-infected": Path(__file__).with_name("infected.py").read_text()}


def leases() -> str:
    """The addresses of the lab's customers, leased long ago until tomorrow, as ISC's dhcpd writes it down."""
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    starts, ends = (f"{when:%w %Y/%m/%d %H:%M:%S}" for when in (now - 40 * day, now + day))
    return "".join(
        f"lease 198.51.100.{number} {{\n  starts {starts};\n  ends {ends};\n  binding state active;\n"
        f"  hardware ethernet 00:00:5e:00:53:{number};\n}}\n"
        for number in (20, 21, 22)
    )


def secret(path: str) -> bool:
    return path in (KEY, HOST_KEY)


def units(host: Host, planted: bool = False) -> tuple[str, ...]:
    """What is started with the container, beside what is started in any."""
    if host.side:
        return ("dovecot.service", "postfix.service") if planted else ()
    return ("nsd.service", "lab-dnsbl.service", "lab-keeper.service") if host.name == "world" else ()


def mail_host() -> dict[str, str]:
    """What the lab's DNS and the scanner's signatures are to a mail host, whatever its roles do."""
    hints = "/etc/unbound/lab.root"
    return {
        hints: dns.resolver_hints(),
        "/etc/unbound/unbound.conf.d/lab.conf": dns.resolver(hints),
        # Debian's trust anchor, with which the root of the lab, which nobody signs, would be bogus.
        "/etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf": "",
        # Name, any kind of file, anywhere in it, the octets: all that this scanner knows.
        "/var/lib/clamav/lab.ndb": f"Lab.Eicar:0:*:{_EICAR}\n",
    }


def _planted(host: Host) -> dict[str, str]:
    folder = PLANTED / host.name
    return {f"/{path.relative_to(folder)}": path.read_text() for path in folder.rglob("*") if path.is_file()}


def _world(state: Path) -> dict[str, str]:
    zones = dns.zones(keys.dkim_record(state))
    names = {zone: "root" if zone == "." else zone for zone in zones}
    return {
        "/etc/lab/nsd/nsd.conf": dns.nsd("/etc/lab/nsd", names),
        **{f"/etc/lab/nsd/{names[zone]}": text for zone, text in zones.items()},
        **{f"/etc/lab/dnsbl/{kind}": text for kind, text in dns.blocklist().items()},
        "/usr/local/sbin/lab-keeper": Path(__file__).with_name("keeper.py").read_text(),
        "/etc/systemd/system/nsd.service.d/lab.conf": _NSD,
        "/etc/systemd/system/lab-dnsbl.service": _RBLDNSD,
        "/etc/systemd/system/lab-keeper.service": _KEEPER,
    }


def write(state: Path, host: Host, root: Path, planted: bool) -> None:
    """Into the container's file system, which is mounted at `root`."""
    for path, text in files(state, host, planted).items():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o600 if secret(path) else 0o644)
    for unit in units(host, planted):
        wanted = root / "etc/systemd/system/multi-user.target.wants" / unit
        wanted.parent.mkdir(parents=True, exist_ok=True)
        place = "/etc" if unit.startswith("lab-") else "/lib"
        wanted.symlink_to(f"{place}/systemd/system/{unit}")
    for unit in _UNWANTED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    # Apt takes its lists for new.
    os.utime(root / "var/lib/apt/lists")
