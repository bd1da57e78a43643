# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What smtpd answers to RCPT TO: its restriction lists, evaluated as Postfix does.

Sources: SMTPD_ACCESS_README, RESTRICTION_CLASS_README, postconf(5) (smtpd_*_restrictions,
smtpd_relay_before_recipient_restrictions), access(5). tests/unit/test_mail_smtpd.py compares with a real smtpd.

The client is as well-behaved as a client can be: its name resolves both ways, its sender's domain exists, and no
DNSBL has it but the ones that `Client.listings` names. So a restriction that only such things could trip lets it
pass, and what gets through here gets through for somebody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import addresses
from .addresses import Resolved
from .postfix import Parameters, words
from .tables import (
    PATTERN_TYPES,
    Tables,
    Unreadable,
    domain_matches,
    is_table,
    network_matches,
    parents_match,
    string_matches,
    table_type,
)

OK, DUNNO, REJECT = "OK", "DUNNO", "REJECT"
_TOO_DEEP = 20

# They need the world to go wrong for the client (DNS, a probe of the address, a session in plain text).
_PASSED = frozenset(
    "reject_unknown_client reject_unknown_client_hostname reject_unknown_reverse_client_hostname "
    "reject_unknown_forward_client_hostname reject_unknown_helo_hostname reject_unknown_hostname "
    "reject_invalid_helo_hostname reject_invalid_hostname reject_unknown_sender_domain reject_unknown_address "
    "reject_unknown_recipient_domain reject_unverified_sender reject_unverified_recipient "
    "reject_unauth_pipelining reject_multi_recipient_bounce reject_plaintext_session reject_maps_rbl".split()
)
# They too only refuse, or ask for what is one client's own, or have been seen to with nothing to ask.
_KNOWN = frozenset(
    "sleep permit_tls_clientcerts permit_naked_ip_address reject_rhsbl_client reject_rhsbl_reverse_client "
    "reject_rhsbl_helo reject_rhsbl_sender reject_rhsbl_recipient permit_auth_destination reject_unauth_destination "
    "defer_unauth_destination check_relay_domains permit_mx_backup reject_unlisted_recipient check_recipient_maps "
    "reject_unlisted_sender reject_non_fqdn_helo_hostname reject_non_fqdn_hostname".split()
)
_ALWAYS_LOCAL = ("postmaster", "mailer-daemon", "double-bounce")  # smtpd never looks for them in local_recipient_maps
# name → (asks users, asks others, only of senders that somebody owns)
_LOGIN_MISMATCH = {
    "reject_sender_login_mismatch": (True, True, False),
    "reject_authenticated_sender_login_mismatch": (True, False, False),
    "reject_known_sender_login_mismatch": (True, True, True),
    "reject_unauthenticated_sender_login_mismatch": (False, True, False),
}
# Whole names: a restriction class may be called "check_spf" or "local_access", and takes no argument.
_ACCESS = frozenset(
    f"check_{what}{server}_access"
    for what in ("client", "reverse_client_hostname", "helo", "sender", "recipient")
    for server in ("", "_a", "_mx", "_ns")
) | {"check_etrn_access", "check_sasl_access", "check_ccert_access"}
_WITH_ARGUMENT = _ACCESS | frozenset(
    "check_policy_service sleep reject_rbl reject_rbl_client permit_dnswl_client permit_rhswl_client "
    "reject_rhsbl_client reject_rhsbl_reverse_client reject_rhsbl_helo reject_rhsbl_sender "
    "reject_rhsbl_recipient".split()
)


@dataclass(frozen=True, slots=True)
class Client:
    """Who speaks. `name` is the verified host name ("unknown" without), `reverse` the PTR name alone.

    `listings`: (DNSBL or allow list zone, address it answers). `mx_of`: it made this host an MX of that domain.
    """

    title: str
    address: str
    name: str = "unknown"
    reverse: str = "unknown"
    helo: str = "client.example.org"
    user: str = ""  # of AUTH
    certificate: bool = False  # a TLS certificate that some trusted authority signed
    listings: tuple[tuple[str, str], ...] = ()
    mx_of: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One question: may this client send from there to there?"""

    client: Client
    sender: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Step:
    """How a list ended: `list_name` "smtpd_relay_restrictions", `rule` "permit_mynetworks" ("" at its end)."""

    list_name: str
    rule: str
    action: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply code to RCPT TO, the steps that led to it, and what could have turned it but is not known."""

    code: int
    steps: tuple[Step, ...]
    doubts: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the recipient was taken."""
        return self.code == 250


class _Refused(Exception):
    def __init__(self, code: int, rule: str) -> None:
        super().__init__(rule)
        self.code = code
        self.rule = rule


class _Check:
    """One evaluation: its envelope, and the state that Postfix carries from list to list."""

    def __init__(self, parameters: Parameters, tables: Tables, envelope: Envelope) -> None:
        self.parameters = parameters
        self.tables = tables
        self.client = envelope.client
        self.sender: str | None = envelope.sender  # None before MAIL FROM
        self.recipient = envelope.recipient
        self.kind = ""  # of the list: client, helo, sender, relay, recipient, data
        self.doubts: list[str] = []
        self.defer_if_permit = ""
        self.defer_if_reject = False
        self.unlisted_checked = False
        self.deciding = ""  # the rule that ended the list
        self.warn = 0

    # -- lists ---------------------------------------------------------------------------------------------------

    def restrictions(self, value: str, depth: int = 1) -> str:
        """The outcome of a list: OK, or DUNNO where it comes to its end; refusals are raised."""
        if depth > _TOO_DEEP:
            self.doubts.append("restriction classes that name each other")
            return DUNNO
        rules = words(value)
        at = 0
        while at < len(rules):
            rule = rules[at]
            at += 1
            if rule == "warn_if_reject":
                self.warn = self.warn or depth
                continue
            if is_table(rule):
                kind = "recipient" if self.kind == "relay" else self.kind
                rule, argument = f"check_{kind}_access", rule
            elif rule.lower() in _WITH_ARGUMENT:
                argument = rules[at] if at < len(rules) else ""
                at += 1
            else:
                argument = ""
            outcome = self._one(rule, argument, depth)
            if self.warn >= depth:
                self.warn = 0
            if outcome == OK:
                self.deciding = self.deciding or f"{rule} {argument}".strip()
                return OK
        return DUNNO

    def _one(self, rule: str, argument: str, depth: int) -> str:
        name = rule.lower()
        text = f"{name} {argument}".strip()
        try:
            if name in _ACCESS:
                return self._access(
                    name, argument if is_table(argument) else f"{self._default}:{argument}", text, depth
                )
            if rule in self.parameters.words("smtpd_restriction_classes"):
                return self.restrictions(self.parameters[rule], depth + 1)
            return self._rule(name, argument, text)
        except Unreadable as reason:
            self.doubts.append(f"{text} ({reason})")
        return DUNNO

    def _rule(self, rule: str, argument: str, text: str) -> str:
        outcome = DUNNO
        match rule:
            case "permit":
                outcome = OK
            case "reject":
                outcome = self.refuse(self.code("reject_code", 554), text)
            case "defer":
                outcome = self.refuse(self.code("defer_code", 450), text)
            case "defer_if_permit":
                self._defer_if_permit(text)
            case "defer_if_reject":
                self.defer_if_reject = self.defer_if_reject or not self.warn
            case "permit_mynetworks":
                outcome = self._mynetworks()
            case "permit_inet_interfaces":
                outcome = OK if self.client.address in ("127.0.0.1", "::1") else DUNNO
            case "permit_sasl_authenticated":
                outcome = OK if self.client.user and self.parameters.yes("smtpd_sasl_auth_enable") else DUNNO
            case "permit_tls_all_clientcerts":
                outcome = OK if self.client.certificate else DUNNO
            case "permit_dnswl_client" | "permit_rhswl_client":  # never in the way of reject_unauth_destination
                authorized = not self.recipient or self._authorized(self.resolve(self.recipient))
                outcome = OK if authorized and self._listed(argument) else DUNNO
            case "permit_naked_ip_address" if not self.client.helo.strip("0123456789.:"):
                outcome = OK
            case "reject_rbl_client" | "reject_rbl":
                if self._listed(argument):
                    outcome = self.refuse(self.code("maps_rbl_reject_code", 554), text)
            case "permit_auth_destination" if self.recipient:
                outcome = OK if self._authorized(self.resolve(self.recipient)) else DUNNO
            case "check_relay_domains" if self.recipient and self._in_list("relay_domains", self.client.name):
                outcome = OK  # it asks for the client's name as well
            case "reject_unauth_destination" | "defer_unauth_destination" | "check_relay_domains" if self.recipient:
                outcome = self._unauth_destination(rule)
            case "permit_mx_backup" if self.recipient:
                outcome = self._mx_backup()
            case "reject_unlisted_recipient" | "check_recipient_maps" if self.recipient:
                self.unlisted_checked = True
                outcome = self.unlisted(self.recipient, text)
            case "reject_unlisted_sender" if self.sender:
                outcome = self.unlisted(self.sender, text)
            case "reject_non_fqdn_sender":
                outcome = self._non_fqdn(self.sender or "", text)
            case "reject_non_fqdn_recipient":
                outcome = self._non_fqdn(self.recipient, text)
            case "reject_non_fqdn_helo_hostname" | "reject_non_fqdn_hostname" if "." not in self.client.helo:
                outcome = self.refuse(self.code("non_fqdn_reject_code", 504), text)
            case _ if rule in _LOGIN_MISMATCH:
                if self._login_mismatch(*_LOGIN_MISMATCH[rule]):
                    outcome = self.refuse(553, text)
            case _ if rule not in _PASSED and rule not in _KNOWN:
                self.doubts.append(text)
        return outcome

    def _access(self, rule: str, table: str, text: str, depth: int) -> str:
        outcome = ""
        match rule:
            case "check_client_access":
                outcome = self._domain_access(table, self.client.name, text, depth)
                outcome = outcome or self._host_access(table, text, depth)
            case "check_reverse_client_hostname_access":
                outcome = self._domain_access(table, self.client.reverse, text, depth)
                outcome = outcome or self._host_access(table, text, depth)
                if outcome == OK:
                    outcome = self.refuse(451, text)  # a name that nothing confirms lets nobody in
            case "check_helo_access":
                outcome = self._domain_access(table, self.client.helo, text, depth)
            case "check_sender_access" if self.sender == "":
                outcome = self._first(table, [self.parameters["smtpd_null_access_lookup_key"] or "<>"], text, depth)
            case "check_sender_access" if self.sender:
                outcome = self._address_access(table, self.sender, text, depth)
            case "check_recipient_access" if self.recipient:
                outcome = self._address_access(table, self.recipient, text, depth)
                if outcome == OK and self._suspicious(self.resolve(self.recipient)):
                    outcome = self.deciding = ""
            case "check_sasl_access" if self.client.user:
                outcome = self._first(table, [self.client.user], text, depth)
        return outcome or DUNNO

    @property
    def _default(self) -> str:
        return self.parameters["default_database_type"]

    def _defer_if_permit(self, text: str) -> None:
        self.defer_if_permit = self.defer_if_permit or ("" if self.warn else text)

    def refuse(self, code: int, rule: str) -> str:
        """A refusal, unless it is only to be warned of."""
        if self.warn:
            return DUNNO
        if self.defer_if_reject:
            code = 450
        elif self.parameters.yes("soft_bounce") and code >= 500:
            code -= 100
        raise _Refused(code, rule)

    # -- single restrictions -------------------------------------------------------------------------------------

    def code(self, name: str, default: int) -> int:
        """A reply code that can be set."""
        return self.parameters.number(name) or default

    def _mynetworks(self) -> str:
        parents = parents_match(self.parameters, "mynetworks")
        value = self.parameters["mynetworks"]
        return OK if network_matches(value, self.client.address, self.client.name, parents, self.tables) else DUNNO

    def _authorized(self, resolved: Resolved) -> bool:
        """Whether the recipient is of a domain that this host takes mail for."""
        return resolved.kind != addresses.DEFAULT and not self._suspicious(resolved)

    def _suspicious(self, resolved: Resolved) -> bool:
        """Whether the recipient names another way to go, so that nothing vouches for it."""
        return resolved.routed and not self.parameters.yes("allow_untrusted_routing")

    def _unauth_destination(self, rule: str) -> str:
        if self._authorized(self.resolve(self.recipient)):
            return OK if rule == "check_relay_domains" else DUNNO
        # defer_unauth_destination answers 4xx with the last digits of the refusal (454 for 554).
        code = self.code("relay_domains_reject_code", 554)
        return self.refuse(code % 100 + 400 if rule.startswith("defer") else code, rule)

    def _mx_backup(self) -> str:
        resolved = self.resolve(self.recipient)
        if self._suspicious(resolved):
            return DUNNO
        if resolved.kind != addresses.DEFAULT:
            return OK
        if self.client.mx_of == resolved.domain:
            if not self.parameters["permit_mx_backup_networks"]:
                return OK
            self.doubts.append("permit_mx_backup, as far as permit_mx_backup_networks lets it")
        return DUNNO

    def resolve(self, address: str) -> Resolved:
        """The address as trivial-rewrite resolves it."""
        key = (self.parameters, address)
        resolved = self.tables.memory.get(key)
        if not isinstance(resolved, Resolved):
            resolved = self.tables.memory[key] = addresses.resolve(address, self.parameters, self._in_list)
        return resolved

    def _in_list(self, parameter: str, domain: str) -> bool:
        value = self.parameters[parameter]
        if parameter == "relay_domains":
            return domain_matches(value, domain, parents_match(self.parameters, parameter), self.tables)
        return string_matches(value, domain, self.tables)

    def _login_mismatch(self, users: bool, others: bool, known: bool) -> bool:
        """Whether the sender is not the user's (or, without AUTH, somebody's)."""
        if not self.sender or not self.parameters.yes("smtpd_sasl_auth_enable"):
            return False
        if not (users if self.client.user else others):
            return False
        maps = self.parameters.words("smtpd_sender_login_maps")
        owners = self._address_find(maps, self.resolve(self.sender).address)
        if not self.client.user:
            return bool(owners)
        return (bool(owners) or not known) and self.client.user.lower() not in words(owners.lower())

    def _address_find(self, maps: list[str], address: str) -> str:
        """mail_addr_find(3): user+ext@domain, user@domain, user (of a local domain), @domain."""
        local, _, domain = address.rpartition("@")
        keys = [address]
        delimiters = self.parameters["recipient_delimiter"]
        bare = re.split(f"[{re.escape(delimiters)}]", local, maxsplit=1)[0] if delimiters else local
        if bare and bare != local:
            keys.append(f"{bare}@{domain}")
        if domain == self.parameters["myorigin"].lower() or self._in_list("mydestination", domain):
            keys += [local] + ([bare] if bare and bare != local else [])
        keys.append(f"@{domain}")
        return next((value for key in keys if (value := self.tables.find(maps, key))), "")

    def unlisted(self, address: str, rule: str) -> str:
        """Refuses an address that its class's table of recipients does not have."""
        maps, code = {
            addresses.LOCAL: ("local_recipient_maps", "unknown_local_recipient_reject_code"),
            addresses.ALIAS: ("virtual_alias_maps", "unknown_virtual_alias_reject_code"),
            addresses.VIRTUAL: ("virtual_mailbox_maps", "unknown_virtual_mailbox_reject_code"),
            addresses.RELAY: ("relay_recipient_maps", "unknown_relay_recipient_reject_code"),
        }.get(self.resolve(address).kind, ("", ""))
        resolved = self.resolve(address)
        undeliverable = self._undeliverable(resolved.kind)
        checked = "no_unknown_recipient_checks" not in self.parameters.words("receive_override_options")
        if not checked or not (maps or undeliverable):
            return DUNNO
        for name in ("recipient_canonical_maps", "canonical_maps", "virtual_alias_maps"):
            if self._address_find(self.parameters.words(name), resolved.address):
                return DUNNO
        if undeliverable:
            return self.refuse(undeliverable, rule)
        listed = self.parameters.words(maps)
        if resolved.kind == addresses.LOCAL:
            local = resolved.address.rpartition("@")[0]
            if not listed or local in _ALWAYS_LOCAL or self.tables.find(listed, local):
                return DUNNO
        if (listed or resolved.kind == addresses.ALIAS) and not self._address_find(listed, resolved.address):
            return self.refuse(self.code(code, 550), rule)
        return DUNNO

    def _undeliverable(self, kind: str) -> int:
        """The code for all mail of a class whose transport is error(8), or retry; 0 where it may be delivered."""
        names = {addresses.LOCAL: "local", addresses.VIRTUAL: "virtual", addresses.RELAY: "relay"}
        transport = self.parameters[f"{names.get(kind, 'default')}_transport"].partition(":")[0]
        code = {"error": 550, "retry": 450}.get(transport, 0) if kind != addresses.ALIAS else 0
        others = ["transport_maps"] + ["sender_dependent_default_transport_maps"] * (kind == addresses.DEFAULT)
        return 0 if code and any(self.parameters[name] for name in others) else code

    def _listed(self, argument: str) -> bool:
        """Whether one of the client's listings is a hit for `zone` or `zone=filter`."""
        zone, _, wanted = argument.partition("=")
        return any(name == zone and code_matches(wanted, code) for name, code in self.client.listings)

    def _non_fqdn(self, address: str, rule: str) -> str:
        """The address as the client wrote it, without a dot in its domain."""
        domain = address.rpartition("@")[2] if "@" in address else ""
        if address and address.lower() != "postmaster" and "." not in domain and not domain.startswith("["):
            return self.refuse(self.code("non_fqdn_reject_code", 504), rule)
        return DUNNO

    # -- access tables -------------------------------------------------------------------------------------------

    def _domain_access(self, table: str, name: str, rule: str, depth: int) -> str:
        parts = name.lower().split(".")
        keys = [name.lower()]
        if table_type(table) not in PATTERN_TYPES:
            dot = "" if parents_match(self.parameters, "smtpd_access_maps") else "."
            keys += [dot + ".".join(parts[at:]) for at in range(1, len(parts)) if parts[at]]
        return self._first(table, keys, rule, depth)

    def _host_access(self, table: str, rule: str, depth: int) -> str:
        address = self.client.address
        delimiter = ":" if ":" in address else "."
        parts = address.split(delimiter)
        keys = [address]
        if table_type(table) not in PATTERN_TYPES:
            keys += [delimiter.join(parts[:at]) for at in range(len(parts) - 1, 0, -1)]
        return self._first(table, keys, rule, depth)

    def _address_access(self, table: str, address: str, rule: str, depth: int) -> str:
        resolved = self.resolve(address).address
        local, _, domain = resolved.rpartition("@")
        delimiters = self.parameters["recipient_delimiter"]
        bare = re.split(f"[{re.escape(delimiters)}]", local, maxsplit=1)[0] if delimiters else local
        extended = bool(bare) and bare != local
        outcome = self._first(table, [resolved] + [f"{bare}@{domain}"] * extended, rule, depth)
        if outcome or table_type(table) in PATTERN_TYPES:
            return outcome
        outcome = self._domain_access(table, domain, rule, depth)
        return outcome or self._first(table, [f"{local}@"] + [f"{bare}@"] * extended, rule, depth)

    def _first(self, table: str, keys: list[str], rule: str, depth: int) -> str:
        """The action of the first key that the table has; "" where it has none."""
        value = next((value for key in keys if (value := self.tables.get(table, key))), "")
        return self._action(value, rule, depth) if value else ""

    def _action(self, value: str, rule: str, depth: int) -> str:
        """access(5), the right-hand side."""
        if not value.strip():
            return OK  # "in the dark ages, an empty right-hand side meant OK", says Postfix
        verb = value.split()[0].upper()
        if verb in ("OK", "RELAY") or value.strip().isdigit():
            return OK
        if verb == "REJECT":
            return self.refuse(self.code("access_map_reject_code", 554), rule)
        if verb == "DEFER":
            return self.refuse(self.code("access_map_defer_code", 450), rule)
        if re.match(r"[45]\d\d(?!\d)", value):
            return self.refuse(int(value[:3]), rule)
        if verb == "DEFER_IF_PERMIT":
            self._defer_if_permit(rule)
            return DUNNO
        if verb == "DEFER_IF_REJECT":
            self.defer_if_reject = self.defer_if_reject or not self.warn
            return DUNNO
        if verb == "DISCARD":  # it is said to be sent and goes nowhere: nothing was relayed, but RCPT says 250
            return OK
        if verb in ("DUNNO", "BCC", "FILTER", "HOLD", "INFO", "WARN", "PREPEND", "REDIRECT", "DELAY"):
            return DUNNO
        self.deciding = ""
        outcome = self.restrictions(value, depth + 1)
        if outcome == OK:
            self.deciding = f"{rule}: {value.strip()}"
        return outcome


def code_matches(wanted: str, code: str) -> bool:
    """A DNSBL's answer against the filter behind "zone=": "127.0.0.[2..11;30]"; without one, any answer is a hit."""
    if not wanted:
        return True
    fields = re.findall(r"\[[^\]]*\]|\d+", wanted)
    numbers = [int(part) for part in code.split(".")]
    if len(fields) != 4:
        return False
    for field, number in zip(fields, numbers, strict=True):
        ranges = re.findall(r"(\d+)(?:\.\.(\d+))?", field)
        if not any(int(first) <= number <= int(last or first) for first, last in ranges):
            return False
    return True


def lists(parameters: Parameters) -> list[str]:
    """The lists that decide on a message, in the order in which smtpd takes them."""
    before = parameters["smtpd_relay_before_recipient_restrictions"].lower() == "yes"
    relay = ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"]
    return [
        "smtpd_client_restrictions",
        "smtpd_helo_restrictions",
        "smtpd_sender_restrictions",
        *(relay if before else relay[::-1]),
        "smtpd_data_restrictions",
        "smtpd_end_of_data_restrictions",
    ]


def answer(parameters: Parameters, tables: Tables, envelope: Envelope, *, data: bool = True) -> Answer:
    """What smtpd says to RCPT TO; with `data`, refusals at DATA and after it count too."""
    if envelope.recipient.lower() == "postmaster" and not data:
        return Answer(250, ())  # RFC 5321 4.5.1: without a domain it is always there
    check = _Check(parameters, tables, envelope)
    steps: list[Step] = []
    rule = "address syntax"
    code = 0
    sure = False  # a refusal that nothing unknown stands before, in its own list
    doubts: list[str] = []
    name = before = ""
    try:
        for address in (envelope.sender, envelope.recipient):
            if address and check.resolve(address).bad:
                code, sure = 401 if parameters.yes("soft_bounce") else 501, True
                steps.append(Step("", rule, REJECT))
                break
    except Unreadable as reason:
        doubts.append(str(reason))
    for name in [] if code else lists(parameters):
        check.kind = name.split("_")[1]
        after = check.kind in ("data", "end")
        if after and not data:
            break
        # Without the delay a list is asked at its own command; of several recipients DATA names none.
        early = check.kind in ("client", "helo", "sender") and parameters["smtpd_delay_reject"].lower() == "no"
        check.sender = None if early and check.kind != "sender" else envelope.sender
        check.recipient = "" if early or after else envelope.recipient
        check.doubts, check.deciding, check.warn = [], "", 0
        # Of the two lists for recipients the second one begins where the first one ended.
        check.defer_if_reject = check.defer_if_reject and {check.kind, before} == {"relay", "recipient"}
        before = check.kind
        try:
            outcome = check.restrictions(parameters[name])
        except _Refused as refused:
            outcome = REJECT
            code, check.deciding = code or refused.code, refused.rule
            sure = sure or not check.doubts
        if parameters[name]:
            steps.append(Step(name, check.deciding, outcome))
        doubts += [one for one in check.doubts if one not in doubts]
        if sure:
            break
    check.recipient, check.warn = envelope.recipient, 0
    if not code and check.defer_if_permit:
        code = 450
        steps.append(Step("", check.defer_if_permit, REJECT))
    if not code and parameters.yes("smtpd_reject_unlisted_recipient") and not check.unlisted_checked:
        try:
            check.unlisted(check.recipient, "smtpd_reject_unlisted_recipient")
        except _Refused as refused:
            code, sure = refused.code, True
            steps.append(Step("", "smtpd_reject_unlisted_recipient", REJECT))
        except Unreadable as reason:
            doubts.append(str(reason))
    return Answer(code or 250, tuple(steps), () if sure else tuple(doubts))
