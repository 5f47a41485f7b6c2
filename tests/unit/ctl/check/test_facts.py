"""Facts of a check: the names and containers that should answer, from the agent's documents."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

import pytest

from agent.ctl.check.facts import Facts, read_facts
from agent.errors import CannotTell, StateError

pytestmark = pytest.mark.unit

ONE, TWO = "1" * 32, "2" * 32


def lease(host: str, subnet: str, *, own: bool = False, moving: bool = False) -> dict[str, Any]:
    return {
        "host_id": host, "host_name": f"host{host[0]}", "subnet": subnet, "own": own,
        "moving": moving, "node_address": f"192.0.2.{host[0]}",
        "container": "10.65.0.2" if host == TWO else None,
    }  # fmt: skip


def spot(host: str, address: str, *, network: str | None = None, healthy: bool = True) -> Any:  # noqa: ANN401 - JSON
    return {"host_id": host, "address": address, "mesh_network": network, "healthy": healthy}


def named(name: str, kind: str, *spots: Any, shadowed_by: str | None = None) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"name": name, "kind": kind, "shadowed_by": shadowed_by, "addresses": list(spots)}


LEASES = {"leases": [lease(ONE, "10.64.0.0/16", own=True), lease(TWO, "10.65.0.0/16")]}
NAMES = {
    "domain": "hostmesh.internal",
    "complete": True,
    "names": [
        named("host1.host", "own", spot(ONE, "192.0.2.1")),
        named("host2.host", "own", spot(TWO, "192.0.2.2")),
        named("web.host2", "host", spot(TWO, "10.65.0.2")),
        named("db.host2", "host", spot(TWO, "10.65.1.2")),
        named("db.shop", "network", spot(TWO, "10.65.1.2", network="shop")),
        named("sick.shop", "network", spot(TWO, "10.65.1.3", network="shop", healthy=False)),
        named("api.shop", "network", spot(TWO, "10.65.1.4", network="shop")),
        named("more.shop", "network", spot(TWO, "10.65.1.5", network="shop")),
        named("web.host2", "project", spot(TWO, "10.65.9.9"), shadowed_by="host"),
    ],
}


def facts(**documents: Mapping[str, Any] | Exception) -> Facts:
    given = {"leases": LEASES, "names": NAMES, **documents}

    def ask(target: str) -> Mapping[str, Any]:
        found = given[target.removeprefix("/v1/")]
        if isinstance(found, Exception):
            raise found
        return found

    return read_facts(ask)


def test_names_of_the_host_and_of_its_container_are_asked_for() -> None:
    (peer,) = facts().peers
    assert [(each.name, each.addresses) for each in peer.names] == [
        ("host2.host.hostmesh.internal", (IPv4Address("192.0.2.2"),)),
        ("web.host2.hostmesh.internal", (IPv4Address("10.65.0.2"),)),
    ]
    assert facts().own_names[0].name == "host1.host.hostmesh.internal"


def test_two_healthy_containers_of_each_network_are_asked() -> None:
    (peer,) = facts().peers
    assert [each.name for each in peer.networks["shop"]] == ["db.shop", "api.shop"]


def test_without_names_the_containers_of_shared_networks_come_from_etcd() -> None:
    place = {"address": "10.65.1.2", "mesh_network": "shop"}
    container = {"own": False, "health": "none", "host_id": TWO, "name": "db", "addresses": [place]}
    for own, wanted in ((True, ["shop"]), (False, [])):
        found = facts(
            names={"domain": "", "names": []},
            networks={"networks": [{"parts": [{"own": own}]}]},
            containers={"containers": [container]},
        )
        assert list(found.peers[0].networks) == wanted
        assert found.names_problem == "the mesh has no names"


def test_names_that_cannot_be_read_are_a_reason_and_no_failure() -> None:
    found = facts(names=StateError("the folder is damaged"))
    assert found.names_problem == "the folder is damaged"
    assert len(found.peers) == 1


def test_a_host_without_a_subnet_cannot_check_and_one_that_moves_checks_from_the_new_one() -> None:
    with pytest.raises(CannotTell, match="holds no subnet"):
        facts(leases={"leases": [lease(TWO, "10.65.0.0/16")]})
    moved = [
        lease(ONE, "10.64.0.0/16", own=True, moving=True),
        lease(ONE, "10.66.0.0/16", own=True),
    ]
    assert str(facts(leases={"leases": moved}).subnet) == "10.66.0.0/16"
