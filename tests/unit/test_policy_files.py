# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a variable is written, in all the ways that an inventory can write it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.policy_files import (
    FileProblemError,
    compose,
    locate,
    read_files,
)

PREFIX = ("isp_policy", "pools", "homes", "ipv4", 1)
POLICY = {"pools": {"homes": {"ipv4": ["192.0.2.0/25", "bad"]}}}
TEXT = """\
isp_policy:
  pools:
    homes:
      ipv4:
        - 192.0.2.0/25
        - bad
"""


def inventory(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return root


def where(
    root: Path, path: tuple[str | int, ...] = PREFIX, value: object = POLICY, groups: tuple[str, ...] = ("edge",)
) -> str:
    files = read_files([str(root)], base=str(root), names=("r1", "edge", "all"))
    assert files.problems == ()
    return locate(files, "r1", groups, path, value)


@pytest.mark.parametrize(
    "name",
    [
        "group_vars/all.yml",
        "group_vars/all/main.yaml",
        "group_vars/all/deep/er.yml",
        "group_vars/all/no_extension",
        "group_vars/edge.json",
        "group_vars/edge",
        "host_vars/r1.yml",
        "host_vars/r1/policy.yml",
        "host_vars/r1",
    ],
)
def test_every_place_where_ansible_looks(tmp_path: Path, name: str) -> None:
    inventory(tmp_path, **{name: TEXT})
    assert where(tmp_path) == f"{name}:6"


@pytest.mark.parametrize(
    "name", ["group_vars/other.yml", "group_vars/all/.hidden.yml", "group_vars/all/a.yml~", "host_vars/r2.yml"]
)
def test_files_of_others_and_hidden_ones_are_not_meant(tmp_path: Path, name: str) -> None:
    inventory(tmp_path, **{name: TEXT})
    assert where(tmp_path) == ""


INLINE = """\
all:
  vars:
    isp_policy: {pools: {homes: {ipv4: [192.0.2.0/25, good]}}}
  children:
    edge:
      hosts:
        r0:
        r1:
          isp_policy:
            pools: {homes: {ipv4: [192.0.2.0/25,
                                   bad]}}
"""


def test_variables_inside_the_inventory(tmp_path: Path) -> None:
    inventory(tmp_path, **{"hosts.yml": INLINE})
    assert where(tmp_path) == "hosts.yml:11"
    assert where(tmp_path, ("isp_attachments",), None) == "hosts.yml:8"


def test_the_host_wins_over_the_group_and_the_group_over_all(tmp_path: Path) -> None:
    inventory(tmp_path, **{"group_vars/all.yml": TEXT, "group_vars/edge.yml": TEXT})
    assert where(tmp_path) == "group_vars/edge.yml:6"
    inventory(tmp_path, **{"host_vars/r1.yml": "\n" + TEXT})
    assert where(tmp_path) == "host_vars/r1.yml:7"


def test_of_two_groups_the_one_that_says_the_value(tmp_path: Path) -> None:
    inventory(tmp_path, **{"group_vars/aaa.yml": TEXT.replace("bad", "good"), "group_vars/bbb.yml": TEXT})
    assert where(tmp_path, groups=("aaa", "bbb")) == "group_vars/bbb.yml:6"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("isp_policy",), 1),
        (("isp_policy", "nothing"), 1),
        (("isp_policy", "pools", "homes", "kind"), 3),
        (("isp_policy", "pools", "homes", "ipv4", 9), 4),
        (("isp_policy", "pools", "homes", "ipv4", "x"), 4),
        (("isp_policy", "pools", "homes", "ipv4", 0, "deeper"), 5),
    ],
)
def test_what_is_not_there_is_at_what_should_hold_it(tmp_path: Path, path: tuple[str | int, ...], line: int) -> None:
    inventory(tmp_path, **{"group_vars/all.yml": TEXT})
    assert where(tmp_path, path) == f"group_vars/all.yml:{line}"


def test_a_value_that_is_another_variable_is_followed(tmp_path: Path) -> None:
    policy = 'isp_policy:\n  pools: "{{ isp_pools }}"\n  smarthosts: "{{ missing }}"\n  terms: "{{ a | combine(b) }}"\n'
    inventory(
        tmp_path,
        **{"group_vars/all/a.yml": policy, "group_vars/all/b.yml": "isp_pools:\n  homes:\n    ipv4: [1, bad]\n"},
    )
    assert where(tmp_path) == "group_vars/all/b.yml:3"
    assert where(tmp_path, ("isp_policy", "smarthosts", 0)) == "group_vars/all/a.yml:3"
    assert where(tmp_path, ("isp_policy", "terms", "before", 0)) == "group_vars/all/a.yml:4"


def test_templates_that_go_in_circles_end(tmp_path: Path) -> None:
    inventory(tmp_path, **{"group_vars/all.yml": "isp_policy: '{{ b }}'\nb: '{{ isp_policy }}'\n"})
    assert where(tmp_path).startswith("group_vars/all.yml:")


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = """\
    x: &homes
      ipv4:
        - 192.0.2.0/25
        - bad
    isp_policy:
      pools:
        homes:
          <<: *homes
    """
    inventory(tmp_path, **{"group_vars/all.yml": text})
    assert where(tmp_path) == "group_vars/all.yml:4"


def test_vaulted_values_and_files_are_left_closed(tmp_path: Path) -> None:
    text = "isp_secret: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3061\n" + TEXT
    inventory(
        tmp_path, **{"group_vars/all/a.yml": text, "group_vars/all/vault.yml": "$ANSIBLE_VAULT;1.1;AES256\n3061\n"}
    )
    assert where(tmp_path) == "group_vars/all/a.yml:9"
    assert read_files([str(tmp_path)], base=str(tmp_path)).vaulted == ("group_vars/all/vault.yml",)


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    text = f"isp_policy: !!python/object/apply:os.system ['touch {mark}']\nb: !!python/name:os.system\n"
    inventory(tmp_path, **{"group_vars/all.yml": text})
    assert where(tmp_path, ("isp_policy", 0)) == "group_vars/all.yml:1"
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: [1,\nb: 2\n", 3, "expected ',' or ']'"),
        ("a: 1\n b: 2\n", 2, "mapping values are not allowed here"),
        ("a:\n\t- 1\n", 2, "cannot start any token"),
        ("a: 1\nb: *nope\n", 2, "undefined alias 'nope'"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 1\nb: \x1b[0m\n", 2, "control character #x1b"),
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' is there already, in line 1"),
        ("[" * 1500, 0, "nested too deeply"),
    ],
)
def test_broken_files_are_told_with_their_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    inventory(tmp_path, **{"group_vars/all/good.yml": TEXT})
    (tmp_path / "hosts.yml").write_text(text)
    files = read_files([str(tmp_path)], base=str(tmp_path))
    (problem,) = files.problems
    assert (problem.file, problem.line) == ("hosts.yml", line)
    assert reason in problem.reason
    assert locate(files, "r1", (), PREFIX, POLICY) == "group_vars/all/good.yml:6"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_bytes(b"\xff\xfe\x00")
    (problem,) = read_files([str(tmp_path)], base=str(tmp_path)).problems
    assert str(problem.reason) == "is not UTF-8"


def test_a_single_file_as_inventory_and_variables_beside_the_playbook(tmp_path: Path) -> None:
    inventory(tmp_path, **{"inv/hosts.yml": INLINE, "inv/other.yml": "[", "inv/group_vars/all.yml": TEXT})
    inventory(tmp_path, **{"plays/group_vars/all.yml": "\n" + TEXT, "plays/site.yml": "- hosts: all\n"})
    files = read_files([str(tmp_path / "inv" / "hosts.yml")], str(tmp_path / "plays"), str(tmp_path))
    assert files.problems == ()
    assert locate(files, "r0", (), PREFIX, POLICY) == "plays/group_vars/all.yml:7"
    assert locate(files, "r1", ("edge",), PREFIX, POLICY) == "inv/hosts.yml:11"


@given(st.text(max_size=60))
def test_any_text_is_yaml_or_is_told_not_to_be(text: str) -> None:
    told = None
    try:
        compose(text)
    except FileProblemError as problem:
        told = problem
    assert told is None or (told.reason and 0 <= told.line <= len(text.splitlines()) + 1)


trees: Any = st.recursive(
    st.integers(0, 99) | st.sampled_from(["a", "b c", "2001:db8::/32"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["k", "key two", "z"]), inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


@given(trees, st.booleans() | st.none(), st.data())
def test_the_line_is_the_one_that_holds_the_value(
    tmp_path_factory: Any, tree: Any, flow: bool | None, data: Any
) -> None:
    """Mark one value, write the tree in any style, and look for the mark."""
    path: list[str | int] = ["isp_policy"]
    whole = {"isp_policy": tree}
    inner: Any = whole
    while True:
        below = inner[path[-1]]
        if not isinstance(below, dict | list):
            break
        path.append(data.draw(st.sampled_from(list(below) if isinstance(below, dict) else list(range(len(below))))))
        inner = below
    inner[path[-1]] = "MARK"
    text = yaml.safe_dump(whole, default_flow_style=flow, width=20)
    root = tmp_path_factory.mktemp("inventory")
    inventory(root, **{"group_vars/all.yml": text})
    line = int(where(root, tuple(path), whole["isp_policy"]).rpartition(":")[2])
    lines = text.splitlines()
    assert "MARK" in lines[line - 1] or "MARK" in lines[line]  # the key's line, when the value stands below it
