"""agentctl network against a real etcd, with hosts that this test plays."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import MeshConfigError, Refused
from agent.etcd import kv
from agent.model import Access, DockerState, Heartbeat
from agent.model.endpoint import Endpoint, EndpointAddress
from agent.model.family import subnets_of
from agent.model.network import MeshNetwork, NetworkSlice
from agent.registry.operations.networks import create_network, remove_network
from agent.registry.records import ENDPOINTS, NETWORKS, SLICES, encode_slice
from agent.registry.records.endpoints import encode_endpoint, endpoint_key
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, config, host, registry, request
from tests.unit.ctl.schemas import check
from tests.waiting import eventually, remarks

pytestmark = pytest.mark.etcd

Run = Callable[..., int]
SHOP = MeshNetwork(name="shop")


@pytest.fixture
def mesh(shared_etcd: Etcd, prefix: str) -> Iterator[Registry]:
    """Three hosts with leases, in a mesh that may have networks."""
    with registry(shared_etcd, prefix=prefix) as found:
        found.create_config(replace(config("10.64.0.0/12"), level=3))
        for number in (1, 2, 3):
            found.claim(request(number))
        yield found


def beat(mesh: Registry, number: int, docker: DockerState = DockerState.READY) -> None:
    lease = mesh.snapshot().lease_of(host(number))
    assert lease is not None
    mesh.heartbeat(
        Heartbeat(
            host_id=host(number),
            host_name=lease.host_name,
            node_address=lease.node_address,
            subnet=lease.subnet,
            docker=docker,
            agent_version="0.2.0",
            boot_id="b",
            started_s=0.0,
            level=3,
        ),
        30,
    )


def publish(mesh: Registry, number: int, name: str = "shop") -> None:
    lease = mesh.snapshot().lease_of(host(number))
    assert lease is not None
    subnet = next(subnets_of(lease.subnet, 24))
    found = NetworkSlice(host_id=host(number), network=name, subnet=subnet, since_s=1.0)
    key = mesh.keys.of(SLICES, (host(number), name))
    mesh.client.txn("publish", [], [kv.put(key, encode_slice(found))])


def withdraw(mesh: Registry, number: int, name: str = "shop") -> None:
    mesh.client.txn("", [], [kv.delete(mesh.keys.of(SLICES, (host(number), name)))])


def answer(capsys: pytest.CaptureFixture[str], schema: str = "change") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    check(schema, found)
    return found


def test_create_can_be_repeated_and_another_one_is_refused_with_the_difference(
    mesh: Registry,
) -> None:
    wish = replace(SHOP, access=Access.CLOSED, hosts=("web-*",), length=26)
    assert create_network(mesh, wish, dry=True).changed
    assert not mesh.snapshot().networks
    assert create_network(mesh, wish).changed
    made = mesh.snapshot().networks["shop"]
    assert replace(made, create_revision=0, mod_revision=0) == wish
    assert not create_network(mesh, wish).changed
    with pytest.raises(Refused) as caught:
        create_network(mesh, replace(wish, access=None, length=24))
    assert "access closed, not as the mesh; size /26, not /24" in caught.value.message
    assert "hosts" not in caught.value.message
    assert mesh.snapshot().networks["shop"] == made


def test_promise_12_nothing_is_created_below_the_level_that_networks_need(
    shared_etcd: Etcd, prefix: str, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry(shared_etcd, prefix=prefix) as low:
        with pytest.raises(MeshConfigError):
            create_network(low, SHOP)
        low.create_config(replace(config("10.64.0.0/12"), level=2))
        assert ctl("network", "create", "shop") == Refused.exit_code
        assert "agentctl config set --level 3" in capsys.readouterr().err
        assert not low.snapshot().networks


def test_an_operator_who_changes_the_record_meanwhile_is_not_overwritten(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = iter([mesh.records()])
    real = mesh.records
    create_network(mesh, replace(SHOP, length=28))
    monkeypatch.setattr(mesh, "records", lambda: next(before, None) or real())
    with pytest.raises(Refused, match="size /28, not /24"):
        create_network(mesh, SHOP)


def test_a_removal_that_is_pending_is_taken_back_with_the_same_options_only(
    mesh: Registry,
) -> None:
    create_network(mesh, SHOP)
    publish(mesh, 1)
    assert remove_network(mesh, "shop").changed
    assert mesh.snapshot().networks["shop"].removed
    assert not remove_network(mesh, "shop").changed
    with pytest.raises(Refused, match="is being removed"):
        create_network(mesh, replace(SHOP, length=25))
    assert create_network(mesh, SHOP).kept
    assert not mesh.snapshot().networks["shop"].removed
    remove_network(mesh, "shop")
    withdraw(mesh, 1)
    assert create_network(mesh, replace(SHOP, length=25)).changed, "no host has it any more"


def test_the_record_is_deleted_when_no_host_has_a_slice(mesh: Registry) -> None:
    create_network(mesh, SHOP)
    publish(mesh, 1)
    remove_network(mesh, "shop")
    assert not remove_network(mesh, "shop").deleted
    withdraw(mesh, 1)
    assert remove_network(mesh, "shop", dry=True).deleted
    assert "shop" in mesh.snapshot().networks
    assert remove_network(mesh, "shop").deleted
    assert not mesh.snapshot().networks
    assert not remove_network(mesh, "shop").changed


def test_a_label_without_a_record_cannot_be_removed_from_here(mesh: Registry) -> None:
    publish(mesh, 1)
    with pytest.raises(Refused, match="Docker networks of host1 carry its label"):
        remove_network(mesh, "shop")


def test_an_operator_may_have_declared_networks_only(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(mesh, 1)
    for networks, state in (("declared", "set aside"), ("any", "ready")):
        assert ctl("config", "set", "--networks", networks, "-o", "json") == 0
        assert answer(capsys, "config")["networks"] == networks
        assert ctl("network", "inspect", "shop", "-o", "json") == 0
        found = answer(capsys, "networks")
        assert found["declared_only"] is (networks == "declared")
        assert [each["state"] for each in found["networks"][0]["parts"]] == [state]


def test_a_name_with_the_hash_of_another_is_refused(mesh: Registry) -> None:
    assert create_network(mesh, replace(SHOP, name="n175561")).changed
    with pytest.raises(Refused, match="that of network n175561"):
        create_network(mesh, replace(SHOP, name="n804706"))
    assert not create_network(mesh, replace(SHOP, name="n175561")).changed


def test_a_damaged_record_is_named_and_rm_deletes_it(mesh: Registry) -> None:
    key = mesh.keys.of(NETWORKS, "shop")
    mesh.client.txn("", [], [kv.put(key, b"{")])
    with pytest.raises(Refused, match="cannot be read"):
        create_network(mesh, SHOP)
    assert remove_network(mesh, "shop").deleted
    assert create_network(mesh, SHOP).changed


@contextmanager
def agents_do(work: Callable[[], None]) -> Iterator[None]:
    """Play the hosts' agents while agentctl waits."""
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(30)


def test_create_waits_for_the_hosts_that_can_make_it_now(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    beat(mesh, 1)
    beat(mesh, 2, DockerState.ABSENT)

    def agent() -> None:
        eventually(lambda: "shop" in mesh.snapshot().networks, 20)
        publish(mesh, 1)

    with agents_do(agent):
        assert ctl("network", "create", "shop", "--timeout", "20") == 0
    said = capsys.readouterr()
    subnet = mesh.snapshot().slices[host(1), "shop"].subnet
    assert said.out == f"created network shop\nhost1 has {subnet}\n"
    assert remarks(said.err).splitlines() == [
        "host2: to be made (Docker absent)",
        "host3: to be made (host off)",
    ]
    assert ctl("network", "create", "shop") == 0
    assert capsys.readouterr().out == "nothing to do\n"


def test_create_names_a_host_that_does_not_make_it_in_time(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    beat(mesh, 1)
    assert ctl("network", "create", "shop", "--timeout", "200ms", "-o", "json") == 1
    found = answer(capsys)
    assert (found["changed"], found["todo"]) == (True, ["host1: to be made"])


def test_rm_waits_for_unused_networks_and_then_deletes_the_record(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    create_network(mesh, SHOP)
    beat(mesh, 1)
    publish(mesh, 1)

    def agent() -> None:
        eventually(lambda: mesh.snapshot().networks["shop"].removed, 20)
        withdraw(mesh, 1)

    assert ctl("network", "rm", "shop", "--dry-run") == 0
    assert capsys.readouterr().out == "would remove network shop\n"
    with agents_do(agent):
        assert ctl("network", "rm", "shop", "--timeout", "20") == 0
    assert capsys.readouterr() == ("removed network shop\n", "")
    assert not mesh.snapshot().networks


def run_container(mesh: Registry, number: int, name: str, digit: str, network: str = "") -> None:
    lease = mesh.snapshot().lease_of(host(number))
    assert lease is not None
    subnet = next(subnets_of(lease.subnet, 24))
    place = EndpointAddress(
        network=network or "bridge", address=subnet.network_address + 9, mesh_network=network
    )
    found = Endpoint(
        host_id=host(number), container_id=digit * 64, name=name, addresses=(place,), boot_id="b"
    )
    key = mesh.keys.of(ENDPOINTS, endpoint_key(found))
    mesh.client.txn("publish", [], [kv.put(key, encode_endpoint(found))])


def test_containers_of_all_hosts_are_listed_by_name_and_host(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    beat(mesh, 1)
    publish(mesh, 1)
    run_container(mesh, 1, "web", "a", "shop")
    run_container(mesh, 2, "db", "b")
    damaged = mesh.keys.of(ENDPOINTS, (host(1), "c" * 16))
    mesh.client.txn("", [], [kv.put(damaged, b"{")])
    assert ctl("containers", "-o", "json") == 0
    listed = answer(capsys, "containers")["containers"]
    assert [(each["host_name"], each["name"], each["alive"]) for each in listed] == [
        ("host1", "web", True),
        ("host2", "db", False),
    ]
    for words in (
        ("w*",),
        ("--host", "host1"),
        ("--host", host(1)[:8]),
        ("web", "--host", "host1"),
    ):
        assert ctl("containers", *words) == 0
        said = capsys.readouterr().out
        assert "web" in said
        assert "db" not in said
    assert ctl("network", "ls") == 0
    assert re.search(r"^shop .* 1 of 1 +1 +ready$", capsys.readouterr().out, re.MULTILINE)


def test_rm_says_by_how_many_containers_a_network_is_in_use(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    create_network(mesh, SHOP)
    beat(mesh, 1)
    publish(mesh, 1)
    run_container(mesh, 1, "web", "a", "shop")
    assert ctl("network", "rm", "shop") == 0, "it does not wait for the container's end"
    assert remarks(capsys.readouterr().err) == "host1: to be removed (in use by 1 container)\n"


def test_rm_names_what_remains_and_ls_shows_it(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    create_network(mesh, SHOP)
    publish(mesh, 3)
    assert ctl("network", "rm", "shop") == 0
    said = capsys.readouterr()
    assert said.out == "hosts remove network shop where no container is attached\n"
    assert remarks(said.err) == "host3: to be removed (host off)\n"
    assert ctl("network", "ls") == 0
    assert "to be removed: host3 (host off)" in capsys.readouterr().out
    assert ctl("network", "inspect", "shop", "-o", "json") == 0
    (found,) = answer(capsys, "networks")["networks"]
    (part,) = found["parts"]
    assert (found["removed"], part["host_name"], part["waits_for"]) == (True, "host3", "host off")


def test_a_host_is_stored_by_its_id_and_a_pattern_as_it_is(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--host", "host1", "--host", "web-*", "--size", "/26", "--access", "closed")
    assert ctl("network", "create", "shop", *words) == 0
    found = mesh.snapshot().networks["shop"]
    assert (found.hosts, found.length, found.access) == (
        (host(1), "web-*"),
        26,
        Access.CLOSED,
    )
    capsys.readouterr()
    assert ctl("network", "inspect", "shop") == 0
    said = capsys.readouterr().out
    assert said.startswith("network shop: hosts host1, web-*; slices /26; access closed\n")
    assert "host2" not in said


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("create", "Shop"), 2),
        (("create", "bridge"), 2),
        (("create", "shop", "--size", "/31"), 2),
        (("create", "shop", "--size", "x"), 2),
        (("create", "shop", "--host", "[a]*"), 2),
        (("create", "shop", "--access", "wide"), 2),
        (("create", "shop", "--size", "/16"), Refused.exit_code),
        (("create", "shop", "--host", "unknown"), Refused.exit_code),
        (("inspect", "shop"), 2),
        (("rm", "-"), 2),
    ],
)
def test_what_cannot_be_meant_has_its_own_status_and_writes_nothing(
    mesh: Registry, ctl: Run, words: tuple[str, ...], status: int
) -> None:
    before = mesh.snapshot()
    assert ctl("network", *words) == status
    assert mesh.snapshot() == before
