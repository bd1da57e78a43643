"""The page in a browser: what eyes, a keyboard, a screen reader and paper get, and what a hostile router does not."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.report import html, read
from tests.unit import chromium
from tests.unit import report_samples as samples
from tests.unit.test_report import hostile_run

pytestmark = pytest.mark.skipif(not chromium.PATH, reason="chromium is not installed")

PAGES = {
    "audit": samples.audit_run,
    "push": samples.push_run,
    "signals": samples.signals_run,
    "hostile": hostile_run,
    "empty": samples.run,
    "fleet": lambda: samples.fleet(1000),
}

# Every element with text of its own: its colour, the nearest background, size and weight; and the same for icons.
CONTRAST = """
(() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let here = element; here; here = here.parentElement) {
      const colour = channels(getComputedStyle(here).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *, body")) {
    const icon = element.matches("svg.icon");
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if ((!own && !icon) || element.closest(".symbols, .sr, script") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const [a, b] = [luminance(channels(style.color)), luminance(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    seen += 1;
    if (ratio < (icon || large ? 3 : 4.5)) poor.push([element.outerHTML.slice(0, 80), style.color, ratio]);
  }
  return [seen, poor];
})()
"""
SHOWN = "[...document.querySelectorAll('.host')].filter((host) => host.checkVisibility()).map((host) => host.id)"
PROBLEMS = (
    "[...document.querySelectorAll('.cause')].filter((cause) => !cause.closest('[hidden]')).map((cause) => cause.id)"
)
FOCUS = """
(() => {
  const here = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(here);
  if (here === document.body) return null;
  return [here.id || here.textContent.trim().slice(0, 40), outlineStyle !== "none" && parseFloat(outlineWidth) > 1];
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, run in PAGES.items():
        (folder / f"{name}.html").write_text(html.document(read(run())), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def settled(page: chromium.Page) -> None:
    """The filter waits a moment for the next key."""
    page.run("new Promise((done) => setTimeout(done, 250))")


def choose(page: chromium.Page, control: str, value: str) -> None:
    page.run(f"{control}.value = {value!r}; {control}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    settled(page)


def complaints(page: chromium.Page) -> list[Any]:
    return [
        event["params"]
        for event in page.events
        if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
    ]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_needs_nothing_but_its_file_and_complains_of_nothing(
    page: chromium.Page, pages: dict[str, Path], name: str
) -> None:
    page.open(pages[name])
    page.run("location.hash = '#main'")
    fetched = [
        event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in fetched if url != pages[name].as_uri()] == []
    assert complaints(page) == []


def test_hostile_text_runs_nothing_and_makes_no_element(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["hostile"])
    assert page.run("typeof window.pwned") == "undefined"
    assert page.run("document.scripts.length") == 1
    assert page.run("document.querySelectorAll('img, iframe, object, embed, [onload], [onerror]').length") == 0
    assert page.run("document.body.textContent.includes('<script>window.pwned = 1</script>')")
    assert page.run(
        "[...document.querySelectorAll('code')].every((code) => getComputedStyle(code).direction === 'ltr')"
    )


def test_a_script_that_slipped_in_would_not_run(page: chromium.Page, pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["audit"].read_text(encoding="utf-8")
    holed = tmp_path / "holed.html"
    holed.write_text(text.replace("<h2 ", "<script>window.pwned = 1</script><h2 onclick='1' ", 1), encoding="utf-8")
    page.open(holed)
    assert page.run("document.scripts.length") == 2
    assert page.run("typeof window.pwned") == "undefined"


def test_the_filter_by_words_control_and_verdict(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["audit"])
    everything = page.run(SHOWN)
    assert len(everything) == 5
    page.run("text.focus()")
    page.type("EDGE-HAM1")
    settled(page)
    assert page.run(SHOWN) == ["host-edge-ham1"]
    assert page.run("shown.textContent") == "3 of 7 problems, 1 of 5 hosts"
    page.run("text.value = ''")
    page.type("permit ip any any")
    settled(page)
    assert page.run(PROBLEMS) == ["host-edge-ber1--1"]
    page.run("document.querySelector('#filter button').click()")
    settled(page)
    assert page.run(SHOWN) == everything
    choose(page, "verdict", "unknown")
    assert page.run(SHOWN) == ["host-edge-ham1"]
    choose(page, "verdict", "not audited")
    assert page.run(SHOWN) == ["host-edge-fra1"]
    choose(page, "verdict", "compliant")
    assert page.run(SHOWN) == ["host-edge-muc1"]
    choose(page, "verdict", "")
    choose(page, "control", "C3")
    assert page.run(PROBLEMS) == ["host-edge-ber1--3"]
    assert page.run(SHOWN) == ["host-edge-ber1", "host-edge-fra1"]  # what was not audited is never hidden by a control
    choose(page, "control", "")
    page.type("no such thing")
    settled(page)
    assert page.run("nothing.checkVisibility()")
    assert page.run("shown.textContent") == "0 of 7 problems, 0 of 5 hosts"


def test_a_link_into_what_is_filtered_away_shows_it(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["audit"], prefers_reduced_motion="reduce")
    page.run("text.value = 'edge-muc1'; text.dispatchEvent(new Event('input', {bubbles: true}))")
    settled(page)
    page.run("location.hash = '#host-edge-cgn1--1'")
    settled(page)
    assert page.run("document.getElementById('host-edge-cgn1--1').checkVisibility()")
    assert page.run("Math.abs(document.getElementById('host-edge-cgn1--1').getBoundingClientRect().top) < innerHeight")


def test_without_javascript_everything_is_there_but_the_filter(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(pages["audit"])
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    names = [node.get("name", {}).get("value", "") for node in tree if not node.get("ignored")]
    assert "tcp 198.51.100.7:49152 > 203.0.113.9:25 SYN" in names
    assert any("no answer from 192.0.2.15" in name for name in names)
    assert not [node for node in tree if node.get("role", {}).get("value") in ("search", "searchbox")]


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["audit"])
    stops = []
    for _ in range(80):
        page.press("Tab")
        stop = page.run(FOCUS)
        if stop is None:
            break  # round the page
        stops.append(stop)
    names = [name for name, _ in stops]
    assert names[0] == "Skip to the report"
    assert {"text", "control", "verdict", "Clear", "edge-ham1"} <= set(names)
    assert any(name.startswith("Proved compliant") for name in names)
    assert [name for name, outlined in stops if not outlined] == []


def test_the_skip_link_skips(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["audit"])
    page.press("Tab")
    page.press("Enter")
    assert page.run("document.activeElement.id") == "main"


def test_what_a_screen_reader_gets(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["push"])
    tree = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]

    def named(role: str) -> list[str]:
        return [node.get("name", {}).get("value", "") for node in tree if node["role"]["value"] == role]

    for landmark in ("banner", "main", "contentinfo", "search", "navigation"):
        assert len(named(landmark)) == 1, landmark
    assert len(named("status")) == 1
    for role in ("link", "button", "searchbox", "combobox", "region", "table"):
        assert "" not in named(role), f"a {role} has no name"
    assert "P1" in named("columnheader")
    assert "edge-ham1 violated" in named("rowheader")
    assert any("1 violated" in name for name in named("link"))
    assert page.run("document.getElementById('shown').ariaLive") == "polite"
    levels = page.run("[...document.querySelectorAll('h1, h2, h3, h4')].map((heading) => +heading.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.run("document.querySelectorAll('th:not([scope])').length") == 0
    assert page.run("(() => { const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);"
                    " return ids.length - new Set(ids).size; })()") == 0  # fmt: skip
    assert page.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["audit", "push", "empty", "signals"])
def test_every_text_has_enough_contrast(page: chromium.Page, pages: dict[str, Path], name: str, scheme: str) -> None:
    page.open(pages[name], prefers_color_scheme=scheme)
    page.run("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
    seen, poor = page.run(CONTRAST)
    assert seen > 40
    assert poor == []
    dark = sum(map(int, page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) < 384
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("name", ["audit", "push", "hostile", "signals"])
@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_nothing_is_wider_than_the_window(page: chromium.Page, pages: dict[str, Path], name: str, width: int) -> None:
    page.open(pages[name], width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_motion_only_for_those_who_want_it(page: chromium.Page, pages: dict[str, Path]) -> None:
    for wish, expected in (("no-preference", "smooth"), ("reduce", "auto")):
        page.open(pages["audit"], prefers_reduced_motion=wish)
        assert page.run("getComputedStyle(document.documentElement).scrollBehavior") == expected


def test_paper_shows_what_is_folded_and_no_controls(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["push"])
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("document.getElementById('filter').checkVisibility()") is False
    assert page.run(
        "[...document.querySelectorAll('.proved table')].every((table) => table.getBoundingClientRect().height > 50)"
    )
    printed = base64.b64decode(page.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF")
    assert page.run("document.querySelectorAll('details:not([open])').length") > 0  # folded again afterwards


def test_a_fleet_is_filtered_in_a_moment(page: chromium.Page, pages: dict[str, Path]) -> None:
    page.open(pages["fleet"])
    choose(page, "verdict", "violated")
    assert len(page.run(SHOWN)) == 50
    took = page.run(
        "(() => { const begin = performance.now(); text.value = 'edge-0040';"
        " text.dispatchEvent(new Event('input', {bubbles: true}));"
        " return new Promise((done) => setTimeout(() => done(performance.now() - begin), 150)); })()"
    )
    assert page.run(SHOWN) == ["host-edge-0040"]
    assert took < 5000
