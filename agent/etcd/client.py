"""etcd with deadlines, fail-over, authentication and errors that say where and why."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event

from agent.errors import EtcdAuthError, EtcdError, EtcdUnavailable
from agent.etcd import kv
from agent.etcd.auth import AuthTokens, auth_is_off
from agent.etcd.certificates import own_certificates
from agent.etcd.cluster_ids import ClusterIds
from agent.etcd.connections import Connection, ConnectionPool
from agent.etcd.errors import (
    CertificateRefusedError,
    EtcdLeaseExistsError,
    EtcdLeaseGoneError,
    ForeignClusterError,
    TokenExpiredError,
    translate,
)
from agent.etcd.etcd3_compat import grpc, rpc
from agent.etcd.kv import Compare, Operation, Page, Record, TxnResult
from agent.etcd.watch import WatchStream
from agent.settings import EtcdSettings

__all__ = ["EtcdClient", "EtcdLease"]

_log = structlog.get_logger()

_T = TypeVar("_T")
_Metadata = tuple[tuple[str, str], ...]

_AGAIN = (EtcdUnavailable, TokenExpiredError, CertificateRefusedError)
"""Errors that another try may avoid, at the next endpoint or with a new token."""


_NO_CLUSTER_ID = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)
"""Errors of an endpoint that does not report its cluster, such as a proxy: its answers will."""


@dataclass(frozen=True, slots=True)
class EtcdLease:
    """etcd's own lease object: keys attached to it go when it is not kept alive."""

    id: int
    ttl_s: int


class EtcdClient:
    """Unary calls and watches to the members of one etcd cluster. Thread-safe.

    Each try has ``settings.call_timeout_s``; a call that fails fast tries every endpoint
    once and one of them twice, with jittered pauses below a second, then raises. Tries that
    repeat over longer times belong to the threads that call this.

    Args:
        settings: Endpoints, certificates, user. Nothing connects before the first call. Without
            endpoints a call waits for :meth:`use`, as long as one try may take.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.clusters = ClusterIds(settings.endpoints)
        """Which cluster each endpoint belongs to; the owner pins the mesh's."""
        self._pool = ConnectionPool(settings)
        self._tokens = AuthTokens(settings)
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; calls under way in other threads end with an error."""
        self._closed.set()
        self._pool.close()

    def reconnect(self) -> None:
        """Drop the connections and make new ones: this host's own address has changed.

        Calls under way are tried again at once instead of waiting for a deadline on a
        connection whose source address is gone; a watch ends in a new snapshot.
        """
        self._pool.reopen_all()

    def use(self, endpoints: tuple[str, ...]) -> None:
        """Speak to these endpoints from now on; see :meth:`ConnectionPool.use`."""
        self.clusters.use(endpoints)
        self._pool.use(endpoints)

    def unknown(self, because: EtcdUnavailable) -> None:
        """While no endpoint is known, every call fails with this."""
        self._pool.unknown(because)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints in use; empty while they are looked for."""
        return self._pool.endpoints

    def range(
        self,
        key: bytes,
        end: bytes | None = None,
        *,
        limit: int = 0,
        revision: int = 0,
        created_since: int = 0,
        keys_only: bool = False,
    ) -> Page:
        """Read one key, or up to ``limit`` keys (0: all) in [key, end), in order of key.

        Args:
            key: The key, or the first of the range.
            end: First key after the range.
            limit: How many at most; ``more`` says whether there were more.
            revision: Read as of this revision; 0 is now.
            created_since: Leave out keys that were there before this revision.
            keys_only: Leave out the values.

        Raises:
            CompactedError: ``revision`` is no longer in the history.
            TooLargeError: The answer is larger than this client takes; lower ``limit``.
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        request = rpc.RangeRequest(
            key=key,
            limit=limit,
            revision=revision,
            min_create_revision=created_since,
            keys_only=keys_only,
        )
        if end is not None:
            request.range_end = end
        response = self._call(
            f"read {_shown(key)}",
            lambda connection, metadata, timeout_s: connection.kv.Range(
                request, timeout=timeout_s, metadata=metadata
            ),
        )
        return Page(
            records=tuple(Record.of(each) for each in response.kvs),
            more=response.more,
            revision=response.header.revision,
            cluster_id=response.header.cluster_id,
        )

    def txn(
        self,
        action: str,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnResult:
        """Run ``success`` when all ``compares`` hold, else ``failure``, as one step.

        A try whose answer was lost may have got through: compares must be such that the
        next try then fails them, and the caller must recognise its own values.

        Args:
            action: For error messages: "claim 10.64.0.0/16".
            compares: All must hold.
            success: Operations for when they do.
            failure: Operations for when they do not.

        Raises:
            EtcdLeaseGoneError: An etcd lease that a key was to be attached to is gone.
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        request = kv.transaction(compares, success, failure)
        response = self._call(
            action,
            lambda connection, metadata, timeout_s: connection.kv.Txn(
                request, timeout=timeout_s, metadata=metadata
            ),
        )
        return TxnResult.of(response)

    def grant(self, ttl_s: int) -> EtcdLease:
        """Make an etcd lease. The id is chosen here, so that a repeated try makes no second."""
        lease_id = secrets.randbits(62) | 1
        request = rpc.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
        try:
            response = self._call(
                "make an etcd lease",
                lambda connection, metadata, timeout_s: connection.lease.LeaseGrant(
                    request, timeout=timeout_s, metadata=metadata
                ),
            )
        except EtcdLeaseExistsError:
            return EtcdLease(lease_id, ttl_s)
        return EtcdLease(response.ID, response.TTL)

    def keep_alive(self, lease_id: int) -> int:
        """Give an etcd lease its full TTL again.

        Returns:
            The TTL in seconds, 0 when the lease is gone (etcd answers so, not with an error).
        """

        def once(connection: Connection, metadata: _Metadata, timeout_s: float) -> int:
            requests = iter((rpc.LeaseKeepAliveRequest(ID=lease_id),))
            answers = connection.lease.LeaseKeepAlive(
                requests, timeout=timeout_s, metadata=metadata
            )
            for answer in answers:
                answers.cancel()
                return max(0, int(answer.TTL))
            raise EtcdUnavailable(f"{connection.endpoint} did not answer a keepalive")

        return self._call("keep an etcd lease alive", once)

    def revoke(self, lease_id: int) -> None:
        """End an etcd lease and delete the keys attached to it; one that is gone is fine."""
        request = rpc.LeaseRevokeRequest(ID=lease_id)
        try:
            self._call(
                "revoke an etcd lease",
                lambda connection, metadata, timeout_s: connection.lease.LeaseRevoke(
                    request, timeout=timeout_s, metadata=metadata
                ),
            )
        except EtcdLeaseGoneError:
            return

    def drop(self, *lease_ids: int) -> None:
        """Revoke etcd leases that nothing hangs on, 0 among them; failing is fine: they expire."""
        for lease_id in filter(None, lease_ids):
            try:
                self.revoke(lease_id)
            except EtcdError as error:
                _log.debug("etcd-lease-left-to-expire", reason=str(error))

    def time_to_live_s(self, lease_id: int) -> int | None:
        """How many seconds an etcd lease has left, None when it is gone."""
        response = self._time_to_live(lease_id)
        return int(response.TTL) if response.TTL >= 0 else None

    def has_keys(self, lease_id: int) -> bool:
        """Whether any key hangs on an etcd lease. Raises EtcdError."""
        return bool(self._time_to_live(lease_id, keys=True).keys)

    def _time_to_live(self, lease_id: int, *, keys: bool = False) -> Any:  # noqa: ANN401 - message
        request = rpc.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return self._call(
            "read an etcd lease",
            lambda connection, metadata, timeout_s: connection.lease.LeaseTimeToLive(
                request, timeout=timeout_s, metadata=metadata
            ),
        )

    def watch(self, ranges: Sequence[tuple[bytes, bytes]], after: int) -> WatchStream:
        """Watch ranges of keys for changes after a revision; the caller closes the stream.

        Args:
            ranges: Each [start, end); the last one decides how far the stream has come.
            after: A revision of this cluster.

        Raises:
            CompactedError, EtcdUnavailable, EtcdAuthError, EtcdError: It was not created.
        """

        def once(connection: Connection, metadata: _Metadata, timeout_s: float) -> WatchStream:
            return WatchStream(
                connection, metadata, ranges=ranges, after=after, timeout_s=timeout_s
            )

        return self._call("watch", once)

    def leave(self, stream: WatchStream, reason: str) -> None:
        """Move on to the next endpoint because of what ``stream`` met at its own."""
        self._pool.leave(stream.connection, reason)

    def _call(self, action: str, once: Callable[[Connection, _Metadata, float], _T]) -> _T:
        """Try ``once`` until it answers, at most at every endpoint and one more.

        No try starts later than one deadline per endpoint after the first: a single server
        that does not answer is not waited for twice.
        """
        endpoints = max(1, len(self._pool))
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

    def _try(self, action: str, once: Callable[[Connection, _Metadata, float], _T]) -> _T:
        self._pool.follow_files()
        connection = self._pool.current()
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

    def _ask(
        self, connection: Connection, once: Callable[[Connection, _Metadata, float], _T]
    ) -> _T:
        """Ask ``once`` of a member of the mesh's cluster; raises gRPC's errors and ours."""
        metadata = self._tokens.metadata(connection)
        if len(self._pool) > 1 and not self.clusters.known(connection.endpoint):
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
            self._tokens.expire()
        elif isinstance(fault, CertificateRefusedError):
            self._pool.reopen(connection)
            self._pool.leave(connection, str(fault))
        elif isinstance(fault, EtcdUnavailable):
            if not isinstance(fault, ForeignClusterError):
                self.clusters.failed(connection.endpoint)
            self._pool.leave(connection, str(fault))

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

    def asks_for_no_account(self, endpoint: str) -> bool:
        """Whether all who reach an endpoint may read and write.

        Raises:
            EtcdError: It cannot be found out.
        """
        connection = self._pool.of(endpoint)
        timeout_s = self.settings.call_timeout_s
        anything = rpc.RangeRequest(key=b"\0", limit=1, keys_only=True, serializable=True)
        try:
            connection.kv.Range(anything, timeout=timeout_s)
        except grpc.RpcError as error:
            fault = translate(error, endpoint, "read without an account")
            if isinstance(fault, EtcdAuthError):
                return False
            raise fault from error
        try:  # this host's certificate may be one with every right
            connection.auth.Authenticate(rpc.AuthenticateRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            return auth_is_off(error)
        return False

    def ask_cluster(self, endpoint: str) -> None:
        """Ask one endpoint for its cluster, for :attr:`clusters` to know.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: It did not say.
        """
        connection = self._pool.of(endpoint)
        try:
            self._ask_cluster(connection, self._tokens.metadata(connection))
        except grpc.RpcError as error:
            self.clusters.failed(endpoint)
            raise translate(error, endpoint, "ask for the cluster") from error
        except ValueError as error:  # as in _try
            raise EtcdUnavailable(f"cannot ask {endpoint}: {error}") from error

    def restored(self) -> bool:
        """Whether the store came from a backup and has not had many writes since.

        Every revision takes at least one entry of raft's log, and a restored member begins
        a new log: then the log is shorter than the revision is high.

        Raises:
            EtcdUnavailable: It could not be found out.
        """
        try:
            answer = self._call(
                "read etcd's status",
                lambda connection, metadata, timeout_s: connection.maintenance.Status(
                    rpc.StatusRequest(), timeout=timeout_s, metadata=metadata
                ),
            )
        except EtcdUnavailable:
            raise
        except EtcdError:  # a proxy, or a role that may not ask
            return False
        return bool(answer.raftIndex < answer.header.revision)

    def _ask_cluster(self, connection: Connection, metadata: _Metadata) -> None:
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


def _shown(key: bytes) -> str:
    return key.decode("ascii", "backslashreplace")
