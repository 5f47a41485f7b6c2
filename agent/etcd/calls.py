"""Ask a member of one cluster: endpoint, account, deadline, another try, and no other cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event

from agent.errors import EtcdUnavailable
from agent.etcd.auth import AuthTokens
from agent.etcd.certificates import own_certificates
from agent.etcd.cluster_ids import ClusterIds
from agent.etcd.connections import Connection, ConnectionPool
from agent.etcd.errors import (
    CertificateRefusedError,
    ForeignClusterError,
    TokenExpiredError,
    translate,
)
from agent.etcd.etcd3_compat import grpc, rpc
from agent.etcd.watch import WatchStream
from agent.settings import EtcdSettings

__all__ = ["Calls", "Metadata"]

_T = TypeVar("_T")
Metadata = tuple[tuple[str, str], ...]

_AGAIN = (EtcdUnavailable, TokenExpiredError, CertificateRefusedError)
"""Errors that another try may avoid, at the next endpoint or with a new token."""

_NO_CLUSTER_ID = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)
"""Errors of an endpoint that does not report its cluster, such as a proxy: its answers will."""


class Calls:
    """Runs calls at the members of one etcd cluster. Thread-safe.

    Each try has ``settings.call_timeout_s``; a call that fails fast tries every endpoint
    once and one of them twice, with jittered pauses below a second, then raises. Tries that
    repeat over longer times belong to the threads that call this.

    Args:
        settings: Endpoints, certificates, user. Nothing connects before the first call. Without
            endpoints a call waits for them, as long as one try may take.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.clusters = ClusterIds(settings.endpoints)
        self.pool = ConnectionPool(settings)
        self.tokens = AuthTokens(settings)
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; calls under way in other threads end with an error."""
        self._closed.set()
        self.pool.close()

    def run(self, action: str, once: Callable[[Connection, Metadata, float], _T]) -> _T:
        """Try ``once`` until it answers, at most at every endpoint and one more.

        No try starts later than one deadline per endpoint after the first: a single server
        that does not answer is not waited for twice.
        """
        endpoints = max(1, len(self.pool))
        tries, tries_s = endpoints + 1, endpoints * self.settings.call_timeout_s
        retrying = Retrying(
            stop=stop_after_attempt(tries) | stop_after_delay(tries_s),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            retry=retry_if_exception_type(_AGAIN),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )
        answer: _T = retrying(self._try, action, once)
        return answer

    def _try(self, action: str, once: Callable[[Connection, Metadata, float], _T]) -> _T:
        self.pool.follow_files()
        connection = self.pool.current()
        try:
            return self._ask(connection, once)
        except grpc.RpcError as error:
            fault: Any = translate(error, connection.endpoint, action)
            if isinstance(fault, EtcdUnavailable) and (expired := self._expired(connection)):
                fault = expired  # etcd ends such a connection without a reason
            self._react(connection, fault)
            raise fault from error
        except _AGAIN as fault:
            self._react(connection, fault)
            raise
        except ValueError as error:  # gRPC's "Cannot invoke RPC on closed channel!"
            raise EtcdUnavailable(f"cannot {action}: {error}") from error

    def _ask(self, connection: Connection, once: Callable[[Connection, Metadata, float], _T]) -> _T:
        """Ask ``once`` of a member of the mesh's cluster; raises gRPC's errors and ours."""
        metadata = self.tokens.metadata(connection)
        if len(self.pool) > 1 and not self.clusters.known(connection.endpoint):
            self._ask_cluster(connection, metadata)
        self._refuse_foreign(connection)
        answer = once(connection, metadata, self.settings.call_timeout_s)
        self.clusters.saw(connection.endpoint, _cluster_of(answer))
        try:
            self._refuse_foreign(connection)
        except ForeignClusterError:
            if isinstance(answer, WatchStream):
                answer.close()
            raise
        return answer

    def _react(self, connection: Connection, fault: Exception) -> None:
        if isinstance(fault, TokenExpiredError):
            self.tokens.expire()
        elif isinstance(fault, CertificateRefusedError):
            self.pool.reopen(connection)
            self.pool.leave(connection, str(fault))
        elif isinstance(fault, EtcdUnavailable):
            if not isinstance(fault, ForeignClusterError):
                self.clusters.failed(connection.endpoint)
            self.pool.leave(connection, str(fault))

    def _expired(self, connection: Connection) -> CertificateRefusedError | None:
        if not connection.endpoint.startswith("https"):
            return None
        for each in own_certificates(self.settings):
            if each.role == "client" and each.not_after_s < time.time():
                return CertificateRefusedError(
                    f"{connection.endpoint} does not answer, and {each.name} expired on"
                    f" {each.not_after}",
                    hint="renew it: deploy/etcd/hosts.sh add NAME, and copy its folder here",
                )
        return None

    def ask_cluster(self, endpoint: str) -> None:
        """Ask one endpoint for its cluster, for :attr:`clusters` to know.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: It did not say.
        """
        connection = self.pool.of(endpoint)
        try:
            self._ask_cluster(connection, self.tokens.metadata(connection))
        except grpc.RpcError as error:
            self.clusters.failed(endpoint)
            raise translate(error, endpoint, "ask for the cluster") from error
        except ValueError as error:  # as in _try
            raise EtcdUnavailable(f"cannot ask {endpoint}: {error}") from error

    def _ask_cluster(self, connection: Connection, metadata: Metadata) -> None:
        """Ask a member for its cluster before anything is written to it."""
        token = tuple(each for each in metadata if each[0] == "token")
        timeout_s = self.settings.call_timeout_s
        try:
            answer = connection.maintenance.Status(
                rpc.StatusRequest(), timeout=timeout_s, metadata=token
            )
        except grpc.RpcError as error:
            if error.code() not in _NO_CLUSTER_ID:
                raise
        else:
            self.clusters.saw(connection.endpoint, answer.header.cluster_id)

    def _refuse_foreign(self, connection: Connection) -> None:
        if self.clusters.refuses(connection.endpoint):
            raise ForeignClusterError(
                f"{connection.endpoint} is a member of another etcd cluster than the mesh's",
                hint="correct etcd.endpoints in agent.toml",
            )


def _cluster_of(answer: object) -> int:
    """The cluster that an answer came from, 0 when it does not say (a keepalive's TTL)."""
    if isinstance(answer, WatchStream):
        return answer.cluster_id
    header: Any = getattr(answer, "header", None)
    return header.cluster_id if header is not None else 0
