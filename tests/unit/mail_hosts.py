"""A mail host out of a folder: Postfix's parameters, services and tables, without Postfix.

A folder holds `postconf` (the lines that differ from tests/mail/postconf.txt, which is Debian 12's `postconf`),
`services` and `overrides` (what `postconf -M` and `-P` print) and `tables/`, which values name as TABLES/….
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

from ansible_collections.isp.hardening.plugins.module_utils.mail.postfix import (
    Postfix,
    inside,
    read_parameters,
    read_services,
    words,
)
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables

MAIL = Path(__file__).parent.parent / "mail"
SERVICE = "smtp       inet  n       -       n       -       -       smtpd\n"


def text_of(case: Path, name: str, default: str = "") -> str:
    """A file of the case with TABLES as the path that it stands for."""
    path = case / name
    return (path.read_text() if path.exists() else default).replace("TABLES", str(case / "tables"))


def postfix_of(case: Path) -> Postfix:
    """The host's Postfix."""
    changed = read_parameters(text_of(case, "postconf"))
    parameters = read_parameters((MAIL / "postconf.txt").read_text()) | changed
    services = read_services(text_of(case, "services", SERVICE), text_of(case, "overrides"))
    return Postfix(parameters, services)


def answer_questions(tables: Tables) -> bool:
    """Answers what the last evaluation lacked, as `postmap -q` would; False when it lacked nothing."""
    lacking, files = tables.take()
    for table, key in lacking:
        try:
            tables.answers[table, key] = _look_up(table, key)
        except FileNotFoundError as reason:
            tables.broken[table] = str(reason)
    for path in files:
        tables.files[path] = Path(path).read_text() if Path(path).exists() else None
    return bool(lacking or files)


def entries(path: str) -> list[tuple[str, str]]:
    """The lines of a table's source."""
    rows = [line.split(None, 1) for line in Path(path).read_text().splitlines() if line and line[0] != "#"]
    return [(row[0], row[1].strip() if row[1:] else "") for row in rows]


def _look_up(table: str, key: str) -> str:
    kind, _, name = table.removeprefix("proxy:").partition(":")
    if kind == "static":
        return inside(name)
    if kind == "inline":
        pairs = (inside(pair).partition("=") for pair in words(inside(name)))
        return next((value.strip() for word, _, value in pairs if word.strip() == key), "")
    if kind in ("texthash", "hash", "lmdb"):
        return dict(entries(name)).get(key, "")
    if kind == "cidr":
        try:
            return next((value for network, value in entries(name) if ip_address(key) in ip_network(network)), "")
        except ValueError:
            return ""
    if kind in ("regexp", "pcre"):
        for pattern, value in entries(name):
            if pattern[0] == "!" and not re.search(pattern.strip("!/"), key, re.IGNORECASE):
                return value
            if pattern[0] != "!" and (found := re.search(pattern.strip("/"), key, re.IGNORECASE)):
                return re.sub(r"\$\{(\d)\}", lambda number: found[int(number[1])], value)
        return ""
    raise ValueError(f"no such table here: {table}")
