# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An nftables rule, word by word: its tests, verdicts and side effects. Grammar: nft(8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..filters import DENY, GOTO, JUMP, PERMIT, RETURN, UNKNOWN
from ._nftables_parts import ANY, Flow, Map, Narrow, Part, Rewrite, Selector, Test, Value, Verdict
from ._nftables_selectors import EXISTS, SELECTORS, address_value, masked_value, ordered_value, read_element, read_value
from ._nftables_text import Chain, Rule, Table, Token, braced, plain

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
            elif word in SELECTORS or word in _BARE_META or word.startswith("@"):
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
        if self.peek() not in SELECTORS or "map" not in self.words[self.at :]:
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
            if self.peek(-1) in SELECTORS:
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
                self.parts.append(Test((SELECTORS["meta"]["l4proto"],), (((6, 6, -1),),)))
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
                return SELECTORS["th"].get(_RAW.get((offset, length), ""), raw)
            return _OPAQUE
        if word in _BARE_META:
            return SELECTORS["meta"].get(word, _OPAQUE)
        if word == "fib":
            return self.fib()
        if word in ("numgen", "jhash", "symhash"):  # jhash ip saddr . tcp dport mod 2 seed 0x1 offset 5
            while self.peek() not in ("mod", ""):
                self.at += 1
            self.at += 2
            while self.peek() in ("seed", "offset"):
                self.at += 2
            return _OPAQUE
        if word not in SELECTORS:
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
            if self.peek() not in EXISTS and self.peek() not in _OPERATORS and self.peek(1):
                self.at += 1
        routing = word == "rt" and key in ("type", "nexthdr", "seg-left", "hdrlength")
        if routing or word in ("hbh", "dst", "srh", "mh"):
            return Selector("opaque", family=6)
        return SELECTORS[word].get(key, _OPAQUE)

    def fib(self) -> Selector:
        """fib saddr . iif oif: the flags, then what is looked up."""
        flags = [self.take()]
        while self.peek() == ".":
            self.at += 1
            flags.append(self.take())
        result = self.take()
        # `check` is what nft lists instead of `oif` since 1.1.4.
        strict = set(flags) == {"saddr", "iif"} and result in ("oif", "oifname", "check")
        return Selector("source-check" if strict else "opaque", bits=32, names=EXISTS)

    def assignment(self, selector: Selector) -> None:
        """`meta mark set 1`, `ip dscp set cs1`: what it changes in the packet, and whether it can fail."""
        computed = False
        while True:  # meta mark & 0xff | 0x100, ip saddr . tcp dport map { … }
            if self.peek() in ("{", "("):
                self.at = self.closing() + 1
            elif self.peek() in SELECTORS or self.peek() in _BARE_META or self.peek().startswith("@"):
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
        value = read_value(first, "".join(words))
        if mask != -1:
            value = masked_value(value, mask)
        if operator in ("<", ">", "<=", ">="):
            value = ordered_value(operator, value)
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
            value = read_value(selector, word)
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
            ends = ordered_value(operator, (value, value, -1))
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
            elements.append(values if mask == -1 else tuple(masked_value(value, mask) for value in values))
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
_STARTS = (SELECTORS.keys() | _STATEMENTS | _VERDICTS.keys() | _BARE_META) - {"set"}


def parts_of(table: Table, chain: Chain, rule: Rule, known: dict[tuple[object, ...], list[Part]]) -> list[Part]:
    """What a rule asks and does. Rules of a table that differ in the addresses they begin with are read once."""
    words = [word for word, _ in rule.tokens]
    own: list[Part] = []
    at = 0
    while len(words) > at + 3 and words[at] in ("ip", "ip6") and words[at + 1] in ("saddr", "daddr"):
        selector = SELECTORS[words[at]][words[at + 1]]
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
    return tuple(read_element(selector, part) for selector, part in zip(selectors, parts, strict=True))
