"""What must be in the kernel's table for a state, and what makes it so: no kernel is needed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.signals import nftables_service, quarantine
from ansible_collections.isp.hardening.plugins.module_utils.signals.ledger import Ledger, Refused, State, write_state
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import HOUR, Action, Protected
from ansible_collections.isp.hardening.plugins.module_utils.signals.quarantine import (
    Change,
    Settings,
    Table,
    plan,
    read_settings,
    read_table,
)

NOW = 1_790_000_000_000
NEVER = (Protected("192.0.2.0/28", "own servers"),)
SETTINGS = Settings("/state", "/audit", ("192.0.2.10", "2001:db8:f::10"), NEVER, 3)
V4, V6 = "203.0.113.7/32", "2001:db8:1:2::/64"


def action(key: str = "k1", *prefixes: str, **changes: object) -> Action:
    sound = Action(key, f"of {key}", prefixes or (V4,), NOW - HOUR, NOW + HOUR, "D2", ("D2",), "automatic")
    return replace(sound, **changes)  # type: ignore[arg-type]


def table(elements: Mapping[str, int | None], settings: Settings = SETTINGS) -> Table:
    found: dict[int, dict[str, int | None]] = {4: {}, 6: {}}
    for prefix, left in elements.items():
        found[6 if ":" in prefix else 4][prefix] = left
    return Table({name: len(rules) for name, rules in quarantine.chains(settings).items()}, found)


@pytest.mark.parametrize("text", ["", "{}", '{"never": [{}]}', "[1]"])
def test_settings_that_are_none_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="not"):
        read_settings(text)


def test_nobody_is_put_where_there_is_no_way_out() -> None:
    sound = {"state": "/s", "audit": "/a", "most": 1, "portal": ["192.0.2.10"], "never": []}
    assert read_settings(json.dumps(sound)).portal == ("192.0.2.10",)
    with pytest.raises(ValueError, match="no way out"):
        read_settings(json.dumps(sound | {"portal": []}))


def test_a_release_in_a_frozen_state_takes_out_one_and_touches_nothing_else() -> None:
    strange = table({V4: 60, "203.0.113.8/32": 5, V6: None})
    assert quarantine.removal([action("k1", V4, "203.0.113.99/32")], strange) == (
        "add element inet isp_quarantine subscribers4 { 203.0.113.7 }\n"
        "delete element inet isp_quarantine subscribers4 { 203.0.113.7 }\n"
    )
    assert quarantine.removal([action()], None) == ""


def test_the_second_plan_is_empty() -> None:
    assert plan(SETTINGS, {V4: NOW + HOUR}, table({V4: 3599}), NOW) == Change()


def test_each_difference_is_mended_by_what_it_takes() -> None:
    wanted = {V4: NOW + HOUR, V6: NOW + HOUR, "203.0.113.9/32": NOW + 1500}
    change = plan(SETTINGS, wanted, table({V4: 60, V6: None, "203.0.113.8/32": 5}), NOW)
    assert (change.added, change.renewed, change.removed) == (("203.0.113.9/32",), (V4, V6), ("203.0.113.8/32",))
    assert change.text.endswith(
        "add element inet isp_quarantine subscribers4 { 203.0.113.9 }\n"
        "delete element inet isp_quarantine subscribers4 { 203.0.113.9 }\n"
        "add element inet isp_quarantine subscribers4 { 203.0.113.9 timeout 1500ms }\n"
    )
    assert change.text.startswith("add element inet isp_quarantine subscribers4 { 203.0.113.8 }\ndelete ")


@pytest.mark.parametrize("found", [None, "another portal", "a rule less", "an empty table"])
def test_another_table_is_replaced_as_a_whole_with_what_is_due(found: str | None) -> None:
    there = table({V4: 3600})
    if found == "another portal":
        there = table({V4: 3600}, replace(SETTINGS, portal=("192.0.2.11",)))
    elif found == "a rule less":
        there = replace(there, chains=dict(there.chains) | {"forward": 3})
    elif found == "an empty table":
        there = Table({}, {4: {}, 6: {}})
    change = plan(SETTINGS, {V4: NOW + HOUR}, there if found else None, NOW)
    assert change.rebuilt
    assert change.text.startswith("add table inet isp_quarantine\ndelete table inet isp_quarantine\n")
    assert change.text.endswith("subscribers4 { 203.0.113.7 timeout 3600000ms }\n")


def test_without_a_portal_of_a_family_there_is_no_rule_for_it() -> None:
    only4 = quarantine.table_text(replace(SETTINGS, portal=("192.0.2.10",)))
    assert "ip daddr { 192.0.2.10 }" in only4
    assert "ip6 daddr {" not in only4


@pytest.mark.parametrize("text", ["", "{}", '{"nftables": [{"set": {"name": "subscribers4", "elem": [7]}}]}'])
def test_output_of_nft_that_is_not_understood_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        read_table(text)


def test_elements_are_read_in_each_form_that_nft_has() -> None:
    some = [
        {"elem": {"val": "2001:db8::7", "timeout": 60, "expires": 59}},
        {"elem": {"val": {"prefix": {"addr": "2001:db8:1:2::", "len": 64}}, "expires": 3}},
        {"elem": {"val": {"range": ["2001:db8::1", "2001:db8::3"]}, "expires": 3}},
        "2001:db8::8",
    ]
    sets = [{"set": {"name": "subscribers6", "elem": some}}, {"set": {"name": "subscribers4"}}]
    found = read_table(json.dumps({"nftables": [{"metainfo": {}}, *sets]}))
    assert found.elements == {
        4: {},
        6: {"2001:db8::7/128": 59, V6: 3, "2001:db8::1-2001:db8::3": 3, "2001:db8::8/128": None},
    }


def test_a_conntrack_that_fails_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def fails(command: list[str], text: str) -> NoReturn:
        raise Refused(f"{command[0]}: timed out{text}")

    monkeypatch.setattr(nftables_service, "table", lambda: table({}))
    monkeypatch.setattr(nftables_service, "load", loaded.append)
    monkeypatch.setattr(nftables_service, "_run", fails)
    monkeypatch.setattr(nftables_service.shutil, "which", lambda *_, **__: "/usr/sbin/conntrack")
    books = Ledger(str(tmp_path / "state"), str(tmp_path / "audit"), 3, NEVER)
    (tmp_path / "state").write_text(write_state(State((action(),))))
    outcome = books.reconcile(nftables_service.Kernel(SETTINGS), NOW)
    assert (len(loaded), outcome.after) == (1, (action(),))
    first = json.loads((tmp_path / "audit").read_text().splitlines()[0])
    assert (first["what"], first["reason"]) == ("sessions", "conntrack: timed out")
