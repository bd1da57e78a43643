# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Spamhaus Intelligence API: what is listed of each own block, of the largest size that it answers for.

404 means that nothing is listed, when the API itself says so; 429 means later, never that nothing is listed. Anything
that is not the API's own JSON (a login page, a proxy's error) freezes the run.

Sources: docs.spamhaus.com, SIA, "Spamhaus Intelligence REST API" (login, token, 401), "IP reputation data" (the blocks,
at most /24 and /56; limit at most 2000, no pages), "Anatomy of the data" (the fields of a record). That the body of a
404 is JSON with this code is what its users' programs rely on [memory]; Retry-After is RFC 9110 10.2.3.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import itertools
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .xbl import Answer, Doubt, Listing, Network, Ranges, checked, listing_name, prefixes_of, without

URL = "https://api.spamhaus.org"
LARGEST, SMALLEST = {4: 24, 6: 56}, {4: 32, 6: 64}
LIMIT = 2000  # records of one answer; there are no pages
BLOCKS = 65_536  # of IPv6 in one run
PAUSE = 0.2  # seconds between requests
TIMEOUT = 30.0
ATTEMPTS = 4
LONGEST_WAIT = 300.0  # seconds that one answer may make the run wait
LARGEST_ANSWER = 16 << 20
RENEW_BEFORE = 300  # seconds
_DATASETS = frozenset({"XBL", "CSS", "BCL", "SBL"})


class _Later(Exception):
    """The API wants fewer requests, or has a fault; the number of seconds is its own wish, or 0."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Expired(Exception):
    """The token is no longer good."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(slots=True)
class Api:
    """An account at the API. `sleep` is time.sleep but for tests."""

    username: str
    password: str = field(repr=False)
    url: str = URL
    pause: float = PAUSE
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    _token: str = field(default="", init=False, repr=False)
    _expires: float = field(default=0.0, init=False, repr=False)

    def ask(self, own: Sequence[str], first: Sequence[str] = ()) -> Answer:
        """Each own block of IPv4; of IPv6 too, or those with something of `first` where there are too many."""
        mine = Ranges(own)
        try:
            answer = self._ask(mine, first)
        except Doubt as doubt:
            answer = Answer("sia", frozen=str(doubt))
        return checked(answer, mine)

    def _ask(self, mine: Ranges, first: Sequence[str]) -> Answer:
        blocks, unanswered = _blocks(mine, first)
        problems = ["sia: of large IPv6 prefixes only blocks in use were asked"] if unanswered else []
        listings: dict[tuple[str, str], Listing] = {}
        blocks.reverse()
        while blocks:
            block = blocks.pop()
            try:
                records = self._listed(block)
            except _Later as later:
                problems.append(f"sia: {later}; {len(blocks) + 1} blocks were not asked, and stay as they were")
                unanswered += [block, *blocks]
                break
            found = [listing for record in records if (listing := _listing(record, block))]
            if len(records) >= LIMIT and block.prefixlen < SMALLEST[block.version]:
                blocks += block.subnets()  # its halves have less to tell
                continue
            if len(records) >= LIMIT:
                problems.append(f"sia: {block} has {LIMIT} records or more, of which the API tells no more")
                unanswered.append(block)
            for listing in found:
                known = listings.setdefault((listing.network, listing.list), listing)
                if listing.since < known.since:  # several bots at one address
                    listings[listing.network, listing.list] = listing
        return Answer("sia", tuple(listings.values()), prefixes_of(unanswered), tuple(problems))

    def _listed(self, block: Network) -> list[Mapping[str, Any]]:
        """The records of a block. Raises _Later where the API does not answer for it now."""
        path = f"/api/intel/v1/byobject/cidr/ALL/listed/live/{block.network_address}/{block.prefixlen}?limit={LIMIT}"
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                answer = self._authorized(path)
            except _Later as later:
                reason = str(later)
                wait = later.seconds or 2.0**attempt
                if wait > LONGEST_WAIT or attempt == ATTEMPTS - 1:
                    break
                self.sleep(wait)
                continue
            self.sleep(self.pause)
            records = answer.get("results", [])
            if answer.get("code") == 404:
                return []
            if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
                raise Doubt(f"sia: {self.url} answers for {block} without a list of results; is that the API?")
            return records
        raise _Later(reason)

    def _authorized(self, path: str) -> Mapping[str, Any]:
        """With a token; with a new one where the API wants that."""
        for last in (False, True):
            if time.time() > self._expires - RENEW_BEFORE:
                self._login()
            try:
                return self._request(path, {"Authorization": f"Bearer {self._token}"})
            except _Expired:
                self._expires = 0.0
                if last:
                    break
        raise Doubt(f"sia: {self.url} refuses the token that it has just given; may this account use the API?")

    def _login(self) -> None:
        login = json.dumps({"username": self.username, "password": self.password, "realm": "intel"}).encode()
        try:
            answer = self._request("/api/v1/login", {"Content-Type": "application/json"}, login)
        except _Expired:
            raise Doubt(f"sia: {self.url} refuses the login; correct the user name or the password") from None
        except _Later as later:
            raise Doubt(f"sia: no login: {later}") from None
        token, expires = answer.get("token"), answer.get("expires")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise Doubt(f"sia: {self.url} gives no token for the login; is that the API?")
        if not isinstance(expires, int | float):
            raise Doubt(f"sia: {self.url} does not say how long the token is good; is that the API?")
        # A clock that is wrong must not make a login of every request: what has come is good for a while.
        self._token, self._expires = token, max(float(expires), time.time() + 2 * RENEW_BEFORE)

    def _request(self, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Mapping[str, Any]:
        """The JSON object of an answer 200 or 404. Raises _Expired, _Later, Doubt; none of them says a secret."""
        address = urllib.parse.urlsplit(self.url)
        if address.scheme != "https" and address.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Doubt(f"sia: {address.scheme}://{address.hostname} would see the password; write https://")
        request = urllib.request.Request(self.url.rstrip("/") + path, body, dict(headers))
        opener = urllib.request.build_opener(_NoRedirect)
        wish = 0.0
        try:
            try:
                answer = opener.open(request, timeout=TIMEOUT)
            except urllib.error.HTTPError as error:  # an answer as well, which may be cut off as any
                answer, wish = error, _seconds(error.headers.get("Retry-After", ""))
            with answer:
                status, text = answer.status, answer.read(LARGEST_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise _Later(f"{address.hostname} does not answer ({type(reason).__name__})") from None
        except UnicodeError:  # a name that is none, or a path with other letters than ASCII
            raise Doubt(f"sia: {self.url} is no address that can be asked; write it as {URL}") from None
        if status == 401:
            raise _Expired
        if status == 429 or status >= 500:
            raise _Later(f"{address.hostname} answers {status}", wish)
        if status not in (200, 404):
            raise Doubt(f"sia: {address.hostname} answers {status}; correct the URL, or ask the maker of the API")
        try:
            content = json.loads(text) if len(text) <= LARGEST_ANSWER else None
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.get("code", status) != status:
            raise Doubt(f"sia: {address.hostname} answers {status} with what is not its JSON; is that a proxy?")
        if status == 404 and content.get("code") != 404:
            raise Doubt(f"sia: {address.hostname} answers 404 without saying that nothing is listed; correct the URL")
        return content


def _seconds(text: str) -> float:
    """Retry-After: seconds, or a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _blocks(mine: Ranges, first: Sequence[str]) -> tuple[list[Network], list[Network]]:
    """The blocks to ask for, those with something of `first` before others; and what is too much to ask for."""
    urgent = Ranges(first)
    blocks: list[Network] = []
    large: list[Network] = []
    for network in mine.networks:
        if network.version == 6 and 1 << max(0, LARGEST[6] - network.prefixlen) > BLOCKS:
            large.append(network)
        else:
            blocks += _parts(network)
    within = Ranges(str(one) for one in large)
    used = {part for one in urgent.of(6) if one in within for part in itertools.islice(_parts(_widened(one)), BLOCKS)}
    blocks += sorted(used)
    blocks.sort(key=lambda block: not urgent.meets(block))
    return blocks, list(without(large, used))


def _widened(network: Network) -> Network:
    return network.supernet(new_prefix=min(network.prefixlen, LARGEST[network.version]))


def _parts(network: Network) -> Iterator[Network]:
    """In blocks that the API answers for; what is smaller stays what it is."""
    return network.subnets(new_prefix=max(network.prefixlen, LARGEST[network.version]))


def _listing(record: Mapping[str, Any], block: Network) -> Listing | None:
    """One record; None for one that has ended. Raises Doubt for what is no record of this block."""
    try:
        address = ipaddress.ip_network(record["ipaddress"])
        since, until = record.get("listed", 0), record.get("valid_until")
        known = record["dataset"] in _DATASETS and isinstance(since, int) and isinstance(until, int | None)
        if not known or since < 0 or not Ranges([str(block)]).meets(address):
            raise ValueError
    except (KeyError, ValueError, TypeError):
        raise Doubt(
            f"sia: a record for {block} is not understood, or is about another block; is that the API?"
        ) from None
    if until is not None and until < time.time():
        return None
    if address.version == 6 and address.prefixlen > 64:
        address = address.supernet(new_prefix=64)
    seen = {"heuristic": "", "botname": "", "dstport": "port "}
    words = [sign + str(record[key]) for key, sign in seen.items() if isinstance(record.get(key), str | int)]
    detail = " ".join(word for word in words if word.isprintable())[:200]
    return Listing(listing_name(address), record["dataset"], since=since * 1000, detail=detail)
