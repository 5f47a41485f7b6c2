"""An engine that answers on a unix socket as a test says."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qsl

VERSION = {"Version": "26.1.5+dfsg1", "ApiVersion": "1.45", "Components": [{"Name": "Engine"}]}
INFO = {
    "DefaultAddressPools": [
        {"Base": "10.64.128.0/17", "Size": 24},
        {"Base": "fd00::/48", "Size": 64},
    ],
    "LiveRestoreEnabled": True,
    "Swarm": {"LocalNodeState": "active"},
}
BRIDGE = {
    "Id": "b" * 64,
    "Name": "bridge",
    "Driver": "bridge",
    "IPAM": {"Config": [{"Subnet": "10.64.0.0/17", "Gateway": "10.64.0.1"}]},
    "Options": {
        "com.docker.network.bridge.name": "docker0",
        "com.docker.network.driver.mtu": "1450",
    },
    "Labels": {},
}
APP = {
    "Id": "a" * 64,
    "Name": "app",
    "Driver": "bridge",
    "Internal": True,
    "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.64.129.0/24"}]},
    "Options": {},
    "Labels": {"x": "y"},
}
SIX = {"Id": "c" * 64, "Name": "six", "Driver": "bridge", "IPAM": {"Config": None}, "Options": None}
WEB: dict[str, Any] = {
    "Id": "1" * 64,
    "Names": ["/web"],
    "NetworkSettings": {
        "Networks": {"app": {"NetworkID": "a" * 64, "IPAddress": "10.64.129.2", "MacAddress": ""}}
    },
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},  # noqa: S104
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 5432, "PublicPort": 5432, "Type": "udp"},
        {"PrivatePort": 9000, "Type": "tcp"},
        {"IP": "nowhere", "PrivatePort": 1, "PublicPort": 1, "Type": "tcp"},
    ],
}
CONTAINERS: list[dict[str, Any]] = [WEB, {"Id": "2" * 64, "Names": []}]


class FakeDocker:
    """An HTTP server on a unix socket that gives the answers it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {
            "/version": VERSION,
            "/info": INFO,
            "/networks": [BRIDGE, APP, SIX],
            "/containers/json": CONTAINERS,
        }
        self.events: list[bytes | None] = []
        self.changed = threading.Condition()
        self.delay_s = 0.0
        self.delays_s: dict[str, float] = {}
        self.asked: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.server = self._serve()

    def _serve(self) -> ThreadingUnixStreamServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                time.sleep(fake.delays_s.get(path, fake.delay_s))
                fake.asked.append(dict(parse_qsl(query)))
                fake.paths.append(path)
                path = "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path
                if path == "/events":
                    fake.stream(self)
                    return
                answer = fake.answers.get(path, {"message": "page not found"})
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200 if path in fake.answers else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.path.unlink(missing_ok=True)
        server = ThreadingUnixStreamServer(str(self.path), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def stream(self, handler: BaseHTTPRequestHandler) -> None:
        chunked = handler.request_version == "HTTP/1.1"
        handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        while True:
            with self.changed:
                if not self.changed.wait_for(lambda: bool(self.events), 10):
                    return
                line = self.events.pop(0)
            if line is None:
                handler.close_connection = True
                if "until" in self.asked[-1]:  # of the past: it has an end
                    handler.wfile.write(b"0\r\n\r\n")
                return
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n" if chunked else line)
            handler.wfile.flush()

    def say(self, kind: str, action: str, name: str, identity: str = "", **more: str) -> None:
        actor = {"ID": identity, "Attributes": {"name": name, **more}}
        self.send(json.dumps({"Type": kind, "Action": action, "Actor": actor}).encode() + b"\n")

    def cut(self) -> None:
        self.send(None)

    def send(self, line: bytes | None) -> None:
        with self.changed:
            self.events.append(line)
            self.changed.notify_all()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.path.unlink(missing_ok=True)
