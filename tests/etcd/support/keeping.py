"""Keepers for tests that hear a directory's views, as in the daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from agent.model import DockerState, Lease
from agent.registry.directory import Directory
from agent.registry.own.keeper import Keeper, Registration
from agent.registry.records import LEASES, encode_lease
from agent.registry.registry import Registry
from agent.settings import LeaseSettings
from tests.etcd.support.etcdlab import Heard, host, request

REGISTRATION = Registration(
    node_address=IPv4Address("192.0.2.2"), host_name="host1", docker_state=DockerState.PENDING
)
SHORT = LeaseSettings(ttl_s=60, heartbeat_ttl_s=5, memory_ttl_s=3600)


@contextlib.contextmanager
def keep(mesh: Registry, heard: Heard, **more: Any) -> Iterator[Keeper]:  # noqa: ANN401  # handed on
    """A keeper that hears a directory's views, as in the daemon."""
    keeper = Keeper(
        mesh,
        **{
            "host_id": host(1),
            "boot_id": "1" * 32,
            "agent_version": "0.1.0",
            "settings": SHORT,
            "on_lease": heard,
            **more,
        },
    )
    directory = Directory(mesh, keeper.notice, Heard())
    keeper.start()
    directory.start()
    try:
        yield keeper
    finally:
        keeper.stop()
        directory.stop()


def held(heard: Heard) -> Callable[[], Lease | None]:
    return lambda: heard.last[0] if heard.last else None


def condition(heard: Heard) -> str:
    return heard.last[1][0].name if heard.last and heard.last[1] else ""


def steal(mesh: Registry, lease: Lease) -> None:
    """Another host gets the subnet as after a partition longer than the TTL: in one step."""
    from agent.etcd import kv  # noqa: PLC0415  # only here are records written by hand

    thief = replace(
        lease,
        host_id=host(9),
        host_name="host9",
        node_address=request(9).node_address,
        etcd_lease_id=0,
    )
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(LEASES, lease.subnet), encode_lease(thief))])
