# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An nftables rule, word by word: its tests, verdicts and side effects. Grammar: nft(8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from .. import packets
from ..filters import DENY, GOTO, JUMP, PERMIT, RETURN, UNKNOWN
from ._nftables_parts import ANY, Flow, Map, Narrow, Part, Rewrite, Selector, Test, Value, Verdict
from ._nftables_text import Chain, Rule, Table, Token, braced, plain

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
_EXISTS = {"missing": 0, "exists": 1}
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


_SELECTORS: dict[str, dict[str, Selector]] = {
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
    "exthdr": {key: Selector("exthdr", key, 1, _EXISTS, family=6) for key in EXTENSION_KEYS},
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
_BARE_META = frozenset("iif iifname oif oifname mark iiftype oiftype skuid skgid nftrace rtclassid iifgroup oifgroup "
                       "cgroup pkttype cpu priority ibrname obrname ibriport obriport".split())  # fmt: skip
_RAW = {("0", "16"): "sport", ("16", "16"): "dport"}  # @th,0,16 is the source port
_OPAQUE = Selector("opaque")
_OPERATORS = {"==": "==", "eq": "==", "!=": "!=", "ne": "!=", "neq": "!=", "!": "!", "<": "<", "lt": "<", ">": ">",
              "gt": ">", "<=": "<=", "le": "<=", ">=": ">=", "ge": ">=", "in": "=="}  # fmt: skip
_JOINING = frozenset(", | & ^ / - << >> or and xor lshift rshift".split())
_VERDICTS = {"accept": PERMIT, "drop": DENY, "return": RETURN, "jump": JUMP, "goto": GOTO, "continue": "continue"}
_STATEMENTS = frozenset(
    "counter log limit quota comment last reject masquerade redirect snat dnat tproxy dup fwd queue notrack flow "
    "synproxy add update delete meter set".split()
)
# A match that always fits (net/netfilter/xt_comment.c), and targets behind which iptables goes on with the next rule,
# and that change neither addresses nor ports (iptables-extensions(8)).
_XT_NOTES = frozenset("comment LOG NFLOG MARK CONNMARK TCPMSS CLASSIFY CHECKSUM TRACE AUDIT".split())


class Reader:
    """One rule's words, made into parts. What is not understood becomes a Narrow and the reading goes on."""

    def __init__(self, table: Table, chain: Chain, rule: Rule) -> None:
        self.table, self.chain = table, chain
        self.words = [word for word, _ in rule.tokens]
        self.tokens = rule.tokens
        self.line = rule.line
        self.at = 0
        self.parts: list[Part] = []

    def read(self) -> list[Part]:
        while self.at < len(self.words):
            word = self.words[self.at]
            start = self.at
            if word in ("\n", ";", "continue"):  # the rule goes on with its next word
                self.at += 1
            elif word in _VERDICTS:
                self.parts.append(self.verdict())
            elif word == "xt" or word.startswith("xt_"):
                self.iptables()
            elif word in _STATEMENTS and not (word == "set" and start == 0 and self.peek(1) not in ("add", "update")):
                self.statement()
            elif word in _SELECTORS or word in _BARE_META or word.startswith("@"):
                self.expression()
            else:
                self.narrow(f"'{word}' is not understood")
                self.at += 1
            if self.at == start:  # never for ever
                self.at += 1
        if not any(isinstance(part, (Verdict, Map)) for part in self.parts) and any(
            isinstance(part, Narrow) and "not understood" in part.reason for part in self.parts
        ):
            self.parts.append(Verdict(UNKNOWN, line=self.line))
        return self.parts

    def peek(self, ahead: int = 0) -> str:
        try:
            return self.words[self.at + ahead]
        except IndexError:
            return ""

    def take(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def narrow(self, reason: str) -> None:
        self.parts.append(Narrow(reason))

    def verdict(self) -> Verdict:
        line = self.tokens[self.at][1]
        action = _VERDICTS[self.take()]
        if action not in (JUMP, GOTO):
            return Verdict(action, line=line)
        if self.peek() == "{":
            return Verdict(action, self.chain_in_place(line), line)
        return Verdict(action, plain(self.take()), line)

    def chain_in_place(self, line: int) -> str:
        """`jump { rules }`: a chain without a name; it gets one that says where it stands."""
        end = self.closing()
        name = f"{self.chain.name}:{line}"
        while name in self.table.chains:
            name += "'"
        chain = self.table.chains[name] = Chain(name, line)
        words: list[Token] = []
        depth = 0
        for token in [*self.tokens[self.at + 1 : end], ("\n", 0)]:
            depth += (token[0] == "{") - (token[0] == "}")
            if token[0] in ("\n", ";") and not depth:
                if words:
                    chain.rules.append(Rule(words, words[0][1]))
                words = []
            else:
                words.append(token)
        self.at = end + 1
        return name

    def closing(self) -> int:
        """Where the brace or parenthesis that is next closes."""
        depth = 0
        for position in range(self.at, len(self.words)):
            depth += (self.words[position] in "{(") - (self.words[position] in "})")
            if not depth:
                return position
        return len(self.words)

    # Statements

    def statement(self) -> None:
        word = self.take()
        if word == "counter":
            self.counter()
        elif word in ("comment", "notrack"):
            self.at += word == "comment"
        elif word == "log":
            self.log()
        elif word in ("limit", "quota"):
            self.rate()
            self.narrow(f"{word}: whether it is used up is not known")
        elif word == "last":
            self.at += 2 * (self.peek() == "used")  # never, or how long ago
        elif word == "reject":
            self.reject()
        elif word in ("masquerade", "snat", "redirect", "dnat"):
            moved = {"destination", "destination_port"} if word == "dnat" else set()  # a redirect is not forwarded
            to = self.translation()
            if any(address_value(to, family) for family in (4, 6)):
                moved.discard("destination_port")  # an address alone, for one with a port is another word
            self.end(Rewrite("source" if word in ("masquerade", "snat") else "destination", frozenset(moved)))
        elif word == "flow":
            self.at += 1  # add, or offload
            self.parts.append(Flow(self.table.flowtables.get(self.take().lstrip("@"))))
        elif word in ("add", "update", "delete", "set", "meter"):
            self.dynamic(word)
        else:  # tproxy, dup, fwd, queue, synproxy
            self.end(Verdict(UNKNOWN, line=self.line))

    def iptables(self) -> None:
        """xt match "conntrack", xt target "LOG", of older listings xt_LOG: nft has only the name."""
        if self.take() == "xt":
            match, name = self.take() == "match", plain(self.take())
        else:
            name = self.words[self.at - 1].removeprefix("xt_")
            match = name.islower()
        if name in _XT_NOTES:
            return
        if match:
            self.narrow(f"what the match {name} of iptables asks for is not shown")
        else:
            self.end(Verdict(UNKNOWN, line=self.line))

    def end(self, part: Part) -> None:
        """A statement that takes the rest of the rule."""
        self.parts.append(part)
        self.at = len(self.words)

    def translation(self) -> str:
        """dnat to ip daddr . tcp dport map { … }: what the map does not have passes unchanged. What is behind `to`."""
        while self.peek() not in ("to", ""):
            self.at += 1
        self.at += 1
        ends = (at for at, word in enumerate(self.words) if word in ("random", "fully-random", "persistent", "comment"))
        to = "".join(self.words[self.at : next(ends, None)])
        if self.peek() not in _SELECTORS or "map" not in self.words[self.at :]:
            return to
        selectors = [self.selector()]
        while self.peek() == ".":
            self.at += 1
            selectors.append(self.selector())
        if self.take() != "map":
            return to
        name = self.peek().removeprefix("@")
        if self.peek() == "{":
            inside = braced(self.tokens[self.at : self.closing() + 1])
            self.parts.append(self.lookup(tuple(selectors), inside, False, -1, loose=False))
        elif name in self.table.sets:
            made = self.table.sets[name]
            self.parts.append(self.lookup(tuple(selectors), made.elements, False, -1, made.loose, made.timed))
        return to

    def counter(self) -> None:
        if self.peek() == "name":
            self.at += 2
            if self.peek(-1) in _SELECTORS:
                self.narrow("a counter chosen by a map is not understood")
                self.skip()
        elif self.peek() == "packets":
            self.at += 4
        elif self.peek().startswith('"'):
            self.at += 1

    def log(self) -> None:
        while self.peek() in ("prefix", "level", "group", "snaplen", "queue-threshold", "flags"):
            flags = self.take() == "flags"
            self.at += 1
            if flags and self.peek(-1) in ("tcp", "ip"):
                self.at += 1
            while self.peek() == ",":
                self.at += 2

    def rate(self) -> None:
        """limit rate over 10 mbytes/second burst 5 kbytes; quota until 1 gbytes used 5 bytes; limit name "x"."""
        numbers = re.compile(r"(\d+(/\w+)?|\w?bytes(/\w+)?|packets|burst|rate|over|until|used|name|\"[^\"]*\"?)$")
        named = False
        while named or numbers.match(self.peek()):
            named = self.take() == "name"

    def reject(self) -> None:
        if self.peek() == "with":
            kind = self.peek(1)
            self.at += 3 + (self.peek(2) == "type")
            family = {"icmp": 4, "icmpv6": 6}.get(kind)
            if kind == "tcp":
                self.parts.append(Test((_SELECTORS["meta"]["l4proto"],), (((6, 6, -1),),)))
            elif family:
                self.parts.append(Test((Selector("version", family=family),), ((ANY,),)))
        self.parts.append(Verdict(DENY, line=self.line))

    def dynamic(self, word: str) -> None:
        """add @seen { ip saddr limit rate over 5/second }; also the older `meter x { … }` and `set add ip saddr @x`."""
        while self.peek() and self.peek() != "{" and self.peek() not in _VERDICTS:
            self.at += 1
        if self.peek() == "{":
            self.at = self.closing() + 1
        if word != "delete":
            self.narrow("the set that packets fill: whether it takes this one is not known")

    # Tests

    def expression(self) -> None:
        selectors = [self.selector()]
        while self.peek() == ".":
            self.at += 1
            selectors.append(self.selector())
        if self.peek() == "set":
            self.at += 1
            self.assignment(selectors[0])
            return
        if self.peek() == "vmap":
            self.at += 1
            self.verdict_map(tuple(selectors))
            return
        self.parts.append(self.comparison(tuple(selectors)))

    def selector(self) -> Selector:
        word = self.take()
        if word in ("@th", "@nh", "@ll", "@ih"):
            offset, length = self.peek(1), self.peek(3)
            self.at += 4
            if word == "@th":
                whole = (offset, length) == ("0", "64")  # the shortest headers that matter end there
                raw = Selector("opaque", protocols=(), last=whole)
                return _SELECTORS["th"].get(_RAW.get((offset, length), ""), raw)
            return _OPAQUE
        if word in _BARE_META:
            return _SELECTORS["meta"].get(word, _OPAQUE)
        if word == "fib":
            return self.fib()
        if word in ("numgen", "jhash", "symhash"):  # jhash ip saddr . tcp dport mod 2 seed 0x1 offset 5
            while self.peek() not in ("mod", ""):
                self.at += 1
            self.at += 2
            while self.peek() in ("seed", "offset"):
                self.at += 2
            return _OPAQUE
        if word not in _SELECTORS:
            return _OPAQUE
        key = self.take()
        if word == "ct" and key in ("original", "reply"):
            self.at += 1 + (self.peek() in ("ip", "ip6"))
        elif word == "ct" and key == "count":
            return Selector("opaque", "count")
        elif word == "rt" and key in ("ip", "ip6"):
            self.at += 1
        elif key == "option" or (word in ("tcp", "ip", "sctp", "dccp") and key in ("option", "chunk")):
            self.at += 1
            if self.peek() not in _EXISTS and self.peek() not in _OPERATORS and self.peek(1):
                self.at += 1
        routing = word == "rt" and key in ("type", "nexthdr", "seg-left", "hdrlength")
        if routing or word in ("hbh", "dst", "srh", "mh"):
            return Selector("opaque", family=6)
        return _SELECTORS[word].get(key, _OPAQUE)

    def fib(self) -> Selector:
        """fib saddr . iif oif: the flags, then what is looked up."""
        flags = [self.take()]
        while self.peek() == ".":
            self.at += 1
            flags.append(self.take())
        result = self.take()
        # `check` is what nft lists instead of `oif` since 1.1.4.
        strict = set(flags) == {"saddr", "iif"} and result in ("oif", "oifname", "check")
        return Selector("source-check" if strict else "opaque", bits=32, names=_EXISTS)

    def assignment(self, selector: Selector) -> None:
        """`meta mark set 1`, `ip dscp set cs1`: what it changes in the packet, and whether it can fail."""
        computed = False
        while True:  # meta mark & 0xff | 0x100, ip saddr . tcp dport map { … }
            if self.peek() in ("{", "("):
                self.at = self.closing() + 1
            elif self.peek() in _SELECTORS or self.peek() in _BARE_META or self.peek().startswith("@"):
                computed = True
                self.selector()
            else:
                self.at += 1
            if self.peek() not in (".", "map") and self.peek() not in _JOINING:
                break
            self.at += 1
        if computed:
            self.narrow("a value that is computed may be missing, and the rule then ends")
        if selector.field in ("source", "destination", "source_port", "destination_port", "protocol", "tcp_flags"):
            self.parts.append(Rewrite("packet", frozenset({selector.field})))
        elif selector.field in ("tos", "ttl"):
            self.parts.append(Rewrite(selector.field))

    def skip(self) -> list[str]:
        """A value: a word or group, and what operators join to it."""
        start = self.at
        while True:
            if self.peek() in ("{", "("):
                self.at = self.closing() + 1
            else:
                self.at += 1
            if self.peek() in _JOINING:
                self.at += 1
            elif not (self.peek().startswith("-") and self.peek()[1:2] == '"'):
                break
        return self.words[start : self.at]

    def comparison(self, selectors: tuple[Selector, ...]) -> Test:
        first = selectors[0]
        mask: int | None = -1
        if first.field == "count":  # ct count [over] N
            self.at += 1 + (self.peek() == "over")
            return Test(selectors, ((None,),), doubt="ct count: how many there are is not known")
        if self.peek() in ("&", "and"):
            self.at += 1
            mask = self.bits(first, self.mask_words())
        elif self.peek() in ("|", "^", "<<", ">>", "or", "xor", "lshift", "rshift"):
            self.at += 2
            mask = None
        written = self.peek()
        operator = _OPERATORS.get(written, "")
        self.at += bool(operator)
        if self.peek() == "{":
            end = self.closing()
            inside = braced(self.tokens[self.at : end + 1])
            self.at = end + 1
            return self.lookup(selectors, inside, operator == "!=", mask, loose=False)
        if self.peek().startswith("@") and self.peek() not in ("@th", "@nh", "@ll", "@ih"):
            name = self.take()[1:]
            made = self.table.sets.get(name)
            if made is None:
                return Test(selectors, ((None,) * len(selectors),), doubt=f"the set {name} is not in the text")
            return self.lookup(selectors, made.elements, operator == "!=", mask, made.loose, made.timed)
        if len(selectors) > 1:
            key = []
            while True:
                key += [(word, 0) for word in [*self.skip(), "."]]
                if self.peek() != ".":
                    break
                self.at += 1
            return self.lookup(selectors, [*key[:-1], (",", 0)], operator == "!=", mask, loose=False)
        words = self.skip()
        if mask is None:
            return Test(selectors, ((None,),), doubt="an expression that is not understood")
        if first.flags:
            return self.flag_test(first, operator, mask, words)
        value = _value(first, "".join(words))
        if mask != -1:
            value = _masked(value, mask)
        if operator in ("<", ">", "<=", ">="):
            value = _ordered(operator, value)
        return Test(selectors, ((value,),), operator in ("!=", "!"))

    def mask_words(self) -> list[str]:
        if self.peek() == "(":
            end = self.closing()
            words = self.words[self.at + 1 : end]
            self.at = end + 1
            return words
        return [self.take()]

    def bits(self, selector: Selector, words: Sequence[str]) -> int | None:
        """syn | ack, syn,ack, 0x12, 255.255.0.0: one number."""
        total = 0
        for word in words:
            if word in (",", "|", "(", ")", "or"):
                continue
            value = _value(selector, word)
            if not isinstance(value, tuple) or value[0] != value[1]:
                return None
            total |= value[0]
        return total

    def flag_test(self, selector: Selector, operator: str, mask: int, words: list[str]) -> Test:
        """All the spellings of tests on TCP flags and connection states (nft(8), and what nft makes of them)."""
        one = (selector,)
        if "/" in words:  # syn / fin,syn: of the second, exactly the first are set
            cut = words.index("/")
            value, care = self.bits(selector, words[:cut]), self.bits(selector, words[cut + 1 :])
        else:
            value, care = self.bits(selector, words), mask
        if value is None or care is None:
            return Test(one, ((None,),))
        if operator in ("<", ">", "<=", ">="):  # the flags as one number
            ends = _ordered(operator, (value, value, -1))
            if not isinstance(ends, tuple) or selector.bits != 8:
                return Test(one, ((None,),))
            fitting = (number for number in range(256) if ends[0] <= number & care <= ends[1])
            return Test(one, tuple(((number, number, -1),) for number in fitting))
        if care != -1 or "/" in words:
            return Test(one, (((value, value, care),),), operator == "!=")
        if operator == "!":
            return Test(one, (((0, 0, value),),))
        if operator in ("==", "!="):
            return Test(one, (((value, value, -1),),), operator == "!=")
        # nft 1.0.6 lists `ct state == a,b`, which never holds, as `ct state a | b`, which it reads as any of them.
        unsure = "'|' means any of these in a file, and exactly these in a listing" if "|" in words else ""
        return Test(one, (((0, 0, value),),), negate=True, doubt=unsure)

    def lookup(
        self, selectors: tuple[Selector, ...], tokens: Sequence[Token], negate: bool, mask: int | None, loose: bool,
        timed: bool = False,
    ) -> Test:  # fmt: skip
        """A test against a set. Elements with a timeout may be gone: then it is in doubt."""
        elements = []
        doubt = "what the set holds is not known, or changes" if loose else ""
        if timed and tokens:
            doubt = doubt or "the elements of the set have a timeout"
        for key, options, _ in _elements(tokens):
            values = _key(selectors, key)
            elements.append(values if mask == -1 else tuple(_masked(value, mask) for value in values))
            if any(word in ("timeout", "expires", "limit", "quota", "ct") for word in options):
                doubt = doubt or "an element of the set has a timeout or a limit"
        return Test(selectors, tuple(elements), negate, doubt, loose)

    def verdict_map(self, selectors: tuple[Selector, ...]) -> None:
        loose = timed = False
        if self.peek() == "{":
            end = self.closing()
            inside = braced(self.tokens[self.at : end + 1])
            self.at = end + 1
        else:
            name = self.take()[1:]
            made = self.table.sets.get(name)
            if made is None:
                self.narrow(f"the map {name} is not in the text")
                self.parts.append(Verdict(UNKNOWN, line=self.line))
                return
            inside, loose, timed = made.elements, made.loose, made.timed
        cases = []
        for key, options, verdict in _elements(inside):
            doubt = "what the map holds is not known, or changes" if loose else ""
            if timed or "timeout" in options:
                doubt = doubt or "an element of the map has a timeout"
            test = Test(selectors, (_key(selectors, key),), doubt=doubt)
            words = [word for word, _ in verdict]
            if not words or words[0] not in _VERDICTS:
                decision = Verdict(UNKNOWN, line=self.line)
            else:
                target = plain(words[1]) if len(words) > 1 else ""
                decision = Verdict(_VERDICTS[words[0]], target, verdict[0][1] or self.line)
            cases.append((key == ["*"], test, decision))
        if loose:
            cases.append((True, Test(selectors, ((None,) * len(selectors),)), Verdict(UNKNOWN, line=self.line)))
        elif any(decision.action in (JUMP, "continue") for _, _, decision in cases):
            # Behind a jump comes the next rule and no other element: the catch-all is for what none of them has.
            others = [test for last, test, _ in cases if not last]
            keys = tuple(element for test in others for element in test.elements)
            rest = Test(selectors, keys, True, next((test.doubt for test in others if test.doubt), ""))
            cases = [(last, rest if last else test, decision) for last, test, decision in cases]
        cases.sort(key=lambda case: case[0])  # the catch-all is behind all others
        self.parts.append(Map(tuple((test, decision) for _, test, decision in cases)))


_OPTIONS = frozenset("timeout expires comment counter limit quota last ct".split())  # behind an element


# What can follow a plain value: whatever else would be a part of it.
_STARTS = (_SELECTORS.keys() | _STATEMENTS | _VERDICTS.keys() | _BARE_META) - {"set"}


def parts_of(table: Table, chain: Chain, rule: Rule, known: dict[tuple[object, ...], list[Part]]) -> list[Part]:
    """What a rule asks and does. Rules of a table that differ in the addresses they begin with are read once."""
    words = [word for word, _ in rule.tokens]
    own: list[Part] = []
    at = 0
    while len(words) > at + 3 and words[at] in ("ip", "ip6") and words[at + 1] in ("saddr", "daddr"):
        selector = _SELECTORS[words[at]][words[at + 1]]
        value = address_value(words[at + 2], selector.family)
        if value is None or words[at + 3] not in _STARTS:
            break
        own.append(Test((selector,), ((value,),)))
        at += 3
    if not own or "{" in words or rule.tokens[-1][1] != rule.line:
        return Reader(table, chain, rule).read()
    if words[-6:-4] == ["counter", "packets"]:  # how many there were
        del words[-5:-1]
    key = table, *words[at:]
    if key not in known:  # without a line, a verdict has that of its rule
        known[key] = Reader(table, chain, Rule([(word, 0) for word in words[at:]], 0)).read()
    return [*own, *known[key]]


def _elements(tokens: Sequence[Token]) -> Iterator[tuple[list[str], list[str], list[Token]]]:
    """Key, options and what it maps to, of each element. `tokens` end with a comma."""
    key: list[str] = []
    options: list[str] = []
    verdict: list[Token] = []
    place: list[str] = key
    mapped = False
    for token in tokens:
        word = token[0]
        if word == ",":
            if key:
                yield key, options, verdict
            key, options, verdict, mapped = [], [], [], False
            place = key
        elif mapped:
            verdict.append(token)
        elif word == ":":
            mapped = True
        elif place is key and key and word in _OPTIONS:
            place = options
            place.append(word)
        elif place is key and ":" in word and word.rpartition(":")[2] in _VERDICTS and not word.startswith('"'):
            left, _, right = word.rpartition(":")
            key += [left.removesuffix(":")]
            verdict.append((right, token[1]))
            mapped = True
        elif word[-1] == ":" and word[-2] != ":":  # `established: accept`; an address may end with two
            place.append(word[:-1])
            mapped = True
        elif word != "\n":
            place.append(word)


def _key(selectors: Sequence[Selector], words: Sequence[str]) -> tuple[Value | None, ...]:
    """192.0.2.1 . 25 as one value for each selector."""
    if list(words) == ["*"]:
        return tuple("*" if one.kind == "interface" else ANY for one in selectors)
    parts: list[list[str]] = [[]]
    for word in words:
        if word == ".":
            parts.append([])
        else:
            parts[-1].append(word)
    if len(parts) != len(selectors):
        return (None,) * len(selectors)
    return tuple(_set_value(selector, part) for selector, part in zip(selectors, parts, strict=True))


def _set_value(selector: Selector, words: Sequence[str]) -> Value | None:
    if selector.flags and "|" in words:
        total = 0
        for word in words:
            value = _value(selector, word) if word != "|" else (0, 0, -1)
            if not isinstance(value, tuple):
                return None
            total |= value[0]
        return total, total, -1
    return _value(selector, "".join(words))


def _masked(value: Value | None, mask: int | None) -> Value | None:
    """x & mask == value."""
    if mask is None or not isinstance(value, tuple) or value[2] != -1 or value[0] != value[1]:
        return None
    return value[0], value[1], mask


def _ordered(operator: str, value: Value | None) -> Value | None:
    if not isinstance(value, tuple) or value[2] != -1 or value[0] != value[1]:
        return None
    number, top = value[0], ANY[1]
    assert isinstance(top, int)
    low, high = {"<": (0, number - 1), "<=": (0, number), ">": (number + 1, top), ">=": (number, top)}[operator]
    return low, high, -1


def _value(selector: Selector, text: str) -> Value | None:
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
