# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The next audit says which packets have another fate since the last one, and nothing of what means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.action.edge_filter import _since
from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.policy import Attachment
from ansible_collections.isp.hardening.plugins.module_utils.report import read
from ansible_collections.isp.hardening.plugins.module_utils.report.summary import summary
from ansible_collections.isp.hardening.plugins.plugin_utils.router import Ended
from lab.__main__ import CONFIGS
from tests.unit import report_samples as samples

IOS = platforms.load("cisco_ios")
RUNNING = (CONFIGS / "bng1.cfg").read_text()
PLACES = [Attachment("Virtual-Template1", ("residential",)), Attachment("Virtual-Template2", ("fibre",))]
SMTP = " 150 deny tcp any any eq smtp\n"


def audited(history: Path, running: str) -> dict[str, Any]:
    return _since(history, IOS, running, PLACES).get("drift", {})


def test_the_first_audit_has_no_history_and_leaves_one_for_its_owner_alone(tmp_path: Path) -> None:
    history = tmp_path / "history" / "bng1.cfg"
    assert audited(history, RUNNING) == {}
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.parent.stat().st_mode & 0o777 == 0o700
    kept = history.read_text()
    assert "$9$nhEmQVczB7dqsO" in RUNNING
    assert "$9$" not in kept
    assert "<hidden>" in kept
    assert SMTP in kept
    assert list(history.parent.iterdir()) == [history]


def test_a_line_that_went_is_told_once_with_packet_and_both_lines(tmp_path: Path) -> None:
    history = tmp_path / "bng1.cfg"
    audited(history, RUNNING)
    same = audited(history, RUNNING.replace(" 150 deny tcp any any eq smtp", " 155 deny tcp any any range smtp 25"))
    assert (same["changes"], same["left_out"], same["problem"]) == ([], 0, "")
    [change] = audited(history, RUNNING.replace(SMTP, ""))["changes"]
    assert (change["attachment"], change["direction"], change["family"]) == ("Virtual-Template1", "up", 4)
    assert change["change"] == "denied, now permitted"
    assert change["before"]["lines"][-1]["text"] == "155 deny tcp any any range smtp 25"
    assert change["after"]["lines"][-1]["text"] == "160 permit ip any any"
    assert audited(history, RUNNING.replace(SMTP, ""))["changes"] == []


def test_a_binding_that_went_opens_everything(tmp_path: Path) -> None:
    history = tmp_path / "bng1.cfg"
    audited(history, RUNNING)
    changes = audited(history, RUNNING.replace(" ip access-group FIBRE-OUT4 out\n", ""))["changes"]
    assert changes
    assert {(one["attachment"], one["direction"], one["change"]) for one in changes} == {
        ("Virtual-Template2", "down", "denied, now permitted")
    }
    assert all(one["after"]["lines"] == [] for one in changes)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    history = tmp_path / "bng1.cfg"
    history.write_text(RUNNING[: len(RUNNING) // 2])
    assert "what was audited last cannot be compared" in audited(history, RUNNING)["problem"]
    assert audited(history, RUNNING)["problem"] == ""
    with pytest.raises(Ended, match=r"cannot be read: .*; nothing was changed"):
        audited(tmp_path, RUNNING)


def test_a_terminal_shows_it() -> None:
    text = summary(read(samples.run(samples.munich())), colour=False)
    assert "Δ edge-muc1  denied, now permitted: tcp from 198.51.100.0/25" in text
    assert "before  line 88: 45 deny tcp any any eq 8080" in text
    assert "now  the end of the filter, or no filter" in text
    assert "and 3 more changes since the last audit" in text
