"""A WireGuard key that changes under a running agent is shown."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

import pytest

from agent.mesh.key_changes import KeyChanges
from agent.model import (
    BackendChoice,
    BackendData,
    DockerState,
    Heartbeat,
    HostId,
    Lease,
    View,
)

pytestmark = pytest.mark.unit

HOST = HostId("1" * 32)
LEASE = Lease(
    subnet=IPv4Network("10.65.0.0/16"),
    node_address=IPv4Address("192.0.2.2"),
    backend="wireguard",
    host_id=HOST,
    host_name="host2",
    backend_data=BackendData.of({"PublicKey": "one"}),
)


def view(lease: Lease | None, started_s: float | None = 1.0) -> View:
    beat = Heartbeat(
        host_id=HOST,
        host_name="host2",
        node_address=None,
        subnet=None,
        docker=DockerState.READY,
        agent_version="",
        boot_id="",
        started_s=started_s or 0.0,
    )
    beats = {} if started_s is None else {HOST: beat}
    leases = () if lease is None else (lease,)
    return View(cluster_id=1, revision=1, leases=leases, heartbeats=MappingProxyType(beats))


def with_key(key: str) -> Lease:
    return replace(LEASE, backend_data=BackendData.of({"PublicKey": key}))


def seen(*views: View) -> list[str]:
    """The conditions after the last of these views."""
    changes, before = KeyChanges(), None
    for each in views:
        changes, before = changes.follow(before, each), each
    return [each.name for each in changes.conditions(views[-1])]


def test_a_key_that_changes_under_a_running_agent_is_a_condition_until_it_restarts() -> None:
    first, second = view(LEASE), view(with_key("two"))
    assert seen(first, second) == ["peer-key-changed"]
    assert seen(first, second, second) == ["peer-key-changed"]
    assert seen(first, second, view(with_key("two"), started_s=None)) == ["peer-key-changed"]
    assert seen(first, second, view(with_key("two"), started_s=2.0)) == []
    assert seen(first, second, view(None)) == []


def test_a_key_for_the_backend_beside_the_one_in_use_counts_too() -> None:
    old, new = (
        replace(
            LEASE, backend="vxlan", backend_data=None, accepted=BackendChoice("wireguard", data)
        )
        for data in (BackendData.of({"PublicKey": "one"}), BackendData.of({"PublicKey": "two"}))
    )
    assert seen(view(old), view(new)) == ["peer-key-changed"]
    assert seen(view(old), view(with_key("one"))) == [], "the same, now in use"


@pytest.mark.parametrize(
    "later",
    [
        view(LEASE),
        view(replace(LEASE, node_address=IPv4Address("192.0.2.9"))),
        view(with_key("two"), started_s=2.0),
        view(with_key("two"), started_s=None),
        view(replace(with_key("two"), host_id=HostId("2" * 32))),
    ],
    ids=["same", "address", "restarted", "agent-away", "another-host"],
)
def test_nothing_else_is_a_condition(later: View) -> None:
    assert seen(view(LEASE), later) == []
