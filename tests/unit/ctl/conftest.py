"""A small control socket with the answers of a test."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parents[3]))


@dataclass
class Answers:
    """Documents by "METHOD target"; (status, document), raw bytes, or seconds to keep silent."""

    by_target: Mapping[str, Any]
    asked: list[tuple[str, Any]] = field(default_factory=list)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    answers: Answers

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.answers.asked.append((f"{method} {self.path}", body))
        answer = self.server.answers.by_target.get(f"{method} {self.path}")
        if isinstance(answer, float):
            time.sleep(answer)
        status, document = answer if isinstance(answer, tuple) else (200, answer)
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def serving(path: Path, by_target: Mapping[str, Any]) -> Iterator[Answers]:
    """Answer on the socket ``path`` as long as the block runs."""
    server = _Server(str(path), _Handler)
    server.answers = Answers(by_target)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.answers
    finally:
        path.unlink()  # first: a client that connects to a server that ends is cut off
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[[Path, Mapping[str, Any]], AbstractContextManager[Answers]]:
    return serving


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Undo the log settings that agentctl makes, since the process is the tests' own."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("HOSTMESH_") or name in {"COLUMNS", "NO_COLOR"}:
            monkeypatch.delenv(name)


@pytest.fixture(name="socket_path")
def socket_path_fixture(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"
