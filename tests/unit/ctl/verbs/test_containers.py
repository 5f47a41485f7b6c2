"""Endpoints of a view as a document and as agentctl prints it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from agent.ctl.output import lay_out
from agent.ctl.verbs.containers import table
from agent.daemon.api.containers import containers_document, counts_by_network
from agent.daemon.state.freshness import CURRENT, Freshness
from agent.model import Access, View
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from tests.unit.ctl.golden import check_golden
from tests.unit.ctl.schemas import check
from tests.unit.ctl.verbs.test_network import VIEW, host, part

pytestmark = pytest.mark.unit


def endpoint(number: int, name: str, *places: EndpointAddress) -> Endpoint:
    digit = "abcdef"[number % 6]
    return Endpoint(
        host_id=host(number), name=name, addresses=places, container_id=digit * 64, boot_id="b"
    )


def place(address: str, network: str = "bridge", mesh: str = "") -> EndpointAddress:
    return EndpointAddress(network=network, address=IPv4Address(address), mesh_network=mesh)


ENDPOINTS = (
    replace(
        endpoint(1, "shop-db-1", replace(place("10.65.4.2", "shop", "shop"), aliases=("db",))),
        project="shop",
        service="db",
        health=Health.HEALTHY,
    ),
    endpoint(
        0,
        "web",
        replace(place("10.64.0.2"), access=Access.OPEN),
        place("10.64.4.2", "x_shop", "shop"),
    ),
    endpoint(4, "left-over", place("10.68.0.2")),
)


def document(
    endpoints: tuple[Endpoint, ...] = ENDPOINTS, view: View = VIEW, fresh: Freshness = CURRENT
) -> dict[str, Any]:
    found = containers_document(view, endpoints, host(0), 10.0, freshness=fresh)
    check("containers", found)
    return found


def addresses(found: dict[str, Any]) -> dict[str, list[str]]:
    return {
        each["name"]: [one["address"] for one in each["addresses"]] for each in found["containers"]
    }


@pytest.mark.parametrize("width", [80, 160])
def test_containers_are_laid_out(width: int) -> None:
    found = document()
    check_golden(f"containers-{width}.txt", lay_out(table(found, wide=False), width), width=width)
    check_golden(f"containers-wide-{width}.txt", lay_out(table(found, wide=True), None))


def test_promise_8_a_host_speaks_for_addresses_in_its_own_lease_and_slices_only() -> None:
    forged = (
        endpoint(1, "other-lease", place("10.64.0.9")),
        endpoint(1, "no-slice", place("10.65.9.2", "a", "old2")),
        endpoint(1, "beside-its-slice", place("10.65.9.2", "a", "shop"), place("10.65.0.3")),
        endpoint(9, "no-lease", place("10.73.0.2")),
    )
    assert addresses(document(forged)) == {"beside-its-slice": ["10.65.0.3"]}


def test_promise_8_a_slice_that_is_set_aside_makes_no_member() -> None:
    slices = {**VIEW.slices, (host(2), "old"): part(2, "old")}
    claimed = (endpoint(2, "x", place("10.66.3.2", "old", "old")),)
    assert addresses(document(claimed, replace(VIEW, slices=slices))) == {}


def test_containers_of_a_network_are_counted_by_host() -> None:
    assert counts_by_network(VIEW, ENDPOINTS) == {(host(0), "shop"): 1, (host(1), "shop"): 1}


def test_promise_9_a_host_without_heartbeat_and_an_old_view_are_named() -> None:
    (left,) = (each for each in document()["containers"] if each["name"] == "left-over")
    assert (left["alive"], left["heartbeat"]) == (False, "none")
    old = document(fresh=Freshness(stale=True))
    assert {each["heartbeat"] for each in old["containers"]} == {"unknown"}
    shown = lay_out(table(old, wide=False), None)
    assert shown[0].startswith("! etcd unreachable")
    assert all("host unknown" in each for each in shown[2:])


def test_promise_8_names_from_etcd_reach_the_terminal_harmless() -> None:
    found = document()
    for each in found["containers"]:
        each["name"] = each["service"] = "\x1b[2J\nx"
    assert all(line.isprintable() for line in lay_out(table(found, wide=True), None))


def test_no_container_is_no_error() -> None:
    assert lay_out(table(document(()), wide=False), 80) == ["no such container runs in the mesh"]


def test_a_mesh_whose_level_is_too_low_says_why_no_container_is_listed() -> None:
    low = {**document(()), "level": 1}
    check("containers", low)
    assert lay_out(table(low, wide=False), 200) == [
        (
            "hosts publish their containers from level 3 on, and the config has level 1: agentctl"
            " config set --level 3"
        )
    ]
