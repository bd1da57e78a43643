# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rspamd's effective configuration, as `rspamadm configdump -j` prints it: virus scan, limits, signing.

Sources: rspamd's documentation of the modules antivirus, force_actions, ratelimit, dkim_signing, settings and of
the proxy worker. What the tree does not have is not set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Tree = Mapping[str, Any]
DEFAULT_MAX_MESSAGE = 50 * 1024**2  # options.max_message
DEFAULT_TASK_TIMEOUT = 8.0  # options.task_timeout
DEFAULT_SCAN_TIMEOUT = 15.0  # antivirus, of clamd


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


def has_local_clamd(tree: Tree) -> bool:
    """Whether a rule asks a clamd of this host."""
    rules = (rule for rule in scanners(tree).values() if rule.get("type") == "clamav")
    servers = [server for rule in rules for server in _words(rule.get("servers"))]
    return any(server.startswith(("/", "127.", "localhost", "[::1]")) for server in servers)


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
    """The scanners whose failure no force_actions rule turns into a refusal for now, by their failure's symbol."""
    for name, scanner in scanners(tree).items():
        failed = symbol(name, scanner) + "_FAIL"
        by_pattern = str(section(scanner, "patterns_fail").get(failed, "")).replace("_", " ")
        if not _forced(tree, failed, ("soft reject",)) and by_pattern != "soft reject":
            yield failed


def hits_let_through(tree: Tree) -> Iterator[str]:
    """The scanners whose hit does not refuse the message."""
    for name, scanner in scanners(tree).items():
        hit = symbol(name, scanner)
        if not _forced(tree, hit, ("reject", "soft reject")) and _action(scanner) not in ("reject", "soft reject"):
            yield hit


def _forced(tree: Tree, wanted: str, actions: tuple[str, ...]) -> bool:
    """Whether a force_actions rule does so whenever the symbol is there, whatever else is."""
    for rule in section(tree, "force_actions", "rules").values():
        if not isinstance(rule, Mapping) or rule.get("enabled") is False or _action(rule) not in actions:
            continue
        either = re.fullmatch(r"[\w\s|()]+", str(rule.get("expression", "")))  # nothing but symbols and "or"
        narrowed = rule.get("require_action") or {"no action", "add header", "greylist"} & set(
            _list(rule.get("honor_action"))
        )
        if either and wanted in re.findall(r"\w+", either[0]) and not narrowed:
            return True
    return False


def timeouts_let_through(tree: Tree) -> Iterator[str]:
    """A scanner that does not end before rspamd does, which then lets the message go as it is."""
    options = section(tree, "options")
    if options.get("soft_reject_on_timeout") is True:
        return
    limit = _seconds(options.get("task_timeout"), DEFAULT_TASK_TIMEOUT)
    for name, rule in scanners(tree).items():
        if _seconds(rule.get("timeout"), DEFAULT_SCAN_TIMEOUT) >= limit:
            yield (
                f"options.soft_reject_on_timeout is off, and options.task_timeout = {limit:g} s lets a message go "
                f"before antivirus.{name} has given up on its scanner"
            )


def swallowed(tree: Tree) -> Iterator[str]:
    """The settings by which a refusal of rspamd is taken and put away instead of refused."""
    for name, worker in workers(tree):
        for key in ("discard_on_reject", "quarantine_on_reject"):
            if name == "rspamd_proxy" and worker.get(key) is True:
                yield f"worker.{name}.{key} = true"


def is_clamd(rule: Tree) -> bool:
    """Whether a rule of the antivirus module asks clamd."""
    return str(rule.get("type", "clamav")) == "clamav"


def exemptions(tree: Tree) -> Iterator[str]:
    """The rules of the modules settings and multimap that take mail out of the virus scan."""
    symbols = {symbol(name, rule) for name, rule in scanners(tree).items()}
    for name, rule in section(tree, "settings").items():
        if not isinstance(rule, Mapping) or rule.get("enabled") is False:
            continue
        apply = section(rule, "apply")
        for key in ("whitelist", "want_spam"):
            if rule.get(key) in (True, "yes") or apply.get(key) in (True, "yes"):
                yield f"settings.{name}.{key} = yes"
        if "antivirus" in _words(apply.get("groups_disabled")):
            yield f"settings.{name}.apply.groups_disabled has antivirus"
        if symbols & set(_words(apply.get("symbols_disabled"))):
            yield f"settings.{name}.apply.symbols_disabled has {' '.join(sorted(symbols))}"
        only_groups, only_symbols = _words(apply.get("groups_enabled")), _words(apply.get("symbols_enabled"))
        if (only_groups or only_symbols) and "antivirus" not in only_groups and not symbols & set(only_symbols):
            yield f"settings.{name}.apply enables only {' '.join(only_groups + only_symbols)}"
    for name, rule in section(tree, "multimap").items():
        # An action of a map ends the filters before the scanner is asked.
        if isinstance(rule, Mapping) and rule.get("enabled") is not False and _action(rule) in ("accept", "no action"):
            yield f"multimap.{name}.action = {_action(rule)}"


def user_limits(tree: Tree) -> list[str]:
    """The rate limits that count a user, by name."""
    found = []
    for name, rate in section(tree, "ratelimit", "rates").items():
        selector = str(section(rate).get("selector", "")) if isinstance(rate, Mapping) else ""
        counts = (isinstance(rate, Mapping) and bool(rate.get("bucket"))) or isinstance(rate, (str, list))
        if counts and ("user" in name.split("_") or selector.startswith("user")):
            found.append(name)
    return found


def uncounted(tree: Tree) -> Iterator[str]:
    """Who is not counted: whoever writes to one of whitelisted_rcpts too, which are everybody's postmasters."""
    ratelimit = section(tree, "ratelimit")
    recipients = _list(ratelimit.get("whitelisted_rcpts", "postmaster, mailer-daemon"))
    if found := sorted({"postmaster", "mailer-daemon", "abuse"} & {one.lower() for one in recipients}):
        yield f"ratelimit.whitelisted_rcpts = {' '.join(found)}: who writes to one of them too is not counted"
    for key in ("whitelisted_user", "whitelisted_ip"):
        if ratelimit.get(key):
            yield f"ratelimit.{key} names some who are not counted"


def redis_servers(tree: Tree, module: str) -> list[str]:
    """Where a module keeps its counters: "127.0.0.1:6379", or a path."""
    for value in (section(tree, module).get("servers"), section(tree, "redis", module).get("servers")):
        if value:
            return _servers(value)
    redis = section(tree, "redis")
    return _servers(redis.get("servers") or redis.get("write_servers"))


def signs(tree: Tree) -> bool:
    """Whether users' mail is to be DKIM-signed."""
    module = section(tree, "dkim_signing")
    return module.get("enabled") is not False and module.get("sign_authenticated") is not False


def key_files(tree: Tree, domains: Iterable[str]) -> dict[str, str]:
    """By domain, the file that its key is to be in; without those whose key a map, Redis or Vault tells."""
    module = section(tree, "dkim_signing")
    if any(
        module.get(name) for name in ("path_map", "selector_map", "key_table", "use_redis", "use_vault", "vault_url")
    ):
        return {}
    found = {}
    for domain in domains:
        own = section(module, "domain", domain)
        own = next((one for one in own.get("selectors", []) if isinstance(one, Mapping)), own)
        selector = str(own.get("selector") or module.get("selector") or "dkim")
        path = str(own.get("path") or module.get("path") or "/var/lib/rspamd/dkim/$domain.$selector.key")
        found[domain] = path.replace("$domain", domain).replace("$selector", selector)
    return found


def signs_local(tree: Tree) -> bool:
    """Whether mail that this host itself sends is signed too."""
    return section(tree, "dkim_signing").get("sign_local") is not False


def _action(rule: Tree) -> str:
    return str(rule.get("action", "")).replace("_", " ")


def _servers(value: object) -> list[str]:
    """A list of upstreams, as "master-slave:[2001:db8::1],other:6380:10", each with its port and no priority."""
    if isinstance(value, str):
        value = re.sub(r"^(?:master-slave|round-robin|random|sequential|hash):", "", value).replace(";", ",")
    found = []
    for one in _words(value):
        named = re.fullmatch(r"(\[[^\]]+\]|[^\[\]:=/]+)(?::(\d+))?(?::\d+)?", one)
        found.append(f"{named[1]}:{named[2] or 6379}" if named and one[0] != "." else one)
    return found


def _seconds(value: object, default: float) -> float:
    """A time as rspamd prints it: a number, or a number with its unit."""
    found = re.fullmatch(r"([\d.]+)\s*(ms|s|min|m|h)?", str(value)) if value is not None else None
    return float(found[1]) * {"ms": 0.001, "min": 60, "m": 60, "h": 3600}.get(found[2] or "", 1) if found else default


def _list(value: object) -> list[str]:
    return [one.strip() for one in value.split(",")] if isinstance(value, str) else _words(value)


def _words(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    return str(value).replace(",", " ").split() if value else []


def _number(value: object, default: int) -> int:
    return int(value) if isinstance(value, (int, float)) else default
