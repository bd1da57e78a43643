"""CoA against the real FreeRADIUS, and against a server that forges, garbles and mistakes its answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.doc_fragments.identity import ModuleDocFragment as Identity
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals import coa, coa_service
from ansible_collections.isp.hardening.plugins.module_utils.signals.coa import (
    ACKNOWLEDGED,
    REFUSED,
    SILENT,
    Server,
    Target,
    change_filter,
    disconnect,
    read_answer,
    request,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.ledger import Ledger, Refused
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import HOUR, Action, Limits, Protected
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Case
from ansible_collections.isp.hardening.plugins.modules import radius_quarantine

from .box import Box, box

SECRET = "only-the-two-of-us"
ALICE = Target("alice@example.net", "0001", "192.0.2.1", "bng1")
LIBRARY = Path(coa.__file__).parent
NOW = 1_790_000_000_000
PACKAGE = "ansible_collections/isp/hardening/plugins/module_utils/signals"

# `alice` has a session with the id 0001; `bob` gets no answer; `carol` may only be disconnected.
RADIUSD = """
prefix = /usr
logdir = /box/raddb
run_dir = /box/raddb
libdir = /usr/lib/freeradius
raddbdir = /box/raddb
log {
	destination = stdout
}
client signals {
	ipaddr = 127.0.0.1
	secret = only-the-two-of-us
	require_message_authenticator = yes
}
modules {
	always ok {
		rcode = ok
	}
	always reject {
		rcode = reject
	}
}
server coa {
	listen {
		type = coa
		ipaddr = 127.0.0.1
		port = 3799
	}
	recv-coa {
		if (&User-Name == "bob@example.net") {
			update control {
				Response-Packet-Type := Do-Not-Respond
			}
			ok
		}
		elsif (&User-Name == "carol@example.net" && &Filter-Id) {
			update reply {
				Error-Cause := Unsupported-Attribute
			}
			reject
		}
		elsif (&Acct-Session-Id == "0001" && &NAS-IP-Address == 192.0.2.1) {
			ok
		}
		else {
			update reply {
				Error-Cause := Session-Context-Not-Found
			}
			reject
		}
	}
	send-coa {
		ok
	}
}
"""
START = """
cd /box && freeradius -d /box/raddb -X -f >/box/radius.log 2>&1 &
for _ in $(seq 100); do grep -q 'Ready to process' /box/radius.log 2>/dev/null && exit 0; sleep 0.1; done
tail -5 /box/radius.log; exit 1
"""


@pytest.fixture(scope="module")
def radius(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """FreeRADIUS as an access server, in a box that has our code too."""
    directory = tmp_path_factory.mktemp("radius")
    with box(directory) as made:
        (directory / "raddb").mkdir()
        (directory / "raddb" / "radiusd.conf").write_text(RADIUSD)
        (directory / PACKAGE).mkdir(parents=True)
        for file in LIBRARY.glob("*.py"):
            shutil.copy(file, directory / PACKAGE / file.name)
        made.run(START)
        yield made


def inside(radius: Box, code: str) -> list[object]:
    """What the code prints inside, a line of JSON each."""
    name = PACKAGE.replace("/", ".")
    head = f"import json\nfrom {name}.coa import *\nfrom {name} import coa, coa_service, ledger, limits, records\n"
    (radius.directory / "code.py").write_text(head + code)
    done = radius.run("PYTHONPATH=/box python3 /box/code.py", check=False)
    assert done.returncode == 0, done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_coa_ack_nak_silence_are_three_states(radius: Box) -> None:
    code = """
def tell(user, session="0001", **changes):
    server = Server(**{"address": "127.0.0.1", "secret": "only-the-two-of-us", "waits": (0.3, 0.3)} | changes)
    target = Target(user + "@example.net", session, "192.0.2.1")
    for answer in (change_filter(server, target, "quarantine"), disconnect(server, target)):
        print(json.dumps([answer.state, answer.cause]))
tell("alice")
tell("alice", "0002")
tell("carol")
tell("bob")
tell("alice", secret="another")
tell("alice", port=3798)
"""
    found = inside(radius, code)
    ack, no_session, unsupported, silent = [ACKNOWLEDGED, 0], [REFUSED, 503], [REFUSED, 401], [SILENT, 0]
    assert found == [ack, ack, no_session, no_session, unsupported, ack, *[silent] * 6]


def test_radclient_makes_the_same_packet(radius: Box) -> None:
    code = """
import socket, subprocess
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind(("127.0.0.1", 0))
    udp.settimeout(5)
    said = "Message-Authenticator=0x00,NAS-IP-Address=192.0.2.1,User-Name=alice@example.net,"
    said += "Acct-Session-Id=0001,NAS-Identifier=bng1,Filter-Id=quarantine"
    command = ["radclient", "-r1", "-t1", f"127.0.0.1:{udp.getsockname()[1]}", "coa", "only-the-two-of-us"]
    subprocess.run(command, input=said, text=True, capture_output=True)
    theirs = udp.recv(4096)
target = Target("alice@example.net", "0001", "192.0.2.1", "bng1")
asked = [*coa.identify(target), (coa.FILTER_ID, b"quarantine")]
ours = coa.request(coa.COA, theirs[1], asked, b"only-the-two-of-us")
print(json.dumps([theirs.hex(), ours.hex()]))
"""
    ((theirs, ours),) = inside(radius, code)  # type: ignore[misc]
    assert theirs == ours


def test_the_service_asks_undoes_when_the_time_is_over_and_repeats_nothing(radius: Box) -> None:
    code = """
import time
from pathlib import Path
never = [{"prefix": "192.0.2.0/24", "reason": "own servers"}]
data = {"state": "/box/q/state.json", "audit": "/box/q/audit", "sessions": "/box/q/sessions.json", "most": 9}
data |= {"never": never, "quarantine": "quarantine", "normal": "normal", "disconnect": True}
data["servers"] = [{"address": "192.0.2.1", "secret": "only-the-two-of-us", "waits": [0.3]}]
Path("/box/radius.json").write_text(json.dumps(data))
books, radius = coa_service.opened("/box/radius.json")
# The access server is the one of this box, whatever its address in the accounting.
radius.settings.servers["192.0.2.1"] = Server("127.0.0.1", "only-the-two-of-us", waits=(0.3,))
people = {"alice": "0001", "bob": "0001", "carol": "0001", "dave": "0009"}
targets = {one: [Target(f"{one}@example.net", session, "192.0.2.1")] for one, session in people.items()}
cases = [
    records.Case(one, one, (f"203.0.113.{number}/32",), ("D2",), 0) for number, one in enumerate(people, start=1)
]
bounds = limits.Limits("quarantine", 9000, books.never, ttl=limits.HOUR, dry_run=False)
now = ledger.clock()
asker = coa_service.Radius(radius.settings, targets)
def tell(outcome):
    print(json.dumps({one.key: one.state for one in outcome.change.sessions}))
tell(books.apply(asker, cases, bounds, check=True, now=now))
tell(books.apply(asker, cases, bounds, now=now))
tell(books.apply(asker, cases, bounds, now=now + 1))
tell(books.reconcile(radius, now=now + 2))
tell(books.release(radius, ["alice"], "jane", "is clean", now=now + 3))
tell(books.reconcile(radius, now=now + limits.HOUR + 4))
print(json.dumps([one["target"]["user_name"] for one in json.loads(Path(data["sessions"]).read_text())["held"]]))
log = [json.loads(line) for line in Path(data["audit"]).read_text().splitlines()]
print(json.dumps([f"{one['what']} {one['key']}" for one in log]))
"""
    check, first, second, third, by_hand, over, left, log = inside(radius, code)
    assert set(check) == {"alice", "bob", "carol", "dave"}  # type: ignore[call-overload]
    assert first == {"alice": ACKNOWLEDGED, "bob": SILENT, "carol": "ended", "dave": REFUSED}
    assert (second, third) == ({}, {}), "silence is asked again, and is no change while it lasts"
    assert by_hand == {"alice": "released"}
    # Silence may have been the answer that was lost: the normal filter is asked for too, and the session stays known.
    assert over == {"bob": SILENT}
    assert left == ["bob@example.net"]
    assert log[:4] == ["add alice", "add bob", "add carol", "add dave"]  # type: ignore[index]
    assert [line for line in log if line.startswith(("release", "expire"))] == [  # type: ignore[attr-defined]
        "release alice",
        "expire bob",
        "expire carol",
        "expire dave",
    ]
    filters = [line for line in (radius.directory / "radius.log").read_text().splitlines() if "Filter-Id =" in line]
    assert sum('"normal"' in line for line in filters) == 2


# -- a server that lies ------------------------------------------------------------------------------------------


def answer(asked: bytes, code: int = coa.COA + 1, body: bytes = b"", secret: str = SECRET) -> bytes:
    head = struct.pack("!BBH", code, asked[1], 20 + len(body))
    return head + coa._md5(head + asked[4:20] + body + secret.encode()) + body


def nak(asked: bytes, cause: int) -> bytes:
    return answer(asked, coa.COA + 2, coa._packed([(coa.ERROR_CAUSE, struct.pack("!I", cause))]))


Answers = Callable[[bytes], list[bytes]]


@pytest.fixture
def server() -> Iterator[Callable[[Answers], Server]]:
    """`server(answers)`: an access server that sends these packets for a request."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        threads = []

        def start(answers: Answers) -> Server:
            def serve() -> None:
                while True:
                    asked, peer = udp.recvfrom(4096)
                    if asked == b"end":
                        return
                    for packet in answers(asked):
                        udp.sendto(packet, peer)

            threads.append(threading.Thread(target=serve))
            threads[-1].start()
            return Server("127.0.0.1", SECRET, udp.getsockname()[1], (0.2, 0.2))

        yield start
        for thread in threads:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", udp.getsockname())
            thread.join()


def flipped(packet: bytes, place: int) -> bytes:
    return packet[:place] + bytes((packet[place] ^ 1,)) + packet[place + 1 :]


@pytest.mark.parametrize(
    ("answers", "state", "cause"),
    [
        (lambda a: [answer(a)], ACKNOWLEDGED, 0),
        (lambda a: [answer(a) + b"padding"], ACKNOWLEDGED, 0),
        (lambda a: [nak(a, 503)], REFUSED, 503),
        (lambda a: [nak(a, 999)], REFUSED, 999),
        (lambda a: [answer(a, coa.COA + 2)], REFUSED, 0),
        (lambda a: [answer(a, secret="guessed")], SILENT, 0),
        (lambda a: [flipped(answer(a), 10)], SILENT, 0),
        (lambda a: [flipped(answer(a), 1)], SILENT, 0),
        (lambda a: [answer(a, coa.DISCONNECT + 1)], SILENT, 0),
        (lambda a: [answer(a, coa.COA)], SILENT, 0),
        (lambda a: [a], SILENT, 0),
        (lambda a: [answer(a)[:19], b"", b"<html>"], SILENT, 0),
        (lambda a: [answer(a, body=b"\x50\x12" + bytes(16))], SILENT, 0),
        (lambda a: [answer(a, body=b"\x50\x01")], SILENT, 0),
        (lambda a: [answer(a, secret="guessed"), nak(a, 504)], REFUSED, 504),
        (lambda a: [flipped(nak(a, 504), 23), answer(a)], ACKNOWLEDGED, 0),
    ],
)
def test_only_what_proves_itself_is_an_answer(
    server: Callable[[Answers], Server], answers: Answers, state: str, cause: int
) -> None:
    found = change_filter(server(answers), ALICE, "quarantine")
    assert (found.state, found.cause) == (state, cause)
    assert SECRET not in repr(found)


def test_tries_are_bounded_and_alike(server: Callable[[Answers], Server]) -> None:
    seen: list[bytes] = []

    def answers(asked: bytes) -> list[bytes]:
        seen.append(asked)
        return []

    found = disconnect(server(answers), ALICE)
    assert found.state == SILENT
    assert len(seen) == 2
    assert len(set(seen)) == 1, "a retransmission is the same packet (RFC 5176, 2.3)"


def test_no_text_has_the_secret() -> None:
    secret = Server("192.0.2.1", SECRET)
    assert SECRET not in f"{secret!r} {secret}"
    for data in ({"servers": [{"address": "x", "secret": SECRET}]}, {"servers": [{"secret": SECRET}]}):
        with pytest.raises(ValueError, match=r"x|address") as told:
            coa_service.read_settings(json.dumps(data))
        assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"disconnect": "false"}, "neither true nor false"),
        ({"port": 70_000}, "192.0.2.1: write a port"),
        ({"waits": []}, "192.0.2.1: write a port"),
        ({"waits": [-1]}, "192.0.2.1: write a port"),
        ({"waits": [float("inf")]}, "192.0.2.1: write a port"),
    ],
)
def test_settings_that_would_stop_the_service_or_throw_out_are_refused(change: dict[str, object], said: str) -> None:
    data = {name: name for name in ("state", "audit", "sessions", "quarantine", "normal")}
    access = {"address": "192.0.2.1", "secret": SECRET} | change
    never = [{"prefix": "192.0.2.0/24", "reason": "own servers"}]
    sound: dict[str, object] = data | {"never": never, "most": 4, "disconnect": False, "servers": [access]}
    with pytest.raises(ValueError, match=said):
        coa_service.read_settings(json.dumps(sound | {"disconnect": change.get("disconnect", False)}))


def test_what_was_asked_before_a_crash_is_undone_all_the_same(tmp_path: Path) -> None:
    held = tmp_path / "sessions.json"
    seen: list[str] = []

    class Crash(Exception):
        pass

    class Books(Ledger):
        def note(self, now: int, what: str, **fields: object) -> None:
            seen.append(json.loads(held.read_text())["held"][0]["state"])
            raise Crash

    access = {"192.0.2.1": Server("127.0.0.1", SECRET, 1, (0.01,))}
    asker = coa_service.Radius(coa_service.Settings(str(held), "walled", "open", False, access), {"c1": [ALICE]})
    action = Action("c1", "alice", ("203.0.113.7/32",), 0, 1, "", (), "")
    with pytest.raises(Crash):
        asker.enforce([action], 0, Books(str(tmp_path / "state"), str(tmp_path / "audit"), 1, ()), [action])
    assert seen == [SILENT], "the file says so before anybody was asked"
    again = coa_service.Radius(asker.settings)
    again.enforce([], 2, Ledger(str(tmp_path / "state"), str(tmp_path / "audit"), 1, ()), [])
    assert "normal filter: 127.0.0.1 port 1 said nothing" in (tmp_path / "audit").read_text()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("alice", "", "192.0.2.1"), "no Acct-Session-Id"),
        (Target("", "0001", "192.0.2.1"), "no User-Name"),
        (Target("alice", "0001", ""), "no address of an access server"),
        (Target("alice", "0001", "bng1.example.net"), "no address of an access server"),
        (Target("a" * 254, "0001", "192.0.2.1"), "254 octets"),
    ],
)
def test_a_session_that_cannot_be_named_is_not_asked_about(target: Target, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        change_filter(Server("127.0.0.1", SECRET, 1, (0.1,)), target, "quarantine")


def test_cases_without_a_session_to_ask_about_are_told() -> None:
    servers = {"192.0.2.1"}
    assert coa_service.targets_of([ALICE], servers) == ((ALICE,), "")
    assert "no session" in coa_service.targets_of([], servers)[1]
    assert "192.0.2.9" in coa_service.targets_of([ALICE, Target("a", "2", "192.0.2.9")], servers)[1]
    assert "Acct-Session-Id" in coa_service.targets_of([Target("a", "", "192.0.2.1")], servers)[1]


# -- the module ------------------------------------------------------------------------------------------------------

DETAIL = """{when}
	Acct-Status-Type = {status}
	Acct-Session-Id = "{session}"
	User-Name = "{user}"
	NAS-IP-Address = 127.0.0.1
	Framed-IP-Address = 203.0.113.7
	Event-Timestamp = {seconds}
	Timestamp = {seconds}

"""


def accounting(path: Path, *events: tuple[str, str, str, int]) -> None:
    """A detail file: status, user, session, and how many seconds ago."""
    lines = []
    for status, user, session, ago in events:
        seconds = int(time.time()) - ago
        when = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(seconds))
        lines.append(DETAIL.format(when=when, status=status, session=session, user=user, seconds=seconds))
    path.write_text("".join(lines))


def call(module: ModuleType, arguments: Mapping[str, object]) -> dict[str, Any]:
    """The module's answer, from a process of its own."""
    code = "from ansible.module_utils.testing import patch_module_args as patch; import json, sys\n"
    code += f"from {module.__name__} import main\nwith patch(json.load(sys.stdin)): main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ".collections", "PATH": "/usr/bin"},
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_module_asks_about_sessions_of_the_accounting(tmp_path: Path, server: Callable[[Answers], Server]) -> None:
    asked: list[bytes] = []

    def answers(packet: bytes) -> list[bytes]:
        asked.append(packet)
        return [answer(packet)]

    policy = {"subscribers": 4_000, "never": [{"prefix": "192.0.2.0/24", "reason": "own servers"}]}
    policy |= {"hours": 24, "most": 100, "dry_run": False}
    access = {"address": "127.0.0.1", "secret": SECRET, "port": server(answers).port, "waits": [0.3]}
    path = tmp_path / "settings.json"
    data = {name: str(tmp_path / "state" / name) for name in ("state", "audit", "sessions")}
    data |= {"quarantine": "walled", "normal": "open"}
    path.write_text(json.dumps(data | {"never": policy["never"], "most": 4, "disconnect": False, "servers": [access]}))
    detail = tmp_path / "detail"
    accounting(detail, ("Start", "alice@example.net", "0001", 3600))
    case = {"key": "c1", "subscriber": "alice@example.net", "prefixes": ["203.0.113.7/32"], "sources": ["D2"]}
    case |= {"since": 0, "evidence": []}
    arguments = {"policy": policy, "settings": str(path), "identity": {"radius": [str(detail)]}, "cases": [case]}

    assert call(radius_quarantine, arguments | {"_ansible_check_mode": True})["changed"]
    assert not asked
    first = call(radius_quarantine, arguments | {"cases": [case, case | {"key": "c2", "subscriber": "nobody"}]})
    assert [(one["key"], one["state"]) for one in first["sessions"]] == [("c1", ACKNOWLEDGED)]
    assert [one["key"] for one in first["refused"]] == ["c2"]
    assert b"walled" in asked[0]
    assert b"0001" in asked[0]
    assert not call(radius_quarantine, arguments)["changed"]
    # The address goes to somebody else, who must not be the one in quarantine.
    accounting(
        detail,
        ("Start", "alice@example.net", "0001", 3600),
        ("Stop", "alice@example.net", "0001", 1800),
        ("Start", "bob@example.net", "0002", 1200),
    )
    moved = call(radius_quarantine, arguments | {"cases": []})
    assert [one["why"] for one in moved["released"]] == ["203.0.113.7/32 belongs to another subscriber now"]
    assert [(one["key"], one["state"]) for one in moved["sessions"]] == [("c1", "released")]
    assert b"open" in asked[-1]
    assert len(asked) == 2
    assert SECRET not in json.dumps([first, moved]) + (tmp_path / "state" / "audit").read_text()


def test_the_spec_of_the_module_is_its_documentation() -> None:
    assert argument_spec(radius_quarantine.DOCUMENTATION, Identity.DOCUMENTATION) == radius_quarantine.ARGUMENTS


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 63))
def test_no_packet_is_too_strange(noise: bytes, place: int) -> None:
    asked = request(coa.COA, 7, coa.identify(ALICE), SECRET.encode())
    assert read_answer(noise, asked, SECRET.encode()) is None
    sound = nak(asked, 503)
    right = read_answer(sound, asked, SECRET.encode())
    assert right
    assert read_answer(sound[:place] + noise, asked, SECRET.encode()) in (None, right)


def test_a_session_with_an_address_of_the_never_list_is_not_asked_about(tmp_path: Path) -> None:
    never = [{"prefix": "203.0.113.7/32", "reason": "exempt: a mail server"}]
    policy = {"subscribers": 4_000, "never": never, "hours": 24, "most": 100, "dry_run": False}
    path, detail = tmp_path / "settings.json", tmp_path / "detail"
    data = {name: str(tmp_path / "state" / name) for name in ("state", "audit", "sessions")}
    data |= {"quarantine": "walled", "normal": "open"}
    access = {"address": "127.0.0.1", "secret": SECRET, "port": 9, "waits": [0.1]}
    path.write_text(json.dumps(data | {"never": never, "most": 4, "disconnect": False, "servers": [access]}))
    accounting(detail, ("Start", "alice@example.net", "0001", 3600))
    case: dict[str, object] = {"key": "c1", "subscriber": "alice@example.net", "prefixes": ["2001:db8:1::/64"]}
    case |= {"sources": ["D2"], "since": 0, "evidence": []}
    arguments = {"policy": policy, "settings": str(path), "identity": {"radius": [str(detail)]}}
    done = call(radius_quarantine, arguments | {"cases": [case]})
    assert (done["added"], done["sessions"]) == ([], [])
    assert "203.0.113.7/32, exempt: a mail server" in done["refused"][0]["why"]


def test_who_was_thrown_out_is_not_thrown_out_again_and_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An access server that takes no CoA-Request, and a RADIUS server that gives the filter at login."""
    asked: list[tuple[str, str]] = []

    def refuses(_server: Server, target: Target, filter_id: str) -> coa.Answer:
        asked.append((target.session_id, filter_id))
        return coa.Answer(REFUSED, "Unsupported-Service", 405)

    def ends(_server: Server, target: Target) -> coa.Answer:
        asked.append((target.session_id, "disconnect"))
        return coa.Answer(ACKNOWLEDGED, "Disconnect-ACK")

    monkeypatch.setattr(coa_service, "change_filter", refuses)
    monkeypatch.setattr(coa_service, "disconnect", ends)
    servers = {"192.0.2.1": Server("192.0.2.1", SECRET)}
    radius = coa_service.Radius(coa_service.Settings(str(tmp_path / "sessions"), "walled", "open", True, servers))
    never = (Protected("192.0.2.0/24", "own servers"),)
    books = Ledger(str(tmp_path / "state"), str(tmp_path / "audit"), 4, never)
    case = Case("c1", "alice", ("203.0.113.7/32",), ("D2",), 0)
    bounds = Limits("quarantine", 4000, never, ttl=HOUR, dry_run=False)
    for number, session in enumerate(("0001", "0002", "0002", "0003")):
        target = Target("alice", session, "192.0.2.1")
        books.apply(dataclasses.replace(radius, targets={"c1": [target]}), [case], bounds, now=NOW + number)
    assert asked[:2] == [("0001", "walled"), ("0001", "disconnect")]
    assert asked[2:] == [("0002", "open"), ("0002", "disconnect")], "it may be there still, and has no case any more"
    books.reconcile(radius, now=NOW + HOUR)
    assert asked[4:] == [("0003", "open"), ("0003", "disconnect")]
    assert json.loads((tmp_path / "sessions").read_text()) == {"held": []}


@pytest.mark.parametrize(
    "change", [{"state": "walled"}, {"key": 7}, {"target": dataclasses.asdict(ALICE) | {"user_name": 1}}]
)
def test_a_file_of_sessions_that_is_not_understood_is_no_empty_one(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "sessions"
    one = {"key": "c1", "target": dataclasses.asdict(ALICE), "state": ACKNOWLEDGED, "reason": ""} | change
    path.write_text(json.dumps({"held": [one]}))
    radius = coa_service.Radius(coa_service.Settings(str(path), "walled", "open", False, {}))
    with pytest.raises(Refused, match="not understood"):
        radius.let_go([], [], NOW, Ledger(str(tmp_path / "state"), str(tmp_path / "audit"), 4, ()))
    assert json.loads(path.read_text()) == {"held": [one]}


def test_a_session_goes_from_a_case_that_is_over_to_the_next_one_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def takes(_server: Server, _target: Target, filter_id: str) -> coa.Answer:
        asked.append(filter_id)
        return coa.Answer(ACKNOWLEDGED, "CoA-ACK")

    monkeypatch.setattr(coa_service, "change_filter", takes)
    servers = {"192.0.2.1": Server("192.0.2.1", SECRET)}
    radius = coa_service.Radius(coa_service.Settings(str(tmp_path / "sessions"), "walled", "open", False, servers))
    never = (Protected("192.0.2.0/24", "own servers"),)
    books = Ledger(str(tmp_path / "state"), str(tmp_path / "audit"), 4, never)
    bounds = Limits("quarantine", 4000, never, ttl=HOUR, dry_run=False)
    for key, now in (("c1", NOW), ("c2", NOW + HOUR)):
        case = Case(key, "alice", ("203.0.113.7/32",), ("D2",), 0)
        books.apply(dataclasses.replace(radius, targets={key: [ALICE]}), [case], bounds, now=now)
    assert asked == ["walled"]
    books.reconcile(radius, now=NOW + 2 * HOUR)
    assert asked == ["walled", "open"]


@pytest.mark.parametrize("second", [ACKNOWLEDGED, REFUSED])
def test_a_session_of_two_cases_has_the_filter_until_both_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    asked: list[str] = []

    def takes(_server: Server, _target: Target, filter_id: str) -> coa.Answer:
        asked.append(filter_id)
        return coa.Answer(second if asked == ["walled", "walled"] else ACKNOWLEDGED, "said so")

    monkeypatch.setattr(coa_service, "change_filter", takes)
    servers = {"192.0.2.1": Server("192.0.2.1", SECRET)}
    radius = coa_service.Radius(coa_service.Settings(str(tmp_path / "sessions"), "walled", "open", False, servers))
    never = (Protected("192.0.2.0/24", "own servers"),)
    books = Ledger(str(tmp_path / "state"), str(tmp_path / "audit"), 4, never)
    bounds = Limits("quarantine", 4000, never, ttl=2 * HOUR, dry_run=False)
    prefixes = {"c1": "203.0.113.7/32", "c2": "2001:db8:1::/64", "c3": "203.0.113.8/32"}
    # c1 is over at 3, and c2 at 4; both are in force anew from 5 to 7, when c3 comes.
    for hour, keys in ((1, ["c1"]), (2, ["c1", "c2"]), (3, []), (4, []), (5, ["c1", "c2"]), (7, ["c3"])):
        cases = [Case(key, "alice", (prefixes[key],), ("D2",), 0) for key in keys]
        known = dataclasses.replace(radius, targets={key: [ALICE] for key in keys})
        books.apply(known, cases, bounds, now=NOW + hour * HOUR)
        if hour == 3:
            assert asked == ["walled", "walled"]
        if hour == 4:
            assert asked[2:] == ["open"]
    assert asked[3:] == ["walled", "walled"], "the session goes to the third case as it is"
    books.reconcile(radius, now=NOW + 9 * HOUR)
    assert asked[5:] == ["open"]
    assert json.loads((tmp_path / "sessions").read_text()) == {"held": []}
