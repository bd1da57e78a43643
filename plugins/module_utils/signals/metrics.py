# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The figures of the signals for Prometheus: a file for the textfile collector of its node exporter.

    python3 -m ….signals.metrics SETTINGS    what a timer does; {"state": path or DSN, "textfile": path}, and "files"

Prometheus, "Exposition formats", text-based format: HELP and TYPE once before the samples of a metric, label values
with backslash, quote and line feed escaped, a line feed at the end. The file is put there whole, with a name that ends
in .prom (node_exporter, "Textfile Collector"). No subscriber is in it: who may see figures need not know customers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .status import FILES, read

Samples = Iterable[tuple[Mapping[str, str], float]]  # labels and value
_KINDS = ("quarantine", "source", "destination", "inbound")
_DETECTORS = ("D1", "D2", "D3", "D4", "D5", "D6")


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge: its name without the prefix, and what it says."""

    name: str
    help: str


METRICS = (
    Metric("generated_timestamp_seconds", "When these figures were made."),
    Metric("suspects", "Subjects with an alarm within the last day, by detector."),
    Metric("surge_alarms", "Alarms of a surge of new suspects (D7) within the last day."),
    Metric("listings", "Own addresses (IPv6 by /64) on a blocklist now, by list."),
    Metric("episodes_open", "Episodes of subscribers on a blocklist that are not over, by list."),
    Metric("episodes_closed", "Episodes that are over, of those kept for a year, by list."),
    Metric("remediation_seconds", "Time to remediate by Kaplan and Meier, by list and quantile."),
    Metric("relapses", "Episodes that began again within a week, by list."),
    Metric("relapse_watched", "Episodes of which it is known whether they began again within a week, by list."),
    Metric("detected_first", "Episodes that own detection knew of before the list did, by list."),
    Metric("detection_lead_seconds", "How long before the list own detection knew, the median, by list."),
    Metric("list_answered_timestamp_seconds", "When a blocklist was last asked and answered."),
    Metric("list_frozen", "1 where the last answer of a blocklist did not count."),
    Metric("actions", "Actions in force, by kind."),
    Metric("kill_switch", "1 where a kill switch is on."),
    Metric("notices", "Notices of the last week, by channel and state."),
    Metric("problems", "Parts of the state that could not be read."),
)
PREFIX = "isp_signals_"


def exposition(status: Mapping[str, Any]) -> str:
    """The text, of what status.read gives."""
    samples = _samples(status)
    lines = []
    for metric in METRICS:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples[metric.name]]
    return "\n".join(lines) + "\n"


def _samples(status: Mapping[str, Any]) -> dict[str, Samples]:
    detectors = Counter(detector for one in status["suspects"] for detector in one["detectors"])
    listed = Counter(one["list"] for one in status["listings"])
    kinds = Counter(one["kind"] for one in status["actions"])
    notices = Counter((one["channel"], one["state"]) for one in status["notices"])

    def by_list(key: str, unit: int = 1) -> Samples:
        """Nothing where it cannot be said yet."""
        return [({"list": one["list"]}, one[key] / unit) for one in status["lists"] if one[key] is not None]

    return {
        "generated_timestamp_seconds": _plain(status["generated"] / 1000),
        "suspects": [({"detector": one}, detectors[one]) for one in sorted({*_DETECTORS, *detectors})],
        "surge_alarms": _plain(len(status["surge"])),
        "listings": [({"list": one["list"]}, listed[one["list"]]) for one in status["lists"]],
        "episodes_open": by_list("open"),
        "episodes_closed": by_list("closed"),
        "remediation_seconds": [
            ({"list": one["list"], "quantile": quantile}, one[key] / 1000)
            for one in status["lists"]
            for quantile, key in (("0.5", "median"), ("0.9", "p90"))
            if one[key] is not None
        ],
        "relapses": by_list("relapsed"),
        "relapse_watched": by_list("watched"),
        "detected_first": by_list("led"),
        "detection_lead_seconds": by_list("lead", 1000),
        "list_answered_timestamp_seconds": _plain(status["asked"] / 1000),
        "list_frozen": _plain(bool(status["frozen"])),
        "actions": [({"kind": one}, kinds[one]) for one in _KINDS],
        "kill_switch": [({"of": one}, one in status["killed"]) for one in FILES],
        "notices": [({"channel": channel, "state": state}, many) for (channel, state), many in sorted(notices.items())],
        "problems": _plain(len(status["problems"])),
    }


def _plain(value: float) -> Samples:
    return [({}, value)]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    said = ("".join(escaped.get(char, char) for char in str(value)) for value in labels.values())
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(labels, said, strict=True)) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def write(path: str, text: str) -> bool:
    """The whole file or the old one, for everybody to read; whether anything but the time has changed."""
    target = Path(path)
    try:
        before = target.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        before = ""
    handle, new = tempfile.mkstemp(dir=target.parent, prefix=".")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(new, 0o644)
        os.replace(new, target)
    except OSError:
        os.unlink(new)  # a timer on a full disk would leave one each time
        raise
    return _timeless(before) != _timeless(text)


def _timeless(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(f"{PREFIX}generated_timestamp")]


def main(arguments: Sequence[str]) -> int:
    """0 when the file was written; 1 with the reason when not; 2 for other arguments."""
    if len(arguments) != 1:
        print("give the settings file", file=sys.stderr)
        return 2
    try:
        settings = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        state, textfile, files = settings["state"], settings["textfile"], settings.get("files", FILES)
        write(textfile, exposition(read(state, files, time.time_ns() // 1_000_000)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        print(f"{arguments[0]}: {error}; write {{'state': …, 'textfile': ….prom}}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
