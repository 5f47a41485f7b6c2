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
RECORD = """
window.work = {frames: [], tasks: []};
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) work.tasks.push(each.duration);
}).observe({type: "longtask"});
let last = performance.now();
(function frame(now) {
  work.frames.push(now - last);
  last = now;
  requestAnimationFrame(frame);
})(last);
"""
MOST_TASK_MS = 250.0
"""On a machine that does other things, too; a quiet one takes a fifth (docs/ui.md)."""


@pytest.mark.parametrize("view", ["overview", "hosts", "latency"])
def test_a_large_mesh_that_changes_does_not_stutter(browser: Browser, view: str) -> None:
    agent = with_problems(HOSTS)
    server = agent.serve()
    try:
        browser.open(f"http://127.0.0.1:{server.port}/ui#/overview")
        browser.until(SHOWN, HOSTS)
        browser.run("location.hash = '/' + arguments[0]", view)
        browser.run(RECORD)
        for number in range(CHANGES):
            agent.down = set(range(number + 1, HOSTS, 10))
            browser.until(
                "return model.hosts.filter((h) => h.state === 'down').length === arguments[0]",
                len(agent.down),
            )
        frames, tasks = browser.run("return [work.frames, work.tasks]")
    finally:
        server.stop()
    frames.sort()
    print(
        f"{view}: {len(frames)} frames, median {frames[len(frames) // 2]:.1f} ms, 99 of 100 under"
        f" {frames[len(frames) * 99 // 100]:.1f} ms, longest {frames[-1]:.1f} ms;"
        f" {len(tasks)} long tasks, longest {max(tasks, default=0):.0f} ms"
    )
    assert max(tasks, default=0.0) < MOST_TASK_MS
    assert frames[len(frames) * 95 // 100] < 50.0


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
