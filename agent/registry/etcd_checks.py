"""Learn of an etcd without writing to it: for `agentctl doctor`.

Version and clock come from HTTP: every endpoint answers GET /version, with a Date header.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from agent.errors import EtcdUnavailable
from agent.etcd import kv
from agent.etcd.certificates import tls_context
from agent.model import HostId
from agent.registry.records import Writer
from agent.registry.registry import Registry
from agent.settings import EtcdSettings

__all__ = ["EndpointAnswer", "ask_endpoint", "may_write"]

_TIMEOUT_S: Final = 3.0
_MOST_BYTES: Final = 4096
_NEVER: Final = 2**62
"""No key has this modification revision."""


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """The answers of one endpoint.

    Attributes:
        version: Of the server, "" when it does not say.
        ahead_s: By how many seconds its clock is ahead of this host's; None when not known.
            A second is its resolution.
    """

    version: str
    ahead_s: float | None


def ask_endpoint(
    endpoint: str, settings: EtcdSettings, wall_clock: Callable[[], float] = time.time
) -> EndpointAnswer:
    """Ask one endpoint for its version and the time.

    Raises:
        EtcdUnavailable: It does not answer, or not as an etcd does.
    """
    url = urlsplit(endpoint)
    host, port = url.hostname or "", url.port or 2379
    try:
        connection = (
            http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT_S, context=tls_context(settings)
            )
            if url.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        )
        try:
            connection.request("GET", "/version")
            response = connection.getresponse()
            body, date, seen_s = (
                response.read(_MOST_BYTES),
                response.getheader("Date"),
                wall_clock(),
            )
        finally:
            connection.close()
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        # UnicodeError: DNS may name a host that the resolver cannot encode.
        raise EtcdUnavailable(
            f"{endpoint} does not answer: {error or type(error).__name__}"
        ) from error
    return EndpointAnswer(_version(endpoint, response.status, body), _ahead_s(date, seen_s))


def _version(endpoint: str, status: int, body: bytes) -> str:
    try:
        found = json.loads(body)["etcdserver"] if status == http.client.OK else None
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise EtcdUnavailable(f"{endpoint} answers HTTP, but not as an etcd does (status {status})")
    return found[:40]


def _ahead_s(date: str | None, seen_s: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - seen_s if date else None
    except (ValueError, OverflowError):
        return None


def may_write(registry: Registry, own: HostId, level: int) -> None:
    """Check that this account may write what an agent of a mesh of ``level`` must.

    Raises:
        EtcdAuthError: It may not.
        EtcdUnavailable, EtcdError: As their names say.
    """
    keys = registry.keys

    def below_own_id(pattern: str) -> bytes:
        return f"{own}/".encode() if "/" in pattern else own.encode()

    wanted = [
        keys.range(kind).start
        + (below_own_id(kind.pattern) if kind.writer is Writer.HOST_ID else b"")
        for kind in keys.kinds
        if kind.writer is not Writer.OPERATOR and kind.level <= level
    ]
    may_put(registry, wanted)


def may_put(registry: Registry, wanted: Sequence[bytes]) -> None:
    """Check that this account may write some keys, without writing.

    etcd looks at the permissions of all that a transaction could do before it compares; the
    comparison here never holds.

    Raises:
        EtcdAuthError: It may not.
        EtcdUnavailable, EtcdError: As their names say.
    """
    registry.client.txn(
        "check the account's permissions",
        [kv.unchanged(wanted[0], _NEVER)],
        [kv.put(key, b"") for key in wanted],
    )
