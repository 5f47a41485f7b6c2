"""Publish the summary of this host's last check, and read those of all hosts when asked."""

from __future__ import annotations

from collections.abc import Mapping

from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.mesh.check.result import CheckSummary
from agent.model import HostId
from agent.registry.own.own_records import Holding, NotHeldError
from agent.registry.records import Keys
from agent.registry.records.checks import CHECKS, encode_check
from agent.registry.snapshot import pages, whole

__all__ = ["publish_check", "read_checks"]


def publish_check(client: EtcdClient, keys: Keys, summary: CheckSummary, holding: Holding) -> None:
    """Write a summary in place of the last one; it ends with the host's lease.

    Raises:
        NotHeldError: etcd does not have the lease as this host's.
        EtcdError: It could not be written.
    """
    key = keys.of(CHECKS, summary.host_id)
    result = client.txn(
        "publish a check",
        [kv.created_at(holding.key, holding.create_revision)],
        [kv.put(key, encode_check(summary), holding.etcd_lease_id)],
        [],
    )
    if not result.succeeded:
        raise NotHeldError(f"etcd does not have {holding.key.decode()} as this host's")


def read_checks(client: EtcdClient, keys: Keys) -> Mapping[HostId, CheckSummary]:
    """Return what each host published; a record that cannot be read counts as none.

    Raises:
        EtcdError and what derives from it: Nothing, rather than a part.
    """
    return whole(lambda: _read(client, keys))


def _read(client: EtcdClient, keys: Keys) -> Mapping[HostId, CheckSummary]:
    found: dict[HostId, CheckSummary] = {}
    for page in pages(client, [keys.range(CHECKS)], lambda key: key + b"\0"):
        for record in page.records:
            try:
                summary: CheckSummary = keys.read(CHECKS, record)
            except ValueError:
                continue
            found[summary.host_id] = summary
    return found
