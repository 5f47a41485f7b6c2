"""A browser for all tests of this folder, and a page of a mesh of six hosts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent.daemon.api.server import TcpServer
from tests.browser.chromium import Browser, chromium
from tests.unit.daemon.ui.sample import SampleAgent
from tests.unit.daemon.ui.troubled import with_problems

SHOWN = "return document.querySelectorAll('#map .host').length === arguments[0]"


@dataclass
class Shown:
    """The page of an agent in the browser."""

    browser: Browser
    agent: SampleAgent
    server: TcpServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/ui"

    def open(self) -> None:
        self.browser.open("about:blank")
        self.browser.log()
        self.browser.open(self.url)
        self.browser.until(SHOWN, self.agent.hosts)

    def end_server(self) -> None:
        """Stop the server and its connections, as the end of an agent does."""
        self.server.stop()
        for connection in list(self.server.limit._accepted_s):
            connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        made.size(1440, 900)
        yield made


@pytest.fixture
def shown(browser: Browser) -> Iterator[Shown]:
    agent = with_problems(6)
    server = agent.serve()
    made = Shown(browser, agent, server)
    browser.scheme("light")
    made.open()
    yield made
    browser.open("about:blank")
    made.server.stop()
