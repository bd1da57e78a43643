# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Linux router: nftables, sshd and forwarding in a network namespace, with cables to namespaces of its own.

Nothing is simulated but time. The judge is the kernel: the packet is sent, and seen at the other side or not. What its
shell changes in /etc, /root and /var is kept in memory, and its processes have numbers of their own (a PID namespace),
so stopping it leaves nothing on the machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import conntrack, packets
from ..clock import Clock
from ..judge import Packet
from ..netns import SUPERUSER_PATH, Namespace, join, tool, unavailable
from .base import Faults, Router, Session

ESTABLISHED, RELATED = 1, 2
READY = 10.0  # seconds for sshd to answer
CHUNK = 65536

# In the router: memory over what its shell may write, then sshd; all ends when this script's input does.
BOOT = """set -e
mkdir -p "$1"
mount --bind "$1" /mnt
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lab /run/sshd
mount --move /mnt /run/lab
for place in etc root var; do
    mkdir -p /run/upper/$place /run/work/$place
    mount -t overlay -o lowerdir=/$place,upperdir=/run/upper/$place,workdir=/run/work/$place overlay /$place
done
[ -n "$2" ] || exit 0
"$2" -D -e -f /run/lab/sshd_config &
cat >/dev/null
"""

SSHD = """Port 22
ListenAddress {address}
HostKey /run/lab/host_key
AuthorizedKeysFile /run/lab/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
PrintMotd no
UseDNS no
LogLevel VERBOSE
Subsystem sftp internal-sftp
ForceCommand /bin/sh /run/lab/command
"""

# Every command of a session passes here. A fault counts from the first command of a login that does not only read on.
COMMAND = """PATH=/run/lab/bin:{path}
export PATH
case "$SSH_ORIGINAL_COMMAND" in
    '') exec "${{SHELL:-/bin/sh}}" -l ;;
    internal-sftp*) exec {sftp} ;;
esac
cd /run/lab
printf '%s\\n' "$SSH_ORIGINAL_COMMAND" | tr '\\n' ' ' >>commands
echo >>commands
fault=
case "$SSH_ORIGINAL_COMMAND" in
    nft\\ list* | ip\\ * | "/bin/sh -c 'nft list "* | "/bin/sh -c 'ip "* | "/bin/sh -c 'echo ~"*) ;;
    *) : >"carries.$PPID" ;;
esac
if [ -s faults ] && [ -e "carries.$PPID" ]; then
    exec 9>lock
    flock 9
    while read -r name turn; do
        [ "$turn" -eq 1 ] && echo "$name" >>struck || echo "$name $((turn - 1))"
    done <faults >faults.left
    mv faults.left faults
    [ -e struck ] && fault=$(cat struck) && rm struck
    exec 9>&-
fi
cd
case "$fault" in
    *reject_at*)
        echo "/dev/stdin:1:1-5: Error: syntax error, unexpected string" >&2
        exit 1 ;;
    *cut_after*)
        /bin/sh -c "$SSH_ORIGINAL_COMMAND" >/dev/null 2>&1
        kill -9 "$PPID"
        exit 1 ;;
    *hang_at*)
        /bin/sh -c "$SSH_ORIGINAL_COMMAND" >/dev/null 2>&1
        /bin/sleep 86400 ;;
esac
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""

# A test pushes the clock by writing seconds into a file; whoever sleeps in the router sees it.
SLEEP = """case "$1" in
    '' | *[!0-9]*) exec /bin/sleep "$@" ;;
esac
pushed() {{ cat /run/lab/pushed 2>/dev/null || echo 0; }}
end=$(($(date +%s) + $(pushed) + $1))
while [ $(($(date +%s) + $(pushed))) -lt "$end" ]; do
    /bin/sleep 0.1
done
"""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the router: what is at its other end, its addresses, what is routed to it."""

    side: str  # subscribers, internet or management
    addresses: tuple[str, ...]
    routes: tuple[str, ...]


def links(text: str) -> dict[str, Link]:
    """Interfaces from the JSON in lab/configs."""
    return {
        name: Link(values["side"], tuple(values["addresses"]), tuple(values["routes"]))
        for name, values in json.loads(text).items()
    }


class ShellClock(Clock):
    """The router's own time: real, but `sleep` in its shell ends early when a test pushes the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.file: Path | None = None
        self._forward = 0

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._forward += int(seconds)
        if self.file is not None:
            self.file.write_text(str(self._forward))


class Device(Router):
    session_class = Session
    own_server = True

    def __init__(self, name: str, text: str, interfaces: Mapping[str, Link], enable_secret: str = "") -> None:
        self._own: Namespace | None = None
        self._folder: Path | None = None
        super().__init__(name, text, enable_secret)
        self.clock = ShellClock()
        self.ssh_port = 0
        self._text = text
        self.links = interfaces
        self._peers: dict[str, Namespace] = {}
        self._ports: dict[str, packets.Port] = {}
        self._boot: subprocess.Popen[bytes] | None = None
        self._listener: socket.socket | None = None

    @classmethod
    def unavailable(cls) -> str:
        if reason := unavailable():
            return reason
        command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", BOOT, "boot", "/tmp", ""]
        done = subprocess.run([tool(command[0]), *command[1:]], capture_output=True, text=True, check=False)
        return f"no private file systems for a router here: {done.stderr.strip()}" if done.returncode else ""

    @classmethod
    def load(cls, name: str, folder: Path, enable_secret: str = "") -> Device:
        text = (folder / f"{name}.nft").read_text(encoding="utf-8")
        return cls(name, text, links((folder / f"{name}.json").read_text(encoding="utf-8")), enable_secret)

    # --- Cables

    def connect(self) -> None:
        """The namespaces, the cables between them, and the rule set: a router without sshd. `stop` takes it down."""
        self._own = Namespace()
        self.namespace.run(
            tool("sysctl"), "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
            "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
        )  # fmt: skip
        setup = ["link set lo up"]
        for number, (name, link) in enumerate(self.links.items(), start=1):
            peer = self._peers[name] = Namespace()
            join(self.namespace, name, peer, "eth0")
            near, far = f"02:00:00:00:{number:02x}:01", f"02:00:00:00:{number:02x}:02"
            setup += [f"link set {name} address {near} up"]
            setup += [f"address add {address} dev {name}" for address in link.addresses]
            gateways = {4: other(link.addresses[0]), 6: "fe80::2"}
            setup += [
                f"neighbour replace {gateway} lladdr {far} nud permanent dev {name}" for gateway in gateways.values()
            ]
            for route in link.routes:
                gateway = gateways[ipaddress.ip_network(route).version]
                setup.append(f"route add {route} via {gateway} dev {name} onlink")
            peer.run(tool("ip"), "-batch", "-", stdin=f"link set eth0 address {far}\nlink set eth0 up\n")
            self._ports[name] = packets.Port(peer, "eth0", bytes.fromhex(near.replace(":", "")))
            if link.side == "management":
                own = f"address add {gateways[4]}/{link.addresses[0].partition('/')[2]} dev eth0\n"
                peer.run(tool("ip"), "-batch", "-", stdin=own)
        self.namespace.run(tool("ip"), "-batch", "-", stdin="\n".join(setup) + "\n")
        self.nft("-f", "-", stdin=self._text)

    @property
    def namespace(self) -> Namespace:
        """The router's own. Raises RuntimeError while it is not running."""
        if self._own is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._own

    def nft(self, *arguments: str, stdin: str = "") -> str:
        """Run nft in the router; raises OSError with what it says when it fails."""
        return self.namespace.run(tool("nft"), *arguments, stdin=stdin)

    def snapshot(self) -> str:
        return self.nft("list", "ruleset")

    def execute(self, line: str) -> str:
        """A shell command in the router's network, not in its private file systems."""
        return self.namespace.run("/bin/sh", "-c", line)

    # --- Packets

    def port(self, attachment: str) -> packets.Port:
        """The subscriber's end of an attachment. Raises KeyError when there is none."""
        if self.links[attachment].side != "subscribers":
            raise KeyError(attachment)
        return self._ports[attachment]

    def internet(self) -> list[packets.Port]:
        return [self._ports[name] for name, link in self.links.items() if link.side == "internet"]

    def ends(self, attachment: str, direction: str) -> tuple[packets.Port, list[packets.Port]]:
        """Where packets of a direction go in, and where they may come out: for `up` other subscribers too."""
        near = self.port(attachment)
        if direction == "down":
            return self.internet()[0], [near]
        return near, [
            port for name, port in self._ports.items() if port != near and self.links[name].side != "management"
        ]

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        """The kernel's word. Established and related packets get the connection that they belong to beforehand."""
        conntrack.forget(self.namespace)
        if packet.state == ESTABLISHED:
            conntrack.establish(self.namespace, packet)
        elif packet.state == RELATED and packet.icmp_type in packets.ERRORS.get(packet.protocol, ()):
            conntrack.establish(self.namespace, packets.subject(packet))
        elif packet.state == RELATED:
            conntrack.relate(self.namespace, packet)
        return "permit" if packets.arriving(*self.ends(attachment, direction), [packet])[0] else "deny"

    def flood(
        self, attachment: str, direction: str, packet: Packet
    ) -> contextlib.AbstractContextManager[packets.Count]:
        """Send a packet over and over while the block runs, and count what comes through."""
        return packets.flood(*self.ends(attachment, direction), packet)

    # --- Logging in

    def start(self, address: str, port: int, directory: Path) -> str:
        """Run the router. root logs in with the key in DIRECTORY/NAME/id_ed25519; port 0: any, see `ssh_port`."""
        folder = directory.resolve() / self.name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "bin").mkdir(parents=True)
        self._folder = folder
        try:
            self.connect()
            return self._serve(folder, address, port)
        except BaseException:
            self.stop()
            raise

    def _serve(self, folder: Path, address: str, port: int) -> str:
        for key in ("host_key", "id_ed25519"):
            generate = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(folder / key)]
            subprocess.run(generate, check=True, capture_output=True)
        management = (
            next(link for link in self.links.values() if link.side == "management").addresses[0].partition("/")[0]
        )
        sftp = next(iter(Path("/usr/lib").glob("*/sftp-server")), "/usr/lib/openssh/sftp-server")
        for name, content in {
            "authorized_keys": (folder / "id_ed25519.pub").read_text(),
            "sshd_config": SSHD.format(address=management),
            "command": COMMAND.format(path=SUPERUSER_PATH, sftp=sftp),
            "bin/sleep": "#!/bin/sh\n" + SLEEP.format(),
            "commands": "",
        }.items():
            (folder / name).write_text(content)
        (folder / "bin" / "sleep").chmod(0o755)
        if isinstance(self.clock, ShellClock):
            self.clock.file = folder / "pushed"
        self.faults = self.faults
        command = [
            tool("nsenter"),
            f"--net={self.namespace.path}",
            tool("unshare"),
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
        ]
        command += ["/bin/sh", "-c", BOOT, "boot", str(folder), tool("sshd")]
        with (folder / "sshd.log").open("w") as log:
            self._boot = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self._await_sshd(management)
        self._listener = socket.create_server((address, port))
        self.ssh_port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener, management), daemon=True).start()
        return " ".join((folder / "host_key.pub").read_text().split()[:2])

    def _dial(self, management: str) -> socket.socket:
        """A connection from the management network to the router's sshd, through its input filter."""
        peer = next(self._peers[name] for name, link in self.links.items() if link.side == "management")
        ours = peer.socket(socket.AF_INET, socket.SOCK_STREAM)
        ours.settimeout(READY)
        ours.connect((management, 22))
        ours.settimeout(None)
        return ours

    def _await_sshd(self, management: str) -> None:
        end = time.monotonic() + READY
        while True:
            try:
                with self._dial(management) as probe:
                    if probe.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if time.monotonic() > end or (self._boot and self._boot.poll() is not None):
                said = (self._folder or Path()) / "sshd.log"
                raise OSError(f"sshd of {self.name} does not answer: {said.read_text() if said.exists() else 'no log'}")
            time.sleep(0.02)

    def _accept(self, listener: socket.socket, management: str) -> None:
        while True:
            try:
                theirs, _ = listener.accept()
            except OSError:
                return  # closed by `stop`
            threading.Thread(target=self._carry, args=(theirs, management), daemon=True).start()

    def _carry(self, theirs: socket.socket, management: str) -> None:
        """Bytes both ways, until one side ends."""
        with theirs, contextlib.suppress(OSError), self._dial(management) as ours:
            other_side = {theirs: ours, ours: theirs}
            while True:
                for ready in select.select(list(other_side), [], [])[0]:
                    data = ready.recv(CHUNK)
                    if not data:
                        return
                    other_side[ready].sendall(data)

    @property
    def commands(self) -> list[str]:
        """What was run over SSH, the oldest first, line ends as spaces."""
        return [line.rstrip() for line in (self._folder / "commands").read_text().splitlines()] if self._folder else []

    @property
    def faults(self) -> Faults:
        """Set it as a whole: the orders go to the router's shell. `outputs` is not for this kind.

        A command counts from the first of its login on that does not only read.
        """
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        if self._folder is not None:
            names = ("cut_after", "hang_at", "reject_at")
            ordered = [(name, getattr(faults, name)) for name in names if getattr(faults, name) is not None]
            (self._folder / "faults").write_text("".join(f"{name} {turn}\n" for name, turn in ordered))

    def stop(self) -> None:
        """Down with all of it: sshd and its sessions, the cables, the namespaces."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # ends a waiting accept, which close does not
            self._listener.close()
        if self._boot is not None and self._boot.stdin is not None:
            self._boot.stdin.close()  # the end of its script, and of all processes that it numbers
            self._boot.wait()
        for namespace in (self._own, *self._peers.values()):
            if namespace is not None:
                namespace.close()
        self._boot, self._listener, self._own, self._peers, self._ports = None, None, None, {}, {}


def other(address: str) -> str:
    """The first host of the network that the address does not take."""
    interface = ipaddress.ip_interface(address)
    return str(next(host for host in interface.network.hosts() if host != interface.ip))
