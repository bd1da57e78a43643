# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nftables rules ask for, and the values that they ask with. Grammar: nft(8)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from .. import packets
from ._nftables_parts import ANY, Selector, Value
from ._nftables_text import plain

# As Debian and the IANA name them: nft asks the machine's own lists (nft(8), TYPES).
_SERVICES = {
    "tcpmux": 1, "echo": 7, "discard": 9, "systat": 11, "daytime": 13, "netstat": 15, "qotd": 17, "chargen": 19,
    "ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "mail": 25, "time": 37, "timserver": 37,
    "whois": 43, "nicname": 43, "tacacs": 49, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "gopher": 70,
    "finger": 79, "http": 80, "www": 80, "kerberos": 88, "kerberos5": 88, "krb5": 88, "iso-tsap": 102, "pop3": 110,
    "pop-3": 110, "sunrpc": 111, "portmapper": 111, "auth": 113, "ident": 113, "tap": 113, "authentication": 113,
    "nntp": 119, "ntp": 123, "epmap": 135, "loc-srv": 135, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139,
    "imap": 143, "imap2": 143, "snmp": 161, "snmp-trap": 162, "snmptrap": 162, "mailq": 174, "xdmcp": 177, "bgp": 179,
    "irc": 194, "smux": 199, "imap3": 220, "ldap": 389, "svrloc": 427, "https": 443, "microsoft-ds": 445,
    "kpasswd": 464, "submissions": 465, "ssmtp": 465, "smtps": 465, "urd": 465, "isakmp": 500, "exec": 512,
    "biff": 512, "login": 513, "who": 513, "syslog": 514, "shell": 514, "printer": 515, "spooler": 515, "talk": 517,
    "ntalk": 518, "route": 520, "router": 520, "uucp": 540, "klogin": 543, "kshell": 544, "dhcpv6-client": 546,
    "dhcpv6-server": 547, "afpovertcp": 548, "rtsp": 554, "nntps": 563, "submission": 587, "http-rpc-epmap": 593,
    "ipp": 631, "ldaps": 636, "ldp": 646, "tinc": 655, "silc": 706, "kerberos-adm": 749, "domain-s": 853, "rsync": 873,
    "ftps-data": 989, "ftps": 990, "telnets": 992, "imaps": 993, "ircs": 994, "pop3s": 995, "socks": 1080,
    "rmiregistry": 1099, "openvpn": 1194, "ms-sql-s": 1433, "ms-sql-m": 1434, "l2f": 1701, "l2tp": 1701,
    "radius": 1812, "radius-acct": 1813, "radacct": 1813, "cisco-sccp": 2000, "nfs": 2049, "zebra": 2601, "bgpd": 2605,
    "iscsi-target": 3260, "mysql": 3306, "ms-wbt-server": 3389, "nut": 3493, "svn": 3690, "sieve": 4190, "ntske": 4460,
    "ipsec-nat-t": 4500, "iax": 4569, "radmin-port": 4899, "munin": 4949, "sip": 5060, "sip-tls": 5061,
    "xmpp-client": 5222, "jabber-client": 5222, "xmpp-server": 5269, "jabber-server": 5269, "mdns": 5353,
    "postgresql": 5432, "postgres": 5432, "nrpe": 5666, "amqps": 5671, "amqp": 5672, "x11": 6000, "redis": 6379,
    "syslog-tls": 6514, "ircd": 6667, "babel": 6696, "ircs-u": 6697, "http-alt": 8080, "webcache": 8080,
    "tproxy": 8081, "puppet": 8140, "git": 9418, "webmin": 10000, "zabbix-agent": 10050, "zabbix-trapper": 10051,
    "hkp": 11371,
}  # fmt: skip
_PROTOCOLS = {
    "ip": 0, "hopopt": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9,
    "pup": 12, "udp": 17, "hmp": 20, "rdp": 27, "dccp": 33, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "rsvp": 46,
    "gre": 47, "esp": 50, "ah": 51, "skip": 57, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
    "eigrp": 88, "ospf": 89, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "comp": 108,
    "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "fc": 133, "mobility-header": 135, "mh": 135,
    "udplite": 136, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140, "wesp": 141, "rohc": 142,
}  # fmt: skip
_NEXT_HEADERS = _PROTOCOLS | {"hbh": 0, "rt": 43, "frag": 44, "dst": 60}
_ICMP = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
    "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
    "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
    "address-mask-request": 17, "address-mask-reply": 18,
}  # fmt: skip
_ICMP_CODES = {
    "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3, "frag-needed": 4,
    "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13,
}  # fmt: skip
_ICMP6 = {
    "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
    "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
    "mld-listener-done": 132, "mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134,
    "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
    "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
}  # fmt: skip
_ICMP6_CODES = {
    "no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4, "policy-fail": 5,
    "reject-route": 6,
}  # fmt: skip
_DSCP = {
    **{f"cs{number}": number << 3 for number in range(8)}, "df": 0, "be": 0, "lephb": 1, "va": 44, "ef": 46,
    **{f"af{high}{low}": high << 3 | low << 1 for high in range(1, 5) for low in range(1, 4)},
}  # fmt: skip
_ECN = {"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3}
_STATUS_BITS = {"expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512}
STATE_BITS = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_TCP_FLAGS = {**packets.TCP_FLAGS, "ecn": 64}
EXISTS = {"missing": 0, "exists": 1}
EXTENSION_NUMBERS = {0: 1, 43: 2, 44: 3, 60: 4, 135: 5}  # next header: value of the field `extension`
EXTENSION_KEYS = {"hbh": 1, "rt": 2, "frag": 3, "dst": 4, "mh": 5}
_ETHER_TYPES = {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "vlan": 0x8100, "8021q": 0x8100, "8021ad": 0x88A8}


def _ports(protocols: tuple[int, ...]) -> dict[str, Selector]:
    return {
        "sport": Selector("field", "source_port", 16, _SERVICES, protocols),
        "dport": Selector("field", "destination_port", 16, _SERVICES, protocols),
    }


def _l3(family: int) -> dict[str, Selector]:
    bits = packets.ADDRESS_WIDTH[family]
    return {
        "saddr": Selector("field", "source", bits, family=family),
        "daddr": Selector("field", "destination", bits, family=family),
        "dscp": Selector("field", "tos", 6, _DSCP, family=family, shift=2),
        "ecn": Selector("field", "tos", 2, _ECN, family=family),
        "version": Selector("version", bits=4, family=family),
    }


SELECTORS: dict[str, dict[str, Selector]] = {
    "ip": _l3(4) | {
        "protocol": Selector("field", "protocol", 8, _PROTOCOLS, family=4),
        "length": Selector("length", "length", 16, family=4),
        "ttl": Selector("ttl", "ttl", 8, family=4),
        "frag-off": Selector("frag-off", bits=16, family=4),
        "hdrlength": Selector("hdrlength", bits=4, family=4),
        **{key: Selector("opaque", family=4) for key in ("id", "checksum", "option")},
    },
    "ip6": _l3(6) | {
        "nexthdr": Selector("nexthdr", bits=8, names=_NEXT_HEADERS, family=6),
        "length": Selector("length", "length", 16, family=6, add=40),
        "hoplimit": Selector("ttl", "ttl", 8, family=6),
        "flowlabel": Selector("opaque", family=6),
    },
    "tcp": _ports((6,)) | {
        "flags": Selector("field", "tcp_flags", 8, _TCP_FLAGS, (6,), flags=True),
        **{
            key: Selector("opaque", protocols=(6,))
            for key in ("sequence", "ackseq", "doff", "reserved", "window", "checksum", "option")
        },
        "urgptr": Selector("opaque", protocols=(6,), last=True),
    },
    "udp": _ports((17,)) | {key: Selector("opaque", protocols=(17,)) for key in ("length", "checksum")},
    "udplite": _ports((136,)) | {key: Selector("opaque", protocols=(136,)) for key in ("csumcov", "checksum")},
    "sctp": _ports((132,)) | {key: Selector("opaque", protocols=(132,)) for key in ("vtag", "checksum", "chunk")},
    "dccp": {key: Selector("opaque", protocols=(33,)) for key in ("sport", "dport", "type", "option")},
    "th": _ports(()),
    "icmp": {
        "type": Selector("field", "icmp_type", 8, _ICMP, (1,), 4),
        "code": Selector("field", "icmp_code", 8, _ICMP_CODES, (1,), 4),
        **{
            key: Selector("opaque", protocols=(1,), family=4)
            for key in ("id", "sequence", "mtu", "gateway", "checksum")
        },
    },
    "icmpv6": {
        "type": Selector("field", "icmp_type", 8, _ICMP6, (58,), 6),
        "code": Selector("field", "icmp_code", 8, _ICMP6_CODES, (58,), 6),
        **{
            key: Selector("opaque", protocols=(58,), family=6)
            for key in ("id", "sequence", "mtu", "max-delay", "checksum", "parameter-problem", "taddr", "daddr")
        },
    },
    "igmp": {key: Selector("opaque", protocols=(2,)) for key in ("type", "mrt", "checksum", "group")},
    "esp": {key: Selector("opaque", protocols=(50,)) for key in ("spi", "sequence")},
    "ah": {key: Selector("opaque", protocols=(51,)) for key in ("nexthdr", "hdrlength", "reserved", "spi", "sequence")},
    "comp": {key: Selector("opaque", protocols=(108,)) for key in ("nexthdr", "flags", "cpi")},
    "frag": {
        "frag-off": Selector("frag6", bits=13, family=6),
        "more-fragments": Selector("frag6", "more", 1, family=6),
        **{key: Selector("opaque", family=6) for key in ("nexthdr", "reserved", "reserved2", "id")},
    },
    "exthdr": {key: Selector("exthdr", key, 1, EXISTS, family=6) for key in EXTENSION_KEYS},
    **{key: {} for key in ("hbh", "dst", "rt", "srh", "mh")},  # one header's own fields, or routing data
    "meta": {
        "l4proto": Selector("l4proto", "protocol", 8, _PROTOCOLS),
        "nfproto": Selector("nfproto", names={"ipv4": 2, "ipv6": 10}, bits=8),
        "protocol": Selector("ethertype", names=_ETHER_TYPES, bits=16),
        "length": Selector("length", "length", 16),
        "iif": Selector("interface", "in"),
        "iifname": Selector("interface", "in"),
        "oif": Selector("interface", "out"),
        "oifname": Selector("interface", "out"),
    },
    "ether": {"type": Selector("ethertype", "ether", names=_ETHER_TYPES, bits=16)},
    "ct": {
        "state": Selector("state", bits=32, names=STATE_BITS, flags=True),
        "status": Selector("status", bits=32, names=_STATUS_BITS, flags=True),
    },
    **{
        key: {}
        for key in "fib vlan arp socket osf ipsec numgen jhash symhash gre geneve vxlan tunnel gretap inner".split()
    },
}  # fmt: skip


def read_element(selector: Selector, words: Sequence[str]) -> Value | None:
    if selector.flags and "|" in words:
        total = 0
        for word in words:
            value = read_value(selector, word) if word != "|" else (0, 0, -1)
            if not isinstance(value, tuple):
                return None
            total |= value[0]
        return total, total, -1
    return read_value(selector, "".join(words))


def masked_value(value: Value | None, mask: int | None) -> Value | None:
    """x & mask == value."""
    if mask is None or not isinstance(value, tuple) or value[2] != -1 or value[0] != value[1]:
        return None
    return value[0], value[1], mask


def ordered_value(operator: str, value: Value | None) -> Value | None:
    if not isinstance(value, tuple) or value[2] != -1 or value[0] != value[1]:
        return None
    number, top = value[0], ANY[1]
    assert isinstance(top, int)
    low, high = {"<": (0, number - 1), "<=": (0, number), ">": (number + 1, top), ">=": (number, top)}[operator]
    return low, high, -1


def read_value(selector: Selector, text: str) -> Value | None:
    """One value as it is written: a name, a number, an address, a prefix, a range. None when it is none of these."""
    text = plain(text)
    if selector.kind == "interface":  # an index is one of this boot, and a variable may be anything
        return None if text.isdecimal() or text[:1] == "$" else text
    family = {32: 4, 128: 6}.get(selector.bits) if selector.field in ("source", "destination") else None
    return address_value(text, family) if family else _number(text, selector)


def _number(text: str, selector: Selector) -> Value | None:
    low = high = _one_number(text, selector)
    if low is None and "-" in text:
        for cut in (position for position, letter in enumerate(text) if letter == "-"):
            low, high = _one_number(text[:cut], selector), _one_number(text[cut + 1 :], selector)
            if low is not None and high is not None:
                break
    return None if low is None or high is None or low > high else (low, high, -1)


def _one_number(text: str, selector: Selector) -> int | None:
    if text in selector.names:
        return selector.names[text]
    try:
        base = 16 if text[:2].lower() == "0x" else 8 if text[:1] == "0" else 10
        number = int(text, base) if base == 16 or (text.isascii() and text.isdecimal()) else -1
    except ValueError:
        return None
    return number if 0 <= number < 1 << (selector.bits or 32) else None


@lru_cache(maxsize=65536)
def address_value(text: str, family: int) -> Value | None:
    try:
        if "-" in text:
            low, _, high = text.partition("-")
            ends = packets.address_value(low, family), packets.address_value(high, family)
            return (*ends, -1) if ends[0] <= ends[1] else None
        ((value, mask),) = packets.prefix(text, family)
    except ValueError:
        return None
    return value, value | ~mask & (1 << packets.ADDRESS_WIDTH[family]) - 1, -1
