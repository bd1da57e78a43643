# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A VyOS router: operational and configuration mode, sessions side by side, commit-confirm, load and save.

Source of the words it prints: docs.vyos.io, "Command Line Interface"; github.com/vyos/vyos-1x, python/vyos/
config_mgmt.py and src/conf_mode/firewall.py; github.com/vyos/vyatta-cfg, src/cstore/cstore.cpp. The rest: [memory].
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import vyos_tree as tree
from ..clock import Timer
from ..judge import Packet
from ..judges import vyos as judge
from ..vyos_tree import RefusedError, Tree
from .base import Router, Session

PROTOCOL = frozenset(
    "commit commit-confirm compare confirm discard exit load rollback run save show top up edit".split()
)
FOOTER = (
    "\n\n// Warning: Do not remove the following line.\n"
    '// vyos-config-version: "config-management@1:firewall@16:interfaces@33:nat@8:system@28:vrf@3"\n'
    "// Release version: 1.5-stream-2025-Q2\n"
)
SECRET = ("encrypted-password", "plaintext-password", "password")


class VyosSession(Session):
    router: Device

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.mode = False  # configuration mode
        # What was typed since it was entered, or the whole configuration that was loaded: the working configuration is
        # the running one with these changes.
        self.changes: list[tuple[str, list[str]]] = []
        self.loaded: Tree | None = None
        self._working: tuple[object, Tree] = None, Tree()  # what it was made of, and what came out
        self.question = ""
        self.minutes = 0

    # --- The terminal

    @property
    def banner(self) -> str:
        return "Welcome to VyOS!\n\n   ┌── ┐\n   . VyOS 1.5-stream-2025-Q2\n   └ ──┘  circinus\n\n"

    @property
    def prompt(self) -> str:
        if self.question:
            return self.question
        return f"[edit]\n{self.head}# " if self.mode else f"{self.head}:~$ "

    @property
    def head(self) -> str:
        return f"audit@{self.router.active.value('system', 'host-name') or 'vyos'}"

    @property
    def configuring(self) -> bool:
        return self.mode

    def is_protocol(self, line: str) -> bool:
        return bool(self.question) or line.split()[0] in PROTOCOL

    def rejection(self, line: str) -> str:
        if not self.mode:
            return f"\n  Invalid command: [{line.split()[0]}]\n\n"
        return f"\n  Configuration path: [{' '.join(tree.split(line)[1:])}] is not valid\n  Set failed\n\n"

    def interrupt(self, key: str) -> str:
        self.question = ""
        return ""

    def hang_up(self) -> None:
        self.forget()
        self.mode, self.question, self.closed = False, "", True

    def command(self, line: str) -> str:
        if self.question:
            return self.answer(line)
        words = tree.split(line)
        if not words or words[0].startswith("#"):
            return ""
        try:
            return self.configure(words, line) if self.mode else self.operate(words)
        except RefusedError as refused:
            return str(refused)

    # --- Operational mode

    def operate(self, words: list[str]) -> str:
        router = self.router
        if words in (["exit"], ["logout"]):
            self.closed = True
            return ""
        if words == ["configure"]:
            self.forget()
            self.mode = True
            return ""
        if words[:2] == ["set", "terminal"] and len(words) == 4 and words[3].isdecimal():
            return ""
        if words == ["show", "configuration"]:
            return router.snapshot()
        if words == ["show", "configuration", "commands"]:
            return "".join(f"{one}\n" for one in tree.commands(router.active))
        if words == ["show", "version"]:
            return "Version:          VyOS 1.5-stream-2025-Q2\nRelease train:    circinus\n"
        if words == ["cat", "/config/config.boot"]:
            return "".join(f"{one}\n" for one in tree.lines(router.saved)) + FOOTER
        return f"\n  Invalid command: [{' '.join(words)}]\n\n"  # [memory]

    # --- Configuration mode

    @property
    def working(self) -> Tree:
        made_of = self.loaded or self.router.active
        if self._working[0] is not made_of:
            root = made_of.copy()
            for verb, path in self.changes:
                (tree.set_ if verb == "set" else tree.delete)(root, path)
            self._working = made_of, root
        return self._working[1]

    def forget(self) -> None:
        """The working configuration is the running one again."""
        self.changes, self.loaded, self._working = [], None, (None, Tree())

    def configure(self, words: list[str], line: str) -> str:
        verb, rest = words[0], words[1:]
        if verb == "set":
            if not tree.set_(self.working, rest):
                return f"\n  Configuration path: [{' '.join(rest)}] already exists\n\n"
            self.changes.append(("set", rest))
            return ""
        if verb == "delete":
            if not tree.delete(self.working, rest):
                return "\n  Nothing to delete (the specified node does not exist)\n\n"
            self.changes.append(("delete", rest))
            return ""
        if verb == "exit":
            if self.differs() and rest != ["discard"]:
                return "Cannot exit: configuration modified.\nUse 'exit discard' to discard the changes and exit.\n"
            self.forget()
            self.mode = False
            return "exit\n"
        if verb == "discard" and not rest:
            self.forget()
            return "Changes have been discarded\n"
        if verb == "compare" and rest in ([], ["saved"]):
            return self.compare(rest == ["saved"])
        if verb == "load" and not rest:
            self.forget()
            self.loaded = self.router.saved.copy()
            said = "Load complete. Use 'commit' to make changes effective.\n"
            return "Loading configuration from 'config.boot'\n" + (
                said if self.differs() else "No configuration changes to commit.\n"
            )
        if verb == "save" and not rest:
            self.router.saved = self.router.active.copy()
            return "Saving configuration to '/config/config.boot'...\nDone\n"
        if verb == "confirm" and not rest:
            return self.router.confirm()
        if verb == "commit" and not rest:
            return self.commit()
        if verb == "commit-confirm" and len(rest) <= 1:
            return self.commit_confirm(rest[0] if rest else "10")
        if verb == "run" and rest:
            return self.operate(rest)
        return f"\n  Invalid command: [{line.strip()}]\n\n"  # [memory]

    def differs(self) -> bool:
        return self.working != self.router.active

    def compare(self, saved: bool) -> str:
        """1.5 prints the lines that one has and the other has not, below their section."""
        old = self.router.saved if saved else self.router.active
        none = f"No changes between working and {'saved' if saved else 'active'} configurations.\n\n"
        if self.working == old:
            return none
        there, here = list(tree.commands(old)), list(tree.commands(self.working))
        changed = [f"- {one[4:]}" for one in there if one not in here]
        changed += [f"+ {one[4:]}" for one in here if one not in there]
        if not changed:
            return none
        return "[edit]\n" + "".join(f"{one}\n" for one in changed) + "\n"

    def commit(self) -> str:
        if not self.differs():
            self.forget()
            return "No configuration changes to commit\n"
        root = self.working
        if problem := next(problems(root), ""):
            return f"[ firewall ]\n{problem}\n\n[[firewall]] failed\nCommit failed\n"
        self.forget()
        self.router.activate(root)
        return ""

    def commit_confirm(self, minutes: str) -> str:
        if not minutes.isdecimal() or not 0 < int(minutes) < 65536:
            return f"\n  Invalid command: [commit-confirm {minutes}]\n\n"  # [memory]
        if not self.differs():
            self.forget()
            return "No configuration changes to commit\n"
        if self.router.pending is not None:
            return "Another confirm is pending\n"
        self.minutes = int(minutes)
        how = self.router.unconfirmed
        what = "reload previous config" if how == "reload" else "reboot"
        unsaved = self.router.saved != self.router.active
        self.question = "Proceed ? [Y/n] "
        warning = "\nYou should save previous commits before commit-confirm !\n" if unsaved else ""
        begin = f"{warning}\ncommit-confirm will automatically {what} in {minutes} minutes"
        return f"{begin} unless changes\nare confirmed.\n\n"

    def answer(self, line: str) -> str:
        self.question = ""
        if line.strip().lower() not in ("", "y", "yes"):
            return "commit-confirm canceled\n"
        router = self.router
        if router.pending is not None:
            return "Another confirm is pending\n"
        # Armed first, then committed: one that fails leaves no timer [memory].
        output = self.commit()
        if "failed" not in output:
            router.pending = router.clock.call_later(self.minutes * 60, router.revert)
        return f"Initialized commit-confirm; {self.minutes} minutes to confirm before {router.unconfirmed}\n{output}"


class Device(Router):
    session_class = VyosSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.active = tree.parse(text)
        self.saved = self.active.copy()
        self.pending: Timer | None = None
        self._shown: tuple[Tree, str] = Tree(), ""  # what was printed last, and how

    @property
    def unconfirmed(self) -> str:
        """What happens without a confirmation: reboot, or reload."""
        return self.active.value("system", "config-management", "commit-confirm") or "reboot"

    def activate(self, root: Tree) -> None:
        self.active = root
        self.changed()

    def confirm(self) -> str:
        if self.pending is None:
            return "No confirm pending\n"
        self.clock.cancel(self.pending)
        self.pending = None
        return "Reboot timer stopped\n" if self.unconfirmed == "reboot" else "Reload timer stopped\n"

    def revert(self) -> None:
        """The timer: the saved configuration, after a reboot or at once."""
        how = self.unconfirmed
        self.pending = None
        self.activate(self.saved.copy())
        if how == "reboot":
            for session in self.sessions:
                session.hang_up()

    def snapshot(self) -> str:
        if self._shown[0] is not self.active:
            self._shown = self.active, "".join(f"{masked(one)}\n" for one in tree.lines(self.active))
        return self._shown[1]

    def startup_text(self) -> str:
        return "".join(f"{masked(one)}\n" for one in tree.lines(self.saved))

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return judge.judge(self.active, attachment, direction, packet)


def masked(line: str) -> str:
    """`show configuration` shows no secrets."""
    word, _, value = line.strip().partition(" ")
    return line[: len(line) - len(value)] + "*" * 16 if word in SECRET and value and value != "{" else line


def problems(root: Tree) -> Iterator[str]:
    """What a commit has against a configuration, in the words of src/conf_mode/firewall.py."""
    groups = root.at("firewall", "group")
    for family in ("ipv4", "ipv6"):
        chains = root.at("firewall", family, "name")
        for where, chain in bases(root, family):
            target = chain.value("default-jump-target")
            if chain.value("default-action") == "jump" and not chains.has(target):
                yield f"Invalid default-jump-target. Firewall {family} name {target} does not exist on the system"
            for number, rule in chain.at("rule").children.items():
                begin = f"[{family}-{where}-rule-{number}]\n"
                yield from (f"{begin}{said}" for said in rule_problems(rule, chains, groups, family))
    for zone in root.at("firewall", "zone").children.values():
        for other in zone.at("from").children.values():
            for word, family in (("name", "ipv4"), ("ipv6-name", "ipv6")):
                name = other.value("firewall", word)
                if name and not root.has("firewall", family, "name", name):
                    yield f'Firewall {word} "{name}" does not exist'


def bases(root: Tree, family: str) -> Iterator[tuple[str, Tree]]:
    for hook, kinds in root.at("firewall", family).children.items():
        yield from ((f"{hook}-{kind}", chain) for kind, chain in kinds.children.items())


def rule_problems(rule: Tree, chains: Tree, groups: Tree, family: str) -> Iterator[str]:
    action, target = rule.value("action"), rule.value("jump-target")
    if not action:
        yield "Action must be defined"
    if action == "jump" and not target:
        yield "Action set to jump, but no jump-target specified"
    if target and action != "jump":
        yield "jump-target defined, but action jump needed and it is not defined"
    if target and not chains.has(target):
        yield f"Invalid jump-target. Firewall {family} name {target} does not exist on the system"
    if action == "offload" and not rule.value("offload-target"):
        yield "Action set to offload, but no offload-target specified"
    if rule.has("fragment", "match-frag") and rule.has("fragment", "match-non-frag"):
        yield 'Cannot specify both "match-frag" and "match-non-frag"'
    wrong = {"ipv4": ("icmpv6", "ipv6-icmp"), "ipv6": ("icmp",)}[family]
    if rule.value("protocol") in wrong:
        yield "Cannot match IPv4 ICMP protocol on IPv6, use ipv6-icmp"
    six = "ipv6-" if family == "ipv6" else ""
    for side in ("source", "destination"):
        end = rule.at(side)
        ports = end.has("port") or end.has("group", "port-group")
        if ports and rule.value("protocol") not in ("tcp", "udp", "tcp_udp", "sctp", "udplite", "6", "17"):
            yield "Protocol must be tcp, udp, or tcp_udp when specifying a port or port-group"
        for kind in ("address-group", "network-group", "port-group"):
            name = end.value("group", kind).removeprefix("!")
            known = kind if kind == "port-group" else six + kind
            if name and not groups.has(known, name):
                yield f'Invalid {kind} "{name}" on firewall rule'
    for way in ("inbound-interface", "outbound-interface"):
        name = rule.value(way, "group").removeprefix("!")
        if name and not groups.has("interface-group", name):
            yield f'Invalid interface-group "{name}" on firewall rule'
    if rule.has("tcp", "flags"):
        flags = rule.at("tcp", "flags")
        if rule.value("protocol") != "tcp":
            yield "Protocol must be tcp when specifying tcp flags"
        if set(flags.children) & set(flags.at("not").children):
            yield "Cannot match a tcp flag as set and not set"
