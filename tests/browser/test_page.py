"""The page in a real browser: hostile names, keys, both colour schemes, age of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.daemon.ui.feed import SECTIONS
from agent.daemon.ui.page import snapshot_page
from agent.model import Condition, Severity
from tests.browser.axe import VIOLATIONS, axe_script
from tests.browser.chromium import Browser
from tests.browser.conftest import Shown

pytestmark = pytest.mark.full

VIEWS = ("overview", "hosts", "networks", "containers", "latency", "events")
ESCAPE, ENTER, TAB, RIGHT, DOWN = "\ue00c", "\ue007", "\ue004", "\ue014", "\ue015"
HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>&amp;\u202eevil"
FOCUS = "return document.activeElement.id || document.activeElement.className"


def show(shown: Shown, view: str) -> None:
    shown.browser.run("location.hash = '/' + arguments[0]", view)
    shown.browser.until("return !document.getElementById('view-' + arguments[0]).hidden", view)


def test_promise_8_hostile_names_are_text_in_every_view(shown: Shown) -> None:
    agent, browser = shown.agent, shown.browser
    agent.names = {1: HOSTILE, 2: "a`reboot`", 3: "x; reboot"}
    agent.container_names = {0: HOSTILE, 5: HOSTILE}
    agent.conditions = [
        Condition(
            name="peer-dead", severity=Severity.ERROR, subject=HOSTILE, cause=HOSTILE,
            hint=f"agentctl remove $(reboot); agentctl remove {HOSTILE}",
        )
    ]  # fmt: skip
    agent.happened.append(("peer-joined", HOSTILE, HOSTILE))
    shown.open()
    for view in VIEWS:
        show(shown, view)
        browser.until("return document.body.textContent.includes('<img src=x onerror')")
        assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    show(shown, "overview")
    commands = browser.run(
        "return [...document.querySelectorAll('.command code')].map((each) => each.textContent)"
    )
    assert not [each for each in commands if "reboot" in each or "<" in each]
    for host in range(6):
        browser.run("document.querySelectorAll('#map .host')[arguments[0]].click()", host)
        browser.until("return !document.getElementById('detail').hidden")
    assert "\u202e" not in browser.run("return document.body.textContent")
    assert browser.run("return window.pwned === undefined")
    assert shown.browser.log() == []


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'window.pwned = 1')",
        "document.createElement('script').text = 'window.pwned = 1'",
    ],
)
def test_promise_8_the_policy_stops_text_that_becomes_code(shown: Shown, attempt: str) -> None:
    """The last line of defence, behind the page's own care."""
    with pytest.raises(RuntimeError, match=r"requires 'Trusted(HTML|Script)'"):
        shown.browser.run(attempt)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_follows_the_rules_of_accessibility(shown: Shown, scheme: str) -> None:
    shown.browser.scheme(scheme)
    shown.browser.cdp("Runtime.evaluate", expression=axe_script())
    for view in VIEWS:
        show(shown, view)
        assert shown.browser.run_async(VIOLATIONS) == [], view
    show(shown, "overview")
    shown.browser.run("document.querySelector('#map .host').click()")
    shown.browser.until("return !document.getElementById('detail').hidden")
    assert shown.browser.run_async(VIOLATIONS) == []


def test_the_page_follows_the_colour_scheme(shown: Shown) -> None:
    def background() -> Any:  # noqa: ANN401 # a colour as the browser has it
        return shown.browser.run(
            "return getComputedStyle(document.documentElement).backgroundColor"
        )

    light = background()
    shown.browser.scheme("dark")
    assert background() != light


def test_all_can_be_done_with_keys(shown: Shown) -> None:
    browser = shown.browser
    for number, view in enumerate(VIEWS, 1):
        browser.press(str(number))
        browser.until("return !document.getElementById('view-' + arguments[0]).hidden", view)
    browser.press("/")
    assert browser.run(FOCUS) == "search"
    browser.press(*"10.64.32.9")
    browser.press(ESCAPE)
    assert browser.run("return document.getElementById('search').value") == ""
    browser.press("?")
    browser.until("return document.getElementById('help').open")
    browser.press(ESCAPE)
    browser.until("return !document.getElementById('help').open")
    browser.press("m")
    browser.until("return document.activeElement.classList.contains('own')")
    browser.press(RIGHT)
    browser.until("return !document.activeElement.classList.contains('own')")
    name = "return document.activeElement.querySelector('.name').textContent"
    first = browser.run(name)
    browser.press(DOWN)
    assert browser.run(name) != first
    browser.press(ENTER)
    browser.until("return document.activeElement.closest('#detail') !== null")
    browser.press(ESCAPE)
    browser.until("return document.activeElement.closest('#map') !== null")


@pytest.mark.parametrize("view", VIEWS)
def test_everything_that_has_the_focus_shows_it(shown: Shown, view: str) -> None:
    show(shown, view)
    reached = set()
    for _ in range(25):
        shown.browser.press(TAB)
        what, outline = shown.browser.run(
            "const e = document.activeElement; return [e.tagName + (e.id || e.textContent),"
            " getComputedStyle(e).outlineStyle]"
        )
        reached.add(what)
        assert outline != "none" or what.startswith("BODY"), what
    assert len(reached) > 9


def test_search_finds_the_host_of_an_address_and_narrows_tables(shown: Shown) -> None:
    show(shown, "hosts")
    shown.browser.press("/", *"10.64.32.200")
    shown.browser.until("return document.querySelectorAll('#hosts tbody tr').length === 1")
    assert shown.browser.run("return document.querySelector('#hosts tbody th').textContent") == (
        shown.agent.name(2)
    )


def test_promise_9_the_page_says_how_old_it_is_and_comes_back(shown: Shown) -> None:
    browser, banner = shown.browser, "return document.getElementById('banner').textContent"
    port = shown.server.port
    shown.end_server()
    browser.until(
        f"{banner}.includes('No answer from the agent') && document.body.classList.contains('old')"
    )
    shown.server = shown.agent.serve(port)
    browser.until("return document.getElementById('banner').hidden")
    shown.agent.stale_s = 53.0
    browser.until(f"{banner}.includes('etcd unreachable for 5')")
    assert browser.run("return document.querySelector('#map .host:not(.own)').className").count(
        "s-unknown"
    )


def test_a_change_is_announced_to_screen_readers(shown: Shown) -> None:
    shown.agent.down = {1, 5}
    shown.browser.until(
        "return document.getElementById('announcer').textContent.includes('ams1: ')"
    )


def test_a_snapshot_is_a_page_that_connects_to_nothing(shown: Shown, tmp_path: Path) -> None:
    read = {
        "/v1/status": shown.agent.status,
        "/v1/leases": shown.agent.leases,
        "/v1/events": shown.agent.events,
    }
    sections = {
        name: read[source.path]() for name, source in SECTIONS.items() if source.path in read
    }
    sections["status"]["host"] = {**sections["status"]["host"], "name": HOSTILE}
    path = tmp_path / "mesh.html"
    path.write_bytes(snapshot_page({"at": 1_700_000_000.0, "sections": sections}))
    shown.browser.open(path.as_uri())
    shown.browser.until("return document.querySelectorAll('#map .host').length === 6")
    assert "Snapshot of 2023-11-1" in shown.browser.run("return document.body.textContent")
    assert shown.browser.run("return performance.getEntriesByType('resource').length") == 0
    assert shown.browser.run("return window.pwned === undefined")
    assert shown.browser.log() == []


def test_a_narrow_window_needs_no_sideways_scrolling(browser: Browser, shown: Shown) -> None:
    browser.size(420, 800)
    try:
        for view in VIEWS:
            show(shown, view)
            assert browser.run("return document.documentElement.scrollWidth") <= 420, view
    finally:
        browser.size(1440, 900)
