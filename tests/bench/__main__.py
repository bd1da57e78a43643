# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.bench [--quick] [--whole] [PART ...]: measure, and write docs/performance.md."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.search import QUESTION_LIMIT, SEARCH_LIMIT
from lab.mail.__main__ import unavailable
from tests.bench import fleet, mail, proof, signals_flows, signals_impact, signals_rates, signals_xbl
from tests.bench.lists import HARD, POOLS
from tests.bench.verdicts import answered

_Figure = TypeVar("_Figure")
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
ROUTERS = 200
SIZES = (1_000, 10_000, 100_000)
LIMITED = 10_000  # the size that limits are set for
# The limits, as issue 2 sets them.
PROOF_CPU, PROOF_MEMORY = 0.5, 200.0
OF_EMPTY, OF_CPU, OF_WALL = 3, 1 / 10, 1 / 8
# As issue 4 sets them: what a verifier in Java takes to load 10,000 lines, and for its first answer about them.
VERIFIER, OF_VERIFIER, VERDICTS_CPU = 6.5 + 1.4, 1 / 10, 0.6
# As issue 3 sets them.
AUDIT_WALL, OF_PEER = 2.0, 1 / 2


_HEAD = """\
# Speed and memory

Written by `make bench`; nothing here was typed by hand. CPU seconds are user and system together; of several runs the
best counts, because what else runs on a machine only adds to a figure. Each part has been run for itself
(`python -m tests.bench PART`), and says when and where.
"""
_ONE = """
## One long filter

`parse` and `audit` of one filter for {pools} pools, all controls on, in a process of its own. In front of our own rules
stand those of single customers; with holes, nobody is denied port 25 at its end, and every pool gets a witness. Limit
at {lines:,} lines: {cpu} CPU-s and {memory:.0f} MB, those of the whole process. The largest size runs once only.
"""
_FIRST = """
## The first answer

Load a list of {lines:,} lines, and say with a packet whether a subscriber reaches port 25 in the world. A verifier in
Java that operators use takes {verifier:.1f} CPU-s for that; limit a tenth of it, {limit:.2f} CPU-s.
"""
_VERDICTS = """
### Ten real routers

The routers of a campus backbone (../shared/data/configs/stanford-atpg): parse all, and ask every IPv4 list every
question of the verdict table, is some packet permitted, is some denied, each yes with its packet. Limit {limit} CPU-s.
"""
_HARD = """
### Filters made to be hard

A question ends after {question:,} line tests, all those about one family of a router together after {search:,}. What is
not decided by then is unknown, and is said to be.
"""
_FLEET = """
## A fleet

`ansible-playbook` with {forks} forks over {routers} of the lab's IOS routers (lab/configs/bng1.cfg), served by one
process of the same machine, whose CPU seconds are not in the figures. Every router needs a change on three attachments.
Ours reads, proves, plans, and proves the plan; a push sends it with the router's timer armed, logs in afresh, reads,
proves, confirms and reads again. The tasks of cisco.ios gather lists and bindings, and a push sends the same lines with
`ios_config`; it proves nothing and saves nothing. `nothing` is an action that returns at once.
"""
_MAIL = """
## Mail hosts

The mail hosts of the lab, made by `playbooks/mail_hosts.yml`: two MXs, two outbound hosts, a subscriber and the world
in containers of one machine, the load among them. The lab's clamd has one signature; real ones cost it more.
"""
_LOAD = """
### Outbound, with scanning and without

The load comes from an MX to port 25 of an outbound host, where it needs no login, is nobody's rate limit, and is
scanned and signed like users' mail; without scanning it goes to the same smtpd on another port, with no milter. A
connection for each message of {octets:,} octets, text and an attachment that were never sent before. Times are those
of a whole session, from connect to QUIT. By turns, {rounds} rounds, all taken together. Meanwhile Postfix delivers;
between the rounds its queue runs empty. The last column: messages a second that smtp-source sends, with the same body
each time. The world is a smtp-sink, which alone takes {sink:.0f} messages a second from the same load.
"""
_PARTS = """
#### What scanning costs

Milliseconds of a message's session, one connection at a time, medians of {messages} messages each, by turns: without
the milter, with it, and with a part of it left out for a recipient. Parts that wait for each other overlap, so that
they need not add up.
"""
_AUDIT = """
### The audit of a mail host

The first task of `playbooks/mail_audit.yml` on one host over ssh, and the same play with `ansible.builtin.ping` in its
place: Ansible's own floor. Wall seconds; limit {limit:.0f} s above the floor.
"""
_MATRIX = """
The relay matrix of `smtp_probe` on port 25, from the world: every trick with every sender, a connection for each, 10 at
once as it is by default, and in sequence. Wall seconds beyond the floor of that host.
"""
_AGAIN = """
### A second run

`playbooks/mail_hosts.yml` over four hosts that are as it wants them, against `tests/bench/peers/mail_hosts.yml`: roles
of the usual style, which have the same files put in place task by task with the modules of ansible.builtin. Both come
over ssh with Ansible's pipelining, and neither changes anything.
"""
_SIGNALS = """
## Signals
"""
# And the headings of the page.
PARTS = {
    "proof": "One long filter",
    "answers": "The first answer",
    "fleet": "A fleet",
    "mail": "Mail hosts",
    "signals": "Signals",
}


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, once each, and no page: does it run at all?")
    parser.add_argument("--whole", action="store_true", help=f"cisco.ios over all {ROUTERS} routers too: an hour")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these of {', '.join(PARTS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    wanted = options.parts or list(PARTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the lab goes away
    if options.quick:
        quick = {
            "proof": lambda: proofs((200,), 200, (20, 20, 60), 1),
            "answers": lambda: answers(200, 1),
            "fleet": lambda: fleets(3, (1, 2), False, 1),
            "mail": lambda: mails((2,), 4, 1, 1),
            "signals": lambda: signals_of(600_000, 20_000, 100_000, "198.18.0.0/22", 1, 0.02),
        }
        print("\n".join(line for part in wanted for line in quick[part]()))
        return 0
    whole = {
        "proof": lambda: proofs(SIZES, LIMITED, tuple(lines for _, lines in HARD.values()), 3),
        "answers": lambda: answers(LIMITED, 8),
        "fleet": lambda: fleets(ROUTERS, (5, 20), options.whole, 3),
        "mail": lambda: mails((1, 10, 50), 300, 2, 3),
        "signals": lambda: signals_of(50_000_000, 8_000_000, 10_000_000, signals_xbl.SWEPT, 3, 1.0),
    }
    texts = _there() | {part: "\n".join(whole[part]()).strip() for part in wanted}
    page = "\n\n".join([_HEAD.strip(), *(texts[part] for part in PARTS if part in texts)])
    PAGE.write_text(f"{page}\n", encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    return 0


def _there() -> dict[str, str]:
    """The parts of the page as it is."""
    sections = re.split(r"^(?=## )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        part: section.strip()
        for section in sections
        for part, title in PARTS.items()
        if section.startswith(f"## {title}")
    }


def _run(packages: Sequence[str], more: Iterable[tuple[str, str]] = ()) -> Iterator[str]:
    """When and where a part was run."""
    yield f"- Date: {datetime.date.today()}"
    yield f"- Machine: {_processor()}, {os.cpu_count()} logical cores, {_memory()} GB; {platform.system()}"
    load = os.getloadavg()[0]
    yield f"- Load of the machine as the run began: {load:.1f} (what is above 0 was others' work, and slows down ours)"
    versions = [("Python", platform.python_version()), *((name, importlib.metadata.version(name)) for name in packages)]
    yield "- " + ", ".join(f"{name} {version}" for name, version in [*versions, *more])


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def proofs(sizes: Sequence[int], limited: int, hard: Sequence[int], repeat: int) -> Iterator[str]:
    """The section on one long filter."""
    yield _ONE.format(pools=POOLS, lines=limited, cpu=PROOF_CPU, memory=PROOF_MEMORY)
    yield from _run([])
    yield ""
    yield "| Platform | Lines | Filter | Parse, CPU-s | Prove, CPU-s | Together | Peak memory, MB | Within the limit |"
    yield "|---|--:|---|--:|--:|--:|--:|---|"
    for network_os in platforms.names():
        for lines in sizes:
            for holes in (False, True):
                found = _said(
                    f"{network_os}, {lines}",
                    proof.long_filter(network_os, lines, holes, 1 if lines == max(SIZES) else repeat),
                )
                limit = "–" if lines != limited else _kept(found.cpu <= PROOF_CPU and found.memory <= PROOF_MEMORY)
                kind = "with holes" if holes else "compliant"
                yield (
                    f"| {network_os} | {lines:,} | {kind}{_verdicts(found)} | {found.parse:.2f} "
                    f"| {found.prove:.2f} | {found.cpu:.2f} | {found.memory:.0f} | {limit} |"
                )
    yield _HARD.format(question=QUESTION_LIMIT, search=SEARCH_LIMIT)
    yield "| Filter | Lines | CPU-s | Peak memory, MB | Verdicts |"
    yield "|---|--:|--:|--:|---|"
    for name, lines in zip(HARD, hard, strict=True):
        found = _said(name, proof.hard_filter(name, lines))
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items()))
        yield f"| {name} | {lines:,} | {found.cpu:.2f} | {found.memory:.0f} | {verdicts} |"


def answers(limited: int, repeat: int) -> Iterator[str]:
    """The section on what is known at once of a long list, and of real ones."""
    yield _FIRST.format(lines=limited, verifier=VERIFIER, limit=VERIFIER * OF_VERIFIER)
    yield from _run([])
    yield ""
    yield "| Platform | Parse, CPU-s | First answer, CPU-s | Together | Within the limit |"
    yield "|---|--:|--:|--:|---|"
    # By turns: what else the machine does for some seconds falls on one round of each, and not on one platform.
    rounds = [
        {name: _said(f"{name}, first answer", proof.first_answer(name, limited, 1)) for name in platforms.names()}
        for _ in range(repeat)
    ]
    for network_os in platforms.names():
        found = min((one[network_os] for one in rounds), key=lambda one: one.cpu)
        kept = _kept(found.cpu <= VERIFIER * OF_VERIFIER)
        yield f"| {network_os} | {found.parse:.2f} | {found.prove:.2f} | {found.cpu:.2f} | {kept} |"
    yield _VERDICTS.format(limit=VERDICTS_CPU)
    real = _said("ten routers", answered(repeat))
    if real:
        yield "| Routers | Lists | Questions | Packets shown | Parse, CPU-s | Ask, CPU-s | Within the limit |"
        yield "|--:|--:|--:|--:|--:|--:|---|"
        yield (
            f"| {real.routers} | {real.filters} | {real.questions} | {real.packets:,} | {real.parse:.2f} "
            f"| {real.ask:.2f} | {_kept(real.parse + real.ask <= VERDICTS_CPU)} |"
        )
    else:
        yield "They were left out: their configurations are not beside the checkout."


def _verdicts(found: proof.Proof) -> str:
    other = [f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items()) if verdict != "compliant"]
    return f" ({', '.join(other)})" if other else ""


def fleets(routers: int, some: tuple[int, int], whole: bool, repeat: int) -> Iterator[str]:
    """The section on many routers."""
    yield _FLEET.format(forks=fleet.FORKS, routers=routers)
    yield from _run(["ansible-core", "netmiko", "paramiko", "jinja2"], fleet.reference_versions())
    yield ""
    yield "| Play | Routers | CPU-s | Wall, s | CPU-s a router | Largest process, MB |"
    yield "|---|--:|--:|--:|--:|--:|"
    costs: dict[str, fleet.Cost] = {}
    for play in ("nothing", "audit", "push"):
        costs[play] = _said(play, fleet.best(play, routers, repeat))
        yield _row(play, routers, costs[play], "")
    notes = []
    for play in ("cisco.ios audit", "cisco.ios push"):
        if not fleet.available(play):
            notes.append(f"`{play}` was left out: this environment has no cisco.ios (`make bench` brings it).")
            continue
        few, more = (_said(play, fleet.best(play, count, 1)) for count in some)
        yield _row(play, some[0], few, "")
        yield _row(play, some[1], more, "")
        if whole:
            costs[play] = _said(play, fleet.best(play, routers, 1))
            yield _row(play, routers, costs[play], "")
        else:
            costs[play] = fleet.extrapolated(few, more, some, routers)
            yield _row(play, routers, costs[play], " **(extrapolated)**")
    if len(notes) == 0 and not whole:
        notes.append(f"Extrapolated figures are the straight line through those of {some[0]} and {some[1]} routers.")
    yield ""
    yield from notes
    yield ""
    yield "| What | Figure | Limit | Within the limit |"
    yield "|---|--:|--:|---|"
    for play in ("audit", "push"):
        ratio = costs[play].cpu / costs["nothing"].cpu
        yield f"| {play}: CPU-s of an empty task | {ratio:.1f} times | {OF_EMPTY} times | {_kept(ratio <= OF_EMPTY)} |"
        theirs = costs.get(f"cisco.ios {play}")
        if theirs:
            cpu, wall = costs[play].cpu / theirs.cpu, costs[play].wall / theirs.wall
            yield f"| {play}: CPU-s of cisco.ios | 1/{1 / cpu:.1f} | 1/10 | {_kept(cpu <= OF_CPU)} |"
            yield f"| {play}: wall time of cisco.ios | 1/{1 / wall:.1f} | 1/8 | {_kept(wall <= OF_WALL)} |"


def mails(connections: Sequence[int], messages: int, rounds: int, repeat: int) -> Iterator[str]:
    """The part on mail hosts: so many messages over one connection at a time, twice as many over more."""
    yield _MAIL
    if reason := unavailable():
        yield f"They were left out: {reason}."
        return
    yield from _run(["ansible-core"])
    with mail.hosts() as state:
        yield from (f"- {host}: {mail.versions(state, host)}" for host in mail.OUTBOUND)
        yield _AGAIN
        yield "| Playbook | Wall, s | CPU-s of the controller |"
        yield "|---|--:|--:|"
        ours, theirs = _said("a second run", mail.again(state, repeat))
        yield f"| playbooks/mail_hosts.yml | {ours.wall:.1f} | {ours.cpu:.1f} |"
        yield f"| tests/bench/peers/mail_hosts.yml | {theirs.wall:.1f} | {theirs.cpu:.1f} |"

        yield _AUDIT.format(limit=AUDIT_WALL)
        yield "| Host | Floor | With the audit | Beyond the floor |"
        yield "|---|--:|--:|--:|"
        floors, beyond = {}, []
        for host in mail.MAIL_HOSTS:
            floors[host], audited = _said(f"audit of {host}", mail.audit(state, host, repeat))
            beyond.append(audited - floors[host])
            yield f"| {host} | {floors[host]:.2f} | {audited:.2f} | {beyond[-1]:.2f} |"
        yield _MATRIX
        yield "| Host | Cases | In parallel | In sequence |"
        yield "|---|--:|--:|--:|"
        for host in (mail.INBOUND[0], mail.OUTBOUND[0]):
            mail.matrix(state, host, 10)  # the first visit of all waits for postscreen
            (cases, parallel), (_, sequence) = (
                _said(f"matrix of {host}, {count} at once", mail.matrix(state, host, count)) for count in (10, 1)
            )
            yield f"| {host} | {cases} | {parallel.wall - floors[host]:.1f} | {sequence.wall - floors[host]:.1f} |"

        mail.make_ready(state)
        yield _LOAD.format(octets=mail.OCTETS, rounds=rounds, sink=mail.sink(state, max(connections), messages))
        yield "| Host | Connections | Scanning | Messages a second | Median, ms | 99th percentile, ms | smtp-source |"
        yield "|---|--:|---|--:|--:|--:|--:|"
        overheads = []
        for host in mail.OUTBOUND:
            for count in connections:
                both = _said(
                    f"{host}, {count} connections",
                    mail.side_by_side(state, host, count, messages if count == 1 else 2 * messages, rounds),
                )
                for scanning, (sent, source) in zip(("no", "yes"), both, strict=True):
                    yield (
                        f"| {host} | {count} | {scanning} | {sent.rate:.0f} | {sent.middle:.1f} | {sent.late:.1f} "
                        f"| {source:.0f} |"
                    )
                (plain, _), (scanned, _) = both
                overheads.append(f"{host}, {count}: {1 - scanned.rate / plain.rate:.0%}")
        yield f"\nWhat scanning takes of the messages a second, by host and connections: {'; '.join(overheads)}."
        yield _PARTS.format(messages=messages)
        yield "| Host | Part | ms |"
        yield "|---|---|--:|"
        largest = []
        for host in mail.OUTBOUND:
            parts = _said(f"parts of {host}", mail.parts(state, host, messages))
            yield f"| {host} | Postfix alone | {parts.plain:.1f} |"
            yield f"| {host} | Postfix with scanning | {parts.scanned:.1f} |"
            yield from (f"| {host} | of that {name} | {share:.1f} |" for name, share in parts.shares.items())
            name = max(parts.shares, key=lambda part: parts.shares[part])
            largest.append(f"{host}: {name}, {parts.shares[name] / (parts.scanned - parts.plain):.0%}")
        yield f"\nThe largest part of the overhead: {'; '.join(largest)}."
    yield "\n### Limits\n"
    yield "| What | Figure | Limit | Within the limit |"
    yield "|---|--:|--:|---|"
    audit, ratio = max(beyond), ours.wall / theirs.wall
    kept = _kept(audit <= AUDIT_WALL)
    yield f"| audit of the slowest mail host: seconds beyond the floor | {audit:.2f} | {AUDIT_WALL:.0f} | {kept} |"
    yield f"| a second run: wall time of the peer | {ratio:.2f} | {OF_PEER:.2f} | {_kept(ratio <= OF_PEER)} |"


def _row(play: str, routers: int, cost: fleet.Cost, note: str) -> str:
    memory = f"{cost.rss:.0f}" if cost.rss else "–"
    return f"| {play}{note} | {routers} | {cost.cpu:.1f} | {cost.wall:.1f} | {cost.cpu / routers:.3f} | {memory} |"


def _kept(kept: bool) -> str:
    return "yes" if kept else "**no**"


def _said(what: str, figure: _Figure) -> _Figure:
    """The figure, told as it comes: the whole takes long."""
    print(f"{what}: {figure}", file=sys.stderr, flush=True)
    return figure


def signals_of(flows: int, entries: int, own: int, swept: str, repeat: int, share: float) -> Iterator[str]:
    """The section on the signals: flows, what-if, blocklists, and whom the detectors find."""
    yield _SIGNALS
    yield from _run(["duckdb", "lz4", "numpy"])
    yield signals_flows.section(flows)
    yield signals_impact.section(flows)
    yield signals_xbl.section(entries, own, swept, repeat, repeat)
    yield signals_rates.section(share)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
