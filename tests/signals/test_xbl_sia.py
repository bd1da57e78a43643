# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Spamhaus Intelligence API, played by a server on the loopback: what its answers mean, and what is none."""

from __future__ import annotations

import email.utils
import http.server
import ipaddress
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.signals import xbl_sia
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl import Answer, Listing
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_sia import Api

PASSWORD = "correct horse"
HTML = "<!DOCTYPE html><title>Log in</title>"
NOTHING = (404, {"code": 404, "message": "no results"}, {})
Response = tuple[int, object, dict[str, str]]
Answers = Callable[[str], Response]  # by "address/length"


@dataclass
class Played:
    """What was asked, and which token is good."""

    url: str
    asked: list[str] = field(default_factory=list)
    logins: list[dict[str, str]] = field(default_factory=list)
    good_for: int = 1_000_000  # requests that a token is good for
    used: int = 0
    login: Response | None = None


@contextmanager
def api(answers: Answers) -> Iterator[Played]:
    """The server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            login = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            played.logins.append(login)
            played.used = 0
            good = {"code": 200, "token": f"token{len(played.logins)}", "expires": int(time.time()) + 86400}
            self.say(*(played.login or (200, good, {})))

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            assert path.startswith("/api/intel/v1/byobject/cidr/ALL/listed/live/"), path
            assert query == f"limit={xbl_sia.LIMIT}"
            block = "/".join(path.split("/")[-2:])
            played.used += 1
            if self.headers["Authorization"] != f"Bearer token{len(played.logins)}" or played.used > played.good_for:
                self.say(401, {"code": 401, "message": "Unauthorized"}, {})
                return
            played.asked.append(block)
            self.say(*answers(block))

        def say(self, status: int, body: object, headers: dict[str, str]) -> None:
            octets = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        played = Played(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield played
        finally:
            server.shutdown()
            thread.join()


def account(played: Played, waits: list[float] | None = None) -> Api:
    return Api("abuse@example.net", PASSWORD, played.url, 0.0, (waits if waits is not None else []).append)


def ask(answers: Answers, own: list[str], first: list[str] | None = None) -> Answer:
    with api(answers) as played:
        return account(played).ask(own, first or [])


def record(address: str, **more: object) -> dict[str, object]:
    now = int(time.time())
    return {"ipaddress": address, "dataset": "XBL", "listed": now - 60, "valid_until": now + 9999, **more}


def found(*records: dict[str, object]) -> Response:
    return 200, {"code": 200, "results": list(records)}, {}


def test_each_block_is_asked_and_what_is_listed_is_told() -> None:
    listed = {"198.51.100.0/24": found(
        record("198.51.100.7", listed=1_700_000_000, heuristic="SPAMBOT", botname="gamut", dstport=25, subject="x"),
        record("198.51.100.7", listed=1_600_000_000, botname="other"),
        record("198.51.100.8", dataset="CSS", listed=1_700_000_001),
        record("198.51.100.9", valid_until=1_700_000_000),  # over
    )}  # fmt: skip
    with api(lambda block: listed.get(block, NOTHING)) as played:
        answer = account(played).ask(
            ["198.51.100.0/24", "203.0.113.0/24", "192.0.2.64/26", "2001:db8:0:200::/55"], ["192.0.2.65/32"]
        )
    assert played.asked[0] == "192.0.2.64/26"
    rest = ["198.51.100.0/24", "203.0.113.0/24", "2001:db8:0:200::/56", "2001:db8:0:300::/56"]
    assert played.asked[1:] == rest
    assert played.logins == [{"username": "abuse@example.net", "password": PASSWORD, "realm": "intel"}]
    assert not answer.frozen
    assert not answer.unanswered
    assert set(answer.listings) == {
        Listing("198.51.100.7", "XBL", "", 1_600_000_000_000, "other"),
        Listing("198.51.100.8", "CSS", "", 1_700_000_001_000),
    }


def test_404_of_the_api_means_that_nothing_is_listed() -> None:
    answer = ask(lambda _: NOTHING, ["192.0.2.0/24"])
    assert answer == Answer("sia")


@pytest.mark.parametrize(
    "response",
    [
        (200, HTML, {}),
        (404, HTML, {}),
        (404, {"message": "no such page"}, {}),
        (200, '{"code": 200, "results": [', {}),
        (200, [], {}),
        (200, {"code": 200, "results": "none"}, {}),
        (200, {"code": 200, "results": [7]}, {}),
        (200, {"code": 401, "results": []}, {}),
        (403, HTML, {}),
        (302, HTML, {"Location": "/login"}),
        found({"ipaddress": "192.0.2.7"}),
        found(record("198.51.100.7")),
        found(record("192.0.2.7", dataset="PERFECT")),
        found(record("192.0.2.7", listed="yesterday")),
        found(record("192.0.2.700")),
        found(record("192.0.2.7", listed=-(10**30))),
        (200, "[" * 100_000, {}),
    ],
    ids=lambda one: f"{one[0]} {str(one[1])[:40]}",
)
def test_an_api_that_answers_html_or_other_nonsense_freezes(response: Response) -> None:
    good = {"198.51.100.0/24": found(record("198.51.100.7"))}
    answer = ask(lambda block: good.get(block, response), ["198.51.100.0/24", "192.0.2.0/24"])
    assert answer.frozen
    assert answer.listings == ()
    assert answer.unanswered == ("192.0.2.0/24", "198.51.100.0/24")


def test_429_is_waited_for_and_is_not_clean() -> None:
    responses = iter([(429, HTML, {"Retry-After": "7"}), (429, HTML, {}), found(record("192.0.2.7"))])
    waits: list[float] = []
    with api(lambda _: next(responses)) as played:
        answer = account(played, waits).ask(["192.0.2.0/24"])
    assert [wait for wait in waits if wait] == [7.0, 2.0]
    assert [one.network for one in answer.listings] == ["192.0.2.7"]


def test_what_429_leaves_unasked_is_neither_listed_nor_delisted() -> None:
    good = {"192.0.2.0/24": found(record("192.0.2.7"))}
    with api(lambda block: good.get(block, (429, HTML, {"Retry-After": "86400"}))) as played:
        answer = account(played).ask(["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"])
    assert not answer.frozen
    assert [one.network for one in answer.listings] == ["192.0.2.7"]
    assert answer.unanswered == ("198.51.100.0/24", "203.0.113.0/24")
    assert "2 blocks were not asked" in answer.problems[0]
    assert played.asked == ["192.0.2.0/24", "198.51.100.0/24"]  # a day is too long to wait


@pytest.mark.parametrize("status", [500, 503])
def test_a_fault_of_the_api_is_not_clean(status: int) -> None:
    answer = ask(lambda _: (status, HTML, {}), ["192.0.2.0/24"])
    assert answer.unanswered == ("192.0.2.0/24",)
    assert answer.problems


@pytest.mark.parametrize("wish", ["never", "", "9" * 400, "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_a_wish_that_is_none_is_not_waited_for(wish: str) -> None:
    waits: list[float] = []
    with api(lambda _: (429, HTML, {"Retry-After": wish})) as played:
        assert account(played, waits).ask(["192.0.2.0/24"]).unanswered == ("192.0.2.0/24",)
    assert max(waits, default=0) <= 4


def test_a_date_in_retry_after_is_waited_for() -> None:
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    responses = iter([(429, HTML, {"Retry-After": later}), NOTHING])
    waits: list[float] = []
    with api(lambda _: next(responses)) as played:
        assert account(played, waits).ask(["192.0.2.0/24"]) == Answer("sia")
    assert 90 < max(waits) <= 100


def test_a_token_that_has_expired_is_renewed() -> None:
    with api(lambda block: found(record("198.51.100.7")) if block.startswith("198.51.100.") else NOTHING) as played:
        played.good_for = 1
        answer = account(played).ask(["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"])
    assert (len(played.logins), len(played.asked)) == (3, 3)
    assert [one.network for one in answer.listings] == ["198.51.100.7"]
    assert not answer.unanswered


@pytest.mark.parametrize(
    "login",
    [
        (401, {"code": 401, "message": "Authentication failed"}, {}),
        (200, HTML, {}),
        (200, {"code": 200}, {}),
        (200, {"code": 200, "token": "a\r\nb", "expires": 4102444800}, {}),
        (200, {"code": 200, "token": "a"}, {}),
        (429, HTML, {}),
        (302, "", {"Location": "http://127.0.0.1:1/"}),
    ],
    ids=lambda one: f"{one[0]} {str(one[1])[:40]}",
)
def test_a_login_that_fails_freezes_and_shows_no_secret(login: Response) -> None:
    with api(lambda _: NOTHING) as played:
        played.login = login
        source = account(played)
        answer = source.ask(["192.0.2.0/24"])
    assert answer.frozen
    assert not played.asked
    assert PASSWORD not in repr(source) + repr(answer)
    assert "token" not in repr(source)


def test_a_token_that_is_never_good_freezes() -> None:
    with api(lambda _: NOTHING) as played:
        played.good_for = 0
        answer = account(played).ask(["192.0.2.0/24"])
    assert "refuses the token" in answer.frozen


def test_nobody_but_the_api_sees_the_password() -> None:
    assert "https" in Api("abuse@example.net", PASSWORD, "http://192.0.2.1").ask(["192.0.2.0/24"]).frozen
    assert "does not answer" in Api("abuse@example.net", PASSWORD, "http://127.0.0.1:1").ask(["192.0.2.0/24"]).frozen


@pytest.mark.parametrize("status", [200, 429, 503])
def test_an_answer_that_is_cut_off_is_not_clean(status: int) -> None:
    answer = ask(lambda _: (status, "", {"Transfer-Encoding": "chunked"}), ["192.0.2.0/24"])
    assert (answer.listings, answer.unanswered) == ((), ("192.0.2.0/24",))
    assert answer.problems


@pytest.mark.parametrize("url", ["https://api..example", "http://127.0.0.1/\u00fc"])
def test_an_address_that_nobody_can_ask_is_told(url: str) -> None:
    assert url in Api("abuse@example.net", PASSWORD, url).ask(["192.0.2.0/24"]).frozen


def test_more_records_than_the_limit_are_asked_for_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xbl_sia, "LIMIT", 3)
    listed = ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.200", "192.0.2.9", "192.0.2.9", "192.0.2.9"]

    def answers(block: str) -> Response:
        within = [one for one in listed if ipaddress.ip_address(one) in ipaddress.ip_network(block)]
        return found(*(record(one) for one in within[:3])) if within else NOTHING

    answer = ask(answers, ["192.0.2.0/24"])
    assert sorted(one.network for one in answer.listings) == ["192.0.2.1", "192.0.2.2", "192.0.2.200", "192.0.2.9"]
    assert answer.unanswered == ("192.0.2.9/32",)  # three bots at one address, or more: told, and never called complete
    assert "192.0.2.9/32 has 3 records or more" in answer.problems[0]


def test_of_large_ipv6_prefixes_the_blocks_in_use_are_asked() -> None:
    listed = {"2001:db8:5:1200::/56": found(record("2001:db8:5:1234::25"), record("2001:db8:5:1234::26"))}
    with api(lambda block: listed.get(block, NOTHING)) as played:
        answer = account(played).ask(["2001:db8::/32"], ["2001:db8:5:1234::/64", "2001:db8:6::/48", "2001:db9::/64"])
    assert len(played.asked) == 1 + 256
    assert answer.listings[0].network == "2001:db8:5:1234::/64"
    assert len(answer.listings) == 1
    assert "2001:db8:7::/48" in answer.unanswered
    assert "2001:db8:5:1200::/56" not in answer.unanswered
    assert answer.problems
