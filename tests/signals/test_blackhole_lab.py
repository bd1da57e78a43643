"""Black-holing with the real daemons: ExaBGP, FRR 8.4 and BIRD 2 as the roles configure them, packets in the kernel.

All of it happens once, in one box (blackhole_scenario.py); each test looks at a part of what was seen there.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from ansible_collections.isp.hardening.plugins.filter.blackhole_guards import read as blackhole_guards
from tests.conftest import ROOT, Run
from tests.signals import blackhole_scenario as scenario
from tests.signals.box import box

LIBRARY = "usr/local/lib/isp-hardening/ansible_collections/isp/hardening/plugins/module_utils/signals"
POLICY: dict[str, Any] = {
    "subscribers": 3000,
    "most": 100,
    "limit": 3,
    "hours": 24,
    "inbound_minutes": 60,
    "dry_run": False,
    "pools": {"residential": {"kind": "dynamic", "prefixes": ["198.51.100.0/24", "2001:db8:100::/40"]}},
    "never": [
        {"prefix": "192.0.2.0/24", "reason": "own servers and routers"},
        {"prefix": "198.51.100.25/32", "reason": "own mail server"},
        {"prefix": "2001:db8:100:25::25/128", "reason": "own mail server"},
    ],
}
TRIGGER = {
    "blackhole_policy": POLICY,
    "blackhole_asn": 64500,
    "blackhole_code": "",
    "blackhole_address": "192.0.2.65",
    "blackhole_router_id": "192.0.2.65",
    "blackhole_routers": [
        {"address": "192.0.2.66", "software": "frr"},
        {"address": "192.0.2.67", "software": "bird", "flowspec": True},
    ],
    "blackhole_hold_time": scenario.HOLD,
    "blackhole_next_hop_ipv4": "192.0.2.1",
    "blackhole_next_hop_ipv6": "100::1",
}
ROUTER = {
    "blackhole_router_policy": POLICY,
    "blackhole_router_asn": 64500,
    "blackhole_router_trigger": "192.0.2.65",
    "blackhole_router_interfaces": ["sub"],
    "blackhole_router_hold_time": scenario.HOLD,
    "blackhole_router_next_hop_ipv4": "192.0.2.1",
    "blackhole_router_next_hop_ipv6": "100::1",
    "blackhole_router_flowspec": True,  # which only BIRD's template looks at
    "guards": blackhole_guards(POLICY),
}
OTHERS = [
    blackhole_guards(POLICY, inbound=True),
    blackhole_guards(
        POLICY | {"pools": {"one": {"prefixes": ["198.51.100.7/32", "2001:db8:1:2::/64", "2001:db8:3::/72"]}}}
    ),
    blackhole_guards(POLICY | {"pools": {"old": {"prefixes": ["198.51.100.0/25"]}}, "never": POLICY["never"][:1]}),
]
# What is on the routers beside the role: each is an external peer of the other, and tells it one network.
FRR = """frr defaults traditional
service integrated-vtysh-config
router bgp 64500
 no bgp ebgp-requires-policy
 neighbor 192.0.2.67 remote-as 64501
 address-family ipv4 unicast
  network 203.0.113.0/24
 exit-address-family
 address-family ipv6 unicast
  neighbor 192.0.2.67 activate
 exit-address-family
exit
"""
BIRD = """log "/var/log/bird.log" all;
router id 192.0.2.67;
protocol device { }
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol bgp peer {
    local 192.0.2.67 as 64501;
    neighbor 192.0.2.66 as 64500;
    ipv4 { import all; export all; };
    ipv6 { import all; export all; };
}
include "/etc/bird/isp-hardening-blackhole.conf";
"""
RIGHT = "community [ 65535:666 65535:65281 ]"
# At the trigger's address: what each rule of the routers is for, and two routes that keep to all of them.
ROGUE = (
    f"route 198.51.100.9/32 next-hop 192.0.2.1 {RIGHT}",
    f"route 2001:db8:100:9::/64 next-hop 100::1 {RIGHT}",
    f"route 192.0.2.25/32 next-hop 192.0.2.1 {RIGHT}",
    f"route 198.51.100.25/32 next-hop 192.0.2.1 {RIGHT}",
    f"route 2001:db8:100:25::/64 next-hop 100::1 {RIGHT}",
    f"route 2001:db8:100:25::77/128 next-hop 100::1 {RIGHT}",
    f"route 198.51.100.0/25 next-hop 192.0.2.1 {RIGHT}",
    f"route 2001:db8:100::/48 next-hop 100::1 {RIGHT}",
    f"route 0.0.0.0/0 next-hop 192.0.2.1 {RIGHT}",
    f"route ::/0 next-hop 100::1 {RIGHT}",
    f"route 203.0.113.9/32 next-hop 192.0.2.1 {RIGHT}",
    f"route 2001:db8:fffe::9/128 next-hop 100::1 {RIGHT}",
    "route 198.51.100.10/32 next-hop 192.0.2.1",
    "route 2001:db8:100:10::/64 next-hop 100::1 community [ 65535:65281 ]",
)
FLOWS = tuple(
    f"route r{number} {{ match {{ source {prefix}; }} then {{ {then} }} }}"
    for number, (prefix, then) in enumerate(
        (
            ("198.51.100.9/32", f"{RIGHT}; discard;"),
            ("2001:db8:100:9::/64", f"{RIGHT}; discard;"),
            ("198.51.100.25/32", f"{RIGHT}; discard;"),
            ("2001:db8:100:25::/64", f"{RIGHT}; discard;"),
            ("198.51.100.0/25", f"{RIGHT}; discard;"),
            ("203.0.113.9/32", f"{RIGHT}; discard;"),
            ("198.51.100.10/32", "discard;"),
            ("198.51.100.11/32", f"{RIGHT}; rate-limit 9600;"),
        )
    )
)
FLOOD = tuple(f"route 198.51.100.{host}/32 next-hop 192.0.2.1 {RIGHT}" for host in range(30, 40))


def rendered(role: str, name: str, variables: dict[str, Any]) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["bool"] = bool  # nothing here is a text
    environment.filters["hash"] = lambda text, _: text
    environment.filters["to_nice_json"] = lambda data: json.dumps(data, indent=4)
    environment.filters["flatten"] = lambda data: list(itertools.chain.from_iterable(data))
    template = ROOT / "roles" / role / "templates" / name
    return environment.from_string(template.read_text(encoding="utf-8")).render(variables)


def rogue(trigger: str, routes: tuple[str, ...], flows: tuple[str, ...] = ()) -> str:
    """The trigger's own configuration, with routes and rules of its own and no process."""
    text = trigger[trigger.index("\nneighbor") :]
    process = "    api {\n        processes [ blackhole ];\n        neighbor-changes;\n    }\n"
    assert text.count(process) == 2
    static = "static {\n" + "".join(f"{one};\n" for one in routes) + "}\n"
    first, second = text.split(process)[:2]
    rules = "flow {\n" + "".join(f"{one}\n" for one in flows) + "}\n" if flows else ""
    return f"{first}{static}{second}{static}{rules}}}\n"


def others() -> Iterator[tuple[str, str]]:
    """Configurations under other policies, which the daemons only have to accept."""
    for number, policy_guards in enumerate(OTHERS):
        variables = ROUTER | {"blackhole_router_address": "192.0.2.66", "guards": policy_guards}
        yield f"etc/frr/{number}.other", rendered("blackhole_router", "frr.conf.j2", variables)
        text = rendered("blackhole_router", "bird.conf.j2", variables)
        yield f"etc/bird/{number}.other", f"router id 192.0.2.66;\n{text}"


def files() -> dict[str, str]:
    """What the roles would install, by path, and what was there before."""
    trigger = rendered("blackhole", "exabgp.conf.j2", TRIGGER)
    return {
        "etc/isp-hardening/blackhole.json": rendered("blackhole", "blackhole.json.j2", TRIGGER),
        "etc/isp-hardening/blackhole.exabgp.conf": trigger,
        "etc/isp-hardening/rogue.conf": rogue(trigger, ROGUE, FLOWS),
        "etc/isp-hardening/flood.conf": rogue(trigger, FLOOD),
        "etc/isp-hardening/blackhole-rpf.nft": rendered("blackhole_router", "rpf.nft.j2", ROUTER),
        "etc/systemd/system/isp-hardening-blackhole.service": rendered("blackhole", "unit.j2", TRIGGER),
        "etc/frr/frr.conf": FRR
        + rendered("blackhole_router", "frr.conf.j2", ROUTER | {"blackhole_router_address": "192.0.2.66"}),
        "etc/bird/bird.conf": BIRD,
        "etc/bird/isp-hardening-blackhole.conf": rendered(
            "blackhole_router", "bird.conf.j2", ROUTER | {"blackhole_router_address": "192.0.2.67"}
        ),
        "var/lib/isp-hardening-blackhole/state.json": "{}\n",
    } | dict(others())


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("blackhole")
    for path, text in files().items():
        (directory / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / "root" / path).write_text(text, encoding="utf-8")
    # The trigger's host has these files and none of the policy.
    shutil.copytree(ROOT / "plugins" / "module_utils" / "signals", directory / "root" / LIBRARY)
    shutil.copy(scenario.__file__, directory / "scenario.py")
    with box(directory) as here:
        here.run(
            "set -e; cp -r /box/root/* /; chown -R frr:frr /etc/frr; install -d -o exabgp /run/isp-hardening-blackhole;"
            " chown -R root:exabgp /var/lib/isp-hardening-blackhole; chmod 2750 /var/lib/isp-hardening-blackhole;"
            " for file in /etc/frr/frr.conf /etc/frr/*.other; do vtysh -C -f $file; done;"
            " for file in /etc/bird/bird.conf /etc/bird/*.other; do bird -p -c $file; done;"
            " exabgp --validate /etc/isp-hardening/blackhole.exabgp.conf >/dev/null"
        )
        answer = here.run("python3 /box/scenario.py 2>/box/errors", timeout=240, check=False)
        logs = here.run("tail -n 40 /box/errors /var/log/*.log /var/log/*.out", check=False).stdout
        (directory / "logs").write_text(logs)
    assert answer.returncode == 0, answer.stdout + logs
    return dict(json.loads(answer.stdout))


BAD = [f"{scenario.BAD4}/32", "2001:db8:100:7::/64"]


def on_both(holes: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(scenario.ROUTERS, sorted(holes))


def test_all_came_in_its_time(seen: dict[str, Any]) -> None:
    assert "never came" not in seen, seen["never came"]
    assert seen["sessions"] == {"192.0.2.66": "up", "192.0.2.67": "up"}


def test_source_rtbh_lets_no_syn_be_forwarded_in_either_family(seen: dict[str, Any]) -> None:
    infected, neighbours = (scenario.BAD4, scenario.BAD6), (scenario.GOOD4, scenario.GOOD6)
    assert seen["source"]["holes"] == on_both(BAD)
    for router in scenario.ROUTERS:
        assert seen["before"][router] == dict.fromkeys((*infected, *neighbours), scenario.SYNS)
        after = seen["source"]["forwarded"][router]
        assert after == dict.fromkeys(infected, 0) | dict.fromkeys(neighbours, scenario.SYNS)
        # The route alone stops nobody from sending.
        assert seen["without the filter"][router] == seen["before"][router]
    assert seen["source"]["unanswered"] == 0


def test_black_holes_are_marked_and_go_on_to_nobody(seen: dict[str, Any]) -> None:
    for family in ("ipv4", "ipv6"):
        assert "advertisedTo" not in seen["frr route"][family]
        (path,) = seen["frr route"][family]["paths"]
        assert set(path["community"]["list"]) == {"blackhole", "noExport", "noAdvertise"}
    assert "(65535,666) (65535,65281) (65535,65282)" in seen["bird route"]
    assert "203.0.113.0/24" in seen["bird from the peer"]  # or the session would say nothing
    assert scenario.BAD4 not in seen["bird from the peer"]


def test_own_server_short_prefix_and_default_route_are_refused_by_the_trigger(seen: dict[str, Any]) -> None:
    refused = seen["refused"]
    assert set(refused["status"]["refused"]) == {f"source {prefix}" for prefix in refused["wrong"]}
    assert refused["holes"] == on_both([*BAD, "198.51.100.9/32"])


def test_own_server_short_prefix_default_route_and_missing_community_are_refused_by_the_routers(
    seen: dict[str, Any],
) -> None:
    heard = {one.split()[1] for one in ROGUE if ":" not in one.split()[1]}
    assert set(seen["rogue heard"]) == heard  # they came as far as the router
    assert seen["rogue"] == on_both(["198.51.100.9/32", "2001:db8:100:9::/64"])


def test_a_breach_of_the_cap_adds_nothing_and_alarms(seen: dict[str, Any]) -> None:
    assert "4 IPv4 routes are more than the cap of 3" in seen["cap"]["alarm"]
    assert seen["cap"]["holes"] == on_both(BAD)


def test_a_flood_at_the_routers_ends_the_session_and_leaves_nothing(seen: dict[str, Any]) -> None:
    assert seen["flood"] == on_both([])
    assert "Maximum Number of Prefixes Reached" in seen["flood told"]["frr"]
    assert "Route limit exceeded" in seen["flood told"]["bird"]


def test_expiry_needs_neither_ansible_nor_a_readable_file(seen: dict[str, Any]) -> None:
    assert "is no JSON" in seen["broken"]["alarm"]
    assert seen["broken"]["holes"] == on_both([*BAD, "198.51.100.13/32"])
    assert seen["expired"] == on_both(BAD)


def test_a_session_that_starts_anew_has_the_routes_again(seen: dict[str, Any]) -> None:
    assert seen["again"] == on_both(BAD)


def test_a_process_that_died_leaves_nothing_that_is_no_longer_wanted(seen: dict[str, Any]) -> None:
    assert seen["respawned"] == on_both(BAD[:1])


def test_an_empty_state_file_withdraws_all(seen: dict[str, Any]) -> None:
    assert seen["killed"] == on_both([])


def test_routes_of_a_trigger_that_was_killed_or_hangs_are_gone_within_the_hold_time(seen: dict[str, Any]) -> None:
    assert seen["before it hangs"] == on_both(BAD)
    # Without the hold time they would stay as long as the trigger hangs, which is up to three times as long.
    assert set(seen["hanging"]) == set(scenario.ROUTERS)
    assert seen["back"] == on_both(BAD)
    assert seen["gone"] == on_both([])


def test_flowspec_goes_to_bird_where_told_and_ends_with_the_rest(seen: dict[str, Any]) -> None:
    assert seen["flow"] == ["flow4 { src 198.51.100.7/32; }", "flow6 { src 2001:db8:100:7::/64; }"]
    assert seen["flow killed"] == []


def test_flow_rules_against_the_rules_are_refused_by_bird(seen: dict[str, Any]) -> None:
    assert seen["rogue flow"] == ["flow4 { src 198.51.100.9/32; }", "flow6 { src 2001:db8:100:9::/64; }"]


def test_flowspec_is_never_activated_on_frr(seen: dict[str, Any]) -> None:
    assert "address-family ipv6 unicast" in seen["frr families"]
    assert "flowspec" not in seen["frr families"]


# What the roles' defaults are made of.
PLAIN = {
    "blackhole_router_address": "192.0.2.66",
    "isp_policy": {"pools": {"residential": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"]}}},
    "isp_signals": {"subscribers": 3000, "never": POLICY["never"]},
}


@pytest.mark.parametrize(
    ("role", "variables"),
    [
        ("blackhole", {"blackhole_routers": [{"address": "192.0.2.66", "software": "frr", "flowspec": True}]}),
        ("blackhole_router", {"blackhole_router_software": "frr", "blackhole_router_flowspec": True}),
    ],
)
def test_flowspec_on_frr_is_refused_with_the_reason(
    role: str, variables: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    """The role ends there, in check mode, before it touches anything."""
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": TRIGGER | ROUTER | PLAIN | variables,
        "roles": [{"role": f"isp.hardening.{role}"}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    answer = run("ansible-playbook", "-i", "localhost,", "-c", "local", "--check", str(tmp_path / "play.yml"))
    assert answer.returncode == 2, answer.stdout
    said = " ".join(answer.stdout.split())
    assert "announcing and withdrawing two rules ended zebra of FRR 8.4.4" in said
