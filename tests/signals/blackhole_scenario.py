"""What happens to black-holed addresses, told by the kernel: run inside a box, as `python3 blackhole_scenario.py`.

    sub-frr ── frr ── world-frr        The subscribers and the world on both sides of each router have the same
    sub-bird ── bird ── world-bird     addresses. The routers and the trigger share a wire. The routers are also
         trigger, frr, bird            external peers of each other, who must not hear of black-holes.

The daemons and their files are those that the roles make. Prints one JSON document: what was seen, step by step.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROUTERS = ("frr", "bird")
STATE = Path("/var/lib/isp-hardening-blackhole/state.json")
STATUS = Path("/run/isp-hardening-blackhole/status.json")
BAD4, BAD6, GOOD4, GOOD6 = "198.51.100.7", "2001:db8:100:7::7", "198.51.100.8", "2001:db8:100:8::8"
WORLD4, WORLD6 = "203.0.113.9", "2001:db8:fffe::9"
SYNS = 20
HOLD = 7
EXABGP = "/usr/sbin/exabgp"  # which becomes the user exabgp by itself
seen: dict[str, Any] = {}


def sh(command: str, check: bool = True) -> str:
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def wait(what: str, met: Callable[[], bool], seconds: float = 20.0) -> None:
    """Until it is so. A step that never comes is told, and the rest goes on."""
    begin = time.monotonic()
    while not met():
        if time.monotonic() - begin > seconds:
            seen.setdefault("never came", []).append(what)
            break
        time.sleep(0.2)
    seen.setdefault("seconds", []).append((what, round(time.monotonic() - begin, 1)))


def now() -> int:
    return int(time.time() * 1000)


# -- the network -------------------------------------------------------------------------------------------------


def network() -> None:
    lines = ["ip netns add trigger", "ip -n trigger link set lo up", "ip -n trigger link add wire type bridge"]
    lines += ["ip -n trigger addr add 192.0.2.65/26 dev wire", "ip -n trigger link set wire up"]
    for number, router in enumerate(ROUTERS):
        lines += [f"ip netns add {name}" for name in (router, f"sub-{router}", f"world-{router}")]
        lines += [f"ip -n {name} link set lo up" for name in (router, f"sub-{router}", f"world-{router}")]
        lines += [f"ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"]
        for other, here in (("trigger", "wire"), (f"sub-{router}", "sub"), (f"world-{router}", "world")):
            there = router if other == "trigger" else "line"
            lines += [f"ip link add {there} netns {other} type veth peer name {here} netns {router}"]
            lines += [f"ip -n {other} link set {there} up", f"ip -n {router} link set {here} up"]
        lines += [f"ip -n trigger link set {router} master wire"]
        for namespace, device, addresses in (
            (router, "wire", (f"192.0.2.{66 + number}/26",)),
            (router, "sub", ("198.51.100.1/24", "2001:db8:100::1/40")),
            (router, "world", ("203.0.113.1/24", "2001:db8:fffe::1/48")),
            (f"sub-{router}", "line", (f"{BAD4}/24", f"{GOOD4}/24", f"{BAD6}/40", f"{GOOD6}/40")),
            (f"world-{router}", "line", (f"{WORLD4}/24", f"{WORLD6}/48")),
        ):
            for address in addresses:
                nodad = " nodad" if ":" in address else ""
                lines += [f"ip -n {namespace} addr add {address} dev {device}{nodad}"]
        lines += [f"ip -n sub-{router} route add default via 198.51.100.1"]
        lines += [f"ip -n sub-{router} -6 route add default via 2001:db8:100::1"]
        lines += [f"ip -n world-{router} route add default via 203.0.113.1"]
        lines += [f"ip -n world-{router} -6 route add default via 2001:db8:fffe::1"]
        rules = "".join(
            f"{family} saddr {one} tcp flags syn counter\n"
            for family, one in (("ip", BAD4), ("ip6", BAD6), ("ip", GOOD4), ("ip6", GOOD6))
        )
        rules = "table inet count {\nchain forward { type filter hook forward priority 0;\n" + rules + "}\n}\n"
        Path(f"/run/count-{router}.nft").write_text(rules)
        lines += [f"ip netns exec {router} nft -f /run/count-{router}.nft"]
        lines += [f"ip netns exec {router} nft -f /etc/isp-hardening/blackhole-rpf.nft"]
    sh("set -e\n" + "\n".join(lines))


def routers() -> None:
    sh("install -d -o frr -g frr /run/frr /var/log/frr")
    for daemon in ("zebra", "staticd", "bgpd"):
        sh(f"ip netns exec frr /usr/lib/frr/{daemon} -d -A 127.0.0.1 >/var/log/{daemon}.out 2>&1")
    wait("FRR", lambda: "frr" in sh("vtysh -c 'show version'", check=False).lower())
    sh("vtysh -b >/var/log/vtysh.out 2>&1")
    sh("ip netns exec bird bird -c /etc/bird/bird.conf -s /run/bird.ctl >/var/log/bird.out 2>&1")


def exabgp(configuration: str, *settings: str) -> subprocess.Popen[bytes]:
    """As the unit of the role starts it. `settings` are more of its environment."""
    unit = Path("/etc/systemd/system/isp-hardening-blackhole.service").read_text()
    lines = [line.removeprefix("Environment=") for line in unit.splitlines() if line.startswith("Environment=")]
    environment = dict(word.split("=", 1) for line in lines for word in line.split())
    environment |= dict(word.split("=", 1) for word in settings)
    log = open(f"/var/log/{Path(configuration).name}.log", "ab")  # noqa: SIM115  # its child has it
    return subprocess.Popen(
        [
            *f"ip netns exec trigger setpriv --reuid=exabgp --regid=exabgp --clear-groups {EXABGP}".split(),
            configuration,
        ],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


# -- what is seen ------------------------------------------------------------------------------------------------


def holes(router: str) -> set[str]:
    """What the kernel of a router black-holes, the discarded next hops left out."""
    found = set()
    for family in ("-4", "-6"):
        for route in json.loads(sh(f"ip -n {router} {family} -j route show type blackhole") or "[]"):
            prefix = route["dst"]
            found.add(prefix if "/" in prefix else f"{prefix}/{128 if ':' in prefix else 32}")
    return found - {"192.0.2.1/32", "100::1/128"}


def flows() -> list[str]:
    """The FlowSpec rules that BIRD has."""
    tables = sh("for f in 4 6; do birdc -s /run/bird.ctl show route table isp_blackhole_flow$f; done")
    return sorted(line[: line.index("}") + 1] for line in tables.splitlines() if line.startswith("flow"))


def both(wanted: Iterable[str]) -> Callable[[], bool]:
    return lambda: all(holes(router) == set(wanted) for router in ROUTERS)


def status() -> dict[str, Any]:
    try:
        return dict(json.loads(STATUS.read_text()))
    except (OSError, ValueError):
        return {}


_SEND = """
import socket
pairs = (('BAD4', 'WORLD4'), ('BAD6', 'WORLD6'), ('GOOD4', 'WORLD4'), ('GOOD6', 'WORLD6'))
for source, target in pairs:
    family = socket.AF_INET6 if ':' in source else socket.AF_INET
    for port in range(1025, 1025 + SYNS):
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setblocking(False)
        tcp.bind((source, 0))
        tcp.connect_ex((target, port))
        tcp.close()  # before a SYN could be said again
"""


def forwarded() -> dict[str, dict[str, int]]:
    """How many of the SYNs of each source each router has passed on."""
    script = _SEND
    for name in ("BAD4", "BAD6", "GOOD4", "GOOD6", "WORLD4", "WORLD6"):
        script = script.replace(f"'{name}'", f"'{globals()[name]}'")
    Path("/run/send.py").write_text(script.replace("SYNS", str(SYNS)))
    counts = {}
    for router in ROUTERS:
        sh(f"ip netns exec {router} nft delete table inet count; ip netns exec {router} nft -f /run/count-{router}.nft")
        sh(f"ip netns exec sub-{router} python3 /run/send.py")
        time.sleep(0.3)
        rules = json.loads(sh(f"ip netns exec {router} nft -j list chain inet count forward"))["nftables"]
        found = [item["rule"]["expr"] for item in rules if "rule" in item]
        counts[router] = {expression[0]["match"]["right"]: expression[2]["counter"]["packets"] for expression in found}
    return counts


def route(prefix: str, seconds: float = 3600, kind: str = "source", case: str = "") -> dict[str, Any]:
    return {
        "key": f"{kind} {prefix}",
        "kind": kind,
        "route": prefix,
        "until": now() + int(seconds * 1000),
        "case": case or prefix,
        "reason": "test",
    }


def desire(*routes: dict[str, Any], text: str = "") -> None:
    """A new desired state, in the place of the old one at once."""
    new = STATE.with_name("new")
    new.write_text(text or json.dumps({"routes": routes}))
    sh(f"chgrp exabgp {new}; chmod 640 {new}")
    os.replace(new, STATE)


# -- the steps ---------------------------------------------------------------------------------------------------


def trigger_steps() -> subprocess.Popen[bytes]:
    trigger = exabgp("/etc/isp-hardening/blackhole.exabgp.conf")
    wait("both sessions", lambda: list(status().get("sessions", {}).values()) == ["up", "up"])
    seen["sessions"] = status().get("sessions")
    seen["before"] = forwarded()

    bad = [route(f"{BAD4}/32", case="bad"), route("2001:db8:100:7::/64", case="bad")]
    names = {one["route"] for one in bad}
    desire(*bad)
    wait("the black-holes", both(names))
    seen["source"] = {"holes": {router: sorted(holes(router)) for router in ROUTERS}, "forwarded": forwarded()}
    seen["source"]["unanswered"] = status().get("unanswered")
    for router in ROUTERS:
        sh(f"ip netns exec {router} nft delete table inet isp_blackhole")
    seen["without the filter"] = forwarded()
    for router in ROUTERS:
        sh(f"ip netns exec {router} nft -f /etc/isp-hardening/blackhole-rpf.nft")
    seen["frr route"] = {
        family: json.loads(sh(f"vtysh -c 'show bgp {family} unicast {prefix} json'"))
        for family, prefix in (("ipv4", f"{BAD4}/32"), ("ipv6", "2001:db8:100:7::/64"))
    }
    seen["bird route"] = sh(f"birdc -s /run/bird.ctl show route {BAD4}/32 all")
    seen["flow"] = flows()
    seen["bird from the peer"] = sh("birdc -s /run/bird.ctl show route protocol peer")

    # Guards of the trigger, with one that is right beside them.
    wrong = ["192.0.2.25/32", "198.51.100.25/32", "198.51.100.0/25", "0.0.0.0/0", "::/0", "203.0.113.9/32"]
    wrong += ["2001:db8:100:25::/64", "2001:db8:100:25::77/128", "2001:db8:100::/48"]
    desire(*bad, route("198.51.100.9/32"), *(route(prefix) for prefix in wrong))
    wait("the one beside refused ones", both(names | {"198.51.100.9/32"}))
    seen["refused"] = {
        "wrong": wrong,
        "status": status(),
        "holes": {router: sorted(holes(router)) for router in ROUTERS},
    }

    # The cap is three routes of a family.
    desire(*bad, *(route(f"198.51.100.{host}/32") for host in (10, 11, 12)))
    wait("the alarm of the cap", lambda: "cap" in status().get("alarm", ""))
    wait("only what was there", both(names))
    seen["cap"] = {"alarm": status().get("alarm"), "holes": {router: sorted(holes(router)) for router in ROUTERS}}

    # A file that is broken, and a time that is over while it is.
    desire(*bad, route("198.51.100.13/32", seconds=3))
    wait("the short one", both(names | {"198.51.100.13/32"}))
    desire(text='{"routes": [')
    wait("the alarm of the file", lambda: "is no JSON" in status().get("alarm", ""))
    seen["broken"] = {"alarm": status().get("alarm"), "holes": {router: sorted(holes(router)) for router in ROUTERS}}
    wait("the end of the short one", both(names))
    seen["expired"] = {router: sorted(holes(router)) for router in ROUTERS}
    desire(*bad)
    wait("the file mended", lambda: status().get("alarm") == "")

    # Sessions that start anew.
    sh("vtysh -c 'clear bgp *'")
    wait("the end of FRR's session", lambda: not holes("frr"))
    sh("birdc -s /run/bird.ctl restart isp_blackhole")
    wait("the black-holes again", both(names), 40)
    seen["again"] = {router: sorted(holes(router)) for router in ROUTERS}

    # The process dies, and the state has changed when the next one comes.
    (process,) = sh("pgrep -u exabgp -f exabgp_service").split()
    os.kill(int(process), signal.SIGSTOP)
    desire(bad[0])
    os.kill(int(process), signal.SIGKILL)
    wait("what the next process announces", both({f"{BAD4}/32"}))
    seen["respawned"] = {router: sorted(holes(router)) for router in ROUTERS}

    STATE.write_text("")
    wait("the kill switch", both(()))
    seen["flow killed"] = flows()
    seen["killed"] = {router: sorted(holes(router)) for router in ROUTERS}
    desire(*bad)
    wait("the black-holes after the kill switch", both(names))
    return trigger


def failures(trigger: subprocess.Popen[bytes]) -> None:
    """A trigger that hangs, and one that is gone."""
    names = {f"{BAD4}/32", "2001:db8:100:7::/64"}
    pids = [int(number) for number in sh("pgrep -u exabgp").split()]
    seen["before it hangs"] = {router: sorted(holes(router)) for router in ROUTERS}
    for number in pids:
        os.kill(number, signal.SIGSTOP)
    hangs, ended = time.monotonic(), {}

    def gone() -> bool:
        for router in ROUTERS:
            if not holes(router):
                ended.setdefault(router, round(time.monotonic() - hangs, 1))
        return len(ended) == len(ROUTERS)

    wait("the end of the hold time", gone, 3 * HOLD)
    seen["hanging"] = ended
    for number in pids:
        os.kill(number, signal.SIGCONT)
    wait("the black-holes after the hang", both(names), 40)
    seen["back"] = {router: sorted(holes(router)) for router in ROUTERS}
    for number in pids:
        os.kill(number, signal.SIGKILL)
    wait("the end of a trigger that is gone", both(()), HOLD + 10)
    seen["gone"] = {router: sorted(holes(router)) for router in ROUTERS}
    trigger.wait()


def rogue() -> None:
    """Somebody who breaks the rules at the trigger's address: only what is right comes in."""
    first = exabgp("/etc/isp-hardening/rogue.conf")
    wait("the one that is right", both({"198.51.100.9/32", "2001:db8:100:9::/64"}), 30)
    time.sleep(1)
    seen["rogue"] = {router: sorted(holes(router)) for router in ROUTERS}
    seen["rogue flow"] = flows()
    seen["rogue heard"] = sorted(
        json.loads(sh("vtysh -c 'show bgp ipv4 unicast neighbors 192.0.2.65 received-routes json'"))["receivedRoutes"]
    )
    first.kill()
    wait("the end of the rogue", both(()), HOLD + 10)
    first.wait()
    second = exabgp("/etc/isp-hardening/flood.conf")
    wait(
        "the end of the flood",
        lambda: (
            "prefix" in sh("vtysh -c 'show bgp neighbors 192.0.2.65' | grep -i 'prefix limit\\|max'", check=False)
            and "limit" in sh("birdc -s /run/bird.ctl show protocols isp_blackhole", check=False).lower()
        ),
        30,
    )
    time.sleep(1)
    seen["flood"] = {router: sorted(holes(router)) for router in ROUTERS}
    seen["flood told"] = {
        "frr": sh("vtysh -c 'show bgp neighbors 192.0.2.65' | grep -i 'prefix\\|reset'", check=False),
        "bird": sh("birdc -s /run/bird.ctl show protocols isp_blackhole", check=False),
    }
    second.kill()
    second.wait()


def main() -> None:
    network()
    routers()
    try:
        failures(trigger_steps())
        rogue()
        seen["frr families"] = sh("vtysh -c 'show running-config' | grep -i 'address-family\\|flowspec'")
    finally:
        json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
