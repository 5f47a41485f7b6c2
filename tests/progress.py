"""Say how far a run is, while its own output is held back until its end.

    python -m pytest -p tests.progress --progress=labs --progress-fd=9

A line goes to the file descriptor when a test fails, when a module ends, and at least every ten
seconds in which a test ends: ``labs 34/130 tests/engine/mesh/test_moving.py, 1 failed, 212 s``.
"""

from __future__ import annotations

import os
import time

import pytest

_EVERY_S = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("progress", "Say how far the run is")
    group.addoption("--progress", default="", metavar="NAME", help="what the lines begin with")
    group.addoption("--progress-fd", type=int, default=2, help="where the lines go")


def pytest_configure(config: pytest.Config) -> None:
    """Begin, if a name is given."""
    if config.option.progress:
        config.pluginmanager.register(Progress(config.option.progress, config.option.progress_fd))


class Progress:
    """Counts tests as they end."""

    def __init__(self, name: str, descriptor: int) -> None:
        """Take what the lines begin with and where they go."""
        self._name = name
        self._descriptor = descriptor
        self._began_s = self._said_s = time.monotonic()
        self._total = self._done = self._failed = 0
        self._module = ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say how many there are."""
        self._total = len(session.items)
        self._say(f"{self._total} tests")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say that a module has ended when the next one begins."""
        module = nodeid.partition("::")[0]
        if self._module and module != self._module:
            self._say_where()
        self._module = module

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test; say at once that it failed, and which."""
        if report.failed:
            self._failed += 1
            self._say(f"FAILED {report.nodeid} ({report.when})")
        if report.when == "teardown":
            self._done += 1
            if time.monotonic() > self._said_s + _EVERY_S:
                self._say_where()

    def pytest_sessionfinish(self) -> None:
        """Say the result; the details are in the run's own output."""
        self._say_where("done")

    def _say_where(self, where: str = "") -> None:
        failed = f", {self._failed} failed" if self._failed else ""
        took_s = time.monotonic() - self._began_s
        self._say(f"{self._done}/{self._total} {where or self._module}{failed}, {took_s:.0f} s")

    def _say(self, text: str) -> None:
        self._said_s = time.monotonic()
        os.write(self._descriptor, f"{self._name} {text}\n".encode())
