# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Exceptions are edited in place: what is asked for changes, and not one byte beside it."""

from __future__ import annotations

import datetime
import difflib
import errno
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.policy_edit import EditError, edited, find
from ansible_collections.isp.hardening.plugins.modules import policy_exception

ROOT = Path(__file__).resolve().parent.parent.parent
TODAY = datetime.date(2026, 11, 23)
NEW = {"owner": "Example GmbH", "reason": "own MX", "until": "2027-01-31"}

HEAD = """\
    ---
    # the policy
    isp_policy:
      pools:   # all of them
        homes: {kind: dynamic,   ipv4: [198.51.100.0/25],
                ipv6: ['2001:db8:100::/40']}
"""
BLOCK = (
    HEAD
    + """\
      exceptions:
        # the first customer
        - prefix: 198.51.100.7/32  # bras1
          owner: "Example GmbH"
          reason: 'it''s their MX'
          until: 2027-01-31   # asked again in January

        # the second customer
        - prefix: 198.51.100.8/32
          owner: Beispiel AG
          reason: >
            a long
            reason
          until: "2027-02-28"
          controls:
            - P1
            - P2
      # what comes after
      profile: strict
    other: {{ template }}
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      3061
"""
)
FLOW = (
    HEAD
    + """\
      exceptions:
        - {prefix: 198.51.100.7/32, owner: Example GmbH, reason: own MX, until: 2027-01-31}
        - {prefix: 198.51.100.8/32, owner: Beispiel AG, reason: own MX, until: 2027-01-31}  # two
      profile: strict
"""
)
INLINE = (
    HEAD
    + """\
      exceptions: [{prefix: 198.51.100.7/32, owner: A, reason: own MX, until: 2027-01-31}, {prefix: 198.51.100.8/32,
                   owner: B, reason: own MX, until: 2027-01-31}]
      profile: strict
"""
)
EMPTY = {
    "brackets": HEAD + "      exceptions: []  # none\n      profile: strict\n",
    "nothing": HEAD + "      exceptions:\n      profile: strict\n",
    "null": HEAD + "      exceptions: null\n",
    "absent": HEAD + "      # the end\n    other: 1\n",
    "no line break at the end": HEAD + "      profile: strict",
}
STYLES = {"block": BLOCK, "flow": FLOW, "inline": INLINE} | EMPTY


def text(style: str) -> str:
    return dedent(STYLES[style]).replace("{{ template }}", '"{{ template }}"')


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went and the lines that came."""
    difference = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:] for line in difference if line[0] == "-"], [line[2:] for line in difference if line[0] == "+"]


def exceptions(policy: str) -> list[dict[str, Any]]:
    plain = policy.replace("!vault ", "")
    return yaml.safe_load(plain)["isp_policy"].get("exceptions") or []


@pytest.mark.parametrize("style", STYLES)
def test_a_new_exception_joins_the_others(style: str) -> None:
    before = text(style)
    after = edited(before, "198.51.100.9/32", NEW, TODAY)
    assert exceptions(after)[:-1] == exceptions(before)
    assert exceptions(after)[-1] == {"prefix": "198.51.100.9/32", **NEW, "until": datetime.date(2027, 1, 31)}
    gone, _ = changed_lines(before, after)
    assert len(gone) == {"brackets": 1, "null": 1, "inline": 1}.get(style, 0)
    assert edited(after, "198.51.100.9/32", NEW, TODAY) == after


@pytest.mark.parametrize("style", ["block", "flow", "inline"])
def test_adding_and_removing_is_nothing(style: str) -> None:
    before = text(style)
    assert edited(edited(before, "198.51.100.9/32", NEW, TODAY), "198.51.100.9/32", None, TODAY) == before


@pytest.mark.parametrize(
    ("style", "gone", "came"),
    [
        (
            "block",
            "      until: 2027-01-31   # asked again in January",
            "      until: 2027-03-31   # asked again in January",
        ),
        (
            "flow",
            "    - {prefix: 198.51.100.7/32, owner: Example GmbH, reason: own MX, until: 2027-01-31}",
            "    - {prefix: 198.51.100.7/32, owner: Example GmbH, reason: own MX, until: 2027-03-31}",
        ),
    ],
)
def test_extending_changes_one_date(style: str, gone: str, came: str) -> None:
    before = text(style)
    after = edited(before, "198.51.100.7", {"until": "2027-03-31"}, TODAY)
    assert changed_lines(before, after) == ([gone], [came])


def test_quotes_of_a_value_stay() -> None:
    before = text("block")
    after = edited(before, "198.51.100.8/32", {"until": "2027-03-31"}, TODAY)
    assert changed_lines(before, after) == (['      until: "2027-02-28"'], ['      until: "2027-03-31"'])
    after = edited(before, "198.51.100.7/32", {"reason": "it's gone"}, TODAY)
    assert changed_lines(before, after)[1] == ["      reason: 'it''s gone'"]


def test_fields_that_are_not_there_are_added_and_lists_replaced() -> None:
    before = text("block")
    after = edited(before, "198.51.100.7/32", {"controls": ["P1"]}, TODAY)
    assert changed_lines(before, after) == ([], ["      controls: [P1]"])
    after = edited(before, "198.51.100.8/32", {"controls": ["P3"]}, TODAY)
    assert changed_lines(before, after) == (
        ["      controls:", "        - P1", "        - P2"],
        ["      controls: [P3]"],
    )
    after = edited(text("flow"), "198.51.100.8/32", {"controls": ["P3"]}, TODAY)
    assert exceptions(after)[1]["controls"] == ["P3"]


def test_removing_takes_the_entry_and_leaves_the_comments() -> None:
    before = text("block")
    after = edited(before, "198.51.100.7/32", None, TODAY)
    gone, came = changed_lines(before, after)
    assert came == []
    assert gone == [
        "    - prefix: 198.51.100.7/32  # bras1",
        '      owner: "Example GmbH"',
        "      reason: 'it''s their MX'",
        "      until: 2027-01-31   # asked again in January",
    ]
    nothing = edited(after, "198.51.100.8/32", None, TODAY)
    assert exceptions(nothing) == []
    for comment in ("# the first customer", "# the second customer", "# what comes after"):
        assert comment in nothing


@pytest.mark.parametrize("style", STYLES)
def test_removing_what_is_not_there_changes_nothing(style: str) -> None:
    assert edited(text(style), "198.51.100.99/32", None, TODAY) == text(style)


def test_windows_line_breaks_stay() -> None:
    before = text("block").replace("\n", "\r\n")
    after = edited(before, "198.51.100.9/32", NEW, TODAY)
    assert after.count("\n") == after.count("\r\n") == before.count("\n") + 4


@pytest.mark.parametrize(
    ("policy", "prefix", "fields", "told"),
    [
        (text("block"), "192.0.2.9/32", NEW, "p.yml:24: isp_policy.exceptions[2].prefix: 192.0.2.9/32 is in no pool"),
        (text("block"), "198.51.100.9/25", NEW, "p.yml: prefix: 198.51.100.9/25 has host bits set"),
        (text("block"), "198.51.100.0/25", NEW, "198.51.100.0/25 is too wide"),
        (text("block"), "198.51.100.9/32", {"owner": "A"}, "'reason' is missing"),
        (text("block"), "198.51.100.7/32", {"controls": ["P99"]}, "isp_policy.exceptions[0].controls[0]: unknown"),
        (text("block"), "198.51.100.7/32", {"until": "2026-11-22"}, "p.yml: until: 2026-11-22 is in the past"),
        (text("block"), "198.51.100.7/32", {"until": "soon"}, "'soon' is not a date"),
        (text("block"), "198.51.100.7/32", {"until": "2027-02-31"}, "p.yml: until: '2027-02-31' is not a date"),
        (text("block"), "198.51.100.9/32", NEW | {"until": "20270131"}, "until: '20270131' is not a date"),
        (text("block"), "198.51.100.7/32", {"until": "{{ x }}"}, "until: '{{ x }}' is not a date"),
        (text("flow").replace("01-31", "02-31"), "198.51.100.9/32", NEW, "'2027-02-31' is not a date"),
        ("a: !!int b\n" + text("flow"), "198.51.100.7/32", NEW, "is no YAML"),
        ("a: !!bool b\n" + text("flow"), "198.51.100.7/32", NEW, "is no YAML"),
        (text("block").replace("exceptions:", "exceptions: &all"), "198.51.100.7/32", None, "p.yml:7: isp_policy.exc"),
        (text("block").replace("exceptions:", "exceptions: !!seq"), "198.51.100.9/32", NEW, "an anchor or a tag"),
        ("isp_policy:\n  ? exceptions\n", "198.51.100.7/32", NEW, "p.yml:2: the key 'exceptions' has no colon"),
        (text("block") + "isp_policy:\n  pools: {}\n", "198.51.100.7/32", NEW, "there already, in line 3"),
        (text("brackets") + "  exceptions: []\n", "198.51.100.7/32", NEW, "p.yml:9: the key 'exceptions' is there"),
        (text("block"), "198.51.100.7/32", {"reason": "two\nlines"}, "holds a line break"),
        ("a: 1\n", "198.51.100.7/32", NEW, "isp_policy is not in the file"),
        ("", "198.51.100.7/32", NEW, "isp_policy is not in the file"),
        ("isp_policy: '{{ x }}'\n", "198.51.100.7/32", NEW, "p.yml:1: isp_policy is not written out"),
        ("isp_policy:\n  exceptions: '{{ x }}'\n", "198.51.100.7/32", NEW, "p.yml:2: isp_policy.exceptions is"),
        ("isp_policy:\n  exceptions: [\n", "198.51.100.7/32", NEW, "is no YAML"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3061\n", "198.51.100.7/32", NEW, "the file is encrypted"),
        ("isp_policy: {pools: {}}\n", "198.51.100.7/32", NEW, "p.yml:1: isp_policy is not written out"),
        ("a: &x []\nisp_policy:\n  exceptions: *x\n", "198.51.100.7/32", NEW, "p.yml:3: isp_policy.exceptions is"),
    ],
)  # fmt: skip
def test_refusals_say_where_and_why(policy: str, prefix: str, fields: dict[str, Any] | None, told: str) -> None:
    with pytest.raises(EditError) as refusal:
        edited(policy, prefix, fields, TODAY)
    assert told in refusal.value.told("p.yml")


def test_an_anchor_that_others_use_is_not_lost() -> None:
    policy = text("flow").replace("until: 2027-01-31}\n", "until: &day 2027-01-31}\n", 1)
    policy = policy.replace("until: 2027-01-31}  # two", "until: *day}  # two")
    with pytest.raises(EditError, match=r"cannot be edited safely|no YAML"):
        edited(policy, "198.51.100.7/32", {"until": "2027-03-31"}, TODAY)


def test_an_exception_joins_a_policy_that_has_an_anchor() -> None:
    policy = text("absent").replace("isp_policy:", "isp_policy: &all")
    assert exceptions(edited(policy, "198.51.100.9/32", NEW, TODAY))[0]["prefix"] == "198.51.100.9/32"


def test_a_date_that_there_is_not_can_be_mended() -> None:
    policy = text("block").replace("2027-01-31 ", "2027-02-31 ")
    after = edited(policy, "198.51.100.7/32", {"until": "2027-02-28"}, TODAY)
    assert changed_lines(policy, after)[1] == ["      until: 2027-02-28   # asked again in January"]


def test_templates_in_the_policy_are_not_judged() -> None:
    policy = "isp_policy:\n  pools: '{{ isp_pools }}'\n  exceptions: []\n"
    after = edited(policy, "198.51.100.7/32", NEW, TODAY)
    assert find(after, "198.51.100.7/32") == {"prefix": "198.51.100.7/32", **NEW}


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1).filter(
    lambda word: word.strip() == word and word.isprintable()
)


@given(
    style=st.sampled_from(sorted(STYLES)),
    host=st.integers(0, 127),
    owner=words,
    reason=words,
    days=st.integers(0, 3000),
    controls=st.none() | st.lists(st.sampled_from(["P1", "P2", "P3", "P4"]), min_size=1, unique=True),
)
def test_what_is_written_is_what_is_read(
    style: str, host: int, owner: str, reason: str, days: int, controls: list[str] | None
) -> None:
    prefix = f"198.51.100.{host}/32"
    until = (TODAY + datetime.timedelta(days)).isoformat()
    fields = {"owner": owner, "reason": reason, "until": until} | ({"controls": controls} if controls else {})
    before = text(style)
    after = edited(before, prefix, fields, TODAY)
    found = find(after, prefix)
    assert found is not None
    assert fields.items() <= found.items()
    others = [one for one in exceptions(before) if one["prefix"] != prefix]
    assert [one for one in exceptions(after) if one["prefix"] != prefix] == others
    assert exceptions(edited(after, prefix, None, TODAY)) == others


PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - isp.hardening.policy_exception:
        path: {path}
        prefix: 198.51.100.7/32
        until: 2099-12-31
      register: first
    - isp.hardening.policy_exception:
        path: {path}
        prefix: 192.0.2.1
        owner: A
        reason: B
        until: 2099-12-31
      ignore_errors: true
      register: second
    - copy:
        content: "{{{{ [first, second] | to_json }}}}"
        dest: {results}
      check_mode: false
"""


@pytest.mark.parametrize("check", [False, True], ids=["for real", "check mode"])
def test_the_module(tmp_path: Path, check: bool) -> None:
    policy, results, play = tmp_path / "policy.yml", tmp_path / "results.json", tmp_path / "play.yml"
    policy.write_text(text("block"))
    policy.chmod(0o640)
    play.write_text(PLAY.format(path=policy, results=results))
    command = [
        "ansible-playbook",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        str(play),
        *(["--check"] if check else []),
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert results.exists(), answer.stdout + answer.stderr
    first, second = json.loads(results.read_text())
    wanted = text("block").replace("until: 2027-01-31 ", "until: 2099-12-31 ")
    assert first["changed"]
    assert first["entry"]["until"] == "2099-12-31"
    assert (first["diff"]["before"], first["diff"]["after"]) == (text("block"), wanted)
    assert second["failed"]
    assert "192.0.2.1/32 is in no pool" in second["msg"]
    assert policy.read_text() == (text("block") if check else wanted)
    assert policy.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["play.yml", "policy.yml", "results.json"]


def test_a_folder_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text(text("block"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(policy_exception.tempfile, "NamedTemporaryFile", full)
    arguments = {"path": str(policy), "prefix": "198.51.100.7/32", "state": "absent"}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        policy_exception.main()
    told = json.loads(capsys.readouterr().out)["msg"]
    assert told == f"{policy}: cannot be written: No space left on device; nothing was changed"
    assert policy.read_text() == text("block")
