# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The push to RouterOS: new chains beside the old ones, one line that switches, and a scheduler that switches back.

Every line acts at once, and an SSH session that ends takes nothing back by itself. Safe mode would (MikroTik,
"Configuration Management"), but at the end of the session that pushes, which is before a fresh login could confirm, and
for 100 actions at most. So the timer is an entry of /system scheduler, armed before anything changes: it survives the
session and a reboot ("Scheduler"), and no switch is made without it.

- A chain never changes its content: new content has a new name, built while no jump leads to it.
- The jump to it, our anchor, is a rule of `forward` per attachment and direction, above all others, fasttrack included.
  One line puts the new anchor on top and moves the old one to the chain ISP-OLD, where no packet comes: between these
  two commands both are in force, so the pool is never without either. An anchor that somebody moved or changed is
  mended so as well.
- Until it is confirmed all that is new bears the log-prefix ISP-NEW, and chains that are needed no more ISP-GONE. So
  the way back is the same for every change: ISP-OLD to `forward`, ISP-NEW away.
- A permit of ours is `return`: other rules of `forward` still decide. No address list is used, so none is ever emptied.
- Connections that are fasttracked already stay so until they end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..packets import PROTOCOLS
from ..plan import OUR_FILTERS, OURS, Push
from ..rules import Bind, Change, Rule, RuleSet
from ._routeros_places import LIST, PROFILE
from ._routeros_text import END, Statement, read, written

ANCHOR = "ISP-EDGE"  # how the comment of our jumps begins
_OLD, _NEW, _GONE = "ISP-OLD", "ISP-NEW", "ISP-GONE"
_MENUS = {4: "ip firewall filter", 6: "ipv6 firewall filter"}
_TIMER = '[find where name="isp-rollback"]'
_ACTIONS = {"permit": "return", "deny": "drop"}
_NAMES = {"icmp6": "icmpv6", "esp": "ipsec-esp", "ah": "ipsec-ah", "udplite": "udp-lite", "ipinip": "ipencap"}


def _of_both(*commands: str) -> str:
    return "; ".join(f"/{menu} {command}" for menu in _MENUS.values() for command in commands)


_BACK = (
    _of_both(
        f'set [find where chain="{_OLD}"] chain=forward',
        f'remove [find where log-prefix="{_NEW}"]',
        f'set [find where log-prefix="{_GONE}"] log-prefix=""',
    )
    + f"; /system scheduler remove {_TIMER}"
)


def _no_timer(message: str) -> str:
    return f':if ([:len [/system scheduler find where name="isp-rollback"]] = 0) do={{:error "isp-edge: {message}"}}'


_ARMED = _no_timer("no timer is armed")


def _command(script: str) -> str:
    """A command of PUSH: braces are RouterOS's, but for {minutes}."""
    return script.replace("{", "{{").replace("}", "}}").replace("{{minutes}}", "{minutes}")


def _typed(script: str) -> str:
    return '"' + script.replace("\\", "\\\\").replace('"', '\\"') + '"'


PUSH = Push(
    # One line, so that nothing is left behind where its reply does not come.
    arm=(
        _command(
            ':if ([:len [/system scheduler find where name="isp-rollback"]] > 0) do={:error "isp-edge: another push '
            'is under way: it is confirmed or taken back when its timer ends"}; '
            f"/system scheduler add name=isp-rollback interval={{minutes}}m on-event={_typed(_BACK)}"
        ),
    ),
    commit=(),
    confirm=(
        _command(
            f"{_no_timer('the timer was first')}; /system scheduler remove {_TIMER}; "
            + _of_both(
                f'remove [find where chain="{_OLD}"]',
                f'remove [find where log-prefix="{_GONE}"]',
                f'set [find where log-prefix="{_NEW}"] log-prefix=""',
            )
        ),
    ),
    abort=(_command(_BACK),),
    discard=(_command(_BACK),),  # a timer that waits refuses the next push
)


def fields(change: Change) -> dict[str, object]:
    """The template's variables: `filters`, each with its lines, and `anchors`, a line each.

    Raises ValueError for what RouterOS cannot express.
    """
    return {
        "filters": [{"name": one.name, "lines": list(_rules(one))} for one in change.filters],
        "anchors": [_switch(_MENUS[bind.family], _anchor(bind)) for bind in change.binds],
    }


def _rules(chosen: RuleSet) -> Iterator[str]:
    menu = _MENUS[chosen.family]
    for rule in chosen.rules:
        for matchers in _matchers(rule, chosen.family):
            comment = re.sub(r"[^ -~]|[\"\\$?{}]", " ", rule.comment)[:100].strip()
            properties = {"chain": chosen.name, "action": _ACTIONS[rule.action], **matchers}
            yield written(menu, {**properties, "comment": comment, "log-prefix": _NEW})


def _matchers(rule: Rule, family: int) -> Iterator[dict[str, str]]:
    ports = rule.source_ports or rule.destination_ports
    if ports and rule.protocol not in ("tcp", "udp", "sctp", "udplite"):
        raise ValueError(f"'{rule.comment}': ports need a protocol that has them, and '{rule.protocol}' has none")
    if rule.later_fragments:
        raise ValueError(
            f"'{rule.comment}': RouterOS puts fragments together before its filters: choose profile: standard for it"
        )
    if rule.undetermined:
        raise ValueError(
            f"'{rule.comment}': RouterOS has no matcher for incomplete header chains: choose profile: standard for it"
        )
    if rule.icmp and rule.protocol != {4: "icmp", 6: "icmp6"}[family]:
        raise ValueError(f"'{rule.comment}': ICMP types of IPv{family} need its own ICMP")
    protocol = _NAMES.get(rule.protocol, rule.protocol)
    if rule.protocol and rule.protocol not in ("tcp", "udp", "icmp", "gre", *_NAMES):
        protocol = str(PROTOCOLS[rule.protocol])
    kinds = [f"{kind}:{'0-255' if code is None else code}" for kind, code in rule.icmp]
    for source, destination, icmp in itertools.product(
        rule.sources or ("",), rule.destinations or ("",), kinds or ("",)
    ):
        yield {
            "protocol": protocol,
            "src-address": source,
            "dst-address": destination,
            "src-port": _ports(rule.source_ports),
            "dst-port": _ports(rule.destination_ports),
            "icmp-options": icmp,
        }


def _ports(ranges: Sequence[tuple[int, int]]) -> str:
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _anchor(bind: Bind) -> dict[str, str]:
    """The jump of an attachment in one direction."""
    name = bind.attachment
    if name.startswith(PROFILE):
        raise ValueError(
            f"'{name}': sessions have interfaces of their own: give the profile an interface-list, and name that as "
            f"'{LIST}NAME' in isp_attachments"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.<>@:/+ -]+", name):
        raise ValueError(f"'{name}' is no name that can be typed at every console")
    side = {"up": "in", "down": "out"}[bind.direction]
    matcher = f"{side}-interface-list" if name.startswith(LIST) else f"{side}-interface"
    return {
        "chain": "forward",
        "action": "jump",
        "jump-target": bind.filter,
        matcher: name.removeprefix(LIST),
        "comment": f"{ANCHOR} {bind.direction} {name}",
        "log-prefix": _NEW,
    }


def _switch(menu: str, anchor: dict[str, str]) -> str:
    """Puts the anchor above all rules of forward; then the one that was there before goes where no packet comes."""
    add = written(menu, anchor)
    first = f'/{menu} find where chain="forward" and dynamic=no'
    return (
        f"{_ARMED}; :if ([:len [{first}]] = 0) do={{{add}}} else={{{add} place-before=[:pick [{first}] 0]}}; "
        + _unhook(menu, anchor["comment"])
    )


def _unhook(menu: str, comment: str) -> str:
    return f'/{menu} set [find where comment="{comment}" and chain="forward" and log-prefix!="{_NEW}"] chain="{_OLD}"'


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text."""
    return [line.strip() for line in rendered.splitlines() if line.strip()[:1] not in ("", "#")]


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that mark chains which no jump leads to, to be deleted with the confirmation."""
    return [_mark(_MENUS[family], name) for family, name in filters if name != _OLD]


def _mark(menu: str, name: str) -> str:
    return (
        f'{_ARMED}; :if ([:len [/{menu} find where jump-target="{name}" and chain!="{_OLD}"]] = 0) '
        f'do={{/{menu} set [find where chain="{name}"] log-prefix="{_GONE}"}}'
    )


# --- what commands do to a text ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Piece:
    """Lines of the text: a rule of a filter, or what is no such rule."""

    text: str
    menu: str = ""
    properties: dict[str, str] | None = None


def _pieces(running: str) -> list[_Piece]:
    export = read(running)
    found: list[_Piece] = []
    at = 0
    for one in export.statements:
        if one.menu in _MENUS.values() and one.verb == "add":
            found += [_Piece(line) for line in export.lines[at : one.line - 1]]
            found.append(_Piece("\n".join(export.lines[one.line - 1 : one.end]), one.menu, one.properties))
            at = one.end
    return found + [_Piece(line) for line in export.lines[at:]]


def apply(running: str, commands: Sequence[str]) -> Iterator[str]:
    """The running text after each command. Raises ValueError for a command that is not one of ours.

    A chain that no jump leads to decides nothing: while it is built the text stays as it was, but for the last command.
    """
    edited = _Text(_pieces(running))
    text = running
    for number, command in enumerate(commands, 1):
        if edited.obey(command) or number == len(commands):
            text = edited.text()
        yield text


_ADD = re.compile(r"/(ip|ipv6) firewall filter add [^{}\[\]]*")


class _Text:
    """A text under the hands of commands. `_added`: rules behind the last one of their menu."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = pieces
        self._added: dict[str, list[_Piece]] = {menu: [] for menu in _MENUS.values()}
        self._targets = {(piece.menu, (piece.properties or {}).get("jump-target", "")) for piece in pieces}

    def text(self) -> str:
        found = [piece.text for piece in self._pieces]
        ends = [number for number, piece in enumerate(self._pieces) if piece.text.strip() == END] or [len(found)]
        for menu, added in self._added.items():
            same = [number for number, piece in enumerate(self._pieces) if piece.menu == menu]
            place = same[-1] if same else ends[-1] - 1
            if added and place < 0:
                found.insert(0, "")
            if added:
                found[place] = "\n".join([found[place], *(piece.text for piece in added)])
        return "\n".join(found)

    def obey(self, command: str) -> bool:
        """Do it; whether it changes what is in force."""
        if _ADD.fullmatch(command):
            (statement,) = read(command).statements
            chain = statement.properties.get("chain", "")
            if statement.garbled or not chain.startswith(OURS):
                raise ValueError(f"a rule of a chain that is not ours: {command[:160]}")
            self._append(statement)
            return (statement.menu, chain) in self._targets
        for menu in _MENUS.values():
            found = re.search(rf"/{menu} set \[find where comment=\"([^\"]+)\" and", command)
            if found:
                self._switch(command, menu, found[1])
                return True
            marked = re.search(rf'/{menu} set \[find where chain="([^"]+)"\]', command)
            if marked and command == _mark(menu, marked[1]):
                return False
        raise ValueError(f"a command that is not one of ours: {command[:160]}")

    def _append(self, statement: Statement) -> None:
        piece = _Piece(written(statement.menu, statement.properties), statement.menu, statement.properties)
        self._added[statement.menu].append(piece)

    def _switch(self, command: str, menu: str, comment: str) -> None:
        added = _ADD.search(command)
        statement = read(added.group()).statements[0] if added else None
        expected = _switch(menu, statement.properties) if statement else f"{_ARMED}; {_unhook(menu, comment)}"
        if command != expected:
            raise ValueError(f"a command that is not one of ours: {command[:160]}")
        first = None
        for number, piece in enumerate(self._pieces):
            chain = (piece.properties or {}).get("chain") if piece.menu == menu else None
            if chain in ("forward", _OLD) and first is None:
                first = number
            if chain == "forward" and piece.properties and piece.properties.get("comment") == comment:
                piece.properties["chain"] = _OLD
                piece.text = written(menu, piece.properties)
        if statement is None:
            return
        self._targets.add((menu, statement.properties["jump-target"]))
        if first is None:
            self._append(statement)
        else:
            self._pieces.insert(first, _Piece(written(menu, statement.properties), menu, statement.properties))


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that put back the anchors that the backup has for these attachments, and the chains behind them."""
    now, then = _rules_of(running), _rules_of(backup)
    found: list[str] = []
    switches: list[str] = []
    gone: list[tuple[int, str]] = []
    for family, menu in _MENUS.items():
        for comment in [f"{ANCHOR} {direction} {name}" for name in names for direction in ("up", "down")]:
            old, new = _anchored(now[menu], comment), _anchored(then[menu], comment)
            if old is None and new is None:
                continue
            target = new.get("jump-target", "") if new else ""
            wanted = [rule for rule in then[menu] if rule.get("chain") == target]
            here = [rule for rule in now[menu] if rule.get("chain") == target]
            if old == new and here == wanted:
                continue
            if old and old.get("jump-target", "") != target:
                gone.append((family, old.get("jump-target", "")))
            if new is None:
                switches.append(f"{_ARMED}; {_unhook(menu, comment)}")
                continue
            added = [written(menu, {**rule, "log-prefix": _NEW}) for rule in wanted]
            found += [line for line in added if here != wanted and line not in found]
            switches.append(_switch(menu, {**new, "log-prefix": _NEW}))
    kept = {(family, str(rule.get("jump-target"))) for family, menu in _MENUS.items() for rule in then[menu]}
    left = [one for one in dict.fromkeys(gone) if one not in kept and one[1].startswith(OUR_FILTERS)]
    return [*found, *switches, *remove(left)]


def _rules_of(text: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {menu: [] for menu in _MENUS.values()}
    for piece in _pieces(text):
        if piece.properties is not None:
            found[piece.menu].append(piece.properties)
    return found


def _anchored(rules: Sequence[dict[str, str]], comment: str) -> dict[str, str] | None:
    """The anchor of that comment; nothing where it is not a rule of forward that is in force."""
    return next(
        (
            rule
            for rule in rules
            if rule.get("comment") == comment and rule.get("chain") == "forward" and rule.get("disabled") != "yes"
        ),
        None,
    )
