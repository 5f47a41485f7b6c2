"""Ask a deployed mesh by `agentctl check`, the page in a browser, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostmesh_lab.machines.booted import BootedHost

from tests.browser.chromium import Browser
from tests.unit.monitoring.promtool import Scrape

_METRICS = ["curl", "-s", "--unix-socket", "/run/hostmesh/agent.sock", "http://localhost/metrics"]
_SHOWN = "return document.body.textContent"
_COMMANDS = "return [...document.querySelectorAll('.command code')].map((each) => each.textContent)"


def check(host: BootedHost) -> tuple[int, dict[str, Any]]:
    """Run ``agentctl check``; its exit status and document."""
    done = host.agentctl("check", "-o", "json", check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document


def failed(document: dict[str, Any]) -> dict[str, str]:
    """Return the hints of failed tests by peer and test; of this host's own as "own"."""
    found = {
        f"{peer['host_name']} {test['test']}": test["hint"] or ""
        for peer in document["peers"]
        for test in peer["tests"]
        if test["result"] == "failed"
    }
    own = {f"own {e['test']}": e["hint"] or "" for e in document["own"] if e["result"] == "failed"}
    return found | own


def page(browser: Browser, host: BootedHost, folder: Path) -> tuple[str, list[str]]:
    """Open the page of a host as a file; its text, and the commands that it offers."""
    path = folder / "mesh.html"
    path.write_text(host.agentctl("map", "-o", "html").stdout)
    browser.open(path.as_uri())
    browser.until("return document.querySelectorAll('#map .host').length === 3")
    return browser.run(_SHOWN), browser.run(_COMMANDS)


def scraped(hosts: Sequence[BootedHost], *, but: BootedHost | None = None) -> Scrape:
    """Return the metrics of each host, "" of one that Prometheus does not reach."""
    return {each.name: "" if each is but else each.run(_METRICS).stdout for each in hosts}


def unplug(host: BootedHost) -> Callable[[], None]:
    """Pull the cable of a host; return what plugs it in again, with the route that went with it."""
    route = host.run(["ip", "route", "show", "default"]).stdout.split()
    host.run(["ip", "link", "set", "eth0", "down"])

    def plug_in() -> None:
        host.run(["ip", "link", "set", "eth0", "up"])
        host.run(["ip", "route", "add", *route])

    return plug_in
