# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run of the XBL monitor, for its timer and for M(isp.hardening.xbl_sweep) alike.

    python3 -m ….signals.xbl_service SETTINGS       what a timer does
    python3 -m ….signals.xbl_service --check SETTINGS    are the settings good? Nothing is asked

Secrets are in a file of their own, which `credentials` names: dqs_key, sia_username, sia_password, and `state` where it
is a PostgreSQL with a password. Two runs never overlap. The standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from . import episodes, identity
from .episodes import Episode, Figures, Step
from .owners import IDENTITY, sources_of
from .records import Case
from .store import Store, StoreError, open_store
from .xbl import Answer, Ranges, Source
from .xbl_dns import RATE, ZONE, Dnsbl
from .xbl_feed import Feed
from .xbl_rbldnsd import KINDS, Dataset
from .xbl_sia import URL, Api

LOCK = "/var/lib/isp-hardening/xbl.lock"
BUSY = 75  # EX_TEMPFAIL of sysexits.h: another run is under way
# The second as suspects.py declares it, which needs more of the collection than a host has.
SUSPECTS = """
CREATE TABLE IF NOT EXISTS suspects (subscriber TEXT, since BIGINT, latest BIGINT, PRIMARY KEY (subscriber, since));
"""
_SCHEMA = episodes.SCHEMA + SUSPECTS
_KEYS = ("own", "state", "source", "zone", "server", "port", "rate", "url", "feed", "identity", "lock")
SECRETS = ("dqs_key", "sia_username", "sia_password", "state")
_Read = TypeVar("_Read")


class Refused(Exception):
    """Nothing was asked, and nothing changed. Says where, why, and what to do."""


class Busy(Refused):
    """Another run is under way."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs."""

    own: tuple[str, ...]
    state: str = field(repr=False)  # a path, or the DSN of a PostgreSQL with its password
    source: Source
    identity: Mapping[str, Any]  # as the option of the module
    lock: str = LOCK


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found, and how well it goes, by list."""

    step: Step
    figures: Mapping[str, Figures]
    open: tuple[Episode, ...]
    cases: tuple[Case, ...]
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for Ansible's results."""
        step = self.step
        return {
            "frozen": step.answer.frozen,
            "problems": list(self.problems),
            "came": [asdict(one) for one in step.came],
            "went": [asdict(one) for one in step.went],
            "still": len(step.still),
            "unanswered": step.unanswered,
            "episodes": [asdict(one) for one in self.open],
            "figures": {name: asdict(one) for name, one in self.figures.items()},
            "cases": [one.as_dict() for one in self.cases],
        }


class _Undo(Exception):
    """Ends a transaction whose result is only to be told."""


def run(settings: Settings, keep: bool = True) -> Outcome:
    """Ask, and keep what follows; with `keep` off the state stays as it is. Raises Refused, Busy, StoreError."""
    with _alone(settings.lock, keep):
        began = _clock()
        sources = _sources(settings.identity)
        before = _look(settings, lambda store: episodes.read_state(store, began))
        first = [one.network for one in before.listings] + _in_use(sources, began)
        answer = settings.source.ask(settings.own, first)
        done = episodes.step(before, answer, functools.partial(identity.owner, sources), _clock())

        def write(store: Store) -> Outcome:
            episodes.write(store, done, began)
            return _outcome(store, done, sources)

        if not keep:
            return _look(settings, write)
        with open_store(settings.state, _SCHEMA) as store:
            return write(store)


def known(settings: Settings, why: str) -> Outcome:
    """What is known without a run, and why there was none. Raises Refused, StoreError."""
    nothing = Step(_clock(), Answer("", problems=(why,)))
    sources = _sources(settings.identity)
    return _look(settings, lambda store: _outcome(store, nothing, sources))


def _look(settings: Settings, read: Callable[[Store], _Read]) -> _Read:
    """What `read` makes of the state, which stays as it is, and is not made where there is none."""
    state = settings.state
    if not state.startswith("postgresql://") and not _there(state):
        state = ":memory:"
    found: list[_Read] = []
    with contextlib.suppress(_Undo), open_store(state, _SCHEMA) as store:
        found.append(read(store))
        raise _Undo
    return found[0]


def _outcome(store: Store, done: Step, sources: identity.Sources) -> Outcome:
    detections: dict[str, list[int]] = {}
    for subscriber, since in store.rows("SELECT subscriber, since FROM suspects"):
        detections.setdefault(subscriber, []).append(since)
    by_list: dict[str, list[Episode]] = {}
    for one in episodes.read_episodes(store):
        by_list.setdefault(one.list, []).append(one)
    told = (f"identity: {one.reason}; {one.mend}" for one in sources.told)
    return Outcome(
        done,
        {name: episodes.figures(ones, detections, done.time) for name, ones in sorted(by_list.items())},
        tuple(one for ones in by_list.values() for one in ones if not one.ended),
        tuple(episodes.cases(store, functools.partial(identity.touchable, sources), done.time)),
        (*done.answer.problems, *done.notes, *told),
    )


def _sources(about: Mapping[str, Any]) -> identity.Sources:
    try:
        return sources_of(about)
    except (TypeError, ValueError, AttributeError) as error:
        raise Refused(f"identity: {error}") from None


def _in_use(sources: identity.Sources, now: int) -> list[str]:
    """The prefixes that subscribers have now."""
    layers = sources.index.layers.values()
    return [row.prefix for layer in layers for row in layer.rows if row.start <= now < row.end and not row.doubt]


@contextlib.contextmanager
def _alone(path: str, keep: bool) -> Iterator[None]:
    """One run at a time. Raises Busy, or Refused where the lock cannot be had."""
    if not keep and not _there(path):
        yield  # what is not there is not made, and nobody else is here
        return
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; name a lock in a directory that can be written") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise Busy(f"{path}: another run is under way; this one has nothing to do") from None
    try:
        yield
    finally:
        os.close(file)


def _there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError as error:  # its directory cannot be entered
        raise Refused(f"{path}: {error.strerror}; run this as one who may read it") from None


def _clock() -> int:
    return time.time_ns() // 1_000_000


# -- settings ----------------------------------------------------------------------------------------------------


def read_settings(data: Mapping[str, Any], secrets: Mapping[str, Any]) -> Settings:
    """Settings of plain data. Raises Refused with the key that is wrong; never says a secret."""
    _known(data, _KEYS, "settings")
    _known(secrets, SECRETS, "credentials")
    own = data.get("own")
    try:
        if not isinstance(own, list) or not Ranges(own).networks:
            raise ValueError("there are none")
    except (ValueError, TypeError) as error:
        raise Refused(f"own: {error}; write the own prefixes, as [192.0.2.0/24]") from None
    state = secrets.get("state") or data.get("state")
    if not isinstance(state, str) or not state.startswith(("/", "postgresql://")):
        raise Refused("state: write a whole path, or postgresql://… among the credentials")
    about = data.get("identity") or {}
    if not isinstance(about, Mapping):
        raise Refused("identity: write a mapping, as {kea: [/var/lib/kea/kea-leases4.csv]}")
    _known(about, tuple(IDENTITY["options"]), "identity")
    lists = [about.get(key) or [] for key in (*identity.KINDS, "cgn_prefixes")]
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists):
        raise Refused("identity: files and prefixes are lists of texts, as [/var/lib/kea/kea-leases4.csv]")
    return Settings(tuple(own), state, _source(data, secrets), about, _text(data, "lock", LOCK))


def _source(data: Mapping[str, Any], secrets: Mapping[str, Any]) -> Source:
    kind = data.get("source")
    if kind == "dns":
        rate, port = data.get("rate", RATE), data.get("port", 53)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1e6:
            raise Refused("rate: write queries a second, or 0 for a mirror of your own without a limit")
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise Refused("port: write a number from 1 to 65535")
        key, zone = _text(secrets, "dqs_key", ""), _text(data, "zone", ZONE)
        if any(re.fullmatch("[A-Za-z0-9]{26}", label) for label in zone.split(".")):
            raise Refused("zone: its name holds a DQS key; write zen.dq.spamhaus.net, and the key as 'dqs_key'")
        return Dnsbl(zone, key, _text(data, "server", "127.0.0.1"), port, rate)
    if kind == "sia":
        name, password = _text(secrets, "sia_username", ""), _text(secrets, "sia_password", "")
        if not name or not password:
            raise Refused("credentials: sia_username and sia_password are missing; they are those of your account")
        url = _text(data, "url", URL)
        try:
            urllib.parse.urlsplit(url)
        except ValueError as error:
            raise Refused(f"url: {error}; write it as {URL}") from None
        return Api(name, password, url)
    if kind == "feed":
        files = data.get("feed") or []
        if not files or not all(isinstance(one, Mapping) and one.get("kind") in KINDS for one in files):
            raise Refused(f"feed: write files, as [{{kind: ip4tset, path: /srv/xbl}}]; kinds: {', '.join(KINDS)}")
        return Feed(tuple(Dataset(one["kind"], _text(one, "path", "")) for one in files))
    raise Refused("source: write dns, sia or feed")


def _known(data: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    unknown = sorted(set(data) - set(keys))
    if unknown:
        raise Refused(f"{where}: {unknown[0]} is not known; the keys are {', '.join(keys)}")


def _text(data: Mapping[str, Any], key: str, default: str) -> str:
    value = data.get(key) or default
    if not isinstance(value, str):
        raise Refused(f"{key}: is not a text; write it in quotes")
    return value


def read_file(path: str) -> Mapping[str, Any]:
    """A JSON object. Raises Refused; what a file of secrets says is not repeated."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; the role isp.hardening.xbl_monitor writes it") from None
    except ValueError:
        raise Refused(f"{path}: is not JSON; the role isp.hardening.xbl_monitor writes it") from None
    if not isinstance(data, dict):
        raise Refused(f"{path}: is not a JSON object; the role isp.hardening.xbl_monitor writes it")
    return data


def main(arguments: Sequence[str]) -> int:
    """0; 1 where nothing could be concluded, with the reason; 75 where another run is under way."""
    checking = list(arguments[:1]) == ["--check"]
    try:
        [path] = arguments[1:] if checking else arguments
    except ValueError:
        print("usage: xbl_service [--check] SETTINGS", file=sys.stderr)
        return 2
    try:
        data = dict(read_file(path))
        credentials = data.pop("credentials", None)
        settings = read_settings(data, read_file(str(credentials)) if credentials else {})
        if checking:
            return 0
        outcome = run(settings)
    except Busy as busy:
        print(busy, file=sys.stderr)
        return BUSY
    except (Refused, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    for line in outcome.problems[:20]:
        print(line)
    step = outcome.step
    if step.answer.frozen:
        print(f"frozen, no listing and no delisting: {step.answer.frozen}", file=sys.stderr)
        return 1
    still = len(step.still)
    print(f"{len(step.came)} came, {len(step.went)} went, {still} still listed, {step.unanswered} not answered for")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
