"""View in, document out."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.api.hosts import newest_version
from agent.daemon.api.leases import leases_document
from agent.daemon.state.freshness import Freshness
from agent.mesh.ways import OwnDevice, Way
from agent.model import (
    BackendData,
    DockerState,
    Heartbeat,
    HostId,
    HostSummary,
    Lease,
    SetAside,
    View,
)
from agent.model.family import Network

pytestmark = pytest.mark.unit

ONE, TWO = HostId("1" * 32), HostId("2" * 32)
NOW_S = 1_000_000.0


def lease(subnet: str, host_id: HostId | None, **fields: object) -> Lease:
    values: dict[str, object] = {"ttl_s": 86_400, "claimed_s": NOW_S - 60, "renewed_s": NOW_S - 10}
    return Lease(
        subnet=IPv4Network(subnet),
        node_address=IPv4Address("192.0.2.1"),
        backend="host-gw",
        host_id=host_id,
        host_name="h",
        **{**values, **fields},  # type: ignore[arg-type]
    )


def heartbeat(host_id: HostId) -> Heartbeat:
    return Heartbeat(
        host_id=host_id,
        host_name="h",
        node_address=None,
        subnet=None,
        docker=DockerState.PENDING,
        agent_version="1",
        boot_id="b",
        started_s=0,
    )


VIEW = View(
    cluster_id=1,
    revision=2,
    leases=(
        lease("10.66.0.0/16", TWO, claimed_s=NOW_S + 500, renewed_s=NOW_S + 500),
        lease("10.64.0.0/16", ONE),
        lease(
            "10.65.0.0/16",
            None,
            ttl_s=None,
            claimed_s=None,
            renewed_s=None,
            backend_data=BackendData.of({"VNI": 1}),
        ),
    ),
    heartbeats={ONE: heartbeat(ONE)},
    set_aside=(SetAside("/k", "why"),),
)


def test_leases_in_order_of_subnet_with_the_own_marked() -> None:
    document = leases_document(VIEW, ONE, NOW_S, last_heartbeat_s={TWO: NOW_S - 180, ONE: 0})
    assert json.loads(json.dumps(document)) == document
    assert document["set_aside"] == [{"key": "/k", "reason": "why"}]
    first, flannel, second = document["leases"]
    assert flannel["backend_data"] == {"VNI": 1}
    assert first == {
        "subnet": "10.64.0.0/16",
        "host_id": ONE,
        "host_name": "h",
        "node_address": "192.0.2.1",
        "backend": "host-gw",
        "backend_data": None,
        "accepted_backend": None,
        "age_s": 60.0,
        "ttl_left_s": 86_390.0,
        "alive": True,
        "heartbeat": "alive",
        "last_seen_s": None,
        "level": 1,
        "silent_s": None,
        "docker": "pending",
        "container": None,
        "own": True,
        "moving": False,
        "reachable": None,
        "agent_version": "1",
        "outdated": None,
        "containers": None,
        "conditions": [],
        "link": None,
        "device": None,
        "direct": None,
        "mtu": None,
    }
    assert (flannel["alive"], flannel["age_s"], flannel["ttl_left_s"]) == (None, None, None)
    assert (second["alive"], second["silent_s"], second["own"]) == (False, 180.0, False)


def test_each_lease_says_how_this_host_sends_there() -> None:
    ways: dict[Network, Way] = {
        IPv4Network("10.66.0.0/16"): Way("hm-vxlan", direct=False, mtu=1350)
    }
    own = OwnDevice("hm-vxlan", mtu=1450, container_mtu=1420)
    leases = leases_document(VIEW, ONE, NOW_S, ways=ways, device=own)["leases"]
    keys = ("device", "direct", "mtu")
    assert [tuple(each[key] for key in keys) for each in leases] == [
        ("hm-vxlan", None, 1450),
        (None, None, None),
        ("hm-vxlan", False, 1350),
    ]


def test_promise_9_while_etcd_is_away_no_heartbeat_is_a_fact() -> None:
    """Data of the last contact has its age."""
    stale = Freshness(stale=True, as_of_s=NOW_S - 53)
    document = leases_document(
        VIEW, ONE, NOW_S, last_heartbeat_s={TWO: NOW_S - 180}, freshness=stale
    )
    assert (document["stale"], document["as_of"], document["as_of_s_ago"]) == (
        True,
        NOW_S - 53,
        53.0,
    )
    one, flannel, two = document["leases"]
    for found, seen_s in ((one, 53.0), (two, 180.0)):
        assert (found["alive"], found["heartbeat"], found["last_seen_s"]) == (
            None,
            "unknown",
            seen_s,
        )
        assert (found["docker"], found["silent_s"]) == (None, None)
    assert (flannel["alive"], flannel["heartbeat"]) == (None, None)
    current = leases_document(VIEW, ONE, NOW_S, freshness=Freshness(as_of_s=NOW_S - 2))
    assert (current["stale"], current["as_of"], current["as_of_s_ago"]) == (False, None, None)
    assert [each["last_seen_s"] for each in current["leases"]] == [2.0, None, None]


def test_a_clock_that_is_ahead_gives_no_negative_times() -> None:
    second = leases_document(VIEW, ONE, NOW_S)["leases"][2]
    assert (second["age_s"], second["ttl_left_s"], second["silent_s"]) == (0.0, 86_400.0, None)


def test_a_clock_that_is_off_says_nothing_of_a_lease_that_is_renewed() -> None:
    """The host beats, so it renews its lease, though by its clock the lease ended long ago."""
    days_s = 3 * 86_400.0
    first, _, second = leases_document(VIEW, ONE, NOW_S + days_s)["leases"]
    assert (first["alive"], first["ttl_left_s"]) == (True, None)
    assert (second["alive"], second["ttl_left_s"]) == (False, 0.0)


def test_an_unknown_own_host_marks_no_row_not_even_flannels() -> None:
    assert not any(each["own"] for each in leases_document(VIEW, None, NOW_S)["leases"])


SUMMARY = HostSummary(conditions=("docker-swarm",), containers=3)
THREE = HostId("3" * 32)
MIXED = replace(
    VIEW,
    heartbeats={
        ONE: replace(heartbeat(ONE), agent_version="0.9.1", summary=SUMMARY),
        TWO: replace(heartbeat(TWO), agent_version="0.10.0"),
        THREE: replace(heartbeat(THREE), host_name="new", agent_version="?"),
    },
)


def test_each_host_shows_what_its_heartbeat_says_and_an_older_version_is_marked() -> None:
    document = leases_document(MIXED, ONE, NOW_S)
    keys = ("agent_version", "outdated", "containers", "conditions")
    assert [tuple(each[key] for key in keys) for each in document["leases"]] == [
        ("0.9.1", True, 3, ["docker-swarm"]),
        (None, None, None, None),  # a flannel host
        ("0.10.0", False, None, []),
    ]
    assert document["newest_version"] == "0.10.0"


def test_a_host_with_a_heartbeat_and_no_lease_is_listed() -> None:
    (waiting,) = leases_document(MIXED, ONE, NOW_S)["without_lease"]
    assert (waiting["host_id"], waiting["host_name"]) == (THREE, "new")
    assert (waiting["agent_version"], waiting["outdated"]) == ("?", None)


def test_promise_9_while_etcd_is_away_conditions_and_containers_are_unknown() -> None:
    stale = Freshness(stale=True, as_of_s=NOW_S - 53)
    one = leases_document(MIXED, ONE, NOW_S, freshness=stale)["leases"][0]
    assert (one["agent_version"], one["containers"], one["conditions"]) == ("0.9.1", None, None)


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        ([], None),
        (["", "x", "1"], None),
        (["0.1.1", "0.2.0", "0.1.10"], "0.2.0"),
        (["0.9", "0.10"], "0.10"),
        (["0.2.0rc1", "0.1.9"], "0.2.0rc1"),
        (["9" * 64, "9999999.1", "0.1.0"], "0.1.0"),
    ],
)
def test_the_newest_version_has_the_highest_numbers(
    versions: list[str], newest: str | None
) -> None:
    assert newest_version(versions) == newest
