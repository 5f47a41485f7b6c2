"""Following the containers of all hosts on a real etcd, apart from the mesh."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from agent.etcd import kv
from agent.model import NETWORKS_LEVEL, HostId
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint, EndpointAddress, EndpointView
from agent.registry.directory import Directory
from agent.registry.endpoints.directory import EndpointDirectory
from agent.registry.endpoints.reading import read_store
from agent.registry.records import (
    ENDPOINTS,
    KINDS,
    NETWORKS,
    SLICES,
    Keys,
    encode_endpoint,
    endpoint_key,
)
from agent.registry.records.checks import CHECKS
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, request
from tests.etcd.test_directory import wakes_of
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


def endpoint(owner: HostId, number: int, name: str = "web") -> Endpoint:
    place = EndpointAddress(network="bridge", address=IPv4Address("10.64.0.0") + number)
    return Endpoint(
        host_id=owner,
        container_id=f"{number:016x}" + "c" * 48,
        name=f"{name}{number}",
        addresses=(place,),
    )


def put(mesh: Registry, *endpoints: Endpoint) -> None:
    for first in range(0, len(endpoints), 100):
        part = endpoints[first : first + 100]
        puts = [kv.put(mesh.keys.of(ENDPOINTS, endpoint_key(e)), encode_endpoint(e)) for e in part]
        mesh.client.txn("w", [], puts)


def delete(mesh: Registry, *endpoints: Endpoint) -> None:
    keys = [mesh.keys.of(ENDPOINTS, endpoint_key(each)) for each in endpoints]
    mesh.client.txn("w", [], list(map(kv.delete, keys)))


@contextmanager
def following(mesh: Registry) -> Iterator[tuple[EndpointDirectory, Heard, Heard]]:
    views, conditions = Heard(), Heard()
    directory = EndpointDirectory(mesh, views, conditions)
    directory.start()
    try:
        yield directory, views, conditions
    finally:
        started_s = time.monotonic()
        directory.stop()
        assert time.monotonic() - started_s < 2.1


def names(heard: Heard) -> list[str]:
    view: EndpointView | None = heard.last
    return sorted(each.name for each in view.endpoints.values()) if view else []


def test_containers_are_followed_only_while_they_are_needed(mesh: Registry) -> None:
    put(mesh, endpoint(host(1), 2))
    with following(mesh) as (directory, views, _):
        time.sleep(0.3)  # nothing comes
        assert not len(views)
        directory.follow(wanted=True)
        eventually(lambda: names(views) == ["web2"])
        assert views.last.complete
        put(mesh, endpoint(host(2), 3), endpoint(host(1), 2, "api"))
        eventually(lambda: names(views) == ["api2", "web3"])
        delete(mesh, endpoint(host(1), 2))
        eventually(lambda: names(views) == ["web3"])
        assert views.last.revision == mesh.snapshot().revision
        directory.follow(wanted=False)
        eventually(lambda: "etcd-watch-reader" not in {t.name for t in threading.enumerate()})
        count = len(views)
        put(mesh, endpoint(host(2), 4))
        time.sleep(0.3)  # nothing comes
        assert len(views) == count
        directory.follow(wanted=True)
        eventually(lambda: names(views) == ["web3", "web4"])


def test_a_change_costs_what_changed_and_shares_the_rest(mesh: Registry) -> None:
    put(mesh, *(endpoint(host(at % 9), at) for at in range(2, 400)))
    with following(mesh) as (directory, views, _):
        directory.follow(wanted=True)
        eventually(lambda: len(names(views)) == 398)
        before: EndpointView = views.last
        put(mesh, endpoint(host(1), 1000))
        eventually(lambda: len(names(views)) == 399)
        now: EndpointView = views.last
        assert all(now.endpoints[key] is each for key, each in before.endpoints.items())


def test_promise_10_endpoints_cost_those_who_follow_the_mesh_nothing(mesh: Registry) -> None:
    """Ten changes a second: no view, no wake-up, no memory."""
    views = Heard()
    directory = Directory(mesh, views, Heard())
    directory.start()
    threads = ("etcd-directory", "etcd-watch-reader")
    try:
        eventually(lambda: len(views))
        tracemalloc.start()
        try:
            count, wakes = len(views), wakes_of(*threads)
            at_first, _ = tracemalloc.get_traced_memory()
            for number in range(2, 42):
                put(mesh, endpoint(host(1), number))
                time.sleep(0.1)  # the rate is what is tested
            grown = tracemalloc.get_traced_memory()[0] - at_first
        finally:
            tracemalloc.stop()
        assert len(views) == count
        assert wakes_of(*threads) - wakes < 30, "less than one for each of the 40 changes"
        assert grown < 256 * 1024  # other threads work meanwhile, too
        mesh.claim(request(1))
        eventually(lambda: views.last.lease_of(host(1)))
        assert views.last.set_aside == ()
        assert mesh.records().unknown.count == 0
    finally:
        directory.stop()


def test_promise_3_and_9_while_etcd_is_away_the_last_view_stays_and_a_condition_says_so(
    etcd: Etcd,
) -> None:
    with registry(etcd) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
        put(mesh, endpoint(host(1), 2))
        with following(mesh) as (directory, views, conditions):
            directory.follow(wanted=True)
            eventually(lambda: names(views) == ["web2"])
            count = len(views)
            etcd.kill()
            eventually(lambda: conditions.last, timeout_s=15)
            assert conditions.last[0].name == "endpoints-not-followed"
            assert len(views) == count
            directory.follow(wanted=False)
            eventually(lambda: conditions.last == (), timeout_s=15)
            directory.follow(wanted=True)
            eventually(lambda: conditions.last, timeout_s=15)
            etcd.start()
            etcd.wait_healthy(mesh.client)
            put(mesh, endpoint(host(1), 3))
            eventually(lambda: names(views) == ["web2", "web3"], timeout_s=20)
            eventually(lambda: conditions.last == ())


def test_promise_4_compaction_ends_in_a_complete_view(etcd: Etcd) -> None:
    with registry(etcd) as other, following(other) as (directory, views, _):
        other.create_config(config("10.64.0.0/12"))
        directory.follow(wanted=True)
        eventually(lambda: len(views))
        for number in range(2, 8):
            put(other, endpoint(host(1), number))
            etcd.ctl("compact", str(other.snapshot().revision))
        eventually(lambda: len(names(views)) == 6)


def test_promise_10_a_host_that_publishes_too_much_costs_itself(mesh: Registry) -> None:
    for at in range(0, 2 * ENDPOINTS_MOST + 1_000, 100):
        put(mesh, *(endpoint(host(1), number) for number in range(at, at + 100)))
    put(mesh, endpoint(host(2), 3))
    pages = Heard()
    real = mesh.client.range
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh.client, "range", lambda *a, **k: (pages(a), real(*a, **k))[1])  # type: ignore[func-returns-value]
        view = read_store(mesh.client, mesh.keys).view()
    assert len(pages) <= 5
    found = [key[0] for key in view.endpoints]
    assert (found.count(host(1)), found.count(host(2))) == (ENDPOINTS_MOST, 1)
    assert f"more than {ENDPOINTS_MOST}" in view.set_aside[f"endpoints/{host(1)}"]


def test_promise_12_an_agent_of_a_lower_level_passes_over_slices_and_endpoints(
    mesh: Registry,
) -> None:
    """It watches all keys as one range, and sees no other mesh for what it does not know."""
    kinds = (kind for kind in KINDS if kind.level < NETWORKS_LEVEL and kind is not CHECKS)
    mesh.keys = Keys(mesh.keys.prefix, tuple(kinds))
    assert mesh.keys.followed == (mesh.keys.everything,)
    views, problems = Heard(), Heard()
    directory = Directory(mesh, views, problems)
    directory.start()
    try:
        eventually(lambda: len(views) and len(problems))
        count, newer = len(views), Keys(mesh.keys.prefix)
        for number in range(2, 42):
            puts = [
                kv.put(newer.of(ENDPOINTS, (host(1), f"{number:016x}")), b"{}"),
                kv.put(newer.of(SLICES, (host(1), "shop")), b"{}"),
                kv.put(newer.of(NETWORKS, "shop"), b"{}"),
            ]
            mesh.client.txn("w", [], puts)
        lease = mesh.claim(request(1))  # it reads past them
        eventually(lambda: views.last.lease_of(host(1)) == lease)
        assert len(views) <= count + 2, "no view for what no view shows"
        assert (views.last.set_aside, problems.last[0]) == ((), None)
        assert mesh.renew(lease, request(1)).subnet == lease.subnet
        assert mesh.release(host(1)) == lease.subnet
    finally:
        directory.stop()
