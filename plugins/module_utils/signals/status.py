# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the signals stand, out of what their parts keep: for the report, and for metrics.

    store (alarms, episodes, notices) ─┐
    state files (quarantine, RTBH) ────┴─► read() ─► plain data ─► report, metrics.py

Nothing is asked and nothing changed. What cannot be read is a problem, and never an empty list that looks like calm.
The standard library alone. Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import abuse_send, blackhole, episodes, ledger, suspects
from .store import Store, StoreError, open_store

DAY = 86_400_000
QUARANTINE, BLACKHOLE = "quarantine", "blackhole"
FILES = {  # where the roles keep the actions of a host
    QUARANTINE: "/var/lib/isp-hardening-quarantine/state.json",
    "quarantine_radius": "/var/lib/isp-hardening-quarantine-radius/state.json",
    BLACKHOLE: blackhole.STATE,
}
_SCHEMA = suspects.SCHEMA + episodes.SCHEMA + abuse_send.SCHEMA


def read(state: str, files: Mapping[str, str], now: int) -> dict[str, Any]:
    """What is known at this time. `state` is the store's path or DSN, "" on a host without it.

    - suspects: who has had an alarm within a day: subject, detectors, time of the latest, score, evidence
    - surge: alarms of D7 within a day: time, evidence
    - listings: open ones: network, list, began, seen, subscriber ("" where nobody knows), detail
    - lists: by list, the figures of episodes.py: open, closed, median, p90, relapsed, watched, led, lead
    - asked: when a list was last asked and answered; 0 for never. frozen: why the last time it did not count
    - actions: kind, key, subscriber, prefixes, since, until, reason, sources, by
    - notices: of the last week: episode, subscriber, channel, state, time, reason
    - killed: whose kill switch is on; problems: what could not be read, and why
    """
    found: dict[str, Any] = {
        "generated": now, "suspects": [], "surge": [], "listings": [], "lists": [], "asked": 0, "frozen": "",
        "actions": [], "notices": [], "killed": [], "problems": [],
    }  # fmt: skip
    try:
        if "://" in state or Path(state).is_file():
            with open_store(state, _SCHEMA) as store:
                found |= _kept(store, now)
    except (StoreError, OSError) as error:  # the latter where its directory cannot be entered
        found["problems"].append(str(error))
    for name, path in files.items():
        try:
            actions, killed = _in_force(name == BLACKHOLE, Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue  # nothing was ever done by this host
        except (OSError, ValueError, blackhole.StateError) as error:
            found["problems"].append(f"{path}: {getattr(error, 'strerror', None) or error}")
            continue
        found["actions"] += [one for one in actions if one["until"] > now]
        found["killed"] += [name] if killed else []
    return found


def _kept(store: Store, now: int) -> dict[str, Any]:
    alarms = store.rows(
        "SELECT detector, subject, time, score, evidence FROM alarms WHERE time > ? AND time <= ?"
        " ORDER BY time, detector",
        (now - DAY, now),
    )
    of: dict[str, dict[str, Any]] = {}
    for detector, subject, time, score, evidence in alarms:
        if detector != "D7":
            one = of.setdefault(subject, {"subject": subject, "detectors": [], "score": 0.0, "evidence": []})
            one["detectors"] += [] if detector in one["detectors"] else [detector]
            one["evidence"] += [line for line in evidence.splitlines() if line not in one["evidence"]]
            one |= {"time": time, "score": max(one["score"], score)}
    rows = store.rows(
        "SELECT l.network, l.list, l.began, l.seen, e.subscriber, l.detail FROM xbl_listing l"
        " JOIN xbl_episode e ON e.id = l.episode WHERE l.ended = 0 ORDER BY l.began, l.network, l.list"
    )
    detections: dict[str, list[int]] = {}
    for subscriber, since in store.rows("SELECT subscriber, since FROM suspects"):
        detections.setdefault(subscriber, []).append(since)
    by_list: dict[str, list[episodes.Episode]] = {}
    for one_episode in episodes.read_episodes(store):
        by_list.setdefault(one_episode.list, []).append(one_episode)
    runs = store.rows("SELECT frozen, began FROM xbl_run ORDER BY began DESC LIMIT 1")
    [(asked,)] = store.rows("SELECT COALESCE(MAX(began), 0) FROM xbl_run WHERE frozen = ''")
    return {
        "suspects": sorted(of.values(), key=lambda one: (-one["time"], one["subject"])),
        "surge": [
            {"time": time, "evidence": evidence.splitlines()}
            for detector, _, time, _, evidence in alarms
            if detector == "D7"
        ],
        "listings": [
            dict(zip(("network", "list", "began", "seen", "subscriber", "detail"), row, strict=True)) for row in rows
        ],
        "lists": [
            {"list": name, **asdict(episodes.figures(ones, detections, now))} for name, ones in sorted(by_list.items())
        ],
        "asked": asked,
        "frozen": runs[0][0] if runs else "",
        "notices": [
            dict(zip(("episode", "subscriber", "channel", "state", "time", "reason"), row, strict=True))
            for row in store.rows(
                "SELECT episode, subscriber, channel, state, since, reason FROM notice WHERE since > ?"
                " ORDER BY since DESC, episode, channel",
                (now - 7 * DAY,),
            )
        ],
    }  # fmt: skip


def _in_force(of_blackhole: bool, text: str) -> tuple[list[dict[str, Any]], bool]:
    """The actions of a state file, and whether it is the kill switch. Raises ValueError and StateError."""
    if not of_blackhole:
        held = ledger.read_state(text)
        return [{"kind": QUARANTINE, **one.as_dict()} for one in held.actions], held.killed
    desired = blackhole.read_state(text)
    return [
        {
            "kind": one.kind, "key": one.case, "subscriber": one.subscriber, "prefixes": [one.route],
            "since": one.since, "until": one.until, "reason": one.reason, "sources": list(one.sources), "by": one.by,
        }
        for one in desired.routes
    ], desired.killed  # fmt: skip
