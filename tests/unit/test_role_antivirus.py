# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role antivirus writes, read back by the audit: no limit lets a message pass that nobody has scanned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.mail import clamd
from tests.conftest import Run

ROLE = Path(__file__).resolve().parents[2] / "roles" / "antivirus"
SIZES = (65_536, 26_214_400, 150_000_000, 2**31 - 1)  # the smallest limit, the usual one, a large one, ClamAV's largest


@pytest.fixture(scope="module")
def written(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, str]]:
    """The files that the role's own task would install, by the size of a message and by path."""
    folder = tmp_path_factory.mktemp("antivirus")
    (folder / "templates").symlink_to(ROLE / "templates")
    tasks = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text(encoding="utf-8"))
    (task,) = (one for one in tasks if "isp.hardening.config_files" in one)
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    play: dict[str, Any] = {
        "hosts": "localhost",
        "vars": defaults | {"antivirus_milter": True},
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "dest": str(folder / f"{size}.json"),
                    "content": f"{{{{ ({task['isp.hardening.config_files']['files'][3:-3]}) | to_json }}}}",
                },
                "vars": task["vars"] | {"antivirus_policy": {"message_size_limit": size, "scanner_size_limit": size}},
            }
            for size in SIZES
        ],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    answer = run(
        "ansible-playbook", "-i", "localhost,", "-c", "local", "-e",
        "ansible_python_interpreter={{ ansible_playbook_python }}", str(folder / "play.yml"),
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout
    return {
        size: {one["path"]: one["content"] for one in json.loads((folder / f"{size}.json").read_text())}
        for size in SIZES
    }


@pytest.mark.parametrize("size", SIZES)
def test_no_limit_is_below_a_message(written: dict[int, dict[str, str]], size: int) -> None:
    daemon = clamd.read(written[size]["/etc/clamav/clamd.conf"])
    assert list(clamd.below(daemon, size)) == []
    milter = clamd.read(written[size]["/etc/clamav/clamav-milter.conf"])
    assert (clamd.size(clamd.setting(milter, "MaxFileSize").value) or 0) >= size


@pytest.mark.parametrize("size", SIZES)
def test_what_a_zip_hides_beyond_the_limit_is_found(written: dict[int, dict[str, str]], size: int) -> None:
    files = written[size]
    largest = int(clamd.setting(clamd.read(files["/etc/clamav/clamd.conf"]), "MaxFileSize").value)
    assert largest < 2**31  # clamd scans no larger file, whatever the limit says
    for folder in ("/etc/clamav/signatures", "/var/lib/clamav"):
        assert f":{largest + 1}-4294967295:" in files[f"{folder}/isp-hardening.cdb"]


@pytest.mark.parametrize("name", ["clamd.conf", "clamav-milter.conf"])
def test_nothing_is_exempt_and_no_key_stands_twice(written: dict[int, dict[str, str]], name: str) -> None:
    settings = clamd.read(written[SIZES[1]][f"/etc/clamav/{name}"])
    keys = [one.key for one in settings]
    assert len(keys) == len(set(keys))
    assert not {"ExcludePath", "SkipAuthenticated", "LocalNet", "Whitelist"} & set(keys)


def test_what_is_not_scanned_is_not_clean(written: dict[int, dict[str, str]]) -> None:
    daemon = clamd.read(written[SIZES[1]]["/etc/clamav/clamd.conf"])
    assert clamd.setting(daemon, "AlertExceedsMax").value == "yes"
    assert clamd.setting(daemon, "AlertEncryptedArchive").value == "yes"
    milter = clamd.read(written[SIZES[1]]["/etc/clamav/clamav-milter.conf"])
    assert [clamd.setting(milter, key).value for key in ("OnFail", "OnInfected")] == ["Defer", "Reject"]


def test_neither_unit_asks_for_official_signatures(written: dict[int, dict[str, str]]) -> None:
    for unit in ("service", "socket"):
        drop_in = written[SIZES[1]][f"/etc/systemd/system/clamav-daemon.{unit}.d/isp-hardening.conf"]
        assert "\nConditionPathExistsGlob=\n" in drop_in
