"""Read, write, watch and lease in etcd."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from agent.errors import EtcdAuthError, EtcdError, EtcdUnavailable
from agent.etcd import kv
from agent.etcd.auth import auth_is_off
from agent.etcd.calls import Calls, Metadata
from agent.etcd.connections import Connection
from agent.etcd.errors import (
    EtcdLeaseExistsError,
    EtcdLeaseGoneError,
    translate,
)
from agent.etcd.etcd3_compat import grpc, rpc
from agent.etcd.kv import Compare, Operation, Page, Record, TxnResult
from agent.etcd.watch import WatchStream
from agent.settings import EtcdSettings

__all__ = ["EtcdClient", "EtcdLease"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EtcdLease:
    """etcd's own lease object: keys attached to it go when it is not kept alive."""

    id: int
    ttl_s: int


class EtcdClient:
    """Unary calls and watches to the members of one etcd cluster. Thread-safe.

    Args:
        settings: Endpoints, certificates, user; see :class:`Calls`. Without endpoints a call waits
            for :meth:`use`, as long as one try may take.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self._calls = Calls(settings)
        self.clusters = self._calls.clusters
        """Which cluster each endpoint belongs to."""
        self._pool = self._calls.pool

    def close(self) -> None:
        """Close the connections; calls under way in other threads end with an error."""
        self._calls.close()

    def pin(self, cluster_id: int) -> None:
        """Say which cluster is the mesh's, and use its members as evenly as the other hosts do."""
        self.clusters.pin(cluster_id)
        self._pool.spread()

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
        response = self._calls.run(
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
        response = self._calls.run(
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
            response = self._calls.run(
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

        def once(connection: Connection, metadata: Metadata, timeout_s: float) -> int:
            requests = iter((rpc.LeaseKeepAliveRequest(ID=lease_id),))
            answers = connection.lease.LeaseKeepAlive(
                requests, timeout=timeout_s, metadata=metadata
            )
            for answer in answers:
                answers.cancel()
                return max(0, int(answer.TTL))
            raise EtcdUnavailable(f"{connection.endpoint} did not answer a keepalive")

        return self._calls.run("keep an etcd lease alive", once)

    def revoke(self, lease_id: int) -> None:
        """End an etcd lease and delete the keys attached to it; one that is gone is fine."""
        request = rpc.LeaseRevokeRequest(ID=lease_id)
        try:
            self._calls.run(
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
        return self._calls.run(
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

        def once(connection: Connection, metadata: Metadata, timeout_s: float) -> WatchStream:
            return WatchStream(
                connection, metadata, ranges=ranges, after=after, timeout_s=timeout_s
            )

        return self._calls.run("watch", once)

    def leave(self, stream: WatchStream, reason: str) -> None:
        """Move on to the next endpoint because of what ``stream`` met at its own."""
        self._pool.leave(stream.connection, reason)

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
        self._calls.ask_cluster(endpoint)

    def restored(self) -> bool:
        """Whether the store came from a backup and has not had many writes since.

        Every revision takes at least one entry of raft's log, and a restored member begins
        a new log: then the log is shorter than the revision is high.

        Raises:
            EtcdUnavailable: It could not be found out.
        """
        try:
            answer = self._calls.run(
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


def _shown(key: bytes) -> str:
    return key.decode("ascii", "backslashreplace")
