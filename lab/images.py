# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images of Debian, made by mmdebstrap from Debian's own packages, kept as tarballs and imported into podman.

bare: systemd, Python and sshd; the packages of mail lie in apt's cache, so that a role can install them without a
network. mail: the same with those packages installed and none of their daemons enabled. signals, Debian 12 only: bare
with what reads flows, speaks BGP and RADIUS, blocks and lists, and none of it enabled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .engine import CACHE, Problem, run, settle
from .netns import tool

ROOT = Path(__file__).parents[1]
UV = str(ROOT / ".cache" / "uv" / "bin" / "uv")
RELEASES = ("bookworm", "trixie")
KINDS = {"bare": RELEASES, "mail": RELEASES, "signals": ("bookworm",)}

BARE = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# What the roles install; then what the lab's world and its tests need.
MAIL = (
    "bind9-dnsutils",
    "clamav-daemon",
    "clamav-freshclam",
    "clamav-milter",
    "clamdscan",
    "dns-root-data",
    "dovecot-core",
    "libsasl2-modules",
    "openssl",
    "postfix",
    "postfix-lmdb",
    "postfix-pcre",
    "redis-server",
    "rspamd",
    "unbound",
    # the world
    "libio-socket-inet6-perl",
    "libio-socket-ssl-perl",
    "libnet-dns-perl",
    "libnet-ssleay-perl",
    "nsd",
    "python3-aiosmtpd",
    "python3-dkim",
    "python3-dnspython",
    "python3-yaml",
    "rbldnsd",
    "swaks",
)

# What the roles of the signals install; then what their tests need.
SIGNALS = (
    "bird2",
    "conntrack",
    "exabgp",
    "frr",
    "frr-pythontools",
    "nfdump",
    "nftables",
    "python3-dnspython",
    "python3-jinja2",
    "python3-psycopg",
    # the tests
    "dnsperf",
    "freeradius",
    "freeradius-utils",
    "postgresql",
    "rbldnsd",
    "softflowd",
    "tcpdump",
)

PYTHON = ("duckdb", "lz4", "numpy")  # of the lock, which Debian does not have, or has too old

# Into apt's cache, with what they recommend: the role that installs them says whether it wants that too.
_DOWNLOAD = "apt-get --yes --download-only --install-recommends install " + " ".join(MAIL)

# Without systemd nothing is started. What the packages enable is disabled again, scripts of System V too, but a role
# can enable it; rbldnsd.socket takes 0.0.0.0:53 for itself and is never wanted.
_INSTALL = """set -e
enabled() {{
    systemctl --root=/ list-unit-files --state=enabled --no-legend | cut -d ' ' -f 1
    ls /etc/rc3.d | sed -n 's/^S../script /p'
}}
enabled | sort >/tmp/before
export DEBIAN_FRONTEND=noninteractive
apt-get --yes {option} --no-install-recommends install {packages}
enabled | sort | comm -13 /tmp/before - >/tmp/new
for unit in $(grep -v '^script ' /tmp/new); do systemctl --root=/ disable "$unit"; done
for script in $(sed -n 's/^script //p' /tmp/new); do update-rc.d "$script" disable; done
systemctl --root=/ mask rbldnsd.socket
apt-get clean
rm -f /tmp/before /tmp/new /var/lib/apt/lists/*_*
"""

# At its first start rspamd compiles its patterns, which takes half a minute: once, and not on each host again.
_COMPILE = """
cd /var/lib/rspamd
install -d -o _rspamd -g _rspamd /run/rspamd
rspamd --user=_rspamd --group=_rspamd
made=-1
for second in $(seq 120); do
    sleep 1
    before=$made
    made=$(ls | grep -c '[.]hs$') || continue
    [ "$made" != "$before" ] || break
done
pkill -x rspamd
while pgrep -x rspamd >/dev/null; do sleep 0.2; done
ls | grep -v '[.]hs' | xargs rm -f
rm -f /var/log/rspamd/*
"""


def name(kind: str, release: str) -> str:
    """As podman knows it."""
    return f"localhost/isp-hardening/{kind}:{release}"


def install(kind: str) -> str:
    """The script that makes this kind of a bare one."""
    if kind == "mail":
        return _INSTALL.format(option="--no-download", packages=" ".join(MAIL)) + _COMPILE
    return _INSTALL.format(option="--quiet", packages=" ".join(SIGNALS))


def identity(kind: str, release: str) -> str:
    """What tells an image from one that was made of something else."""
    made_of: list[object] = [release, BARE]
    made_of += [_DOWNLOAD] if kind != "signals" else []
    made_of += [install(kind)] if kind != "bare" else []
    if kind == "signals":
        locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
        made_of += [(one["name"], one["version"]) for one in locked if one["name"] in PYTHON]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def tarball(kind: str, release: str) -> Path:
    return CACHE / f"{kind}-{release}-{identity(kind, release)}.tar"


def obtain(kinds: Sequence[str] = tuple(KINDS), releases: Sequence[str] = RELEASES) -> list[str]:
    """All of them in podman, made where they are not there; what was done, for the user."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(), ThreadPoolExecutor(max_workers=2) as pool:
        return [line for lines in pool.map(lambda release: _release(kinds, release), releases) for line in lines]


def missing(kinds: Sequence[str] = tuple(KINDS), releases: Sequence[str] = RELEASES) -> list[str]:
    """Those that are neither in podman nor a tarball."""
    return [
        name(kind, release)
        for kind in kinds
        for release in releases
        if release in KINDS[kind] and not _imported(kind, release) and not tarball(kind, release).exists()
    ]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Whoever comes second finds them made."""
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _release(kinds: Sequence[str], release: str) -> list[str]:
    return [
        f"{name(kind, release)}: {_one(kind, release)}" for kind in KINDS if kind in kinds and release in KINDS[kind]
    ]


def _one(kind: str, release: str) -> str:
    if _imported(kind, release):
        return "there already"
    made = ""
    if not (target := tarball(kind, release)).exists():
        if kind == "mail":
            _one("bare", release)
        partial = target.with_suffix(".part")
        try:
            _make_mail(release, partial) if kind == "mail" else _make(kind, release, partial)
            for old in CACHE.glob(f"{kind}-{release}-*.tar"):
                old.unlink()
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        made = "made and "
    change = f"LABEL isp-hardening={identity(kind, release)}"
    before = run("podman", "images", "--quiet", name(kind, release)).split()
    run("podman", "import", "--quiet", "--change", change, str(target), name(kind, release))
    with contextlib.suppress(Problem):  # a container of another lab may still use it
        if before:
            run("podman", "rmi", *before)
    return f"{made}imported"


def _imported(kind: str, release: str) -> bool:
    try:
        label = run("podman", "image", "inspect", "--format", '{{index .Labels "isp-hardening"}}', name(kind, release))
    except Problem:
        return False
    return label.strip() == identity(kind, release)


def _make(kind: str, release: str, target: Path) -> None:
    if not tool("mmdebstrap"):
        raise Problem("no mmdebstrap on this machine to make images with (Debian: apt install mmdebstrap)")
    with tempfile.TemporaryDirectory() as packages:
        if kind == "signals":
            _python_packages(Path(packages))
        _bootstrap(kind, release, target, packages)


def _locked() -> str:
    """What Debian has not of what detectors stand on, as uv.lock has it: requirements with their hashes."""
    options = ("--quiet", "--frozen", "--extra=signals", "--no-default-groups", "--format=requirements-txt")
    blocks = re.split(r"(?m)^(?=[a-z])", run(UV, "export", "--no-header", f"--project={ROOT}", *options))
    return "".join(block for block in blocks if block.split("==")[0] in PYTHON)


def _python_packages(target: Path) -> None:
    """Into a directory, for the Python of Debian 12, whichever this one is."""
    (target / "requirements").write_text(_locked())
    options = ("--quiet", "--python-version=3.11", "--only-binary=:all:", "--require-hashes", "--no-deps")
    where = (f"--python={sys.executable}", f"--target={target / 'dist-packages'}")
    run(UV, "pip", "install", *options, *where, "--requirement", str(target / "requirements"))


def _bootstrap(kind: str, release: str, target: Path, packages: str) -> None:
    bare = (
        f'--customize-hook=chroot "$1" {_DOWNLOAD}',
        "--skip=cleanup/apt/lists",
        "--skip=cleanup/apt/cache",
    )
    whole = (
        f'--customize-hook=chroot "$1" sh -c {shlex.quote(install(kind))}',
        f"--customize-hook=copy-in {packages}/dist-packages /usr/local/lib/python3.11",
    )
    run(
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        "--format=tar",
        "--components=main",
        '--aptopt=Acquire::Languages "none"',
        f"--include={','.join(BARE)}",
        *(bare if kind == "bare" else whole),
        release,
        str(target),
        *_sources(release),
    )


def _make_mail(release: str, target: Path) -> None:
    bare = name("bare", release)
    settle(bare)
    container = run(
        "podman", "create", "--network=none", "--hostname=localhost", bare, "/bin/sh", "-c", install("mail")
    )
    container = container.strip()
    try:
        run("podman", "start", "--attach", container)
        run("podman", "export", "--output", str(target), container)
    finally:
        run("podman", "rm", "--force", container)


def _sources(release: str) -> list[str]:
    """Debian's archive from where apt on this machine takes it; none, and mmdebstrap takes its own, elsewhere."""
    if not tool("apt-get"):
        return []
    answer = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian")
    if not (lines := answer.split()):
        return []
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    mirror = lines[0].rstrip("/")
    return [
        f"deb {signed} {mirror} {release} main",
        f"deb {signed} {mirror}-security {release}-security main",
    ]
