# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Postfix makes of an envelope address: its rewriting, then the class of its domain.

Sources: ADDRESS_REWRITING_README ("Rewrite addresses to standard form"), ADDRESS_CLASS_README, postconf(5)
(swap_bangpath, allow_percent_hack, resolve_dequoted_address, allow_untrusted_routing). What the documents leave
open was seen on a real smtpd, which tests/unit/test_mail_smtpd.py asks again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from .postfix import Parameters

LOCAL, ALIAS, VIRTUAL, RELAY, DEFAULT = "local", "virtual alias", "virtual mailbox", "relay", "default"

Tokens = list[tuple[str, str]]
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"?|(\[[^\]]*\]?)|([()<>@,;:.|%!\\])|([^"\[()<>@,;:.|%!\\\s]+)|\s+', re.DOTALL)
_DOT_STRING = re.compile(r"[^\s\x00-\x1f\x7f()<>@,;:\\\".\[\]]+(?:\.[^\s\x00-\x1f\x7f()<>@,;:\\\".\[\]]+)*")
_HOSTNAME = re.compile(r"(?!-)[\w-]{1,63}(?<!-)(?:\.(?!-)[\w-]{1,63}(?<!-))*")
_TOO_DEEP = 100


@dataclass(frozen=True, slots=True)
class Resolved:
    """`address` in lower case and unquoted; `routed`: its local part holds another way to go; `bad`: refused 501."""

    address: str
    domain: str
    kind: str
    routed: bool = False
    bad: bool = False


def resolve(address: str, parameters: Parameters, matches: Callable[[str, str], bool]) -> Resolved:
    """The class of an address as it stands between < and > of MAIL or RCPT.

    `matches(parameter, domain)` tells whether the domain is in that list (mydestination, relay_domains …).
    """
    tokens = _rewrite(_scan(_quoted(_text(_without_route(_scan(address))))), parameters)
    saved = ""
    for _ in range(_TOO_DEEP):
        if tokens[-1:] == [("op", ".")] and ("op", "@") in tokens and tokens[-2][1] not in (".", "@"):
            tokens = tokens[:-1]
        at = _last(tokens, "@")
        if at >= 0 and tokens[at + 1 :]:
            domain = _text(tokens[at + 1 :]).lower()
            if not _is_local(domain, parameters, matches):
                return _remote(tokens, at, domain, parameters, matches)
            saved, tokens = domain, tokens[:at]
        elif at >= 0:
            tokens = tokens[:at]
        if _last(tokens, "@") >= 0 or _operators(tokens, parameters):
            tokens = _rewrite(tokens, parameters)
            continue
        cracked = _cracked(tokens, parameters)
        if cracked is None:
            break
        tokens = _rewrite(cracked, parameters)
    local = _text(tokens) or "MAILER-DAEMON"
    domain = saved or parameters["myorigin"].lower()
    if not saved and not _is_local(domain, parameters, matches):
        return _remote([*tokens, ("op", "@"), *_scan(domain)], len(tokens), domain, parameters, matches)
    return Resolved(f"{local}@{domain}".lower(), domain, LOCAL, _routed(local))


def _routed(local: str) -> bool:
    """Whether another way to go is left in a local part; what is allowed to unpack it makes no difference."""
    return any(operator in local for operator in "@!%")


def _remote(
    tokens: Tokens, at: int, domain: str, parameters: Parameters, matches: Callable[[str, str], bool]
) -> Resolved:
    local = _text(tokens[:at])
    routed = _routed(local)
    numeric = not domain.strip("0123456789.")
    bad = not domain.startswith("[") and (
        not _HOSTNAME.fullmatch(domain) or (numeric and not parameters.yes("resolve_numeric_domain"))
    )
    if matches("virtual_alias_domains", domain):
        kind = ALIAS
    elif matches("virtual_mailbox_domains", domain):
        kind = VIRTUAL
    else:
        kind = RELAY if matches("relay_domains", domain) else DEFAULT
    return Resolved(f"{local}@{domain}".lower(), domain, kind, routed, bad)


def _is_local(domain: str, parameters: Parameters, matches: Callable[[str, str], bool]) -> bool:
    if domain.startswith("["):
        address = domain.strip("[]").removeprefix("ipv6:")
        return address in parameters.words("inet_interfaces") or address in ("127.0.0.1", "::1")
    return matches("mydestination", domain)


def _scan(text: str) -> Tokens:
    return list(_tokens(text))


@functools.cache
def _tokens(text: str) -> tuple[tuple[str, str], ...]:
    """Tokens as RFC 822 has them, with % and ! as operators too."""
    tokens: Tokens = []
    for found in _TOKEN.finditer(text):
        quoted, literal, operator, atom = found.groups()
        if operator:
            tokens.append(("op", operator))
        elif literal:
            tokens.append(("literal", literal))
        elif atom:
            tokens.append(("atom", atom))
        elif found[0].startswith('"'):
            tokens.append(("quoted", re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)))
    return tuple(tokens)


def _text(tokens: Tokens) -> str:
    """Postfix's internal form: nothing quoted."""
    return "".join(text for _, text in tokens)


def _quoted(address: str) -> str:
    """The internal form with its local part quoted where it has to be."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    return f"{_quoted_local(local)}{at}{domain}" if local else address


def _quoted_local(local: str) -> str:
    return local if _DOT_STRING.fullmatch(local) else '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


def _last(tokens: Tokens, operator: str) -> int:
    return next((at for at in range(len(tokens) - 1, -1, -1) if tokens[at] == ("op", operator)), -1)


def _operators(tokens: Tokens, parameters: Parameters) -> bool:
    return (parameters.yes("swap_bangpath") and ("op", "!") in tokens) or (
        parameters.yes("allow_percent_hack") and ("op", "%") in tokens
    )


def _cracked(tokens: Tokens, parameters: Parameters) -> Tokens | None:
    """A local part that is one quoted string with a routing operator in it, opened; None where it is none."""
    if len(tokens) != 1 or tokens[0][0] != "quoted" or not parameters.yes("resolve_dequoted_address"):
        return None
    local = tokens[0][1]
    wanted = ["@"] + ["%"] * parameters.yes("allow_percent_hack") + ["!"] * parameters.yes("swap_bangpath")
    operator = next((one for one in wanted if one in local), "")
    if not operator:
        return None
    if operator == "!":
        return _scan(local)
    before, _, after = local.rpartition(operator)
    return _scan(_quoted(f"{before}@{after}"))


def _without_route(tokens: Tokens) -> Tokens:
    """ "@one,@two:user@three" without its source route."""
    if tokens[:1] == [("op", "@")] and ("op", ":") in tokens[:-1]:
        return tokens[tokens.index(("op", ":")) + 1 :]
    return tokens


def _rewrite(tokens: Tokens, parameters: Parameters) -> Tokens:
    """trivial-rewrite(8): source routes go, site!user and user%domain turn, a missing domain is added."""
    tokens = list(tokens)
    if not tokens or tokens == [("quoted", "")]:
        return tokens
    tokens = _without_route(tokens)
    if _last(tokens, "@") < 0:
        if parameters.yes("swap_bangpath") and ("op", "!") in tokens:
            bang = tokens.index(("op", "!"))
            tokens = [*tokens[bang + 1 :], ("op", "@"), *tokens[:bang]]
        elif parameters.yes("allow_percent_hack") and _last(tokens, "%") >= 0:
            tokens[_last(tokens, "%")] = ("op", "@")
        elif parameters.yes("append_at_myorigin") and parameters["myorigin"]:
            tokens = [*tokens, ("op", "@"), *_scan(parameters["myorigin"])]
    at = _last(tokens, "@")
    domain = tokens[at + 1 :] if at >= 0 else []
    if (
        domain
        and parameters.yes("append_dot_mydomain")
        and parameters["mydomain"]
        and ("op", ".") not in domain
        and all(kind != "literal" for kind, _ in domain)
    ):
        tokens = [*tokens, ("op", "."), *_scan(parameters["mydomain"])]
    if tokens[-1] == ("op", ".") and len(tokens) > 1 and tokens[-2] not in (("op", "."), ("op", "@")):
        tokens.pop()
    return tokens
