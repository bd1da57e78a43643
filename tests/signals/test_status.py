# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the signals stand: out of the store and the state files, for the report, for Prometheus, for Grafana."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals import (
    abuse_send,
    blackhole,
    episodes,
    ledger,
    metrics,
    status,
    suspects,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import Action
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Alarm
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import open_store
from ansible_collections.isp.hardening.plugins.modules import signals_status
from tests.conftest import Run

NOW = 1_795_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
NOBODY = {name: f"/nowhere/{name}.json" for name in status.FILES}


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A store as the parts leave it: two suspects, a surge, three listings, episodes that ended, notices."""
    dsn = str(tmp_path / "signals.db")
    with open_store(dsn, suspects.SCHEMA + episodes.SCHEMA + abuse_send.SCHEMA) as store:
        alarms = [
            Alarm("D1", "198.51.100.9", NOW - 2 * HOUR, 14.2, 5, ("opened port 25 of 5 servers", "To: 203.0.113.25")),
            Alarm("D2", "198.51.100.9", NOW - HOUR, 15.0, 18, ("opened port 25 of 18 servers",)),
            Alarm("D4", "2001:db8:100:7::", NOW - 3 * HOUR, 14.0, 10, ("tried port 445 of 10 hosts",)),
            Alarm("D7", "network", NOW - HOUR, 5.0, 30, ("30 subscribers more are suspect within 1 hour",)),
            Alarm("D1", "198.51.100.8", NOW - 2 * DAY, 14.2, 5, ("long ago",)),
        ]
        suspects.remember(store, alarms, NOW)
        store.run("INSERT INTO suspects VALUES (?, ?, ?)", ("line-9", NOW - 30 * HOUR, NOW - HOUR))
        store.many(
            "INSERT INTO xbl_episode VALUES (?, ?, ?, ?, ?, ?)",
            [
                ("a", "line-9", "line-9", "XBL", NOW - 10 * HOUR, 0),
                ("b", "198.51.100.77", "", "XBL", NOW - 5 * HOUR, 0),
                ("c", "line-5", "line-5", "XBL", NOW - 20 * DAY, NOW - 20 * DAY + 9 * HOUR),
                ("d", "line-6", "line-6", "CSS", NOW - 9 * HOUR, 0),
            ],
        )
        store.many(
            "INSERT INTO xbl_listing VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                ("198.51.100.9", "XBL", NOW - 10 * HOUR, 0, NOW - HOUR, "a", "127.0.0.4", "bot"),
                ("198.51.100.77", "XBL", NOW - 5 * HOUR, 0, NOW - HOUR, "b", "127.0.0.4", ""),
                ("198.51.100.6", "CSS", NOW - 9 * HOUR, 0, NOW - HOUR, "d", "127.0.0.3", ""),
            ],
        )
        store.many(
            "INSERT INTO xbl_run VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (NOW - 2 * HOUR, "dnsbl", "", 1, 3, 0, 0, "[]"),
                (NOW - HOUR, "dnsbl", "127.0.0.2 is not listed", 0, 3, 0, 0, "[]"),
            ],
        )
        store.run(
            "INSERT INTO notice VALUES (?, ?, ?, ?, ?, ?, ?)", ("a", "customer", "line-9", "sent", NOW - HOUR, 1, "")
        )
    return dsn


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The state files of a host that holds one subscriber and black-holes another."""
    action = Action("a", "line-9", ("198.51.100.9/32",), NOW - HOUR, NOW + HOUR, "D1, D2", ("D1", "D2"), "automatic")
    over = Action("o", "line-3", ("198.51.100.3/32",), NOW - DAY, NOW - 1, "D1", ("D1",), "automatic")
    (tmp_path / "quarantine.json").write_text(ledger.write_state(ledger.State((action, over), {}, NOW)))
    action = Action("r", "line-2", ("198.51.100.2/32",), NOW - HOUR, NOW + HOUR, "XBL", ("XBL",), "automatic")
    (tmp_path / "quarantine_radius.json").write_text(ledger.write_state(ledger.State((action,), {}, NOW)))
    route = blackhole.Route(
        "s:198.51.100.4/32", "source", "198.51.100.4/32", NOW + HOUR, "case-4", "D1, XBL", NOW, "line-4",
        ("D1", "XBL"), "noc",
    )  # fmt: skip
    (tmp_path / "blackhole.json").write_text(blackhole.write_state(blackhole.State((route,))))
    return {name: str(tmp_path / f"{name}.json") for name in NOBODY}


def test_all_that_is_kept_is_told(state: str, files: dict[str, str]) -> None:
    found = status.read(state, files, NOW)
    assert [(one["subject"], one["detectors"], one["score"]) for one in found["suspects"]] == [
        ("198.51.100.9", ["D1", "D2"], 15.0), ("2001:db8:100:7::", ["D4"], 14.0),
    ]  # fmt: skip
    assert found["suspects"][0]["evidence"][0] == "opened port 25 of 5 servers"
    assert found["surge"][0]["evidence"] == ["30 subscribers more are suspect within 1 hour"]
    assert [(one["network"], one["subscriber"]) for one in found["listings"]] == [
        ("198.51.100.9", "line-9"), ("198.51.100.6", "line-6"), ("198.51.100.77", ""),
    ]  # fmt: skip
    xbl = next(one for one in found["lists"] if one["list"] == "XBL")
    assert (xbl["open"], xbl["closed"], xbl["led"], xbl["lead"]) == (2, 1, 1, 20 * HOUR)
    assert (found["asked"], found["frozen"]) == (NOW - 2 * HOUR, "127.0.0.2 is not listed")
    assert [(one["kind"], one["subscriber"], one["prefixes"]) for one in found["actions"]] == [
        ("quarantine", "line-9", ["198.51.100.9/32"]), ("quarantine", "line-2", ["198.51.100.2/32"]),
        ("source", "line-4", ["198.51.100.4/32"]),
    ]  # fmt: skip
    assert [(one["subscriber"], one["state"]) for one in found["notices"]] == [("line-9", "sent")]
    assert (found["killed"], found["problems"]) == ([], [])
    json.dumps(found)


def test_a_host_that_has_done_nothing_has_nothing_to_tell() -> None:
    found = status.read("", NOBODY, NOW)
    assert found.pop("generated") == NOW
    assert not any(found.values())


def test_to_look_makes_no_state_where_there_is_none(tmp_path: Path) -> None:
    assert status.read(str(tmp_path / "signals.db"), NOBODY, NOW)["problems"] == []
    assert list(tmp_path.iterdir()) == []


def test_the_kill_switch_is_told(files: dict[str, str]) -> None:
    for path in files.values():
        Path(path).write_text("")
    found = status.read("", files, NOW)
    assert (found["actions"], found["killed"]) == ([], ["quarantine", "quarantine_radius", "blackhole"])


def test_what_cannot_be_read_is_a_problem_and_not_an_empty_list(state: str, files: dict[str, str]) -> None:
    for path in (*files.values(), state):
        Path(path).write_text("no state at all, and longer than any header of a database would have to be ...\n" * 40)
    found = status.read(state, files, NOW)
    assert len(found["problems"]) == 4
    assert all(any(path in problem for problem in found["problems"]) for path in (*files.values(), state))


def test_a_state_that_nobody_may_look_at_or_that_is_none_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied", "/var/lib/isp-hardening/signals.db")

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert "denied: '/var/lib" in status.read("/var/lib/isp-hardening/signals.db", NOBODY, NOW)["problems"][0]
    assert "neither a path" in status.read("postgres://signals@db/signals", NOBODY, NOW)["problems"][0]


# --- Prometheus ------------------------------------------------------------------------------------------------------

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (-?[0-9.e+-]+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    """The text-based format, read as strictly as it is defined: HELP, TYPE, then the samples of that metric."""
    assert text.endswith("\n")
    found: dict[tuple[str, str], float] = {}
    current, seen = "", set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
            assert current not in seen
            seen.add(current)
        elif line.startswith("#"):
            assert line == f"# TYPE {current} gauge"
        else:
            matched = SAMPLE.fullmatch(line)
            assert matched, line
            assert matched[1] == current
            key = (matched[1].removeprefix(metrics.PREFIX), matched[2] or "")
            assert key not in found
            found[key] = float(matched[3])
    return found


def test_the_figures_are_there_for_prometheus(state: str, files: dict[str, str]) -> None:
    found = samples(metrics.exposition(status.read(state, files, NOW)))
    expected = {
        ("generated_timestamp_seconds", ""): NOW / 1000,
        ("suspects", 'detector="D1"'): 1, ("suspects", 'detector="D4"'): 1,
        ("suspects", 'detector="D3"'): 0, ("surge_alarms", ""): 1, ("listings", 'list="XBL"'): 2,
        ("listings", 'list="CSS"'): 1, ("episodes_open", 'list="XBL"'): 2, ("episodes_closed", 'list="XBL"'): 1,
        ("detected_first", 'list="XBL"'): 1, ("detection_lead_seconds", 'list="XBL"'): 20 * 3600,
        ("list_frozen", ""): 1, ("list_answered_timestamp_seconds", ""): (NOW - 2 * HOUR) / 1000,
        ("actions", 'kind="quarantine"'): 2, ("actions", 'kind="source"'): 1, ("actions", 'kind="inbound"'): 0,
        ("kill_switch", 'of="quarantine"'): 0, ("notices", 'channel="customer",state="sent"'): 1, ("problems", ""): 0,
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert ("detection_lead_seconds", 'list="CSS"') not in found  # it cannot be said yet


def test_no_customer_is_in_the_figures(state: str, files: dict[str, str]) -> None:
    text = metrics.exposition(status.read(state, files, NOW))
    assert not re.search(r"line-\d|198\.51\.100|2001:db8", text)


def test_odd_names_of_lists_are_escaped() -> None:
    found = status.read("", NOBODY, NOW)
    figures = {"open": 1, "closed": 0, "median": None, "p90": None, "relapsed": 0, "watched": 0, "led": 0, "lead": None}
    found["lists"] = [{"list": 'a "list"\\\nof two lines', **figures}]
    text = metrics.exposition(found)
    assert samples(text)["episodes_open", r'list="a \"list\"\\\nof two lines"'] == 1


def test_the_file_is_replaced_whole_and_a_second_run_changes_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    target = tmp_path / "isp.prom"
    assert metrics.write(str(target), metrics.exposition(status.read("", files, NOW)))
    first = target.stat()
    assert first.st_mode & 0o777 == 0o644
    assert not metrics.write(str(target), metrics.exposition(status.read("", files, NOW + 1000)))
    assert target.stat().st_ino != first.st_ino
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json") == ["isp.prom"]


def test_a_file_that_cannot_be_put_there_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "isp.prom"
    target.write_bytes(b"\xff")
    with monkeypatch.context() as full:
        full.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            metrics.write(str(target), "a 1\n")
    assert [one.name for one in tmp_path.iterdir()] == ["isp.prom"]
    assert metrics.write(str(target), "a 1\n")


def test_a_timer_writes_the_file(tmp_path: Path, state: str, files: dict[str, str], root: Path) -> None:
    settings, target = tmp_path / "metrics.json", tmp_path / "isp.prom"
    settings.write_text(json.dumps({"state": state, "textfile": str(target), "files": files}))
    module = "ansible_collections.isp.hardening.plugins.module_utils.signals.metrics"

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, str(settings)], env={"PYTHONPATH": str(root / ".collections")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run()
    assert done.returncode == 0, done.stderr
    assert samples(target.read_text())["problems", ""] == 0
    settings.write_text("{}")
    done = run()
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "metrics.json: 'state'" in done.stderr


def test_every_metric_of_the_dashboard_is_in_the_textfile(root: Path) -> None:
    dashboard = json.loads((root / "docs" / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expr in asked for name in re.findall(rf"{metrics.PREFIX}\w+", expr)}
    known = {metrics.PREFIX + one.name for one in metrics.METRICS}
    assert names <= known
    assert len(names) == len(known)  # and nothing is written that nobody looks at
    assert all(name in "".join(asked) for name in names)
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


# --- The module ------------------------------------------------------------------------------------------------------


def test_the_module_asks_for_what_it_documents() -> None:
    documented = argument_spec(signals_status.DOCUMENTATION)
    assert {
        name: {key: value for key, value in one.items() if key != "no_log"}
        for name, one in signals_status.ARGUMENTS.items()
    } == documented
    assert signals_status.ARGUMENTS.keys() - {"state", "textfile"} == status.FILES.keys()
    assert {name: signals_status.ARGUMENTS[name]["default"] for name in status.FILES} == status.FILES


def test_the_module_tells_and_writes(tmp_path: Path, state: str, files: dict[str, str], run: Run) -> None:
    target = tmp_path / "isp.prom"
    asked = {"state": state, **files, "textfile": str(target)}
    command = ("ansible", "localhost", "-m", "isp.hardening.signals_status", "-a", json.dumps(asked))
    answer = run(*command).stdout
    found: dict[str, Any] = json.loads(answer[answer.index("{") :])
    assert found["changed"]
    assert found["signals"]["listings"][0]["network"] == "198.51.100.9"
    assert samples(target.read_text())["listings", 'list="XBL"'] == 2
