# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy, attachments, mail hosts and signals of a whole inventory, checked before anything connects."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import platforms
from .mail.policy import GROUPS, MailPolicy, read_mail
from .policy import (
    Path,
    Policy,
    PolicyException,
    Problem,
    check_attachments,
    path_text,
    pool_names,
    read_attachments,
    read_policy,
)
from .policy_files import Files, locate
from .signals.policy import read_signals

EXPIRY_NOTICE = 14  # days before the last day of an exception from which on it is announced
VARIABLES = ("isp_policy", "isp_mail", "isp_signals", "isp_attachments", "ansible_network_os")


@dataclass(frozen=True, slots=True)
class HostVariables:
    """What one host has of VARIABLES, as plain data without templates, and what could not be templated."""

    host: str
    groups: tuple[str, ...]
    values: Mapping[str, object]
    problems: tuple[Problem, ...] = ()

    @property
    def is_router(self) -> bool:
        return any(name in self.values for name in ("isp_attachments", "ansible_network_os"))

    @property
    def mail_groups(self) -> tuple[str, ...]:
        """The groups of mail hosts that it is in."""
        return tuple(group for group in GROUPS.values() if group in self.groups)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One problem, at one place, for the hosts that have it."""

    place: str  # "file:line", or "" where it is in no file that can be read
    hosts: tuple[str, ...]
    variable: str
    reason: str
    mend: str

    def __str__(self) -> str:
        where = self.place or "host " + ", ".join(self.hosts[:3])
        if not self.place and len(self.hosts) > 3:
            where += f" and {len(self.hosts) - 3} more"
        what = f"{self.variable}: {self.reason}" if self.variable else self.reason
        return f"{where}: {what}; {self.mend}"


@dataclass(frozen=True)
class Verdict:
    """Every mistake of the inventory, and what is no mistake but worth a word."""

    mistakes: tuple[Mistake, ...]
    warnings: tuple[str, ...]
    expired: tuple[PolicyException, ...]
    expiring: tuple[PolicyException, ...]
    routers: tuple[str, ...]
    mail_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """One policy, and the hosts that have it by the same groups: whoever shares both shares its lines."""

    value: object
    mail_value: object
    signals_value: object
    policy: Policy | None
    mail: MailPolicy | None
    hosts: list[HostVariables]


def check_inventory(hosts: Sequence[HostVariables], files: Files, today: datetime.date) -> Verdict:
    """All that is wrong with the variables of all hosts."""
    found: dict[tuple[str, str, str, str], list[str]] = {}

    def note(owner: HostVariables, problem: Problem) -> None:
        place = locate(files, owner.host, owner.groups, problem.path, owner.values.get(str(problem.path[0])))
        key = (place, path_text(problem.path), problem.reason, problem.mend)
        found.setdefault(key, []).append(owner.host)

    for broken_file in files.problems:
        place = f"{broken_file.file}:{broken_file.line}" if broken_file.line else broken_file.file
        found[place, "", broken_file.reason, broken_file.mend] = []
    routers = [host for host in hosts if host.is_router]
    with_mail = any("isp_mail" in host.values for host in hosts)
    mail_hosts = [host.host for host in hosts if host.mail_groups] if with_mail else []
    if not routers and not mail_hosts and not files.problems:
        mend = "give your routers isp_attachments and ansible_network_os, as inventories/example does"
        found["inventory", "", "has no routers", mend] = []
    readings: list[_Reading] = []
    for host in hosts:
        for problem in host.problems:
            note(host, problem)
        with_policy = host.values.keys() & {"isp_policy", "isp_mail", "isp_signals"}
        if not host.is_router and not with_policy and host.host not in mail_hosts:
            continue
        broken = {problem.path[0] for problem in host.problems}
        reading = _shared(readings, host)
        if reading is None:
            policy, problems = read_policy(host.values.get("isp_policy"), today)
            mail: MailPolicy | None = None
            if "isp_mail" in host.values:
                mail, mail_problems = read_mail(host.values["isp_mail"], policy)
                problems += mail_problems + _absent(mail, hosts)
            if "isp_signals" in host.values:
                problems += read_signals(host.values["isp_signals"], policy, mail)[1]
            reading = _Reading(*_shared_values(host), policy, mail, [])
            readings.append(reading)
            for problem in problems:
                if problem.path[0] not in broken:
                    note(host, problem)
        reading.hosts.append(host)
        if host.is_router:
            for problem in _router(host, reading.policy):
                if problem.path[0] not in broken:
                    note(host, problem)
        if host.host in mail_hosts and "isp_mail" not in broken:
            for problem in _unlisted(host, reading.mail):
                note(host, problem)
    mistakes = sorted(
        (Mistake(place, tuple(names), *rest) for (place, *rest), names in found.items()), key=_in_the_file
    )
    expired, expiring, warnings = _notes(readings, files, today)
    return Verdict(
        tuple(mistakes),
        warnings,
        expired,
        expiring,
        tuple(host.host for host in routers),
        tuple(mail_hosts),
    )


def _in_the_file(mistake: Mistake) -> tuple[str, int]:
    file, _, line = mistake.place.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (mistake.place, 0)


def _shared(readings: Sequence[_Reading], host: HostVariables) -> _Reading | None:
    same = (one for one in readings if one.hosts[0].groups == host.groups)
    values = _shared_values(host)
    return next((one for one in same if (one.value, one.mail_value, one.signals_value) == values), None)


def _shared_values(host: HostVariables) -> tuple[object, object, object]:
    policy, mail, signals = (host.values.get(name) for name in ("isp_policy", "isp_mail", "isp_signals"))
    return policy, mail, signals


def _absent(mail: MailPolicy | None, hosts: Sequence[HostVariables]) -> list[Problem]:
    """Hosts of the mail policy that playbooks/mail.yml would never come to."""
    if mail is None:
        return []
    groups = {host.host: host.groups for host in hosts}
    problems = [
        Problem(("isp_mail", "probe", "hosts", number), f"no host '{name}' in the inventory", "add it there")
        for number, name in enumerate(mail.probe_hosts)
        if name not in groups and name != "localhost"
    ]
    for role, group in GROUPS.items():
        for number, one in enumerate(getattr(mail, role)):
            place: Path = ("isp_mail", role, number, "host")
            if one.host not in groups:
                problems.append(Problem(place, f"no host '{one.host}' in the inventory", f"add it to group '{group}'"))
            elif group not in groups[one.host]:
                problems.append(Problem(place, f"host '{one.host}' is not in group '{group}'", "add it there"))
    return problems


def _unlisted(host: HostVariables, mail: MailPolicy | None) -> list[Problem]:
    """Groups that bring a host into playbooks/mail.yml, although the mail policy says nothing of it."""
    if "isp_mail" not in host.values:
        mend = "set isp_mail for all hosts, in group_vars/all"
        return [Problem(("isp_mail",), f"is not set for host '{host.host}' of group '{host.mail_groups[0]}'", mend)]
    return [
        Problem(
            ("isp_mail", role),
            f"host '{host.host}' is in group '{group}', and not listed here",
            "list it, or take it out of the group",
        )
        for role, group in GROUPS.items()
        if mail and group in host.mail_groups and host.host not in {one.host for one in getattr(mail, role)}
    ]


def _router(host: HostVariables, policy: Policy | None) -> list[Problem]:
    problems = []
    platform = host.values.get("ansible_network_os")
    known = ", ".join(platforms.names())
    if platform is None:
        problems.append(Problem(("ansible_network_os",), "is not set", f"set it to one of {known}"))
    else:
        try:
            platforms.load(str(platform))
        except ValueError:
            problems.append(
                Problem(("ansible_network_os",), f"unknown platform '{platform}'", f"set it to one of {known}")
            )
    value = host.values.get("isp_attachments")
    if policy:
        return problems + read_attachments(value, policy)[1]
    return problems + check_attachments(value, pool_names(host.values.get("isp_policy")))[1]


def _notes(
    readings: Sequence[_Reading], files: Files, today: datetime.date
) -> tuple[tuple[PolicyException, ...], tuple[PolicyException, ...], tuple[str, ...]]:
    expired: dict[PolicyException, None] = {}
    expiring: dict[PolicyException, None] = {}
    warnings: dict[str, None] = {}
    attached = _attached(readings)
    with_routers = any(host.is_router for reading in readings for host in reading.hosts)
    for reading in readings:
        if reading.policy is None:
            continue
        for exception in reading.policy.expired:
            expired[exception] = None
            text = f"expired on {exception.until} and counts as absent; extend or remove it"
            warnings[_about(exception, reading, files, text)] = None
        for exception in reading.policy.exceptions:
            days = (exception.until - today).days
            if days <= EXPIRY_NOTICE:
                expiring[exception] = None
                left = f"in {days} days, on" if days > 1 else "tomorrow," if days else "today,"
                text = f"expires {left} {exception.until}; extend or remove it"
                warnings[_about(exception, reading, files, text)] = None
            for text in _without_effect(reading.policy, exception):
                warnings[_about(exception, reading, files, text)] = None
        for name in sorted(reading.policy.pools.keys() - attached if with_routers else ()):
            place = _place(reading, files, ("isp_policy", "pools", name))
            warnings[f"{place}pool '{name}' hangs on no attachment of any host, so that nothing filters it"] = None
    return tuple(expired), tuple(expiring), tuple(warnings)


def _without_effect(policy: Policy, exception: PolicyException) -> Iterator[str]:
    kind = policy.pools[exception.pool].kind
    for control in exception.controls:
        setting = policy.controls[control]
        if not setting.enabled or kind not in setting.kinds:
            why = f"covers no {kind} pools" if setting.enabled else "is switched off"
            yield f"has no effect on {control}, which {why}; take {control} out of it"


def _attached(readings: Sequence[_Reading]) -> set[str]:
    """The pools that hang on some attachment of some host."""
    names = {name for reading in readings for name in pool_names(reading.value)}
    values = [host.values.get("isp_attachments") for reading in readings for host in reading.hosts]
    return {pool for value in values for attachment in check_attachments(value, names)[0] for pool in attachment.pools}


def _about(exception: PolicyException, reading: _Reading, files: Files, text: str) -> str:
    exceptions = reading.value["exceptions"]  # type: ignore[index]  # it was read: it is there
    index = next(
        number
        for number, item in enumerate(exceptions)
        if ipaddress.ip_network(str(item["prefix"])) == ipaddress.ip_network(exception.prefix)
    )
    place = _place(reading, files, ("isp_policy", "exceptions", index))
    return f"{place}the exception for {exception.prefix} ({exception.owner}) {text}"


def _place(reading: _Reading, files: Files, path: Path) -> str:
    host = reading.hosts[0]
    place = locate(files, host.host, host.groups, path, reading.value)
    return f"{place}: " if place else ""
