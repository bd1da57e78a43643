# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look-ups in Postfix's tables, asked for in rounds, and its lists of domains and networks.

Sources: DATABASE_README, postconf(5) (mynetworks, relay_domains, parent_domain_matches_subdomains).

An evaluation runs with the answers that are known and notes what it lacked; the caller asks `postmap -q -` for all
of that at once and evaluates again, until nothing is lacking: a process per table and round, not per key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import takewhile

from .postfix import Parameters, inside, words

PATTERN_TYPES = ("regexp", "pcre", "cidr", "tcp", "socketmap")  # these take whole keys only, no parts of them

LISTED = ("hash", "btree", "lmdb", "dbm", "cdb", "sdbm", "texthash", "cidr", "regexp", "pcre", "inline", "static")


class Unreadable(Exception):
    """A table (or a file of a list) whose answer is not to be had; the text says which and why."""


class Tables:
    """Answers of tables by (table, key); "" where the table has nothing, a reason in `broken` where it failed.

    `files`: text of the files that lists name ("/etc/postfix/domains"), None where one cannot be read.
    """

    def __init__(
        self,
        answers: Mapping[tuple[str, str], str] | None = None,
        broken: Mapping[str, str] | None = None,
        files: Mapping[str, str | None] | None = None,
    ) -> None:
        self.answers = dict(answers or {})
        self.broken = dict(broken or {})
        self.files = dict(files or {})
        self.lacking: set[tuple[str, str]] = set()
        self.lacking_files: set[str] = set()
        self.memory: dict[object, object] = {}  # what was concluded from these answers, until there are new ones

    def get(self, table: str, key: str) -> str:
        """The value of a key, "" for none. A question not asked yet counts as none, and is noted."""
        if table in self.broken:
            raise Unreadable(f"table {table}: {self.broken[table]}")
        if (table, key) not in self.answers:
            self.lacking.add((table, key))
            return ""
        return self.answers[table, key]

    def take(self) -> tuple[set[tuple[str, str]], set[str]]:
        """The questions (table, key) and files that the last evaluation lacked; the next one starts anew."""
        lacking, self.lacking = self.lacking, set()
        files, self.lacking_files = self.lacking_files, set()
        self.memory.clear()
        return lacking, files

    def find(self, tables: list[str], key: str) -> str:
        """The first value that one of the tables has."""
        return next((value for table in tables if (value := self.get(table, key))), "")

    def file(self, path: str) -> list[str]:
        """The elements of a file that a list names, comments left out."""
        if path not in self.files:
            self.lacking_files.add(path)
            return []
        text = self.files[path]
        if text is None:
            raise Unreadable(f"file {path}: cannot be read")
        return [word for line in text.splitlines() for word in _before_comment(line)]

    def elements(self, value: str) -> list[str]:
        """A list with the files that it names put in their place."""
        found = []
        for word in _before_comment(value):
            negated, name = ("!", word[1:]) if word.startswith("!") else ("", word)
            if name.startswith("/"):
                found += [negated + one for one in self.file(name)]
            else:
                found.append(word)
        return found


@lru_cache(maxsize=4096)  # an audit asks thousands of questions of the same few lists
def is_table(element: str) -> bool:
    """Whether a list's element is type:name, and no IPv6 address."""
    return bool(re.match(r"[a-z]+:", element)) and not element.startswith("[") and _network(element) is None


def domain_matches(value: str, domain: str, parents: bool, tables: Tables) -> bool:
    """match_list(3): whether a list of domains has this one; the first element that fits decides.

    `parents`: "example.net" covers its subdomains too; otherwise only ".example.net" does.
    """
    domain = domain.lower()
    for element in tables.elements(value):
        wanted, name = (False, element[1:]) if element.startswith("!") else (True, element)
        if is_table(name):
            if any(tables.get(name, key) for key in _names(name, domain, parents)):
                return wanted
        elif name.lower() == domain or _parent(name.lower(), domain, parents):
            return wanted
    return False


def string_matches(value: str, text: str, tables: Tables) -> bool:
    """A list without subdomains (mydestination, virtual_alias_domains)."""
    for element in tables.elements(value):
        wanted, name = (False, element[1:]) if element.startswith("!") else (True, element)
        if bool(tables.get(name, text.lower())) if is_table(name) else name.lower() == text.lower():
            return wanted
    return False


def network_matches(value: str, address: str, name: str, parents: bool, tables: Tables) -> bool:
    """mynetworks: whether a list has this client, by address, network or (verified) name."""
    client = ip_address(address)
    host = "" if name == "unknown" else name.lower()
    for element in tables.elements(value):
        wanted, pattern = (False, element[1:]) if element.startswith("!") else (True, element)
        if is_table(pattern):
            keys = [address] + (_names(pattern, host, parents) if host else [])
            if any(tables.get(pattern, key) for key in keys):
                return wanted
            continue
        network = _network(pattern)
        if network is None:
            if host and (pattern.lower() == host or _parent(pattern.lower(), host, parents)):
                return wanted
            continue
        if client in network:
            return wanted
    return False


def parents_match(parameters: Parameters, what: str) -> bool:
    """Whether parent_domain_matches_subdomains names `what`."""
    return what in parameters.words("parent_domain_matches_subdomains")


def table_type(table: str) -> str:
    """ "hash" of "hash:/etc/postfix/x" and of "proxy:hash:/etc/postfix/x"."""
    return inside(table).removeprefix("proxy:").partition(":")[0]


@lru_cache(maxsize=4096)  # an audit asks thousands of questions of the same few lists
def _before_comment(line: str) -> tuple[str, ...]:
    """The words of a list up to one that begins with #: Postfix reads no further."""
    return tuple(takewhile(lambda word: not word.startswith("#"), words(line)))


def _names(table: str, domain: str, parents: bool) -> list[str]:
    """What a table of domains is asked for: the domain, and those above it where the table takes parts of a key."""
    if table_type(table) in PATTERN_TYPES:
        return [domain]
    parts = domain.split(".")
    return [domain] + [("" if parents else ".") + ".".join(parts[at:]) for at in range(1, len(parts))]


def _parent(pattern: str, domain: str, parents: bool) -> bool:
    """Whether the pattern is the domain's parent: it begins with a dot where it has to be said, and only there."""
    return domain.endswith("." + pattern) if parents else pattern.startswith(".") and domain.endswith(pattern)


@lru_cache(maxsize=4096)
def _network(text: str) -> IPv4Network | IPv6Network | None:
    """An address or a network as lists have them, None for anything else."""
    try:
        return ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
