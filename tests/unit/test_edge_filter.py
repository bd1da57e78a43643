# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the action does on the controller: backups, and the sessions that it begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.action import edge_filter
from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.plugin_utils import router


def test_every_backup_has_its_own_file_for_its_owner_alone_and_the_last_one_is_found(tmp_path: Path) -> None:
    kept = [edge_filter._keep(tmp_path, "r1", f"configuration {number}") for number in range(20)]
    assert kept == sorted(set(kept))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "r1").iterdir()} == {0o600}
    assert (tmp_path / "r1").stat().st_mode & 0o777 == 0o700
    assert edge_filter._backup_text(str(tmp_path / "r1")) == "configuration 19"


@pytest.mark.parametrize("in_the_way", ["backups", "backups/r1"])
def test_where_no_backup_can_be_written_nothing_is_pushed(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file, not a directory")
    with pytest.raises(router.Ended, match=r"the backup .* cannot be written: .*; set backup_dir; nothing was changed"):
        edge_filter._keep(tmp_path / "backups", "r1", "configuration")


def test_without_a_backup_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(router.Ended, match=r"the backup .* cannot be read: .*No such file"):
        edge_filter._backup_text(str(tmp_path))


def action(transport: str, stdout: str = "") -> Any:
    result = {"rc": 0, "stdout": stdout, "stderr": ""}
    return SimpleNamespace(
        _connection=SimpleNamespace(transport=transport), _low_level_execute_command=lambda *_, **__: result
    )


def test_bytes_that_are_no_utf8_can_be_kept(tmp_path: Path) -> None:
    printed = b'comment "caf\xe9 \xc3\xa9"'.decode("utf-8", "surrogateescape")  # as Ansible reads it
    text = router.session_of(action("ssh", printed), platforms.load("linux_nftables")).send("nft list ruleset")
    assert text == 'comment "caf\ufffd é"'
    assert Path(edge_filter._keep(tmp_path, "r1", text)).read_text() == text


@pytest.mark.parametrize("transport", ["ssh", "local", "ansible.netcommon.network_cli"])
def test_another_connection_for_a_cli_is_an_error_that_says_so(transport: str) -> None:
    with pytest.raises(router.Ended, match=r"set ansible_connection to isp\.hardening\.netmiko"):
        router.session_of(action(transport), platforms.load("cisco_ios"))
