"""Keys, values, compares and operations as plain values, over etcd3's messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.etcd.etcd3_compat import rpc, transactions

__all__ = [
    "MAX_OPERATIONS",
    "Compare",
    "Event",
    "Operation",
    "Page",
    "Record",
    "TxnResult",
    "absent",
    "attached",
    "created_at",
    "delete",
    "get",
    "none_created_since",
    "none_in",
    "put",
    "transaction",
    "unchanged",
]

MAX_OPERATIONS = 128
"""etcd refuses a transaction with more compares, or more operations (its --max-txn-ops)."""

Compare = Any
"""An ``etcdserverpb.Compare``."""

Operation = Any
"""An ``etcdserverpb.RequestOp``."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key of etcd with its value and revisions. ``lease_id`` is 0 without an etcd lease."""

    key: bytes
    value: bytes
    create_revision: int = 0
    mod_revision: int = 0
    lease_id: int = 0

    @classmethod
    def of(cls, kv: Any) -> Record:  # noqa: ANN401 - generated message
        """Copy a ``mvccpb.KeyValue``."""
        return cls(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.lease)


@dataclass(frozen=True, slots=True)
class Event:
    """A change to one key.

    Attributes:
        record: None when the key was deleted or expired.
        revision: At which it changed; 0 when that is not known.
    """

    key: bytes
    record: Record | None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a range request."""

    records: tuple[Record, ...]
    more: bool
    revision: int
    cluster_id: int


@dataclass(frozen=True, slots=True)
class TxnResult:
    """The result of a transaction.

    Attributes:
        succeeded: All compares held and the success branch ran; else the failure branch.
        revision: The store's revision afterwards.
        ranges: The records found by each ``get`` of the branch that ran, in order.
    """

    succeeded: bool
    revision: int
    ranges: tuple[tuple[Record, ...], ...]

    @classmethod
    def of(cls, response: Any) -> TxnResult:  # noqa: ANN401 - generated message
        """Copy an ``etcdserverpb.TxnResponse``."""
        return cls(
            succeeded=response.succeeded,
            revision=response.header.revision,
            ranges=tuple(
                tuple(Record.of(kv) for kv in each.response_range.kvs)
                for each in response.responses
                if each.WhichOneof("response") == "response_range"
            ),
        )


def absent(key: bytes) -> Compare:
    """Compare that holds when ``key`` does not exist (a version is 0 then, else 1 or more)."""
    return (transactions.Version(key) == 0).build_message()


def none_in(start: bytes, end: bytes) -> Compare:
    """Compare that holds when no key exists in [start, end)."""
    return (transactions.Version(start, end) == 0).build_message()


def none_created_since(start: bytes, end: bytes, revision: int) -> Compare:
    """Compare that holds when every key in [start, end) was there at ``revision`` already.

    Renewals do not count. A range without keys satisfies it.
    """
    return (transactions.Create(start, end) < revision + 1).build_message()


def created_at(key: bytes, revision: int) -> Compare:
    """Compare that holds when ``key`` was absent before that revision and never since."""
    return (transactions.Create(key) == revision).build_message()


def unchanged(key: bytes, mod_revision: int) -> Compare:
    """Compare that holds when ``key`` was last modified then; 0: when it does not exist."""
    return (transactions.Mod(key) == mod_revision).build_message()


def attached(key: bytes, lease_id: int) -> Compare:
    """Compare that holds when ``key`` exists and is attached to that etcd lease."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.LEASE, key=key, lease=lease_id)


def put(key: bytes, value: bytes, lease_id: int = 0) -> Operation:
    """Write a key, attached to an etcd lease unless ``lease_id`` is 0."""
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease_id))


def delete(key: bytes, end: bytes = b"") -> Operation:
    """Delete one key, or all keys in [key, end); nothing happens when none is there."""
    request = rpc.DeleteRangeRequest(key=key, range_end=end)
    return rpc.RequestOp(request_delete_range=request)


def get(
    key: bytes, end: bytes | None = None, *, limit: int = 0, keys_only: bool = False
) -> Operation:
    """Read a key, or all keys in [key, end)."""
    request = rpc.RangeRequest(key=key, limit=limit, keys_only=keys_only)
    if end is not None:
        request.range_end = end
    return rpc.RequestOp(request_range=request)


def transaction(
    compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
) -> Any:  # noqa: ANN401 - generated message
    """Build the ``etcdserverpb.TxnRequest``, checked against etcd's limit.

    Raises:
        ValueError: More compares or operations than etcd takes; a mistake in the caller.
    """
    if max(len(compares), len(success), len(failure)) > MAX_OPERATIONS:
        raise ValueError(f"a transaction takes at most {MAX_OPERATIONS} compares or operations")
    return rpc.TxnRequest(compare=compares, success=success, failure=failure)
