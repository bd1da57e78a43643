# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One wire: a bridge in a network namespace of its own, and a namespace for each host with a cable to it.

The machine's own network has no part in it: a cable is made in one namespace, with its other end in the next.
Where there is a gateway, the subscribers and the world reach each other through it alone.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from ..engine import run
from .hosts import GATEWAYS, PREFIXES, SUBSCRIBERS, WORLD, Host, made_name


def lay(state: Path, hosts: list[Host]) -> None:
    """The wire and all cables."""
    wire = made_name(state, "wire")
    commands = ["link add wire type bridge mcast_snooping 0", "link set wire up"]
    for host in hosts:
        run("ip", "netns", "add", made_name(state, host.name))
        commands += [
            f"link add to-{host.name} type veth peer name eth0 netns {made_name(state, host.name)}",
            f"link set to-{host.name} master wire up",
        ]
    run("ip", "netns", "add", wire)
    run("ip", "-netns", wire, "-batch", "-", stdin="\n".join(commands))
    for host in hosts:
        # Without duplicate address detection the addresses work at once.
        quick = "echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad"
        command = f"set -e; {quick}; {_settings(host)}; exec ip -batch -"
        inside = f"--net=/run/netns/{made_name(state, host.name)}"
        run("nsenter", inside, "sh", "-c", command, stdin="\n".join([*_interface(host), *_detour(host, hosts)]))


def _settings(host: Host) -> str:
    """A gateway forwards, and nobody is told of a shorter way: all hosts are on one wire."""
    settings = {"ipv4/conf/all/accept_redirects": 0, "ipv6/conf/all/accept_redirects": 0}
    settings |= {"ipv4/conf/eth0/accept_redirects": 0, "ipv6/conf/eth0/accept_redirects": 0}
    if host.name in GATEWAYS:
        settings |= {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
        settings |= {"ipv4/conf/all/send_redirects": 0, "ipv4/conf/eth0/send_redirects": 0}
    return "; ".join(f"echo {value} >/proc/sys/net/{name}" for name, value in settings.items())


def _detour(host: Host, hosts: list[Host]) -> list[str]:
    """For `ip -batch`: the way of a subscriber to the world, and of the world to the subscribers, by the gateway."""
    gateways = [one for one in hosts if one.name in GATEWAYS]
    beyond = {"subscriber1": WORLD, "world": SUBSCRIBERS}.get(host.name, ())
    return [
        f"route add {prefix} via {address}"
        for prefix in beyond
        for gateway in gateways[:1]
        for address, _ in gateway.addresses
        if (":" in prefix) == (":" in address)
    ]


def remove(state: Path, hosts: list[Host]) -> None:
    """Every namespace of this lab; the cables go with them."""
    there = {line.split()[0] for line in run("ip", "netns", "list").splitlines() if line}
    for name in ("wire", *(host.name for host in hosts)):
        if made_name(state, name) in there:
            run("ip", "netns", "delete", made_name(state, name))


def _interface(host: Host) -> list[str]:
    """For `ip -batch`: each address alone, and everybody on the link, seen from the first address of the family."""
    addresses = [ipaddress.ip_interface(address) for address, _ in host.addresses]
    first = {version: next(one.ip for one in addresses if one.version == version) for version in (4, 6)}
    return [
        "link set lo up",
        *(f"address add {one} dev eth0{' nodad' if one.version == 6 else ''}" for one in addresses),
        "link set eth0 up",
        *(f"route add {prefix} dev eth0 src {first[ipaddress.ip_network(prefix).version]}" for prefix in PREFIXES),
    ]
