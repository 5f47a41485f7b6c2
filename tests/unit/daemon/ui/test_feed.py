"""The page's stream over a real socket: what is sent, when, and to how many pages."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from agent.daemon.api.connection import Stream
from agent.daemon.api.server import TcpServer, is_address
from agent.daemon.ui import feed
from agent.daemon.ui.feed import SECTIONS, Feed
from agent.errors import EtcdUnavailable
from tests.unit.daemon.ui.sample import SampleAgent
from tests.unit.daemon.ui.troubled import with_problems
from tests.waiting import eventually

pytestmark = pytest.mark.unit


class Reader:
    """One page's stream."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.request("GET", "/ui/stream")
        self.response = self.connection.getresponse()

    def next(self, *names: str) -> tuple[str, dict[str, Any]]:
        """Read up to an event with one of these names."""
        event = ""
        while True:
            line = self.response.readline().decode()
            assert line, "the stream ended"
            if line.startswith("event: "):
                event = line.removeprefix("event: ").strip()
            if line.startswith("data: ") and event in names:
                return event, json.loads(line.removeprefix("data: "))

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@pytest.fixture
def agent() -> SampleAgent:
    return with_problems(6)


@pytest.fixture
def server(agent: SampleAgent) -> Iterator[TcpServer]:
    server = agent.serve()
    yield server
    server.stop()


def test_a_page_gets_every_section_and_then_what_changes(
    agent: SampleAgent, server: TcpServer
) -> None:
    with closing(Reader(server.port)) as page:
        assert page.response.headers["Content-Type"].startswith("text/event-stream")
        missing = set(SECTIONS)
        while missing:
            name, _ = page.next(*missing)
            missing.remove(name)
        agent.down = {1}
        while True:
            _, status = page.next("status")
            if [each["reachable"] for each in status["peers"]].count(False) == 1:
                break


def test_values_that_only_count_up_are_no_change() -> None:
    agent = SampleAgent(3)
    made = Feed({"/v1/status": agent.status})
    ((number, _),) = made.newer({}).values()
    made._sections["status"].due_s = 0.0
    assert made.newer({"status": number}) == {}
    agent.down = {1}
    made._sections["status"].due_s = 0.0
    assert set(made.newer({"status": number})) == {"status"}


def test_promise_10_a_slow_section_is_made_less_often() -> None:
    now_s = [100.0]

    def slow() -> dict[str, Any]:
        now_s[0] += 2.0
        return {}

    made = Feed({"/v1/status": slow}, clock=lambda: now_s[0])
    made.newer({})
    assert made._sections["status"].due_s == 140.0


def test_promise_9_a_section_that_cannot_be_made_says_why() -> None:
    def away() -> dict[str, Any]:
        raise EtcdUnavailable("no endpoint answered", hint="see agentctl status")

    ((_, payload),) = Feed({"/v1/status": away}).newer({}).values()
    error = json.loads(payload.decode().partition("data: ")[2])["error"]
    assert (error["message"], error["hint"]) == ("no endpoint answered", "see agentctl status")


def test_a_bug_in_one_section_is_reported_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(repr(args.exc_value)))

    def bug() -> dict[str, Any]:
        raise KeyError("x")

    found = Feed({"/v1/status": dict, "/v1/leases": bug}).newer({})
    assert set(found) == {"status", "leases"}
    assert b"internal error" in found["leases"][1]
    assert reported == ["KeyError('x')"]


def test_promise_10_pages_are_limited_and_a_closed_one_makes_place(server: TcpServer) -> None:
    pages = [Reader(server.port) for _ in range(feed._PAGES)]
    refused = Reader(server.port)
    assert refused.response.status == 503
    assert json.loads(refused.response.read())["error"]["code"] == "agent-unavailable"
    pages.pop().close()

    def enters() -> Reader | None:
        page = Reader(server.port)
        return page if page.response.status == 200 else page.close()  # type: ignore[func-returns-value]

    pages.append(eventually(enters, 20))
    for each in pages:
        each.close()


def test_promise_10_nothing_is_made_or_kept_while_no_page_is_open() -> None:
    agent = SampleAgent(3)
    made = Feed({"/v1/status": agent.status})
    first, second = made.stream(), made.stream()
    assert isinstance(first, Stream)
    assert isinstance(second, Stream)
    made.newer({})
    first.chunks.close()
    assert made._sections
    second.chunks.close()
    assert not made._sections


def test_promise_10_streams_give_way_to_requests(agent: SampleAgent) -> None:
    """Streams count as idle, so they cannot keep agentctl out."""
    server = agent.serve()
    pages = [Reader(server.port) for _ in range(feed._PAGES)]
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    began_s = time.monotonic()
    connection.request("GET", "/ui")
    assert connection.getresponse().status == 200
    assert time.monotonic() - began_s < 10
    for client in silent:
        client.close()
    for page in pages:
        page.close()
    server.stop()


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:9560", True),
        ("localhost:9560", True),
        ("LOCALHOST", True),
        ("[::1]:9560", True),
        ("192.0.2.1", True),
        ("evil.example:9560", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:9560", False),
        ("", False),
    ],
)
def test_promise_11_a_web_page_that_resolves_here_reads_nothing(host: str, answered: bool) -> None:
    assert is_address(host) is answered


def test_promise_11_the_listener_refuses_other_names_and_every_change(server: TcpServer) -> None:
    for headers, method, path, status in (
        ({"Host": "evil.example"}, "GET", "/ui/stream", 421),
        ({}, "POST", "/v1/leave", 404),
        ({}, "GET", "/v1/status", 404),
        ({}, "GET", "/ui", 200),
    ):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request(method, path, headers=headers)
        assert connection.getresponse().status == status
        connection.close()
