"""Figures of networks that span hosts: 100 networks and 1,000 containers on 100 hosts.

    .venv/bin/python -m tests.bench.spanning.networks [--rounds N]

Real etcd, one publisher for each host, one follower.
"""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from agent.etcd import kv
from agent.mesh.endpoints import AcceptedEndpoints
from agent.model import NETWORKS_LEVEL, Lease
from agent.model.endpoint import Endpoint, EndpointAddress, EndpointView, Health
from agent.model.network import NetworkSlice
from agent.registry.endpoints.directory import EndpointDirectory
from agent.registry.own.own_records import Holding
from agent.registry.own.publisher import Publication, Publisher
from agent.registry.records import ENDPOINTS, LEASES, SLICES, encode_lease
from agent.registry.registry import Registry
from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.etcd.support import etcdlab
from tests.etcd.support.etcdlab import Etcd, Heard, registry
from tests.waiting import eventually

_HOSTS = 100
_NETWORKS = 100
_PARTS = 10  # networks of one host
_CONTAINERS = 10  # of one host
_CONFIG = replace(etcdlab.config("10.0.0.0/8", 16), level=NETWORKS_LEVEL)


class SimulatedHost:
    """A host with a lease and a publisher, without Docker and kernel.

    Args:
        mesh: To write to, with a client of its own.
        number: 0 to 255.
    """

    def __init__(self, mesh: Registry, number: int) -> None:
        self.mesh = mesh
        self.id = etcdlab.host(number)
        self.subnet = IPv4Network(f"10.{number}.0.0/16")
        key = mesh.keys.of(LEASES, self.subnet)
        lease = Lease(
            subnet=self.subnet,
            node_address=IPv4Address("172.16.0.1") + number,
            backend="host-gw",
            host_id=self.id,
            host_name=f"host{number}",
            etcd_lease_id=mesh.client.grant(86_400).id,
        )
        put = kv.put(key, encode_lease(lease, boot_id="b" * 32), lease.etcd_lease_id)
        revision = mesh.client.txn("lease", [], [put]).revision
        self.holding = Holding(key, revision, lease.etcd_lease_id)
        self.slices = tuple(
            NetworkSlice(
                host_id=self.id,
                network=f"net{(number * _PARTS + part) % _NETWORKS}",
                subnet=IPv4Network(f"10.{number}.{part + 1}.0/24"),
            )
            for part in range(_PARTS)
        )
        self.endpoints = tuple(map(self.endpoint, range(_CONTAINERS)))
        self.publisher = Publisher(mesh, self.id, Heard())

    def endpoint(self, index: int, health: Health = Health.NONE) -> Endpoint:
        """Return a container of one of this host's parts, with names as Compose gives them."""
        part = self.slices[index % _PARTS]
        place = EndpointAddress(
            network=f"shop_{part.network}",
            address=part.subnet[2 + index],
            mesh_network=part.network,
            aliases=(f"service{index}", f"shop-service{index}-1"),
        )
        return Endpoint(
            host_id=self.id,
            container_id=f"{index:016x}" + "c" * 48,
            name=f"shop-service{index}-1",
            project="shop",
            service=f"service{index}",
            health=health,
            addresses=(place,),
            boot_id="b" * 32,
        )

    def publish(self, endpoints: tuple[Endpoint, ...] | None = None) -> None:
        wished = self.endpoints if endpoints is None else endpoints
        self.publisher.publish(Publication(self.holding, self.slices, wished))


@contextmanager
def hosts(etcd: Etcd, count: int = _HOSTS) -> Iterator[list[SimulatedHost]]:
    with ExitStack() as stack:
        first = stack.enter_context(registry(etcd))
        first.create_config(_CONFIG)
        found = []
        for number in range(count):
            each = SimulatedHost(stack.enter_context(registry(etcd)), number)
            each.publisher.start()
            stack.callback(each.publisher.stop)
            found.append(each)
        yield found


def _all_there(mesh: Registry) -> bool:
    counts = [len(mesh.client.range(*mesh.keys.range(each), keys_only=True).records)
              for each in (SLICES, ENDPOINTS)]  # fmt: skip
    return counts == [_HOSTS * _PARTS, _HOSTS * _CONTAINERS]


def writes(bench: Bench, rounds: int) -> None:
    """Count the transactions when every host publishes everything at once."""
    needed = []
    for _ in range(rounds):
        with Etcd() as etcd, hosts(etcd) as found:
            mesh = found[0].mesh
            before = mesh.snapshot().revision
            for each in found:
                each.publish()
            eventually(partial(_all_there, mesh), timeout_s=60, every_s=0.2)
            after = mesh.client.range(b"x").revision
            needed.append((after - before) / _HOSTS)
    what = f"transactions per host that publishes {_PARTS} slices and {_CONTAINERS} containers"
    bench.value(what, needed, unit="transactions", goal=Goal(3.0))


class _Watcher:
    """Follows the endpoints as an agent does, and one plain key as etcdctl watch does."""

    def __init__(self, mesh: Registry, plain: bytes) -> None:
        self.accepted = AcceptedEndpoints().follow(mesh=mesh.snapshot())
        self.seen_s: dict[tuple[str, Health], float] = {}
        self.plain_s: dict[bytes, float] = {}
        self.arrived = threading.Event()
        self._stream = mesh.client.watch([(plain, plain + b"\0")], mesh.snapshot().revision)
        self.directory = EndpointDirectory(mesh, self._on_view, Heard())
        self.directory.follow(wanted=True)
        self.directory.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _on_view(self, view: EndpointView) -> None:
        before, self.accepted = self.accepted, self.accepted.follow(view)
        now_s = time.perf_counter()
        for key in self.accepted.endpoints.keys_that_differ(before.endpoints):
            each = self.accepted.endpoints.get(key)
            if each is not None:
                self.seen_s.setdefault((each.host_id, each.health), now_s)
        self.arrived.set()

    def _watch(self) -> None:
        while not self.directory._stop.is_set():  # ends with it
            for event in self._stream.next(0.5) or ():
                if event.record is not None:
                    self.plain_s[event.record.value] = time.perf_counter()
            self.arrived.set()

    def stop(self) -> None:
        self.directory.stop()
        self._stream.close()


def publish(bench: Bench, rounds: int) -> None:
    """From one host's wish to another host's view of it, and a plain put to a plain watch."""
    ours: list[float] = []
    other: list[float] = []
    with Etcd() as etcd, hosts(etcd) as found, registry(etcd) as reader:
        for each in found:
            each.publish()
        eventually(lambda: _all_there(reader), timeout_s=60, every_s=0.2)
        watcher = _Watcher(reader, b"/plain")
        eventually(lambda: len(watcher.accepted.endpoints) == _HOSTS * _CONTAINERS, timeout_s=20)
        for number in range(rounds):
            each = found[number % _HOSTS]
            health = Health.HEALTHY if number // _HOSTS % 2 == 0 else Health.UNHEALTHY
            watcher.seen_s.clear()
            time.sleep(0.03)  # a quiet mesh, not a storm
            began_s = time.perf_counter()
            each.publish((each.endpoint(0, health), *each.endpoints[1:]))
            _wait(watcher, partial(_has, watcher.seen_s, (each.id, health)))
            ours.append(watcher.seen_s[each.id, health] - began_s)
            value = b"%d" % number
            began_s = time.perf_counter()
            each.mesh.client.txn("put", [], [kv.put(b"/plain", value)])
            _wait(watcher, partial(_has, watcher.plain_s, value))
            other.append(watcher.plain_s[value] - began_s)
        watcher.stop()
    bench.ratio("container published to a peer's view of it", ours, "etcd put and watch", other)
    for name, values in (("published to view", ours), ("etcd put and watch", other)):
        in_order = sorted(values)
        bench.fact(f"{name}, p50, ms", round(in_order[len(in_order) // 2] * 1000, 2))
        bench.fact(f"{name}, p99, ms", round(in_order[int(len(in_order) * 0.99)] * 1000, 2))


def _has(there: Container[object], key: object) -> bool:
    return key in there


def _wait(watcher: _Watcher, there: Callable[[], bool]) -> None:
    until_s = time.perf_counter() + 5
    while not there():
        watcher.arrived.wait(0.05)
        watcher.arrived.clear()
        if time.perf_counter() > until_s:  # a lost event
            sys.exit("a change did not arrive within 5 s")


def memory(bench: Bench, rounds: int) -> None:
    """Measure what following 1,000 containers takes, beside the bytes of their records."""
    ours, other = [], []
    with Etcd() as etcd, hosts(etcd) as found, registry(etcd) as reader:
        for each in found:
            each.publish()
        eventually(lambda: _all_there(reader), timeout_s=60, every_s=0.2)
        view = reader.snapshot()
        records = reader.client.range(*reader.keys.range(ENDPOINTS)).records
        size = sum(len(each.key) + len(each.value) for each in records)
        for _ in range(rounds):
            accepted = AcceptedEndpoints().follow(mesh=view)
            heard = Heard()
            tracemalloc.start()
            before, _peak = tracemalloc.get_traced_memory()
            directory = EndpointDirectory(reader, heard, Heard())
            directory.follow(wanted=True)
            directory.start()
            eventually(heard.__len__)
            accepted = accepted.follow(heard.last)
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            directory.stop()
            assert len(accepted.endpoints) == _HOSTS * _CONTAINERS
            ours.append(grown / 1024)
            other.append(size / 1024)
    bench.ratio("memory of 1,000 followed containers", ours, "their records", other, unit="KiB")
    bench.fact("memory of a followed container, KiB", round(ours[-1] / 1000, 2))


def measure(bench: Bench, options: Options) -> None:
    """Make every figure; those that take long in fewer rounds."""
    few = max(2, options.rounds // 60)
    writes(bench, few)
    publish(bench, options.rounds)
    memory(bench, few)


if __name__ == "__main__":
    main(measure)
