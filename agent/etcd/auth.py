"""etcd's user tokens: authenticate before they are needed, again before they run out."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from agent.errors import EtcdAuthError, SettingsError
from agent.etcd.connections import Connection
from agent.etcd.errors import translate
from agent.etcd.etcd3_compat import grpc, rpc
from agent.settings import EtcdSettings

__all__ = ["AuthTokens", "auth_is_off"]

_DEFAULT_LIFETIME_S = 240.0
"""A simple token lives 300 s by default (--auth-token-ttl) and does not carry its lifetime."""

_RENEW_AT = 0.8  # of a token's lifetime


class AuthTokens:
    """The token to send with each call, as gRPC metadata. Thread-safe.

    Args:
        settings: ``username`` and ``password``; the password is read anew each time.
        clock: Monotonic seconds.
    """

    def __init__(
        self, settings: EtcdSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at_s = 0.0

    def metadata(self, connection: Connection) -> tuple[tuple[str, str], ...]:
        """Return the metadata for a call, authenticating there when it is time.

        ``hasleader`` makes a member that lost its leader refuse instead of serving what
        may be old, and end watches instead of keeping them silent.

        Raises:
            EtcdAuthError: User or password are wrong.
            EtcdUnavailable: The endpoint does not answer.
        """
        base = (("hasleader", "true"),)
        if not self._settings.username:
            return base
        with self._lock:
            if self._clock() >= self._renew_at_s:
                self._authenticate(connection)
            return (*base, ("token", self._token)) if self._token else base

    def expire(self) -> None:
        """Authenticate again before the next call: etcd did not accept the token."""
        with self._lock:
            self._renew_at_s = 0.0

    def _authenticate(self, connection: Connection) -> None:
        try:
            password = self._settings.password
        except SettingsError as error:
            raise EtcdAuthError(error.message, hint=error.hint) from error
        request = rpc.AuthenticateRequest(name=self._settings.username, password=password)
        try:
            response = connection.auth.Authenticate(request, timeout=self._settings.call_timeout_s)
        except grpc.RpcError as error:
            if not auth_is_off(error):
                raise translate(error, connection.endpoint, "authenticate") from error
            # The operator prepared the agents before `etcdctl auth enable`: go on without.
            self._token, life_s = "", _DEFAULT_LIFETIME_S
        else:
            self._token = response.token
            life_s = _life_s(response.token)
        self._renew_at_s = self._clock() + life_s * _RENEW_AT


def auth_is_off(error: Any) -> bool:  # noqa: ANN401 - grpc ships no types
    """Whether etcd refused to authenticate because it has no accounts in use."""
    return "authentication is not enabled" in (error.details() or "")


def _life_s(token: str) -> float:
    """How long a token lives: a JSON web token says so (exp - iat), a simple one does not.

    etcd's JSON web tokens may have no ``iat``; wall-clock time is only used against the
    ``exp`` of a token received this moment, and a result that cannot be is not believed.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature (RFC 7519)
        return _DEFAULT_LIFETIME_S
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded))
        issued_s = float(claims.get("iat", time.time()))
        life_s = float(claims["exp"]) - issued_s
    except (ValueError, KeyError, TypeError, AttributeError):
        return _DEFAULT_LIFETIME_S
    return life_s if 0 < life_s < _DEFAULT_LIFETIME_S else _DEFAULT_LIFETIME_S
