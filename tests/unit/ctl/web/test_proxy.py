"""``agentctl ui``: the page of a real control socket behind a port and a secret path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from agent.ctl.web.proxy import PageProxy
from agent.daemon.api.connection import Paths
from agent.daemon.api.server import ControlServer
from agent.errors import StateError
from tests.unit.daemon.ui.sample import SampleAgent

pytestmark = pytest.mark.unit


@pytest.fixture
def control() -> Iterator[ControlServer]:
    with tempfile.TemporaryDirectory() as folder:
        changing = Paths(change={"/v1/leave": lambda _body: {"left": True}})
        paths = SampleAgent(3).paths().and_those_of(changing)
        server = ControlServer(Path(folder) / "agent.sock", "", paths)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def proxy(control: ControlServer) -> Iterator[PageProxy]:
    made = PageProxy(control._path, 0)
    made.start()
    yield made
    made.stop()


def ask(proxy: PageProxy, path: str, method: str = "GET", host: str = "") -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    return connection.getresponse()


def opened(proxy: PageProxy) -> str:
    """Open the link and return where it leads."""
    response = ask(proxy, proxy.link.partition(str(proxy.port))[2])
    assert response.status == 303
    return response.headers["Location"]


def test_the_link_leads_to_the_page_and_its_stream(proxy: PageProxy) -> None:
    page = opened(proxy)
    response = ask(proxy, page)
    assert response.status == 200
    assert "script-src 'sha256-" in response.headers["Content-Security-Policy"]
    stream = ask(proxy, f"{page}/stream")
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    lines = iter(stream.readline, b"")
    assert any(line.startswith(b"event: leases") for line in lines)
    stream.close()


def test_promise_11_the_link_works_once_and_the_path_is_secret(proxy: PageProxy) -> None:
    page = opened(proxy)
    again = ask(proxy, proxy.link.partition(str(proxy.port))[2])
    assert (again.status, b"used" in again.read()) == (410, True)
    assert ask(proxy, page.removesuffix("/ui")).status == 404
    for path in ("/ui", "/ui/stream", "/v1/status", "/"):
        refused = ask(proxy, path)
        assert refused.status == 404
        assert page.split("/")[1] not in refused.read().decode()


def test_promise_11_nothing_behind_the_port_changes_anything(proxy: PageProxy) -> None:
    page = opened(proxy)
    assert ask(proxy, "/v1/leave", "POST").status == 404
    assert ask(proxy, page.replace("/ui", "/v1/leave"), "POST").status == 404
    assert ask(proxy, page, host="evil.example").status == 421


def test_while_the_agent_is_away_the_page_stays_and_its_stream_says_so(
    proxy: PageProxy, control: ControlServer
) -> None:
    page = opened(proxy)
    control.stop()
    assert ask(proxy, f"{page}/stream").status == 503
    assert ask(proxy, page).status == 200


def test_a_port_in_use_is_an_error(proxy: PageProxy, control: ControlServer) -> None:
    with pytest.raises(StateError, match=f"127.0.0.1:{proxy.port}"):
        PageProxy(control._path, proxy.port)
