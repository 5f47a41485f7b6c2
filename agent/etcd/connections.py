"""One connection per etcd endpoint, and which of them is in use now.

Each endpoint has a channel of its own, so that moving on to the next is a decision of this
module (a member that accepts connections but has no leader, or is stopped, must be left) and
not only gRPC's, which leaves a member when its connection breaks.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog

from agent.errors import EtcdAuthError, EtcdError, EtcdUnavailable
from agent.etcd.certificates import SYSTEM_CA, file_stamps, unusable_files
from agent.etcd.etcd3_compat import etcd3, rpc
from agent.settings import EtcdSettings

__all__ = ["CHANNEL_OPTIONS", "MAX_ANSWER_BYTES", "Connection", "ConnectionPool"]

_log = structlog.get_logger()

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Larger answers are refused (and asked for again in smaller pages)."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # Pings on connections with calls open, so that a stopped server or a pulled cable is
    # noticed: 11 s in all, measured. etcd refuses pings more often than every 5 s and those
    # without a call.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 0),
    # gRPC's own reconnecting, which runs below our back-off: it must not be the slower one.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", 2 * 1024 * 1024),
    ("grpc.enable_retries", 0),  # retrying is decided here, in one place
    ("grpc.enable_http_proxy", 0),  # etcd is on the underlay; a proxy variable is for the web
)


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """An endpoint with its stubs (etcd3's); ``kv`` to ``maintenance`` are gRPC's."""

    endpoint: str
    client: Any
    kv: Any
    lease: Any
    auth: Any
    watch: Any
    maintenance: Any


def _open(endpoint: str, settings: EtcdSettings) -> Connection:
    """Make the channel (it connects when first used).

    Raises:
        EtcdAuthError: A certificate or key file cannot be read.
    """
    url = urlsplit(endpoint)
    tls: dict[str, str] = {}
    if url.scheme == "https":
        tls["ca_cert"] = str(settings.ca_file or SYSTEM_CA)
        if settings.cert_file and settings.key_file:
            tls["cert_cert"] = str(settings.cert_file)
            tls["cert_key"] = str(settings.key_file)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    try:
        client = etcd3.Etcd3Client(
            host=host, port=url.port or 2379, grpc_options=CHANNEL_OPTIONS, **tls
        )
    except OSError as error:
        raise EtcdAuthError(
            f"cannot read a certificate or key for {endpoint}: {error}",
            hint="check [etcd] ca_file, cert_file and key_file",
        ) from error
    return Connection(
        endpoint=endpoint,
        client=client,
        kv=client.kvstub,
        lease=client.leasestub,
        auth=rpc.AuthStub(client.channel),
        watch=rpc.WatchStub(client.channel),
        maintenance=rpc.MaintenanceStub(client.channel),
    )


class ConnectionPool:
    """The endpoints, in the order in which they are tried, one of them current. Thread-safe.

    Args:
        settings: Endpoints and certificates. Files are read when a channel is opened.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._endpoints = settings.endpoints
        self._order = settings.endpoints
        self._unknown_because: EtcdUnavailable | None = None
        self._lock = threading.Condition()
        self._opened: dict[str, Connection] = {}
        self._current = 0
        self._closed = False
        self._stamps = file_stamps(settings)

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All endpoints: as in settings, or as found since."""
        return self._endpoints

    def spread(self) -> None:
        """Try the endpoints in an order of this host's own, so that the hosts use all members.

        The current one stays current once it was used. Only for a host that knows which cluster
        is the mesh's: without that, hosts whose settings mix two clusters must all ask the same.
        Endpoints of DNS stay as they are: their order is by priority and weight (RFC 2782).
        """
        if not self._settings.endpoints:
            return
        with self._lock:
            now = self._endpoint() if self._opened else ""
            others = [each for each in self._endpoints if each != now]
            random.shuffle(others)
            self._order = (now, *others) if now else tuple(others)
            self._current = 0

    def use(self, endpoints: tuple[str, ...]) -> None:
        """Take these endpoints from now on. The current one stays current if it is among them.

        Channels to those that are gone are closed: what runs on them ends with an error, and is
        tried again elsewhere.
        """
        with self._lock:
            if self._closed or endpoints == self._endpoints:
                return
            now = self._endpoint()
            self._endpoints = self._order = endpoints
            self._current = endpoints.index(now) if now in endpoints else 0
            gone = [self._opened.pop(name) for name in tuple(self._opened) if name not in endpoints]
            self._lock.notify_all()
        for connection in gone:
            connection.client.close()

    def unknown(self, because: EtcdUnavailable) -> None:
        """Say why no endpoint is known, and wake the threads that wait for one."""
        with self._lock:
            self._unknown_because = because
            self._lock.notify_all()

    def current(self) -> Connection:
        """Return the member to speak to now.

        Raises:
            EtcdAuthError: Its certificate or key file cannot be read.
            EtcdUnavailable: No endpoint was found yet, for as long as a call may take.
            EtcdError: The client was closed.
        """
        with self._lock:
            self._lock.wait_for(
                lambda: self._closed or self._endpoints or self._unknown_because,
                self._settings.call_timeout_s,
            )
            if not self._endpoints and not self._closed:
                because = self._unknown_because
                message = because.message if because else "etcd is being looked for in DNS"
                raise EtcdUnavailable(message, hint=because.hint if because else "")
            return self._connection(self._endpoint())

    def of(self, endpoint: str) -> Connection:
        """Return the member of one of the endpoints; raises as :meth:`current`."""
        with self._lock:
            return self._connection(endpoint)

    def _endpoint(self) -> str:
        return self._order[self._current] if self._order else ""

    def _connection(self, endpoint: str) -> Connection:
        if self._closed:
            raise EtcdError("the connection to etcd is closed")
        connection = self._opened.get(endpoint)
        if connection is None:
            connection = _open(endpoint, self._settings)
            self._opened[endpoint] = connection
        return connection

    def leave(self, connection: Connection, reason: str) -> None:
        """Move on to the next endpoint, unless another thread did already."""
        with self._lock:
            if self._closed or len(self._order) <= 1:
                return
            if self._endpoint() != connection.endpoint:
                return
            self._current = (self._current + 1) % len(self._order)
            following = self._endpoint()
        _log.info(
            "etcd-endpoint-changed",
            left=connection.endpoint,
            now=following,
            reason=reason,
            limit_key=connection.endpoint,
        )

    def reopen(self, connection: Connection) -> None:
        """Forget a channel, so that the next use reads the certificate files again."""
        with self._lock:
            if self._opened.get(connection.endpoint) is connection:
                del self._opened[connection.endpoint]
        connection.client.close()

    def follow_files(self) -> None:
        """Open every channel anew when a certificate or key was replaced.

        Files that cannot be used yet, such as a key without its certificate while an operator
        copies them, leave the channels as they are.
        """
        stamps = file_stamps(self._settings)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        if problem := unusable_files(self._settings):
            _log.warning("etcd-credentials-unusable", problem=problem)
            return
        _log.info("etcd-credentials-read")
        self.reopen_all()

    def reopen_all(self) -> None:
        """Close every channel; the next use opens it anew."""
        with self._lock:
            opened = tuple(self._opened.values())
        for connection in opened:
            self.reopen(connection)

    def close(self) -> None:
        """Close all channels; calls under way end with an error."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            opened, self._opened = self._opened, {}
        for connection in opened.values():
            connection.client.close()
