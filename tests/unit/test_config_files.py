# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""config_files, run as Ansible runs it: accepted files are installed together, refused ones change nothing."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import config_files as logic
from ansible_collections.isp.hardening.plugins.module_utils.config_files import (
    HalfDone,
    Refused,
    hide,
    install,
    plan,
)
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.secrets import HIDDEN
from ansible_collections.isp.hardening.plugins.modules import config_files

OWNER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
KEY = "abcdefghijklmnopqrstuvwxyz"

# A daemon's check: the main file and what it includes must not hold the word `broken`.
CHECK = """#!/bin/sh
test -n "$FLAVOUR" && echo "flavour $FLAVOUR"
for file in "$1" $(sed -n 's/^include //p' "$1"); do
    if grep -n broken "$file" /dev/null; then exit 3; fi
done
echo "$0 $*" >> "$(dirname "$0")/asked"
"""

Result = dict[str, Any]
Call = Callable[..., Result]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A service's directory: a main file, an include of somebody else's."""
    folder = tmp_path / "etc" / "daemon"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "main.conf").write_text(f"include {folder}/conf.d/ours.conf\ninclude {folder}/conf.d/other.conf\n")
    (folder / "conf.d" / "ours.conf").write_text("one\n")
    (folder / "conf.d" / "other.conf").write_text("theirs\n")
    script = tmp_path / "checkconf"
    script.write_text(CHECK)
    script.chmod(0o755)
    return folder


@pytest.fixture
def call(base: Path, tmp_path: Path) -> Call:
    """`call(files, absent=…, check=True)`: the module's answer, as JSON, from a process of its own."""

    def run(files: list[Mapping[str, str]], *, check: bool = False, **options: object) -> Result:
        arguments: dict[str, object] = {
            "base": str(base),
            "files": [{"owner": OWNER, "group": GROUP} | dict(file) for file in files],
            "validate": [[str(tmp_path / "checkconf"), "{stage}/main.conf"]],
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path / "remote"),
        }
        program = (
            "from ansible.module_utils.testing import patch_module_args\n"
            "import json, sys\n"
            "from ansible_collections.isp.hardening.plugins.modules import config_files\n"
            "with patch_module_args(json.load(sys.stdin)):\n"
            "    config_files.main()\n"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(arguments | options),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert answer.stdout, answer.stderr
        result: Result = json.loads(answer.stdout.splitlines()[-1])
        assert bool(result.get("failed")) == bool(answer.returncode)
        assert not list((tmp_path / "remote").glob("*/*")), "the copy is still there"
        return result

    return run


def ours(base: Path, content: str, **more: str) -> dict[str, str]:
    return {"path": str(base / "conf.d" / "ours.conf"), "content": content, **more}


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(folder)): (stat.S_IMODE(path.lstat().st_mode), path.read_text() if path.is_file() else "")
        for path in folder.rglob("*")
    }


# -- what is accepted --------------------------------------------------------------------------------------------


def test_an_accepted_file_is_installed_and_the_second_run_changes_nothing(call: Call, base: Path) -> None:
    first = call([ours(base, "two\n", mode="0640")])
    assert first["changed"]
    assert first["files"] == [str(base / "conf.d" / "ours.conf")]
    assert (base / "conf.d" / "ours.conf").read_text() == "two\n"
    assert stat.S_IMODE((base / "conf.d" / "ours.conf").stat().st_mode) == 0o640
    second = call([ours(base, "two\n", mode="0640")])
    assert not second["changed"]
    assert second["diff"] == []
    assert sorted(path.name for path in (base / "conf.d").iterdir()) == ["other.conf", "ours.conf"]


def test_the_check_reads_the_copy_and_its_includes(call: Call, base: Path, tmp_path: Path) -> None:
    assert call([ours(base, "two\n")])["changed"]
    asked = (tmp_path / "asked").read_text()
    assert str(base) not in asked
    assert asked.endswith("/main.conf\n")


def test_several_files_and_an_absent_one_make_one_change(call: Call, base: Path, tmp_path: Path) -> None:
    outside = tmp_path / "etc" / "system" / "daemon.d" / "drop-in.conf"
    old = base / "conf.d" / "old.conf"
    old.write_text("old\n")
    files = [ours(base, "two\n"), {"path": str(outside), "content": "drop-in\n"}]
    result = call(files, absent=[str(old), str(base / "never-there")])
    assert result["files"] == [str(base / "conf.d" / "ours.conf"), str(outside), str(old)]
    assert outside.read_text() == "drop-in\n"
    assert stat.S_IMODE(outside.parent.stat().st_mode) == 0o755
    assert not old.exists()
    assert not call(files, absent=[str(old)])["changed"]


def test_an_absent_file_is_left_out_of_the_copy(call: Call, base: Path) -> None:
    (base / "conf.d" / "other.conf").write_text("broken\n")
    (base / "main.conf").write_text(f"include {base}/conf.d/*.conf\n")
    assert call([ours(base, "two\n")])["failed"]
    assert call([ours(base, "two\n")], absent=[str(base / "conf.d" / "other.conf")])["changed"]


@pytest.mark.parametrize("change", [{"mode": "0600"}, {"mode": "0640"}])
def test_another_mode_is_a_change(call: Call, base: Path, change: dict[str, str]) -> None:
    result = call([ours(base, "one\n", **change)])
    assert result["changed"]
    assert change["mode"] in result["diff"][0]["after"]
    assert f"{stat.S_IMODE((base / 'conf.d' / 'ours.conf').stat().st_mode):04o}" == change["mode"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_another_owner_is_a_change(call: Call, base: Path) -> None:
    path = base / "conf.d" / "ours.conf"
    os.chown(path, 65534, 65534)
    assert call([ours(base, "one\n")])["changed"]
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    assert call([ours(base, "one\n", owner="nobody")])["changed"]
    assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_a_file_is_replaced_by_rename(call: Call, base: Path) -> None:
    path = base / "conf.d" / "ours.conf"
    with path.open() as reader:
        call([ours(base, "two\n")])
        assert reader.read() == "one\n"  # who reads it now sees the old file whole
    assert path.read_text() == "two\n"


# -- symlinks ----------------------------------------------------------------------------------------------------


def test_a_symlink_is_replaced_and_what_it_led_to_stays(call: Call, base: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.conf"
    real.write_text("two\n")
    path = base / "conf.d" / "ours.conf"
    path.unlink()
    path.symlink_to(real)
    result = call([ours(base, "two\n")])
    assert result["changed"]
    assert f"symlink to {real}" in result["diff"][0]["before"]
    assert not path.is_symlink()
    assert real.read_text() == "two\n"


def test_a_refused_file_behind_a_symlink_reaches_nothing(call: Call, base: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    (base / "conf.d").rename(real)
    (base / "conf.d").symlink_to(real)
    (real / "ours.conf").unlink()
    (real / "ours.conf").symlink_to(tmp_path / "far.conf")
    (tmp_path / "far.conf").write_text("one\n")
    before = everything(tmp_path / "real")
    assert call([ours(base, "broken\n")])["failed"]
    assert everything(tmp_path / "real") == before
    assert (tmp_path / "far.conf").read_text() == "one\n"
    assert call([ours(base, "two\n")])["changed"]
    assert (real / "ours.conf").read_text() == "two\n"


def test_relative_symlinks_lead_where_they_led(call: Call, base: Path, tmp_path: Path) -> None:
    (tmp_path / "etc" / "shared.conf").write_text("broken\n")
    (base / "conf.d" / "other.conf").unlink()
    (base / "conf.d" / "other.conf").symlink_to("../../shared.conf")
    assert "broken" in call([ours(base, "two\n")])["msg"]
    (tmp_path / "etc" / "shared.conf").write_text("fine\n")
    assert call([ours(base, "two\n")])["changed"]


def test_a_socket_in_the_directory_is_no_configuration(call: Call, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("control")
        assert call([ours(base, "two\n")])["changed"]


# -- what is refused ---------------------------------------------------------------------------------------------


def test_a_refused_file_changes_nothing_and_says_why(call: Call, base: Path, tmp_path: Path) -> None:
    before = everything(tmp_path / "etc")
    new = {"path": str(tmp_path / "etc" / "new" / "file"), "content": "new\n"}
    result = call([new, ours(base, "broken here\n")], absent=[str(base / "conf.d" / "other.conf")])
    assert result["failed"]
    assert f"checkconf {base}/main.conf' refused the files (exit code 3)" in result["msg"]
    assert f"{base}/conf.d/ours.conf:1:broken here" in result["msg"]
    assert result["msg"].endswith("Nothing was changed.")
    assert everything(tmp_path / "etc") == before


def test_the_environment_reaches_the_check(call: Call, base: Path) -> None:
    result = call([ours(base, "broken\n")], environment={"FLAVOUR": "{stage}/x"})
    assert f"flavour {base}/x" in result["msg"]


def test_a_check_that_is_not_installed_is_a_failure(call: Call, base: Path) -> None:
    result = call([ours(base, "two\n")], validate=[["no-such-checkconf", "{stage}"]])
    assert result["failed"]
    assert "no-such-checkconf is not installed" in result["msg"]
    assert (base / "conf.d" / "ours.conf").read_text() == "one\n"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ({"path": "conf.d/x", "content": ""}, "no plain absolute path"),
        ({"path": "/etc/daemon/../x", "content": ""}, "no plain absolute path"),
        ({"path": "/etc/daemon/x", "content": "", "mode": "rw"}, "no octal number"),
        ({"path": "/etc/daemon/x", "content": "", "owner": "nobody-here"}, "user nobody-here is not there"),
        ({"path": "/etc/daemon/x", "content": "", "group": "nobody-here"}, "group nobody-here is not there"),
        ({"path": "/etc/daemon/x", "content": "", "secret_content": ""}, "mutually exclusive"),
        ({"path": "/etc/daemon/x"}, "one of the following is required"),
    ],
)
def test_options_that_make_no_sense_are_told(call: Call, file: dict[str, str], why: str) -> None:
    result = call([file])
    assert result["failed"]
    assert why in result["msg"]


def test_a_path_stands_once_and_is_no_directory(call: Call, base: Path) -> None:
    path = str(base / "conf.d" / "ours.conf")
    assert "is listed twice" in call([ours(base, "two\n")], absent=[path])["msg"]
    assert "is a directory" in call([], absent=[str(base / "conf.d")])["msg"]
    assert "is a directory" in call([{"path": str(base / "conf.d"), "content": ""}])["msg"]


def test_a_rename_that_fails_takes_the_others_back(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "link.conf").symlink_to(base / "main.conf")
    before = everything(tmp_path / "etc")
    names = ["conf.d/ours.conf", "link.conf", "new/file", "conf.d/other.conf"]
    wanted = logic.read_wanted(
        [
            {"path": str(base / name), "content": "new\n", "owner": OWNER, "group": GROUP, "mode": "0600"}
            for name in names
        ],
        [],
    )
    steps = plan(wanted, [], lambda what: pytest.fail(what))
    replace = os.replace

    def fails(source: str, target: str) -> None:
        if target.endswith("other.conf"):
            raise OSError(16, "Device or resource busy", source, None, target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(Refused, match=r"other\.conf: Device or resource busy"):
        install(steps)
    assert everything(tmp_path / "etc") == before
    assert (base / "link.conf").is_symlink()


def test_what_cannot_be_taken_back_is_told_whole(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"content": "new\n", "owner": OWNER, "group": GROUP, "mode": "0644"}
    names = ["conf.d/ours.conf", "main.conf", "new/file", "conf.d/other.conf"]
    wanted = logic.read_wanted([file | {"path": str(base / name)} for name in names], [])
    steps = plan(wanted, [], lambda what: pytest.fail(what))
    replace, full = os.replace, [False]

    def fails(source: str, target: str) -> None:
        full[0] = full[0] or target.endswith("other.conf")
        if full[0]:
            raise OSError(28, "No space left on device", source, None, target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(HalfDone) as caught:
        install(steps)
    assert f"{base}/main.conf stays" in str(caught.value)
    assert f"{base}/conf.d/ours.conf stays" in str(caught.value)
    assert not (base / "new").exists()
    assert not [path for path in base.rglob(".*") if "other.conf" in path.name]


# -- check mode --------------------------------------------------------------------------------------------------


def test_check_mode_says_the_same_and_writes_nothing(call: Call, base: Path, tmp_path: Path) -> None:
    files = [ours(base, "two\n"), {"path": str(tmp_path / "etc" / "new" / "file"), "content": "new\n"}]
    before = everything(tmp_path / "etc")
    checked = call(files, check=True)
    assert everything(tmp_path / "etc") == before
    assert (tmp_path / "asked").exists(), "the daemon's own check is asked in check mode too"
    done = call(files)
    assert {key: done[key] for key in ("changed", "files", "diff")} == {
        key: checked[key] for key in ("changed", "files", "diff")
    }
    assert not call(files, check=True)["changed"]


def test_check_mode_fails_as_the_run_would(call: Call, base: Path) -> None:
    assert "refused the files" in call([ours(base, "broken\n")], check=True)["msg"]


def test_check_mode_on_a_host_without_the_service(call: Call, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    result = call(
        [{"path": str(fresh / "main.conf"), "content": "x\n", "owner": "nobody-here"}],
        check=True,
        base=str(fresh),
        validate=[["no-such-checkconf", "{stage}"]],
    )
    assert result["changed"]
    assert result["files"] == [str(fresh / "main.conf")]
    for said in ("user nobody-here is not there", "no-such-checkconf is not installed", f"{fresh} is not there"):
        assert said in result["msg"]
    assert not fresh.exists()


# -- secrets -----------------------------------------------------------------------------------------------------


def test_a_secret_is_in_no_answer(call: Call, base: Path) -> None:
    secret = {
        "path": str(base / "conf.d" / "ours.conf"),
        "mode": "0600",
        "secret_content": f"key {KEY}\nbroken {KEY}\n",
    }
    refused = call([secret])
    assert refused["failed"]
    assert "ours.conf:2:" in refused["msg"]
    assert HIDDEN in refused["msg"]
    accepted = call([secret | {"secret_content": f"key {KEY}\n"}])
    assert accepted["changed"]
    again = call([secret | {"secret_content": "key other\n"}])
    gone = call([], absent=[secret["path"]])
    for result in (refused, accepted, again, gone):
        assert KEY[:6] not in json.dumps(result)
        assert KEY[-6:] not in json.dumps(result)
    assert "not shown" in json.dumps(again["diff"])
    assert again["diff"][0]["before"] != again["diff"][0]["after"]


def test_what_a_readable_file_had_in_it_is_not_shown(call: Call, base: Path) -> None:
    key = "q1w2e3r4t5z6u7i8o9p0a1s2d3"
    path = base / "conf.d" / "ours.conf"
    path.write_text(f'rbl = "{key}.zen.dq.spamhaus.net";\npassword = "{KEY}";\n')
    (change,) = call([ours(base, "two\n")], check=True)["diff"]
    assert change["before"] == f'rbl = "{HIDDEN}.zen.dq.spamhaus.net";\npassword = {HIDDEN};\n'
    (other,) = call([ours(base, path.read_text().replace(KEY, "other"))])["diff"]
    assert other["before"] != other["after"]
    for shown in (change, other):
        assert key not in json.dumps(shown)
        assert KEY not in json.dumps(shown)


def test_a_file_that_not_all_may_read_is_not_shown_either(call: Call, base: Path) -> None:
    other = base / "conf.d" / "other.conf"
    other.write_text(f"broken {KEY}\n")
    other.chmod(0o640)
    refused = call([ours(base, "two\n")])
    assert refused["failed"]
    assert KEY[:6] not in refused["msg"]
    path = base / "conf.d" / "ours.conf"
    path.write_text(f"key {KEY}\n")
    path.chmod(0o600)
    other.write_text("theirs\n")
    assert KEY[:6] not in json.dumps(call([ours(base, "two\n")]))


def test_no_secret_is_in_the_system_log(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible.module_utils import basic
    from ansible.module_utils.testing import patch_module_args

    logged: list[str] = []
    monkeypatch.setattr(basic.syslog, "syslog", lambda *words: logged.append(str(words)))
    monkeypatch.setattr(basic, "has_journal", False)
    arguments = {
        "base": str(base),
        "files": [{"path": "/etc/daemon/x", "secret_content": f"key\n{KEY}\n"}],
        "_ansible_check_mode": True,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        config_files.main()
    assert KEY not in "".join(logged)


def test_what_is_hidden_is_what_only_the_secret_says() -> None:
    said = "line 3: password=hunter22; near '/etc/daemon/secret.conf'"
    secret = ["file /etc/daemon/secret.conf\npassword=hunter22\n"]
    assert hide(said, secret, ["/etc/daemon/secret.conf"]) == f"line 3: {HIDDEN}; near '/etc/daemon/secret.conf'"
    assert hide(said, [], []) == said


# -- documentation -----------------------------------------------------------------------------------------------


def test_the_spec_of_the_module_is_its_documentation() -> None:
    def told(options: Mapping[str, Any]) -> dict[str, Any]:
        known = ("type", "elements", "required", "default")
        return {
            name: {key: option[key] for key in known if key in option}
            | ({"options": told(option["options"])} if "options" in option else {})
            for name, option in options.items()
        }

    assert argument_spec(config_files.DOCUMENTATION) == told(config_files.ARGUMENTS)
