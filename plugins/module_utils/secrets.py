# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hide the secrets of configuration text before anyone sees it: reports, diffs, error messages.

The keyword stays, the value goes: `snmp-server community <hidden> RO`. In doubt a value is hidden: a
line that shows too little is a nuisance, one that shows a key is an incident. What is public stays:
host keys, certificates, names of key chains. Every step is linear in the length of the line, because
the text is whatever a router sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

HIDDEN = "<hidden>"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Only a line that holds one of these can have a secret that the rules below know.
_SUSPECT = re.compile(
    r"pass|secret|key|psk|pmk|cak|ckn|md5|-hex|token|communit|snmp|auth|spi |://|\$\w+\$|%[@^+$#]%|@%@|spamhaus",
    re.IGNORECASE,
)

_VALUE = rf"(?!{HIDDEN})(?:\"[^\"]*+\"|'[^']*+'|\S+)"
_FIRST = r"(?:^|['\"(])[\s+-]*"  # before the first word of a line, or of a line that a message quotes

# Secrets that show themselves by their form or by the words right before them. The group stays.
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # crypt(3), Cisco 5/8/9, Junos $9$; Huawei's %^%# brackets; the password of a URL.
        r"()\$(?:\d{1,2}[a-z]?|2[abxy]|y|gy|sha\d+)\$[^\s\"';,]+",
        r"()(?:%[@^+$#]%[@#$]|@%@%)\S*",
        r"(://[^\s/:@]*:)\S{1,128}(?=@)",  # up to the last @: a password may hold one, and slashes
        rf"(\s){_VALUE}(?=;\s*## SECRET-DATA)",  # Junos says so itself
        r"()\b[a-z0-9]{26}(?=\.(?:[a-z0-9_-]{1,63}\.){0,3}dq\.spamhaus\.net\b)",  # the key of a DNSBL
        # SNMPv3 users: auth sha X priv aes 128 Y.
        r"(\bauth\s+(?:md5|sha[\d-]*)\s+(?:(?:encrypted|clear)\s+)?)\S+",
        r"(\bpriv\s+(?:3des|des(?:56)?|aes(?:[\s-]*\d{3})?)\s+(?:(?:encrypted|clear)\s+)?)\S+",
        r"(\bpriv\s+)0x[0-9a-f]+",  # NX-OS: DES is not named
        r"(\bauthentication\s+text\s+)\S+",  # NX-OS: in the block of a group of HSRP
        (
            r"(\bsnmp-server\s+host\s+\S+\s+(?:(?:use-)?vrf\s+\S+\s+)?(?:(?:traps|informs)\s+)?"
            r"(?:version\s+(?:1|2c|3\s+(?:auth|noauth|priv))\s+)?(?:(?:encrypted|clear)\s+)?)"
            r"(?!version\b|traps\b|informs\b|(?:use-)?vrf\b)\S+"
        ),
        r"(\bcommunity-map\s+)\S+",  # IOS XR
        # SR OS: communities in the classic and the new CLI, keys of SNMPv3 users and of key chains.
        rf"({_FIRST}community\s+){_VALUE}(?=\s+(?:hash2?|access-permissions|version|rw?a?|(?:vpls-)?mgmt|\{{)(?:[\s'\")]|$))",
        # Alone in braces, and none of BGP; Junos' `;` has to stay, or the text is no tree any more.
        rf"({_FIRST}community\s+)(?!['\"]?\d+:\d+|{HIDDEN})(?:\"[^\"]*+\"|[^\s;]+)(?=;?\s*(?:$|['\")]))",
        rf"(\bauthentication\s+(?:hash\s+)?(?:hmac-)?(?:md5|sha)[\d-]*\s+){_VALUE}(?=\s+(?:hash2?\s+)?privacy\b)",
        rf"(\bprivacy\s+(?:cfb\d+-)?(?:des|aes)[\w-]*\s+){_VALUE}",
        rf"(\bentry\s+\d+\s+key\s+){_VALUE}",
        # The key alone in braces: SR OS, and VyOS' isis.
        rf"({_FIRST}md5\s+)(?!\d+(?:\s|$)|\{{){_VALUE}",
        # VRP, where the value is not told by its form.
        (
            r"(\bauthentication-mode\s+(?:simple|md5|hmac-\S+|sha\S*)\s+"
            r"(?:(?:nonstandard|usual|key-id\s+\d+|\d+)\s+)*(?:(?:cipher|plain|simple)\s+)?)(?!keychain\b)\S+"
        ),
        r"(\bprivacy-mode\s+\S+\s+(?:cipher\s+)?)\S+",
        r"(\bmd5-password\s+(?:cipher|plain)\s+\S+\s+)\S+",
        r"(\bsecurityname\s+(?:cipher\s+)?)\S+",
        r"(\bauthentication\s+(?:cipher|plain)\s+)\S+",
        r"(\bsa\s+[a-z]+-(?:key|hex)\s+(?:in|out)bound\s+(?:ah|esp)\s+(?:(?:cipher|plain|simple)\s+)?)\S+",
        # VyOS: NHRP, a server of metrics; a private key of its PKI.
        rf"(\bnhrp\s+tunnel\s+\S+\s+(?:cisco-)?authentication\s+){_VALUE}",
        rf"(\b(?:authentication\s+token|private\s+key)\s+){_VALUE}",
        r"(auth=key,)[^\s,]+",  # EOS: the agent of CloudVision
        rf"({_FIRST}/snmp\s+community\s.*?\bname=){_VALUE}",  # RouterOS
        # OSPF and NTP: message-digest-key 1 md5 7 X, authentication-key 1 md5 X 7, also with `type` and `value`; on
        # IOS XR with `encrypted`.
        (
            r"(\b(?:message-digest|authentication)-key\s+\d+\s+(?:type\s+)?(?:md5|sha\S*|hmac\S*|cmac\S*)\s+"
            r"(?:value\s+|encrypted\s+|clear\s+|\d\s+(?=\S))?)\S+"
        ),
        # First-hop redundancy and NHRP: standby 1 authentication text X.
        r"(\b(?:standby|vrrp|glbp|nhrp)\s+(?:\d+\s+)?(?:peer\s+)?authentication\s+(?:text\s+)?)(?!text\s|md5\s|mode\s)\S+",
        # IPsec keys by hand: spi 256 md5 HEX, spi 500 esp aes-cbc 128 HEX sha1 HEX.
        r"(\b(?:md5|sha-?\d+|aes-cbc\s+\d+|des|3des|null|esp)\s+(?:\d\s+)?)[0-9a-f]{16,}\b",
        r"(\bsession-key\s+(?:in|out)bound\s+(?:ah|esp)\s+\d+\s+(?:cipher\s+)?)\S+",
        r"(\bauthenticator\s+)\S+",
    )
)

# A word whose value is secret, whatever stands before it: shared-secret, wpa-psk, hello-authentication-key.
_NAME = re.compile(
    r"(?:[\w.-]*[-_.])?(?:password|passwd|pass-?phrase|password-value|secrets?|psk|pmk|cak|ckn|pre-?shared-?key"
    r"|shared-?key(?:-cipher)?|key-?(?:octet-)?string|private-?key|(?:api|auth|access)[-_]token"
    r"|(?:authentication|encryption|privacy|server|session|auth|api|md5|des|hex|ascii|cookie|static|set)[-_]?key(?:-\d)?"
    r"|(?:usm|notify|trap)-community|community-name|(?:become|ssh)_pass)"
)
# A bare `key` is a secret where one of these stands before it on the line ...
_KEY_OF = _words("tacacs-server radius-server tacacs radius server-private isakmp pre-shared-key authentication md5")
# ... and `community` where one of these does; Junos' braces leave only the word itself.
_COMMUNITY_OF = _words("snmp snmp-server snmp-agent")
# What may stand between the name and the value. Those that say it is encoded end it at the next space.
_ENCODED = _words("5 6 7 8 8a 9 10 cipher irreversible-cipher encrypted sha512 sha256 md5 hash hash2")
_KINDS = _ENCODED | _words(
    "0 1 2 3 4 level 15 ascii ascii-text hexadecimal hex simple clear cleartext local remote value read write key "
    "type sha1 hmac-md5 text = :"
)
# Lines that Cisco and FRR read to their end: a clear password may hold spaces.
_TO_THE_END = _words(
    "enable username password secret passphrase key key-string neighbor ip ppp isis mpls l2tp vpdn domain-password "
    "area-password radius-server tacacs-server server-key"
)
# Words behind a name that make it harmless: `password encryption aes`, `key chain X`, 'the password was refused'.
_NO_VALUE = _words(
    "encryption chain address hostname is was were are for of on and or in at to from by with that has must could "
    "cannot nor refused inbound outbound"
)
_QUOTES = ("'", '"', "`")
_OPENING = "+-'\"`([{<"
_LEADING = _words("- + no set delete")

_PRIVATE_BEGIN = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PRIVATE_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")

# RouterOS: the lines below a menu are of it, and their names are the communities. A diff has a sign before them.
_INDENT = re.compile(r"[-+]?\s*")
_MENU = re.compile(r"[-+\s]?/|@@ ")
_COMMUNITIES = re.compile(r"[-+\s]?/snmp community\b")
_COMMUNITY_NAME = re.compile(rf"(\sname=){_VALUE}")


def redact(line: str) -> str:
    """The line, its secret values replaced by `<hidden>`. A second pass changes nothing."""
    if not _SUSPECT.search(line):
        return line
    for form in _FORMS:
        line = form.sub(rf"\g<1>{HIDDEN}", line)
    pieces, position = [], 0
    for start, end in _values(line):
        pieces += [line[position:start], HIDDEN]
        position = end
    return "".join(pieces) + line[position:]


def redact_lines(lines: Iterable[str]) -> Iterator[str]:
    """Line by line, with what spans lines hidden whole: private keys in PEM form, values that RouterOS breaks."""
    inside = broken = communities = False
    for line in lines:
        if (inside and _PRIVATE_END.search(line)) or _PRIVATE_BEGIN.search(line):
            inside = bool(_PRIVATE_BEGIN.search(line)) and not _PRIVATE_END.search(line)
            yield _PRIVATE_BEGIN.split(_PRIVATE_END.split(line)[0])[0] + f"private key {HIDDEN}"
        elif not inside:
            goes_on = "\\" if line.endswith("\\") else ""
            if _MENU.match(line):
                communities = bool(_COMMUNITIES.match(line))
            if broken:
                result = (_INDENT.match(line) or [""])[0] + HIDDEN
            else:
                result = redact(_COMMUNITY_NAME.sub(rf"\g<1>{HIDDEN}", line) if communities else line)
            broken = bool(goes_on) and result.endswith((HIDDEN, HIDDEN + goes_on))
            yield result if result.endswith("\\") or not broken else result + goes_on


def _values(line: str) -> Iterator[tuple[int, int]]:
    """Where the values are that follow a name, as (start, end)."""
    words = [(found.start(), found.group().lower()) for found in re.finditer(r"\S+", line)]
    seen: set[str] = set()
    first, done = "", 0
    for index, (start, word) in enumerate(words):
        if start < done:
            continue
        name, sign, value = _split(word)
        bare = name.lstrip(_OPENING)
        if (not first or name[:1] in _QUOTES) and word not in _LEADING:
            first = bare  # of the line, or of a line that a message quotes
        if value and (_NAME.fullmatch(bare) or bare + sign == "key="):
            done = _end(line, start + len(name) + len(sign))
            yield start + len(name) + len(sign), done
        elif _secret_follows(bare, first, seen, [text for _, text in words[index + 1 : index + 3]]):
            span = _following(line, words, index + 1, first)
            if span:
                done = span[1]
                yield span
        seen.add(bare)


def _split(word: str) -> tuple[str, str, str]:
    """'password=x' as its name, its sign and its value."""
    found = re.match(r"([^=:]*)([=:])(.*)", word)
    return found.groups() if found else (word, "", "")  # type: ignore[return-value]


def _secret_follows(name: str, first: str, seen: set[str], after: list[str]) -> bool:
    if not after or after[0] in _NO_VALUE:
        return False
    if name == "key":
        quoted = after[0][0] in "\"'"
        encoded = after[0] in _KINDS and len(after) > 1 and first not in ("match", "permit", "deny")
        return first == "key" or quoted or encoded or bool(seen & _KEY_OF)
    if name == "community":
        return bool(seen & _COMMUNITY_OF) or (first == "community" and after[-1].startswith("{"))
    return bool(_NAME.fullmatch(name))


def _following(line: str, words: list[tuple[int, str]], index: int, first: str) -> tuple[int, int] | None:
    """The value that begins at the word `index`, behind the words that only say how it is encoded."""
    encoded = False
    while index < len(words) - 1 and (words[index][1] in _KINDS or _NAME.fullmatch(words[index][1])):
        encoded = encoded or words[index][1] in _ENCODED
        index += 1
    start = words[index][0]
    if line.startswith(HIDDEN, start):
        return None
    if first in _TO_THE_END and not encoded and line[start] not in "\"'":
        return start, len(line.rstrip())
    return start, _end(line, start)


def _end(line: str, start: int) -> int:
    """Where the value that starts there ends: at its closing quote, or before a space or a closing `;`."""
    quote = line[start]
    if quote in "\"'":
        closing = re.compile(rf"(?:[^{quote}\\]|\\.)*").match(line, start + 1)
        return min(len(line), closing.end() + 1) if closing else len(line)
    found = re.compile(r"\S+?(?=[;,'\"]*(?:\s|$))").match(line, start)
    return found.end() if found else len(line)
