# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rspamd's effective configuration, as `rspamadm configdump -j` prints it: virus scan, limits, signing.

Sources: rspamd's documentation of the modules antivirus, force_actions, ratelimit, dkim_signing, settings and of
the proxy worker. What the tree does not have is not set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Tree = Mapping[str, Any]
DEFAULT_MAX_MESSAGE = 50 * 1024**2  # options.max_message


def read(text: str) -> Tree:
    """The tree; ValueError says why the text is none. Warnings may stand before it."""
    start = text.find("{")
    if start < 0:
        raise ValueError("rspamadm configdump -j printed no configuration")
    try:
        tree, _ = json.JSONDecoder().raw_decode(text[start:])
    except json.JSONDecodeError as reason:
        raise ValueError(f"rspamadm configdump -j printed no JSON: {reason}") from reason
    return section(tree)


def section(value: object, *path: str) -> Tree:
    """A section inside of a tree; an empty one where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def scanners(tree: Tree) -> dict[str, Tree]:
    """The rules of the antivirus module that are on, by name."""
    rules = section(tree, "antivirus")
    if rules.get("enabled") is False:
        return {}
    return {
        name: rule
        for name, rule in rules.items()
        if isinstance(rule, Mapping) and rule.get("enabled") is not False and ("servers" in rule or "type" in rule)
    }


def symbol(name: str, rule: Tree) -> str:
    """What the rule's hit is called; its failure has "_FAIL" behind it."""
    return str(rule.get("symbol") or name.upper())


def size_limits(tree: Tree) -> Iterator[tuple[str, int]]:
    """Every size behind which rspamd lets a message or a part pass unscanned, as (path, bytes)."""
    yield "options.max_message", _number(section(tree, "options").get("max_message"), DEFAULT_MAX_MESSAGE)
    for name, rule in scanners(tree).items():
        if "max_size" in rule:
            yield f"antivirus.{name}.max_size", _number(rule["max_size"], 0)
    for name, worker in workers(tree):
        if "max_size" in worker:
            yield f"worker.{name}.max_size", _number(worker["max_size"], 0)


def workers(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """Every worker with its kind."""
    found = tree.get("worker", [])
    for entry in found if isinstance(found, list) else [found]:
        for name, worker in section(entry).items():
            if isinstance(worker, Mapping):
                yield name, worker


def parts_left_out(tree: Tree) -> Iterator[str]:
    """The settings by which a part of a message is not given to the scanner."""
    for name, rule in scanners(tree).items():
        if rule.get("scan_mime_parts", True) is not False:
            for kind in ("scan_text_mime", "scan_image_mime"):
                if rule.get(kind) is not True:
                    yield f"antivirus.{name}.{kind} = false, and antivirus.{name}.scan_mime_parts = true"


def failures_let_through(tree: Tree) -> Iterator[str]:
    """The scanners whose failure no force_actions rule turns into a refusal, by their failure's symbol."""
    rules = [rule for rule in section(tree, "force_actions", "rules").values() if isinstance(rule, Mapping)]
    for name, scanner in scanners(tree).items():
        failed = symbol(name, scanner) + "_FAIL"
        caught = [rule for rule in rules if failed in str(rule.get("expression", "")) and _refuses(rule)]
        if not caught and not _refuses({"action": section(scanner, "patterns_fail").get(failed, "")}):
            yield failed


def hits_let_through(tree: Tree) -> Iterator[str]:
    """The scanners whose hit does not refuse the message."""
    rules = [rule for rule in section(tree, "force_actions", "rules").values() if isinstance(rule, Mapping)]
    for name, scanner in scanners(tree).items():
        hit = symbol(name, scanner)
        caught = [rule for rule in rules if hit in str(rule.get("expression", "")).split() and _refuses(rule)]
        if not caught and not _refuses(scanner):
            yield hit


def exemptions(tree: Tree) -> Iterator[str]:
    """The rules of the settings module that take users' mail out of the virus scan."""
    symbols = {symbol(name, rule) for name, rule in scanners(tree).items()}
    for name, rule in section(tree, "settings").items():
        if not isinstance(rule, Mapping) or rule.get("enabled") is False:
            continue
        if not ({"authenticated", "user", "ip", "client_ip", "from", "local"} & set(rule)) and "apply" not in rule:
            continue
        apply = section(rule, "apply")
        if rule.get("whitelist") in (True, "yes") or apply.get("whitelist") in (True, "yes"):
            yield f"settings.{name}.whitelist = yes"
        if "antivirus" in _words(apply.get("groups_disabled")):
            yield f"settings.{name}.apply.groups_disabled has antivirus"
        if symbols & set(_words(apply.get("symbols_disabled"))):
            yield f"settings.{name}.apply.symbols_disabled has {' '.join(sorted(symbols))}"
        only_groups, only_symbols = _words(apply.get("groups_enabled")), _words(apply.get("symbols_enabled"))
        if (only_groups or only_symbols) and "antivirus" not in only_groups and not symbols & set(only_symbols):
            yield f"settings.{name}.apply enables only {' '.join(only_groups + only_symbols)}"


def user_limits(tree: Tree) -> list[str]:
    """The rate limits that count a user, by name."""
    found = []
    for name, rate in section(tree, "ratelimit", "rates").items():
        selector = str(section(rate).get("selector", "")) if isinstance(rate, Mapping) else ""
        if "user" in name.split("_") or selector.startswith("user"):
            found.append(name)
    return found


def redis_servers(tree: Tree, module: str) -> list[str]:
    """Where a module keeps its counters: "127.0.0.1:6379", or a path."""
    for value in (section(tree, module).get("servers"), section(tree, "redis", module).get("servers")):
        if value:
            return _servers(value)
    redis = section(tree, "redis")
    return _servers(redis.get("servers") or redis.get("write_servers"))


def signs(tree: Tree) -> bool:
    """Whether users' mail is DKIM-signed: a key is named for some domain."""
    module = section(tree, "dkim_signing")
    if module.get("enabled") is False or module.get("sign_authenticated") is False:
        return False
    named = ("path", "domain", "path_map", "selector_map", "key_table", "signing_table", "use_redis", "vault_url")
    return any(module.get(name) for name in named)


def _refuses(rule: Tree) -> bool:
    return str(rule.get("action", "")).replace("_", " ") in ("reject", "soft reject")


def _servers(value: object) -> list[str]:
    return [name if ":" in name or name.startswith("/") else f"{name}:6379" for name in _words(value)]


def _words(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    return str(value).replace(",", " ").split() if value else []


def _number(value: object, default: int) -> int:
    return int(value) if isinstance(value, (int, float)) else default
