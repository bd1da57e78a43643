# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Texts with a known verdict: what our own template writes, and every case folder of a platform."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.filters import Configuration
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    Policy,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.rules import compile_change
from lab.routers import kind
from lab.routers import names as lab_names
from tests.unit.pushes import calm

CASES = Path(__file__).parents[1] / "platforms"
_TEMPLATES = Path(__file__).parents[2] / "roles" / "edge_filter" / "templates"
_TODAY = datetime.date(2026, 11, 23)
# All that the role can write: both profiles, exceptions, several pools, the controls that are off by default.
_FULL: dict[str, Any] = {
    "profile": "strict",
    "pools": {
        "residential": {"kind": "dynamic", "ipv4": ["198.51.100.0/26"], "ipv6": ["2001:db8:100::/41"]},
        "fibre": {"kind": "static", "ipv4": ["198.51.100.64/26"], "ipv6": ["2001:db8:180::/41"]},
    },
    "smarthosts": [
        {"name": "out1", "ipv4": ["192.0.2.25"], "ipv6": ["2001:db8:ffff::25"]},
        {"name": "out2", "ipv4": ["192.0.2.32/31"], "ipv6": ["2001:db8:ffff::26"]},
    ],
    "exceptions": [
        {
            "prefix": prefix, "owner": "Example", "reason": "own mail server", "until": "2030-01-01",
            "controls": controls,
        }
        for prefix, controls in (
            ("198.51.100.9/32", ["P1", "P2", "P3"]), ("198.51.100.72/30", ["P3", "P4"]),
            ("2001:db8:180:7::/64", ["P1", "P2", "P3"]),
        )
    ],
    "controls": {"P6": True, "P7": True},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Known:
    """A running configuration and its policy."""

    network_os: str
    name: str  # "rendered", "rendered-full" or the case folder's
    text: str
    policy: Policy
    attachments: tuple[Attachment, ...]
    foreign: bool = False  # a policy of its own: the pools are not those of tests/platforms/policy.yml
    findings: int = 0  # that it is expected to have

    @functools.cached_property
    def platform(self) -> ModuleType:
        return platforms.load(self.network_os)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.attachments]

    def parse(self, text: str) -> Configuration:
        found: Configuration = self.platform.parse(text, self.names)
        return found

    def audit(self, configuration: Configuration) -> list[Finding]:
        return audit(configuration, self.policy, self.attachments, "router", self.platform.LINK_LOCAL)

    def raised(self, text: str) -> list[Finding]:
        """What the audit says of a text, less what is compliant."""
        return [one for one in self.audit(self.parse(text)) if one.verdict != COMPLIANT]

    @functools.cached_property
    def found(self) -> list[Finding]:
        """What the audit says of the text itself, less what is compliant."""
        return self.raised(self.text)

    @functools.cached_property
    def read(self) -> Configuration:
        return self.parse(self.text)

    def lost(self, text: str) -> str:
        """Why the text is no whole configuration, as the platform tells it."""
        why: str = self.platform.incomplete(text)
        return why


def missing(network_os: str) -> str:
    """What a platform still lacks for our own rendering; "" when it is all there."""
    needed = (CASES / network_os / "bare.yml", _TEMPLATES / f"{network_os}.j2")
    return ", ".join(f"{file.parent.name}/{file.name}" for file in needed if not file.exists())


@functools.cache
def rendered(network_os: str) -> tuple[Known, ...]:
    """Our own filters for a small policy, and for one that uses all there is; () where `missing` says what lacks."""
    if missing(network_os):
        return ()
    return (_rendered(network_os, "rendered", _common()), _rendered(network_os, "rendered-full", _FULL))


@functools.cache
def cases(network_os: str) -> tuple[Known, ...]:
    """The case folders of the platform that are whole by now."""
    found = []
    for file in sorted((CASES / network_os).glob("[0-9]*/findings.yml")):
        own, text = file.parent / "policy.yml", file.parent / "running.cfg"
        if text.exists():
            expected = yaml.safe_load(file.read_text(encoding="utf-8"))
            data = yaml.safe_load(own.read_text(encoding="utf-8"))["isp_policy"] if own.exists() else _common()
            policy = _policy(data)
            attachments, problems = read_attachments(expected["attachments"], policy)
            assert not problems, problems
            findings, content = len(expected["findings"]), text.read_text(encoding="utf-8")
            found.append(Known(network_os, file.parent.name, content, policy, attachments, own.exists(), findings))
    return tuple(found)


@functools.cache
def compliant(network_os: str) -> tuple[Known, ...]:
    """Those in which every obligation shall hold, our own renderings first."""
    return tuple(one for one in (*rendered(network_os), *cases(network_os)) if not one.findings)


@functools.cache
def _common() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CASES / "policy.yml").read_text(encoding="utf-8"))["isp_policy"]
    return found


@functools.cache
def written(network_os: str) -> tuple[str, ...]:
    """Every text of the platform's folder: the seeds of the fuzzer."""
    files = sorted((CASES / network_os).glob("*/running.cfg"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


def _policy(data: dict[str, Any]) -> Policy:
    policy, problems = read_policy(data, _TODAY)
    assert policy, problems
    return policy


def _rendered(network_os: str, name: str, data: dict[str, Any]) -> Known:
    """The router of bare.yml with our own filters, as the lab's router prints it, or else as `apply` foresees it."""
    platform, policy = platforms.load(network_os), _policy(data)
    bare = yaml.safe_load((CASES / network_os / "bare.yml").read_text(encoding="utf-8"))
    rows = [{"name": bare["attachment"], "pools": list(policy.pools)}]
    attachments, problems = read_attachments(rows, policy)
    assert not problems, problems
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_TEMPLATES / f"{network_os}.j2").read_text(encoding="utf-8"))
    # Some platforms have no condition that the strict profile needs, and say so.
    try:
        fields = platform.fields(compile_change(policy, attachments))
    except ValueError:
        return _rendered(network_os, name, data | {"profile": "standard"})
    lines = platform.lines(template.render(fields))
    *_, applied = platform.apply(bare["running"], lines)
    ours, printed = (
        Known(network_os, name, text, policy, attachments)
        for text in (applied, _printed(network_os, bare["running"], lines))
    )
    # The bare router lacks what some pushes need (an archive), and then prints no filter.
    return ours if not printed.text or printed.lost(printed.text) or printed.found else printed


def _printed(network_os: str, running: str, lines: Sequence[str]) -> str:
    """What the lab's router prints once the lines are committed; "" where the lab has no such router in a file."""
    if network_os not in lab_names() or kind(network_os).own_server:
        return ""
    router, push = kind(network_os)("router", running), platforms.load(network_os).PUSH
    for command in (*push.arm, *lines, *push.commit):
        router.execute(command.format(minutes=5, seconds=300, session="isp") if command not in lines else command)
    return calm(router.snapshot())
