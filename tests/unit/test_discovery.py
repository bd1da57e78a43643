# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a router shows of its subscribers goes into its variables, beside what a person wrote and never over it."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.action import attachments
from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.discovery import Proposal, merged, proposals
from ansible_collections.isp.hardening.plugins.module_utils.filters import Configuration, Interface
from ansible_collections.isp.hardening.plugins.module_utils.policy import Policy, read_attachments, read_policy
from lab.__main__ import CONFIGS, INVENTORY
from lab.routers import kind
from lab.server import LOOPBACK, Access, serve
from tests.conftest import Run

POLICY = yaml.safe_load((INVENTORY / "group_vars" / "all" / "policy.yml").read_text())["isp_policy"]
PLACE = Proposal(Interface("Ethernet3.100", 40, ("198.51.100.1/25", "2001:db8:100::1/64")), ("residential",))
SESSIONS = Proposal(Interface("dynamic-profiles RES interfaces pp0 unit $junos-interface-unit", 12), ())
OWN = "isp_attachments:\n  # the first\n  - {name: eth1, pools: [fibre]}  # mine\n"
ADDED = """  # discovered, for review: line 40: 198.51.100.1/25, 2001:db8:100::1/64
  - {name: Ethernet3.100, pools: [residential]}
"""
ASKED = """  # discovered, for review: line 12: sessions hang there; write their pools, and take the # away
  # - {name: "dynamic-profiles RES interfaces pp0 unit $junos-interface-unit", pools: []}
"""


def policy() -> Policy:
    found, problems = read_policy(POLICY, datetime.date(2026, 11, 23))
    assert found, problems
    return found


@pytest.mark.parametrize(
    ("host", "network_os", "named", "found"),
    [
        ("bng1", "cisco_ios", ["Virtual-Template1"], {
            "Virtual-Template2": ["fibre"], "GigabitEthernet0/0/1.300": ["business"],
            "GigabitEthernet0/0/1.310": ["residential"], "GigabitEthernet0/0/1.320": ["fibre"],
        }),
        ("core1", "juniper_junos", ["ge-0/0/1.100"], {
            "ge-0/0/1.200": ["fibre"], "ge-0/0/2.300": ["business"], "ge-0/0/2.310": ["residential"],
            "dynamic-profiles RES interfaces pp0 unit $junos-interface-unit": [],
            "dynamic-profiles VLAN-PPPOE interfaces demux0 unit $junos-interface-unit": [],
        }),
    ],
)  # fmt: skip
def test_the_labs_routers(host: str, network_os: str, named: list[str], found: dict[str, list[str]]) -> None:
    attachments, _ = read_attachments([{"name": one, "pools": ["residential"]} for one in named], policy())
    configuration = platforms.load(network_os).parse((CONFIGS / f"{host}.cfg").read_text(), named)
    shown = {one.interface.name: list(one.pools) for one in proposals(configuration, policy(), attachments)}
    assert shown == found


def test_many_interfaces_and_many_prefixes_take_no_time() -> None:
    """An interface may carry a part of a pool, several pools, or addresses between two of them."""
    blocks = [[f"100.{64 + pool}.{2 * third}.0/24" for third in range(100)] for pool in range(20)]
    pools = {f"p{number}": {"kind": "dynamic", "ipv4": block} for number, block in enumerate(blocks)}
    chosen, problems = read_policy({"pools": pools}, datetime.date(2026, 11, 23))
    assert chosen, problems
    prefixes = {
        "part": "100.64.2.129/26",
        "last": "100.83.198.1/24",
        "both": "100.64.0.1/15",
        "between": "100.64.3.1/24",
    }
    interfaces = {name: Interface(name, 1, (text,)) for name, text in prefixes.items()}
    interfaces |= {f"e{number}": Interface(f"e{number}", 1, (f"10.0.{number % 256}.1/24",)) for number in range(2000)}
    begin = time.process_time()
    found = proposals(Configuration({}, interfaces=interfaces), chosen, [])
    assert time.process_time() - begin < 2
    assert {one.interface.name: one.pools for one in found} == {"part": ("p0",), "last": ("p19",), "both": ("p0", "p1")}


def test_windows_line_breaks_stay() -> None:
    after = merged(f"{OWN}other: 1\n".replace("\n", "\r\n"), [PLACE], elsewhere=False)
    assert after == f"{OWN}{ADDED}other: 1\n".replace("\n", "\r\n")


def test_names_that_yaml_takes_for_something_else_are_in_quotes() -> None:
    place = Proposal(Interface("on", 1, ("198.51.100.1/25",)), ("100", "no", "1.5", "homes"))
    found = yaml.safe_load(merged("", [place], elsewhere=False))["isp_attachments"]
    assert found == [{"name": "on", "pools": ["100", "no", "1.5", "homes"]}]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"---\nisp_attachments:\n{ADDED}{ASKED}"),
        ("---\n# mine\nother: 1", f"---\n# mine\nother: 1\nisp_attachments:\n{ADDED}{ASKED}"),
        ("isp_attachments: []  # none yet\nother: 1\n", f"isp_attachments:  # none yet\n{ADDED}{ASKED}other: 1\n"),
        (
            f"{OWN}\n# beside\nother: 1\n",
            f"{OWN}{ADDED}{ASKED}\n# beside\nother: 1\n",
        ),
        (
            "isp_attachments:\n- name: eth1\n  pools:\n  - fibre\nkey: !vault |\n  a\n",
            "isp_attachments:\n- name: eth1\n  pools:\n  - fibre\n"
            + "".join(f"{line[2:]}\n" for line in (ADDED + ASKED).splitlines())
            + "key: !vault |\n  a\n",
        ),
    ],
)  # fmt: skip
def test_what_a_person_wrote_stays(before: str, after: str) -> None:
    assert merged(before, [PLACE, SESSIONS], elsewhere=False) == after
    # What is a comment already is not proposed again, and what is listed is no proposal any more.
    assert merged(after, [SESSIONS], elsewhere=True) == after


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("isp_attachments: [{name: eth1, pools: [fibre]}]\n", "one item a line"),
        ("isp_attachments: '{{ places }}'\n", "one item a line"),
        ("other: 1\n", "is not in this file"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3132\n", "encrypted"),
        ("a: [\n", "mend the YAML"),
        ("- a\n", "no list of variables"),
    ],
)
def test_what_cannot_be_extended_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        merged(text, [PLACE], elsewhere=True)


def test_the_playbook_writes_it_once(run: Run, tmp_path: Path) -> None:
    """Over real SSH: in check mode nothing, then the file, then nothing more."""
    router = kind("cisco_ios").load("bng1", CONFIGS)
    with serve([router], Access(password="pass-of-this-test")) as lab:
        (tmp_path / "known_hosts").write_text(lab.known_hosts)
        variables = {
            "ansible_host": LOOPBACK, "ansible_user": "audit",
            "ansible_port": "{{ ssh_port }}", "ssh_port": lab.ports["bng1"],
            "ansible_password": "pass-of-this-test", "ansible_connection": "isp.hardening.netmiko",
            "ansible_network_os": "{{ vendor }}", "vendor": "cisco_ios",
            "ansible_netmiko_known_hosts": str(tmp_path / "known_hosts"),
            "isp_policy": POLICY,
        }  # fmt: skip
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"routers": {"hosts": {"bng1": variables}}}))
        file = tmp_path / "host_vars" / "bng1.yml"
        command = ("ansible-playbook", "-i", str(inventory), "playbooks/discover.yml")
        checked = run(*command, "--check", "--diff")
        assert "+  - {name: GigabitEthernet0/0/1.320, pools: [fibre]}" in checked.stdout
        assert not file.exists()
        assert "changed=1" in run(*command).stdout
        written = yaml.safe_load(file.read_text())["isp_attachments"]
        assert {"name": "GigabitEthernet0/0/1.320", "pools": ["fibre"]} in written
        assert read_attachments(written, policy())[1] == []
        assert "changed=0" in run(*command).stdout


def test_the_diff_shows_no_password_of_the_file() -> None:
    text = "ansible_password: Zq0a\nansible_become_password: 'Zq0b'\nisp_attachments: []\n"
    shown = attachments._diff(text, text.replace("[]", "[x]"), "host_vars/r1.yml")
    assert "Zq0" not in str(shown)
    assert "isp_attachments: [x]\n" in shown["after"]
