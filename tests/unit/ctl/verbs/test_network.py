"""The networks of a view as a document and as agentctl prints it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from agent.ctl.output import lay_out
from agent.ctl.verbs.network.show import parts_table, table
from agent.daemon.api.networks import networks_document
from agent.daemon.state.freshness import CURRENT, Freshness
from agent.model import Access, DockerState, Heartbeat, HostId, View
from agent.model.network import MeshNetwork, NetworkSlice
from agent.registry.operations.network_hosts import Counts
from tests.unit.ctl.golden import check_golden
from tests.unit.ctl.schemas import check
from tests.unit.small_mesh import CONFIG, lease

pytestmark = pytest.mark.unit

NOW_S = 10_000.0


def host(number: int) -> HostId:
    return HostId(f"{number:032x}")


def beat(number: int, docker: DockerState = DockerState.READY, level: int = 3) -> Heartbeat:
    return Heartbeat(
        host_id=host(number),
        host_name=f"host{number}",
        node_address=None,
        subnet=None,
        docker=docker,
        agent_version="1",
        boot_id="b",
        started_s=0,
        level=level,
    )


def part(number: int, network: str) -> NetworkSlice:
    subnet = IPv4Network(f"10.{64 + number}.{len(network)}.0/24")
    return NetworkSlice(host_id=host(number), network=network, subnet=subnet, since_s=9_000.0)


VIEW = View(
    cluster_id=1,
    revision=2,
    config=replace(CONFIG, level=3),
    leases=tuple(lease(number) for number in range(5)),
    heartbeats={
        host(0): beat(0),
        host(1): beat(1),
        host(2): beat(2, DockerState.PENDING),
        host(3): beat(3, level=2),
    },
    networks={
        "shop": MeshNetwork(name="shop", access=Access.CLOSED),
        "old": MeshNetwork(name="old", hosts=(host(0), host(1), "web-*"), removed=True),
        "gone": MeshNetwork(name="gone", removed=True),
    },
    slices={
        (each.host_id, each.network): each
        for each in (part(0, "shop"), part(1, "shop"), part(0, "old"), part(1, "old"), part(4, "l"))
    },
)
COUNTS = {(host(0), "shop"): 2, (host(0), "old"): 1}


def document(counts: Counts | None = COUNTS, freshness: Freshness = CURRENT) -> dict[str, Any]:
    found = networks_document(VIEW, host(0), NOW_S, counts=counts, freshness=freshness)
    check("networks", found)
    return found


def states(name: str, found: dict[str, Any]) -> dict[str, tuple[str, str | None, int | None]]:
    (network,) = (each for each in found["networks"] if each["name"] == name)
    return {
        each["host_name"]: (each["state"], each["waits_for"], each["containers"])
        for each in network["parts"]
    }


def test_each_host_of_a_network_is_listed_with_what_it_waits_for() -> None:
    assert states("shop", document()) == {
        "host0": ("ready", None, 2),
        "host1": ("ready", None, 0),
        "host2": ("to be made", "Docker pending", None),
        "host3": ("to be made", "its agent reads level 2", None),
        "host4": ("to be made", "host off", None),
    }


def test_what_remains_of_a_removed_network_is_listed_and_nothing_is_to_be_made() -> None:
    assert states("old", document()) == {
        "host0": ("to be removed", "in use by 1 container", 1),
        "host1": ("to be removed", None, 0),
    }
    assert states("gone", document()) == {}


def test_promise_8_a_slice_that_does_not_count_is_listed_with_the_reason() -> None:
    outside = replace(part(1, "shop"), subnet=IPv4Network("10.80.0.0/24"))
    forbidden = part(2, "old")
    slices = {**VIEW.slices, (host(1), "shop"): outside, (host(2), "old"): forbidden}
    view = replace(VIEW, slices=slices)
    found = networks_document(view, host(0), NOW_S)
    assert states("shop", found)["host1"][:2] == (
        "set aside",
        "10.80.0.0/24 is in no lease of the host",
    )
    assert states("old", found)["host2"][:2] == (
        "set aside",
        "its record does not name the host",
    )


def test_promise_9_containers_are_not_counted_where_endpoints_are_not_known() -> None:
    assert states("old", document(counts=None))["host0"] == ("to be removed", None, None)


def test_promise_9_a_heartbeat_that_an_old_view_lacks_is_no_host_that_is_off() -> None:
    found = document(freshness=Freshness(stale=True))
    assert states("shop", found)["host4"] == ("to be made", None, None)
    assert lay_out(table(found), None)[0].startswith("! etcd unreachable")


def test_a_label_without_a_record_makes_a_network_of_the_hosts_that_have_it() -> None:
    assert states("l", document()) == {"host4": ("ready", None, 0)}


@pytest.mark.parametrize("width", [80, 160])
def test_networks_are_laid_out(width: int) -> None:
    found = document()
    check_golden(f"network-ls-{width}.txt", lay_out(table(found), width), width=width)
    shop = {**found, "networks": [e for e in found["networks"] if e["name"] == "shop"]}
    old = {**found, "networks": [e for e in found["networks"] if e["name"] == "old"]}
    shown = [line for each in (shop, old) for line in lay_out(parts_table(each, wide=False), width)]
    check_golden(f"network-inspect-{width}.txt", shown, width=width)


def test_promise_8_names_from_etcd_reach_the_terminal_harmless() -> None:
    found = document()
    for network in found["networks"]:
        for each in network["parts"]:
            each["host_name"] = "\x1b[2J"
    assert all(line.isprintable() for line in lay_out(table(found), None))
    for each in found["networks"]:
        assert all(
            line.isprintable()
            for line in lay_out(parts_table({**found, "networks": [each]}, wide=True), None)
        )


def test_a_mesh_without_networks_says_so() -> None:
    empty = networks_document(View(cluster_id=1, revision=1), None, 0.0)
    check("networks", empty)
    assert lay_out(table(empty), 80) == ["there is no mesh network"]
