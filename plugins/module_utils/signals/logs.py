# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Contacts out of logs: what each line shows, and at what time it was written.

    postfix   mails of a login or a subscriber that were refused for good, unknown recipients at our own MX    D6
    rspamd    verdicts on the mails of a login or a subscriber                                                 D6
    dns       MX queries: the logs of unbound, BIND and dnsmasq, dnstap as text                                D5
    filter    what a router's filter denied on port 25 and the ports of worms: nftables, Cisco, Junos       D3, D4
    nft_set   the same as counters: a set of nftables with a counter for each subscriber and server         D3, D4

Every line is counted as one of: a contact, known and no contact, or unknown. A line whose time cannot be placed is no
evidence, and neither is a file whose clock cannot be right. The counter of a rule is no source: it counts packets, and
a client that retries one dead relay all day has more of them than a bot.
"""

from __future__ import annotations

import datetime
import gzip
import json
import re
import zoneinfo
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .detectors import MAIL_PORT, key_of, shown_time
from .engines import Window
from .limits import AHEAD
from .records import Silence
from .walk import HOUR, Contact

SHOWN = 3  # unknown lines that are told; the rest is a number
_LONGEST = 300  # characters of a line that is told
LONGEST_LOGIN = 320  # 64 before the @ and 255 behind it (RFC 5321, section 4.5.3.1)


class NoTime(Exception):
    """A line's time cannot be placed: why."""


@dataclass(slots=True)
class LogRead:
    """What the logs of one kind showed."""

    contacts: dict[str, list[Contact]] = field(default_factory=lambda: defaultdict(list))  # by detector
    refused: dict[object, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by subject
    silences: list[Silence] = field(default_factory=list)
    used: int = 0
    known: int = 0
    unknown: int = 0

    @property
    def lines(self) -> int:
        """All lines: nothing is lost."""
        return self.used + self.known + self.unknown


_MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
# RFC 3339, as rsyslog, syslog-ng and journald (-o short-iso) write it; without an offset it is rspamd's own log file.
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:?\d\d)? ")
# RFC 3164, section 4.1.2: no year, no zone.
_TRADITIONAL = re.compile(r"([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6})\d*)? ")
_EPOCH = re.compile(r"\[(\d{9,10})(?:\.(\d{1,3})\d*)?\] (?=\S*unbound)")  # unbound's own log file
_BIND = re.compile(r"(\d\d)-([A-Z][a-z]{2})-(\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{3}) ")  # dnstap-read
_PRIORITY = re.compile(r"<\d{1,3}>")
# RFC 5424, section 6: version, time, host, program, process, no kind of message, structured data, message.
_NEWER = re.compile(
    r'1 (\S+ \S+ \S+) (\S+) - (?:-|(?:\[[^\s"\]]+(?: [^\s="]+="(?:[^"\\]|\\.)*")*\])+) +(?:\ufeff)?(.*)'
)
# What syslogd itself writes, of BSD and of sysklogd.
_OF_SYSLOG = re.compile(r"(?:\S+ )?(?:last message repeated \d+ times?|-- MARK --)")
_DAYLESS = re.compile(r"(\d\d:\d\d:\d\d\.\d+|\[ *\d+\.\d{6}\]) ")  # dnstap -q, dmesg


class Stamps:
    """Reads the times of one file's lines, in their order. `zone` and `year` are of stamps that do not say theirs.

    `year` is that of the file's first line. Raises ValueError for a zone that is none.
    """

    def __init__(self, zone: str = "", year: int = 0) -> None:
        try:
            # UTC is there where the package tzdata is not.
            self._zone = datetime.UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone) if zone else None
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError(f"'{zone}' is no time zone; write one as UTC or Europe/Vienna") from None
        self._year = year
        self._month = 0
        self._last: tuple[tuple[int, ...], int] = ((), 0)

    def read(self, line: str) -> tuple[int, str]:
        """The time in milliseconds, and the rest of the line. Raises NoTime."""
        if line.startswith("<"):
            line = _PRIORITY.sub("", line, count=1)
            newer = _NEWER.fullmatch(line)
            if newer:
                line = f"{newer[1]}{f'[{newer[2]}]' if newer[2].isdecimal() else ''}: {newer[3]}"
        found = _ISO.match(line)
        if found:
            day, clock, part, offset = found.groups()
            milliseconds = int(float(f"0.{part[1:]}") * 1000) if part else 0
            try:
                moment = datetime.datetime.fromisoformat(f"{day}T{clock}{offset or ''}")
            except ValueError:
                raise NoTime("its time is none of any calendar") from None
            if offset:
                return int(moment.timestamp()) * 1000 + milliseconds, line[found.end() :]
            return self._local(*moment.timetuple()[:6]) + milliseconds, line[found.end() :]
        found = _TRADITIONAL.match(line)
        if found and found[1] in _MONTHS:
            month = _MONTHS[found[1]]
            if not self._year:
                raise NoTime("its time has no year; name that of the first line in 'year'")
            if self._month - month > 6:
                self._year += 1  # from December to January
            self._month = month
            rest = line[found.end() :]
            return self._local(self._year, month, *map(int, found.groups()[1:5])) + _part(found[6]), rest
        found = _EPOCH.match(line)
        if found:
            return int(found[1]) * 1000 + _part(found[2]), line[found.end() :]
        found = _BIND.match(line)
        if found and found[2] in _MONTHS:
            whole = (int(found[3]), _MONTHS[found[2]], int(found[1]), *map(int, found.groups()[3:6]))
            return self._local(*whole) + int(found[7]), line[found.end() :]
        if _DAYLESS.match(line):
            raise NoTime("its time has no date; let the program write whole times")
        raise NoTime("it does not begin with a time")

    def _local(self, *whole: int) -> int:
        if whole == self._last[0]:
            return self._last[1]
        if self._zone is None:
            raise NoTime("its time has no zone; name the zone of that host in 'zone'")
        try:
            year, month, day, hour, minute, second = whole
            moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=self._zone)
        except ValueError:
            raise NoTime("its time is none of any calendar") from None
        if moment.utcoffset() != moment.replace(fold=1).utcoffset():
            raise NoTime("its time is there twice or never, where the clocks are changed; let the host write UTC")
        self._last = whole, int(moment.timestamp()) * 1000
        return self._last[1]


def _part(digits: str | None) -> int:
    return int(digits.ljust(3, "0")[:3]) if digits else 0


class Reader:
    """What the kinds have in common. `take` says of a line whether it is a contact or only known."""

    def __init__(self) -> None:
        self.found = LogRead()

    def take(self, time: int, text: str) -> bool | None:
        """True: shows something; False: known, and shows nothing; None: unknown."""
        raise NotImplementedError

    def finish(self) -> LogRead:
        """All contacts, where they take several lines. Called once, behind the last file."""
        return self.found

    def read(self, name: str, lines: Iterable[str], window: Window, stamps: Stamps) -> None:
        """Read one file. Where its clock cannot be right, or reading raises, it is as if it had not been read."""
        whole, self.found = self.found, LogRead()
        shown: list[str] = []
        without: dict[str, tuple[int, str]] = {}
        fault = "it was not read to its end"
        try:
            fault = self._lines(lines, window, stamps, shown, without)
        finally:
            found, self.found = self.found, whole
            if fault:
                self.drop(name)
        if fault:
            whole.silences.append(Silence("", f"{name}: left out: {fault}", "set its clock by NTP, or name its zone"))
            return
        for reason, (count, first) in without.items():
            why, _, mend = reason.partition("; ")
            whole.silences.append(Silence("", f"{name}: {count} lines are no evidence: {why} ({first})", mend))
        told = found.unknown - sum(count for count, _first in without.values())
        if told:
            examples = "; ".join(shown)
            whole.silences.append(Silence("", f"{name}: {told} unknown lines ({examples})", "is it of that kind?"))
        self.keep(found)

    def _lines(
        self,
        lines: Iterable[str],
        window: Window,
        stamps: Stamps,
        shown: list[str],
        without: dict[str, tuple[int, str]],
    ) -> str:
        """Read all lines; why the file's clock cannot be right, "" where it can."""
        last = 0
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\r\n")
            if not line:
                self.found.known += 1
                continue
            try:
                time, text = stamps.read(line)
            except NoTime as error:
                self.found.unknown += 1
                count, first = without.get(str(error), (0, f"line {number}: {line[:_LONGEST]}"))
                without[str(error)] = count + 1, first
                continue
            if time > window.now + AHEAD:
                return f"line {number} is of the future, {shown_time(time)}: its clock, zone or year is wrong"
            if last - time > HOUR:
                return f"line {number} goes back from {shown_time(last)} to {shown_time(time)}: its clock jumps"
            last = time
            taken = self.take(time, text) if window.start <= time <= window.end else False
            if taken is None and _OF_SYSLOG.fullmatch(text):
                taken = False
            if taken:
                self.found.used += 1
            elif taken is False:
                self.found.known += 1
            else:
                self.found.unknown += 1
                if len(shown) < SHOWN:
                    shown.append(f"line {number}: {line[:_LONGEST]}")
        return ""

    def keep(self, found: LogRead) -> None:
        """Add what a file showed."""
        for detector, contacts in found.contacts.items():
            self.found.contacts[detector] += contacts
        for subject, counts in found.refused.items():
            self.found.refused[subject] += counts
        self.found.used += found.used
        self.found.known += found.known
        self.found.unknown += found.unknown

    def drop(self, name: str) -> None:
        """Forget what a file showed that is kept elsewhere."""


def _subject(text: str) -> int | None:
    """The key of an address, None for what is none."""
    try:
        return key_of(text.strip("[]"))
    except ValueError:
        return None


def _login(text: str) -> str | None:
    """A login as it is compared, None for what nobody could read out to a customer."""
    return text.lower() if text.isprintable() and len(text) <= LONGEST_LOGIN else None


_DAEMONS = frozenset(
    """smtpd smtp lmtp relay local virtual pipe cleanup qmgr nqmgr oqmgr pickup bounce error retry discard anvil
    postscreen dnsblog tlsproxy tlsmgr scache trivial-rewrite master postsuper postmap postalias postfix-script verify
    postlog postlogd postqueue postdrop postqmgr sendmail proxymap flush showq spawn qmqpd postfix""".split()
)
# Solaris numbers its messages, syslogd(8) there.
_SYSLOG = re.compile(r"(?:(\S+) )?([\w./-]+?)(?:\[\d+\])?: ?(?:\[ID \d+ [\w.]+\] )?(.*)")
_QUEUE = r"(?P<queue>NOQUEUE|[0-9A-Za-z]{4,})"  # short ids are hexadecimal, long ones letters and digits
_CLIENT = r"(?P<name>[^\s\[\]]*)\[(?P<address>[^\]]*)\](?::\d+)?"
_ACCEPTED = re.compile(rf"{_QUEUE}: client={_CLIENT}(?:, (?P<more>.*))?")
_REMOVED = re.compile(rf"{_QUEUE}: removed")
_LOGIN = re.compile(r"(?:^|, )sasl_username=([^,]+)")
_EARLIER = re.compile(r"orig_queue_id=([0-9A-Za-z]{4,})(?:, orig_client=.*)?")
# What header_checks(5) refuse is shown as it came, by whoever sent it: only the queue id says whose it is.
_REFUSED = re.compile(
    rf"{_QUEUE}: (?:(?P<what>milter-reject|reject): (?:[A-Z-]+ from {_CLIENT}|(?:header|body|content) .*)"
    r"|proxy-reject: \S+): (?P<reply>.*)"
)
_RECIPIENT = re.compile(r"[; ]to=<([^>]*)>")
_DELIVERY = re.compile(rf"{_QUEUE}: to=<?(?P<to>[^,>]*)>?, .*?dsn=(?P<dsn>\d\.\d+\.\d+), status=(?P<status>\w+)")
# RFC 3463: x.1.x is about the address (unknown mailbox, domain), x.7.x about security and policy (spam, blocked).
_FOR_GOOD = ("5.1.", "5.7.")
_WHY = (
    ("listed", re.compile(r"blocked using|listed (?:at|by|in)|is listed", re.IGNORECASE)),
    # A sender that is unknown to us (smtpd_reject_unlisted_sender) is answered with the same words.
    ("unknown recipient", re.compile(r"550 5\.1\.1 |550 (?!(?:5\S+ )?<[^>]*>: sender ).*user unknown", re.IGNORECASE)),
    ("relaying", re.compile(r"relay access denied", re.IGNORECASE)),
    ("spam or virus", re.compile(r"5\.7\.1 .*(?:spam|virus)", re.IGNORECASE)),
)
# Lines that have to be understood. Whatever else a daemon of Postfix says is about connections, or itself.
_TOLD = re.compile(rf"{_QUEUE}: (?:to=|client=|(?:milter-|proxy-)?reject: )")


@dataclass(slots=True)
class _Mail:
    """What became of a mail: its sender, when, and the outcomes of its recipients."""

    subject: object
    time: int
    file: str
    name: str  # the queue id with which it came in
    passed_on: bool = False  # a filter has given it back: what becomes of it is told of another id
    spam: bool = False
    done: int = 0
    refused: int = 0


class Postfix(Reader):
    """Mails by queue id. A mail failed if a milter refused it for good, or the servers of all its recipients did."""

    def __init__(self) -> None:
        super().__init__()
        self._mails: dict[tuple[str, str], _Mail] = {}  # two hosts can have the same queue id
        self._file = ""

    def read(self, name: str, lines: Iterable[str], window: Window, stamps: Stamps) -> None:
        """As in Reader."""
        self._file = name
        super().read(name, lines, window, stamps)

    def drop(self, name: str) -> None:
        """As in Reader."""
        self._mails = {place: mail for place, mail in self._mails.items() if mail.file != name}

    def take(self, time: int, text: str) -> bool | None:
        """As in Reader."""
        found = _SYSLOG.fullmatch(text)
        if not found:
            return None
        instance, _, daemon = found[2].rpartition("/")
        if not instance or daemon not in _DAEMONS:
            return False  # another program of the same host
        return self.message(time, found[1] or "", found[3])

    def message(self, time: int, host: str, text: str) -> bool | None:
        """As `take`, of what a daemon of Postfix said on a host."""
        found = _DELIVERY.match(text)
        if found:
            mail = self._mails.get((host, found["queue"]))
            if mail and found["status"] in ("sent", "bounced"):
                mail.done += 1
                mail.refused += found["status"] == "bounced" and found["dsn"].startswith(_FOR_GOOD)
            return bool(mail)
        found = _ACCEPTED.fullmatch(text)
        if found:
            more, name = found["more"] or "", found["queue"]
            login = _LOGIN.search(more)
            subject: object = _login(login[1]) if login else _subject(found["address"])
            self._judge((host, name))
            # A filter behind the queue gives a mail back with the id that it had (FILTER_README, XFORWARD_README).
            back = _EARLIER.fullmatch(more)
            earlier = self._mails.get((host, back[1])) if back else None
            if earlier:
                earlier.passed_on, subject, name = True, earlier.subject, earlier.name
            # In front of a filter (smtpd_proxy_filter) nothing has an id: what comes next is of whoever comes next.
            if subject is not None and found["queue"] != "NOQUEUE":
                self._mails[host, found["queue"]] = _Mail(subject, time, self._file, name)
            return subject is not None
        found = _REMOVED.fullmatch(text)
        if found:
            self._judge((host, found["queue"]))  # the id comes again, perhaps with a bounce, which nobody sent in
            return False
        found = _REFUSED.fullmatch(text)
        if found:
            return self._refusal(time, found, self._mails.get((host, found["queue"])))
        return None if _TOLD.match(text) else False

    def _refusal(self, time: int, found: re.Match[str], mail: _Mail | None) -> bool:
        # Not the login at the end of the line: a client can write one into its HELO.
        subject = mail.subject if mail else _subject(found["address"] or "")
        if subject is None:
            return False
        why = next((name for name, pattern in _WHY if pattern.search(found["reply"])), "other")
        self.found.refused[subject][why] += 1
        # 4.x.x may come again. A milter that refuses for good has seen spam or a virus.
        if mail and found["what"] == "milter-reject" and re.match(r"5", found["reply"]):
            mail.spam = True
        recipient = _RECIPIENT.search(found["reply"])
        if why == "unknown recipient" and recipient:
            self.found.contacts["D6"].append(Contact((subject, 0), recipient[1].lower(), time, True))
        return True

    def finish(self) -> LogRead:
        """As in Reader."""
        for place in list(self._mails):
            self._judge(place)
        return self.found

    def _judge(self, place: tuple[str, str]) -> None:
        """A mail of which nothing was decided is no contact."""
        mail = self._mails.pop(place, None)
        if mail and (mail.spam or mail.done) and not mail.passed_on:
            fail = mail.spam or mail.done == mail.refused
            self.found.contacts["D6"].append(Contact((mail.subject, 0), mail.name, mail.time, fail))


# rspamd, conf/logging.inc: what one line says of each mail; worker and module stand before it.
_VERDICT = re.compile(
    r".*?; rspamd_task_write_log: id: <(?P<id>[^>]*)>,(?: qid: <(?P<queue>[^>]*)>,)?(?: ip: (?P<address>[^,]+),)?"
    r"(?: user: (?P<login>[^,]+),)?(?: from: <[^>]*>,)? \(\w+: (?P<seen>[TFS]) \((?P<action>[a-z ]+)\): \[.*"
)
# A mail can bring such words along, in its Message-ID or sender: a line that has them twice says nothing for certain.
_VERDICTS = re.compile(r" \(\w+: [TFS] \(")
_WRITTEN = "rspamd_task_write_log: "
_RSPAMD = re.compile(r"(?:\S+ rspamd(?:\[\d+\])?: )?(?:#\d+)?\((?:[\w-]+)\) |\S+ rspamd(?:\[\d+\])?: |#\d+\([\w-]+\) ")
SPAM = ("reject", "add header", "rewrite subject", "quarantine", "discard")
NO_SPAM = ("no action",)  # greylist and soft reject: it comes again, and is judged then


class Rspamd(Reader):
    """One verdict for each mail."""

    def take(self, time: int, text: str) -> bool | None:
        """As in Reader."""
        found = _VERDICT.fullmatch(text) if text.count(_WRITTEN) == 1 else None
        if not found or len(_VERDICTS.findall(text)) != 1:
            return None if _WRITTEN in text or not _RSPAMD.match(text) else False
        login = found["login"]
        subject = _login(login) if login else _subject(found["address"] or "")
        # S: passed through with a verdict given beforehand (a virus, a rule of the operator), or not looked at.
        judged = found["action"] in SPAM or (found["action"] in NO_SPAM and found["seen"] != "S")
        if subject is None or not judged or "; csession; " in text:  # the controller: somebody teaches it
            return False
        name = found["queue"] or found["id"]
        self.found.contacts["D6"].append(Contact((subject, 0), name, time, found["action"] in SPAM))
        return True


# unbound.conf(5), log-queries: address, name, type and class; log-replies puts rcode, time, cached and size behind it.
_UNBOUND = re.compile(r"(?:\S+ )?unbound(?:\[[\d:]+\])?:? (?:\[[\d:]+\] )?(?P<level>\w+): (?P<said>.*)")
_QUERY = re.compile(r"(?P<address>[0-9a-fA-F.:]+) (?P<name>\S+) (?P<type>[A-Z0-9]+) (?:IN|CH|HS|ANY|CLASS\d+)(?: .*)?")
# BIND 9 Administrator Reference Manual, "The category Phrase", queries: client, name, class, type, flags, own address.
_NAMED = re.compile(
    r"(?:(?:\S+ )?named(?:\[\d+\])?: )?(?:queries: )?(?:info: )?client (?:@0x[0-9a-fA-F]+ )?"
    r"(?P<address>[0-9a-fA-F.:]+)#\d+(?: \(\S+\))?: (?:view \S+: )?query: (?P<name>\S+) \S+ (?P<type>[A-Z0-9]+) .*"
)
_OF_NAMED = re.compile(
    r"(?:(?:\S+ )?named(?:\[\d+\])?: |[\w-]+: (?:info|notice|warning|error|critical|debug \d+): )(?!.* query: ).*"
)
# dnsmasq(8), log-queries, with a number and the client before it for log-queries=extra. A name may have spaces.
_DNSMASQ = re.compile(r"(?:\S+ )?dnsmasq(?:-\w+)?(?:\[\d+\])?: (?:\d+ \S+ )?(?P<said>.*)")
_ASKED = re.compile(r"query\[(?P<type>[^\]]+)\] (?P<name>.+) from (?P<address>\S+)")
# dnstap-read(1): type, query address, direction, response address, protocol, length, name/class/type.
_TAP = re.compile(
    r"(?P<kind>[ACFRSTU][QR]) (?P<client>\S+?)(?::\d+)? (?:->|<-) \S+ (?:UDP|TCP|DOT|DOH|DNSCryptUDP|DNSCryptTCP) \d+b"
    r"(?: (?P<name>\S+)/IN/(?P<type>\S+))?.*"
)


class Dns(Reader):
    """MX queries of clients."""

    def take(self, time: int, text: str) -> bool | None:
        """As in Reader."""
        found = _UNBOUND.fullmatch(text)
        if found:
            query = _QUERY.fullmatch(found["said"].removeprefix("reply ")) if found["level"] in _QUERIES else None
            return self._query(time, query["address"], query["name"], query["type"]) if query else False
        found = _TAP.fullmatch(text)
        if found:
            if found["kind"] != "CQ" or not found["name"]:
                return False
            return self._query(time, found["client"], found["name"], found["type"])
        found = _NAMED.fullmatch(text)
        if found:
            return self._query(time, found["address"], found["name"], found["type"])
        found = _DNSMASQ.fullmatch(text)
        if found:
            query = _ASKED.fullmatch(found["said"])
            return self._query(time, query["address"], query["name"], query["type"]) if query else False
        return False if _OF_NAMED.fullmatch(text) else None

    def _query(self, time: int, client: str, name: str, kind: str) -> bool:
        subject = _subject(client)
        if kind != "MX" or subject is None:
            return False
        self.found.contacts["D5"].append(Contact((subject, 0), name.rstrip(".").lower(), time, False))
        return True


_QUERIES = ("info", "query", "reply")  # the two others with log-tag-queryreply

# Linux, net/netfilter/nf_log_syslog.c: the prefix of the rule, then IN=, OUT=, …; flags of TCP are words before URGP=.
_KERNEL = re.compile(r"(?:\S+ )?kernel: (?:\[ *\d+\.\d+\] ?)?(?P<prefix>.*?)IN=(?P<said>.*)")
_FIELD = re.compile(r"(SRC|DST|PROTO|DPT)=(\S+)")
# Cisco IOS, System Message Guide: list, what, protocol, source(port), destination(port), packets.
_CISCO = re.compile(
    r".*%(?:SEC|IPV6|IPV6_ACL)-6-(?:IP)?ACCESSLOGP: list \S+ (?P<what>permitted|denied) (?P<proto>\S+) "
    r"(?P<source>[0-9a-fA-F.:]+)\(\d+\)(?: \([^)]*\))? -> (?P<target>[0-9a-fA-F.:]+)\((?P<port>\d+)\).*"
)
# Junos, System Log Explorer: PFE_FW_SYSLOG_IP: interface, action (A, D, R), protocol, addresses, ports, packets.
_JUNOS = re.compile(
    r".*PFE_FW_SYSLOG_IP: (?:FW: )?\S+ +(?P<what>[ADR]) +(?P<proto>\S+) +(?P<source>[0-9.]+) +(?P<target>[0-9.]+) +"
    r"\d+ +(?P<port>\d+)\b.*"
)
# For IPv6 [memory]: the same with words before the addresses.
_JUNOS6 = re.compile(
    r".*PFE_FW_SYSLOG_IP6_TCP_UDP: (?:FW: )?\S+ +(?P<what>[ADR]) +(?P<proto>\S+) +SA (?P<source>\S+) +(?:-> +)?DA "
    r"(?P<target>\S+) +sport (?P<sport>\d+),? +dport (?P<port>\d+)\b.*"
)
_OF_FILTERS = re.compile(
    r".*(?:%[A-Z0-9_]+-\d-[A-Z0-9_]+|PFE_FW_SYSLOG_IP6?_?[A-Z_]*):|(?:\S+ )?[\w./-]+(?:\[\d+\])?: "
)
# What the filters of others say: Cisco ASA (106023, 106100, ...) and NX-OS, Arista EOS.
_NOT_READ = re.compile(r"%(?:(?:ASA|FTD)-(?:\w+-)?\d-106|ACL(?:LOG)?-\d-)")
DENIED = ("denied", "D", "R")


class Filter(Reader):
    """What a filter denied. `prefix` is that of nftables' rules that deny: their lines do not say what became of it."""

    def __init__(self, worm_ports: Iterable[int], prefix: str = "") -> None:
        super().__init__()
        self._detectors = dict.fromkeys(worm_ports, "D4") | {MAIL_PORT: "D3"}
        self._prefix = prefix

    def take(self, time: int, text: str) -> bool | None:
        """As in Reader."""
        found = _KERNEL.fullmatch(text)
        if found:
            if not self._prefix or not found["prefix"].startswith(self._prefix):
                return False
            # An ICMP error shows in brackets what it is about, which whoever sent it has chosen.
            outer = found["said"].partition("[")[0]
            said = dict(_FIELD.findall(outer))
            if " SYN " not in outer or " ACK " in outer:
                return False
            return self._denied(time, said.get("PROTO"), said.get("SRC", ""), said.get("DST", ""), said.get("DPT", "0"))
        for pattern in (_CISCO, _JUNOS, _JUNOS6):
            found = pattern.fullmatch(text)
            if found:
                if found["what"] not in DENIED:
                    return False
                return self._denied(time, found["proto"], found["source"], found["target"], found["port"])
        if "PFE_FW_SYSLOG_IP6_TCP_UDP" in text or "ACCESSLOGP" in text or _NOT_READ.search(text):
            return None  # one of these, and not understood
        return False if _OF_FILTERS.match(text) else None

    def _denied(self, time: int, proto: str | None, source: str, target: str, port: str) -> bool:
        subject, counterpart = _subject(source), _subject(target)
        detector = self._detectors.get(int(port) if port.isdecimal() and len(port) <= 5 else 0)
        if (proto or "").lower() not in ("tcp", "6") or subject is None or counterpart is None or detector is None:
            return False
        self.found.contacts[detector].append(Contact((subject, int(port)), counterpart, time, True))
        return True


# What a filter counts by element, as a rule of nftables adds it where it drops:
#   set port25 { type ipv4_addr . ipv4_addr; flags dynamic,timeout; timeout 1d; counter; }
#   tcp dport 25 tcp flags & (syn|ack) == syn update @port25 { ip saddr . ip daddr } drop
# and `nft -j list set inet TABLE port25` writes it (libnftables-json(5)). An element may have a port as its third part.


class NftSet(Filter):
    """What is in such sets. An element is as old as its timeout has run when the set was listed."""

    def read_set(self, name: str, text: str, written: int, window: Window) -> None:
        """Read a file that was written at that time, in milliseconds. It is left out whole where it is no such set."""
        found = LogRead()
        try:
            if written > window.now + AHEAD:
                raise ValueError(f"it is of the future, {shown_time(written)}")
            sets = [one["set"] for one in json.loads(text)["nftables"] if "set" in one]
            if not sets:
                raise ValueError("it has no set")
            for one in sets:
                for element in one.get("elem", ()):
                    self._element(found, element["elem"], one.get("timeout"), written, window)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            said = f"no set of nftables with timeouts and pairs of addresses ({error!r:.80})"
            mend = "write it with nft -j list set, of a set as the documentation shows"
            self.found.silences.append(Silence("", f"{name}: left out: {said}", mend))
            return
        self.keep(found)

    def _element(self, found: LogRead, element: Mapping[str, Any], timeout: Any, written: int, window: Window) -> None:
        source, target, *port = element["val"]["concat"]
        age = int(element.get("timeout", timeout)) - int(element["expires"])
        if age < 0 or len(port) > 1:
            raise ValueError(f"an element {element['val']}")
        time = written - age * 1000
        whole, self.found = self.found, found
        try:
            within = window.start <= time <= window.end and element["counter"]["packets"] > 0
            taken = within and self._denied(time, "tcp", source, target, str(port[0] if port else MAIL_PORT))
        finally:
            self.found = whole
        found.used += bool(taken)
        found.known += not taken


def open_log(path: str) -> Iterator[str]:
    """The lines of a log, compressed with gzip or not. Raises OSError, EOFError."""
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as lines:
        for line in lines:
            yield line.decode("utf-8", "replace")


def together(reads: Iterable[tuple[str, LogRead]]) -> dict[str, list[Contact]]:
    """The contacts of all logs, by detector. Of a mail that both judged, rspamd's verdict counts: it saw all of it."""
    found: dict[str, list[Contact]] = defaultdict(list)
    by_kind: Mapping[str, list[LogRead]] = defaultdict(list)
    for kind, read in reads:
        by_kind[kind].append(read)
        for detector, contacts in read.contacts.items():
            if kind != "postfix":
                found[detector] += contacts
    judged = {(one.subject, one.object) for one in found["D6"]}
    for read in by_kind["postfix"]:
        found["D6"] += [one for one in read.contacts["D6"] if (one.subject, one.object) not in judged]
    return {detector: contacts for detector, contacts in found.items() if contacts}
