"""Tokens are renewed before they run out, and at once when etcd does not accept one."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from agent.etcd.auth import AuthTokens
from agent.settings import EtcdSettings

pytestmark = pytest.mark.unit


@dataclass
class Server:
    """Hands out tokens, as ``Authenticate`` does, and counts."""

    tokens: list[str]
    asked: int = 0
    now_s: float = 1000.0
    auth: Any = field(init=False)

    def __post_init__(self) -> None:
        self.auth = SimpleNamespace(Authenticate=self._authenticate)

    def _authenticate(self, _request: object, timeout: float) -> object:
        assert timeout > 0
        self.asked += 1
        return SimpleNamespace(token=self.tokens[min(self.asked, len(self.tokens)) - 1])


def _tokens(server: Server) -> AuthTokens:
    return AuthTokens(EtcdSettings(username="mesh"), clock=lambda: server.now_s)


def _sent(tokens: AuthTokens, server: Server) -> str:
    return dict(tokens.metadata(server))["token"]  # type: ignore[arg-type]


def _json_web_token(**claims: float) -> str:
    parts = ({"alg": "RS256"}, {"username": "mesh", **claims})
    encoded = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode() for each in parts]
    return ".".join([*(each.rstrip("=") for each in encoded), "signature"])


def test_a_simple_token_is_renewed_before_etcds_default_of_300_s() -> None:
    server = Server(["one.7", "two.8"])
    tokens = _tokens(server)
    assert _sent(tokens, server) == "one.7"
    server.now_s += 150
    assert (_sent(tokens, server), server.asked) == ("one.7", 1)
    server.now_s += 100
    assert (_sent(tokens, server), server.asked) == ("two.8", 2)


def test_a_token_that_was_refused_is_replaced_at_once() -> None:
    server = Server(["one.7", "two.8"])
    tokens = _tokens(server)
    _sent(tokens, server)
    tokens.expire()
    assert _sent(tokens, server) == "two.8"


@pytest.mark.parametrize(
    ("claims", "life_s"),
    [
        ({"iat": 5000.0, "exp": 5010.0}, 10),
        ({"from now": 100.0}, 100),  # no iat: against this host's clock
        ({"exp": 12.0}, 240),  # this host's clock is far ahead: not believed
        ({"iat": 5000.0, "exp": 5000.0 + 86_400}, 240),
        ({}, 240),
    ],
)
def test_a_json_web_token_says_itself_how_long_it_lives(
    claims: dict[str, float], life_s: float
) -> None:
    if "from now" in claims:
        claims = {"exp": time.time() + claims["from now"]}
    server = Server([_json_web_token(**claims), "next.1"])
    tokens = _tokens(server)
    first = _sent(tokens, server)
    server.now_s += life_s * 0.7
    assert _sent(tokens, server) == first
    server.now_s += life_s * 0.2
    assert _sent(tokens, server) == "next.1"


def test_without_a_user_nothing_is_asked() -> None:
    server = Server([])
    assert AuthTokens(EtcdSettings()).metadata(server) == (("hasleader", "true"),)  # type: ignore[arg-type]
    assert server.asked == 0
