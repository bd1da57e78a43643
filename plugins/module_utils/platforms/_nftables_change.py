# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The push to a Linux router: our table as a file, brought by shell commands, taken in one transaction, or taken back.

`nft -f` is one transaction (nft(8)): the old table decides until the new one does. Nothing else on the router is
touched but /etc/nftables.d/isp-edge.nft and one line of /etc/nftables.conf, and these only when it is confirmed.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Sequence

from .. import packets
from ..plan import Push
from ..rules import Change, Rule, RuleSet
from ._nftables_text import ADDRESS_LINE

_TABLE = "inet isp_edge"
_CHUNK = 60_000  # bytes of the file in one command; Linux takes 128 KiB in one argument (execve(2), MAX_ARG_STRLEN)
_ACTIONS = {"permit": "accept", "deny": "drop"}

# Every command stands alone. The directory is the network namespace's own, and in memory: a reboot forgets what was
# not confirmed, and comes back with what was.
_SHELL = (
    'PATH="$PATH:/usr/sbin:/sbin"; d="/run/isp-hardening.$(stat -Lc %i /proc/self/ns/net)"; '
    'fail() { echo "isp-edge: $*"; exit 1; }; '
)
_KEPT = "/etc/nftables.d/isp-edge.nft"  # Debian's nftables.service loads /etc/nftables.conf, which includes it
_CANCEL = (
    'if [ -s "$d/timer" ]; then kill -- "-$(cat "$d/timer")" 2>/dev/null; '
    "else systemctl stop isp-edge-restore.timer 2>/dev/null; fi"
)


def _command(script: str) -> str:
    """A command template of PUSH: braces that are the shell's are doubled, {minutes} is not."""
    whole = (_SHELL + script).replace("{", "{{").replace("}", "}}")
    return whole.replace("{{minutes}}", "{minutes}")


PUSH = Push(
    arm=(
        # A directory that another push left behind is in the way only while its timer runs.
        _command(
            'umask 077; if [ -e "$d/armed" ]; then fail "another push is under way: it is confirmed or taken back '
            'when its timer ends"; fi; rm -rf "$d"; mkdir "$d" || fail "cannot write to /run"; '
            f"if nft list tables | grep -qx 'table {_TABLE}'; then nft list table {_TABLE} >\"$d/old\" || "
            'fail "cannot read our table"; else : >"$d/old"; fi; '
            f"{{ echo 'add table {_TABLE}'; echo 'delete table {_TABLE}'; cat \"$d/old\"; }} >\"$d/restore.nft\"; "
            'nft -c -f "$d/restore.nft" || fail "the ruleset as it is cannot be loaded again: repair it first"; '
            f'if [ -e {_KEPT} ]; then cp {_KEPT} "$d/kept" || fail "cannot save {_KEPT}"; fi'
        ),
        # The old table comes back in one transaction. systemd's timer outlives the session and its user; where no
        # systemd is, or it lives in another network namespace, a background sleep does.
        _command(
            'echo \'mv "$1/armed" "$1/fired" && nft -f "$1/restore.nft" && rm -rf "$1"\' >"$d/restore.sh"; '
            ': >"$d/armed"; if [ -d /run/systemd/system ] && [ /proc/self/ns/net -ef /proc/1/ns/net ]; then '
            "systemd-run --quiet --collect --unit=isp-edge-restore --on-active={minutes}min "
            '--timer-property=AccuracySec=1s /bin/sh "$d/restore.sh" "$d" || fail "no timer could be started"; else '
            'setsid sh -c \'echo $$ >"$1/timer"; sleep $(({minutes} * 60)); . "$1/restore.sh"\' sh "$d" '
            "</dev/null >/dev/null 2>&1 & fi"
        ),
    ),
    commit=(
        _command(
            '[ -e "$d/armed" ] || fail "the timer is not armed"; : >"$d/committed"; '
            'nft -f "$d/edge.nft" 2>&1 || { rm -f "$d/committed"; fail "the new table was not taken"; }'
        ),
    ),
    confirm=(
        # What is confirmed is kept for the next boot; whether the timer was first is decided by one rename.
        _command(
            f'umask 022; mkdir -p {_KEPT.rpartition("/")[0]} && cp "$d/edge.nft" {_KEPT}.new || '
            'fail "cannot write to /etc/nftables.d: the change is not confirmed"; '
            '[ -e "$d/confirmed" ] || mv "$d/armed" "$d/confirmed" || '
            f'{{ rm -f {_KEPT}.new; fail "the timer was first"; }}; '
            f"{_CANCEL}; mv -f {_KEPT}.new {_KEPT}; c=/etc/nftables.conf; "
            "[ -e $c ] || echo '#!/usr/sbin/nft -f' >$c; "
            "grep -Eqs '^[[:space:]]*include[[:space:]]+\"/etc/nftables[.]d/(isp-edge|[*])[.]nft\"' $c || "
            f'printf \'\\n# The table of isp.hardening.\\ninclude "{_KEPT}"\\n\' >>$c || fail "cannot write to $c"'
        ),
    ),
    abort=(
        _command(
            '[ -e "$d/restore.nft" ] || exit 0; if mv "$d/armed" "$d/aborted" 2>/dev/null; then '
            f'{_CANCEL}; fi; nft -f "$d/restore.nft" 2>&1 || fail "the old table was not taken back"; '
            f'if [ -e "$d/confirmed" ]; then if [ -e "$d/kept" ]; then cp "$d/kept" {_KEPT}; '
            f'else echo "# nothing" >{_KEPT}; fi; fi; rm -rf "$d"'
        ),
    ),
    discard=(
        _command(
            'if [ -e "$d/committed" ]; then exit 0; fi; if mv "$d/armed" "$d/discarded" 2>/dev/null; then '
            f'{_CANCEL}; rm -rf "$d"; fi'
        ),
    ),
)


def fields(change: Change) -> dict[str, object]:
    """The template's variables: `table`, `sets` (name, type, elements), `filters` (name, rules), `up`, `down` (binds).

    A rule is a match, a verdict and a comment. Raises ValueError for what nftables cannot express.
    """
    sets: dict[tuple[int, tuple[str, ...]], str] = {}
    filters = [{"name": one.name, "rules": list(_rendered(one, sets))} for one in change.filters]
    return {
        "table": _TABLE,
        "sets": [
            {"name": name, "type": f"ipv{family}_addr", "elements": elements}
            for (family, elements), name in sets.items()
        ],
        "filters": filters,
        "whole": _WHOLE_HEADERS if any(rule.undetermined for one in change.filters for rule in one.rules) else [],
        "up": [*_dispatch(change, "up", "iifname")],
        "down": [*_dispatch(change, "down", "oifname")],
    }


# Returns for every packet whose upper-layer header is whole; what is left over has an incomplete header chain.
_WHOLE_HEADERS = [
    "frag frag-off != 0 meta l4proto 0-255",
    "tcp urgptr & 0 == 0",
    "meta l4proto != tcp @th,0,64 & 0 == 0",
]


def _dispatch(change: Change, direction: str, selector: str) -> Iterator[dict[str, object]]:
    """The exact names first, then the longest patterns: the first that fits decides."""
    binds = [bind for bind in change.binds if bind.direction == direction]
    for bind in sorted(binds, key=lambda one: (one.attachment.endswith("*"), -len(one.attachment))):
        if not re.fullmatch(r"[^\s\"/\\]{1,15}", bind.attachment) or "*" in bind.attachment[:-1]:
            raise ValueError(f"'{bind.attachment}' is no name of a Linux interface, nor one with * at its end")
        match = "" if bind.attachment == "*" else f'{selector} "{bind.attachment}" '
        yield {"match": f"{match}meta nfproto ipv{bind.family}", "filter": bind.filter}


def _rendered(chosen: RuleSet, sets: dict[tuple[int, tuple[str, ...]], str]) -> Iterator[dict[str, str]]:
    for rule in chosen.rules:
        comment = re.sub(r"[^\x20-\x7e]|[\"\\]", " ", rule.comment)[:100].strip()
        for match in _matches(rule, chosen.family, sets):
            if rule.undetermined:
                yield {"match": match, "verdict": f"jump cut-short-{_ACTIONS[rule.action]}", "comment": comment}
            else:
                yield {"match": match, "verdict": f"counter {_ACTIONS[rule.action]}", "comment": comment}


def _matches(rule: Rule, family: int, sets: dict[tuple[int, tuple[str, ...]], str]) -> Iterator[str]:
    ip = {4: "ip", 6: "ip6"}[family]
    words = []
    for key, prefixes in (("saddr", rule.sources), ("daddr", rule.destinations)):
        if prefixes:
            words.append(f"{ip} {key} {_addresses(prefixes, family, sets)}")
    ports = rule.source_ports or rule.destination_ports
    if ports and rule.protocol not in ("tcp", "udp", "sctp", "udplite"):
        raise ValueError(f"'{rule.comment}': ports need a protocol that has them, and '{rule.protocol}' has none")
    if rule.later_fragments:
        if ports or rule.icmp:
            raise ValueError(f"'{rule.comment}': a later fragment has no ports and no ICMP type")
        words.append("ip frag-off & 0x1fff != 0" if family == 4 else "frag frag-off != 0")
    if rule.undetermined and family == 4:
        raise ValueError(f"'{rule.comment}': header chains are IPv6's (RFC 7112)")
    if rule.icmp:
        name, number = {4: ("icmp", "icmp"), 6: ("icmpv6", "icmp6")}[family]
        if rule.protocol != number:
            raise ValueError(f"'{rule.comment}': ICMP types of IPv{family} need the protocol {number}")
        for kind, code in rule.icmp:
            yield " ".join([*words, f"{name} type {kind}", *([] if code is None else [f"{name} code {code}"])])
        return
    for key, ranges in (("sport", rule.source_ports), ("dport", rule.destination_ports)):
        if ranges:
            words.append(f"{rule.protocol} {key} {_port_set(ranges)}")
    if rule.protocol and not ports:
        words.append(f"meta l4proto {packets.PROTOCOLS[rule.protocol]}")
    yield " ".join(words)


def _addresses(prefixes: Sequence[str], family: int, sets: dict[tuple[int, tuple[str, ...]], str]) -> str:
    """One prefix as it is, more of them as a named set, each set once."""
    networks: list[ipaddress.IPv4Network] | list[ipaddress.IPv6Network]
    if family == 4:
        networks = list(ipaddress.collapse_addresses(ipaddress.IPv4Network(one, strict=False) for one in prefixes))
    else:
        networks = list(ipaddress.collapse_addresses(ipaddress.IPv6Network(one, strict=False) for one in prefixes))
    if len(networks) == 1:
        return str(networks[0])
    elements = tuple(str(network) for network in networks)
    return "@" + sets.setdefault((family, elements), f"prefixes{family}_{len(sets) + 1}")


def _port_set(ranges: Sequence[tuple[int, int]]) -> str:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in merged]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def lines(rendered: str) -> list[str]:
    """The shell commands that bring the file to the router and have nft check it."""
    content = f"{rendered.rstrip()}\n".encode()
    commands = [f'{_SHELL}: >"$d/edge.nft" || fail "the push is not armed"']
    for start in range(0, len(content), _CHUNK):
        text = base64.b64encode(content[start : start + _CHUNK]).decode()
        commands.append(f'{_SHELL}printf %s \'{text}\' | base64 -d >>"$d/edge.nft" || fail "the file was not written"')
    return [*commands, f'{_SHELL}nft -c -f "$d/edge.nft" 2>&1 || fail "nft does not take the new table"']


def remove(_filters: Sequence[tuple[int, str]]) -> list[str]:
    """Nothing: the table is replaced whole, and what is not in the new one is gone."""
    return []


def apply(running: str, commands: Sequence[str]) -> Iterator[str]:
    """The running text with our table replaced, or put before the addresses. Raises ValueError for other commands."""
    chunks = [found[1] for line in commands if (found := re.search(r"printf %s '([A-Za-z0-9+/=]+)'", line))]
    try:
        content = b"".join(base64.b64decode(chunk) for chunk in chunks).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("the commands hold no file that can be read") from error
    unknown = next((line for line, known in zip(commands, [*lines(content), ""], strict=False) if line != known), None)
    if unknown is not None or len(commands) != len(lines(content)):
        raise ValueError(f"a command that is not one of ours: {unknown or 'one is missing'}"[:200])
    before, _, after = _around_table(running)
    _, table, _ = _around_table(content)
    yield f"{before}{table}{after}"


def restore(running: str, backup: str, _names: Sequence[str]) -> list[str]:
    """The commands that put our table back as the backup has it; none when it is so."""
    now, then = _around_table(running)[1], _around_table(backup)[1]
    if _stateless(now) == _stateless(then):
        return []
    return lines(f"add table {_TABLE}\ndelete table {_TABLE}\n{then}")


def _stateless(table: str) -> str:
    return " ".join(re.sub(r"packets \d+ bytes \d+", "", table).split())


def _around_table(text: str) -> tuple[str, str, str]:
    """What is before our table's block, the block with its line end, and what is behind."""
    start = re.search(rf"^table {_TABLE} \{{", text, re.MULTILINE)
    if not start:
        address = ADDRESS_LINE.search(text)
        cut = address.start() if address else len(text)
        return text[:cut], "", text[cut:]
    depth = 0
    for number, word in _braces(text, start.end() - 1):
        depth += (word == "{") - (word == "}")
        if not depth:
            end = text.find("\n", number) + 1 or len(text)
            return text[: start.start()], text[start.start() : end].rstrip("\n") + "\n", text[end:]
    return text[: start.start()], text[start.start() :], ""


def _braces(text: str, start: int) -> Iterator[tuple[int, str]]:
    for found in re.compile(r'"[^"\n]*"|#[^\n]*|[{}]').finditer(text, start):
        if found.group() in ("{", "}"):
            yield found.start(), found.group()
