"""300 hosts, of which some change every second: the browser and the agent keep up."""

from __future__ import annotations

import resource
import threading
import time

import pytest

from tests.browser.chromium import Browser
from tests.browser.conftest import SHOWN
from tests.unit.daemon.ui.troubled import with_problems

pytestmark = pytest.mark.full

HOSTS = 300
CHANGES = 15
SHOWS_DOWN = "return model.hosts.filter((h) => h.state === 'down').length === arguments[0]"
RECORD = """
window.frames_ms = [];
let last = performance.now();
(function frame(now) {
  frames_ms.push(now - last);
  last = now;
  requestAnimationFrame(frame);
})(last);
"""
MOST_MS = 150.0
"""Processor time of the page's main thread for one change of 30 hosts, however loaded the machine
is; a quiet one takes a third of it."""


def main_thread_s(browser: Browser) -> float:
    """Return the processor time of the page's main thread."""
    found = browser.cdp("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in found if each["name"] == "TaskDuration"))


@pytest.mark.parametrize("view", ["overview", "hosts", "latency"])
def test_a_large_mesh_that_changes_does_not_stutter(browser: Browser, view: str) -> None:
    agent = with_problems(HOSTS)
    server = agent.serve()
    try:
        browser.open(f"http://127.0.0.1:{server.port}/ui#/overview")
        browser.until(SHOWN, HOSTS)
        browser.run("location.hash = '/' + arguments[0]", view)
        browser.cdp("Performance.enable", timeDomain="threadTicks")
        browser.run(RECORD)
        used_s = main_thread_s(browser)
        for number in range(CHANGES):
            agent.down = set(range(number + 1, HOSTS, 10))
            browser.until(SHOWS_DOWN, len(agent.down), every_s=0.25)
        used_ms = (main_thread_s(browser) - used_s) * 1000 / CHANGES
        frames = sorted(browser.run("return frames_ms"))
    finally:
        server.stop()
    median, slow = frames[len(frames) // 2], frames[len(frames) * 99 // 100]
    print(
        f"{view}: {used_ms:.0f} ms of processor time for a change; frames of {median:.1f} ms,"
        f" 99 of 100 under {slow:.1f} ms"
    )
    assert used_ms < MOST_MS
    assert median < 34.0


def test_promise_10_a_page_of_a_large_mesh_costs_the_agent_little() -> None:
    """The sections of 300 hosts, made for ten seconds, in processor time of this process."""
    agent = with_problems(HOSTS)
    stream = agent.paths().read["/ui/stream"]()
    chunks = iter(stream.chunks)  # type: ignore[union-attr]
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    while time.monotonic() < began + 10:
        next(chunks)
        threading.Event().wait(1.0)
    now = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(f"{cpu_s:.2f} s of processor time in 10 s")
    assert cpu_s < 5.0
