"""Data that a backend publishes: in the lease, and what peers make of it, on a real etcd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.membership.join import Joiner
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.mesh_state import MeshState
from agent.etcd import kv
from agent.mesh.backends import vxlan
from agent.mesh.desired import DesiredObjects
from agent.mesh.world import World, peers_of_view
from agent.model import (
    BACKENDS,
    BackendData,
    FdbEntry,
    HostFacts,
    Lease,
    Published,
    Uplink,
    View,
)
from agent.registry.directory import Directory
from agent.registry.records import LEASES, encode_lease
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry
from tests.etcd.support.keeping import held, keep
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


def uplink(number: int) -> Uplink:
    return Uplink(
        index=2,
        name="eth0",
        mtu=1500,
        node_address=IPv4Address(f"192.0.2.{number}"),
        on_link=IPv4Network("192.0.2.0/24"),
    )


FACTS = HostFacts(links=(), foreign_routes=())


OLD = vxlan.vtep_mac(host(1))
NEW = "06:00:00:00:00:01"


def data_of(mac: str) -> BackendData | None:
    return BackendData.of({"VNI": 1, "VtepMAC": mac})


class Peer:
    """A peer as far as it follows records: views in, forwarding entries out."""

    def __init__(self, mesh: Registry) -> None:
        self._own = Lease(
            subnet=IPv4Network("10.127.0.0/16"),
            node_address=uplink(2).node_address,
            backend="vxlan",
            host_id=host(2),
        )
        self._desired = DesiredObjects()
        self.entries: dict[str, FdbEntry] = {}
        self.directory = Directory(mesh, self._follow, Heard())

    def _follow(self, view: View) -> None:
        changes = self._desired.follow(
            World(
                host_id=host(2),
                config=view.config,
                own=self._own,
                peers=peers_of_view(view, self._own),
                uplink=uplink(2),
                host=FACTS,
                complete=True,
            )
        )
        for key, entry in changes.of(FdbEntry).items():
            if entry is None:
                del self.entries[key.mac]
            else:
                self.entries[key.mac] = entry

    def forwards_to(self, mac: str) -> Callable[[], bool]:
        """Whether the only MAC behind the device is this one."""
        return lambda: set(self.entries) == {mac}


@pytest.fixture
def mesh(shared_etcd: Etcd, prefix: str) -> Iterator[Registry]:
    with registry(shared_etcd, prefix=prefix) as made:
        made.create_config(replace(config(), backend="vxlan"))
        yield made


def test_data_that_changes_is_written_at_once_and_peers_follow(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, peer = Heard(), Peer(mesh)
    peer.directory.start()
    with keep(mesh, heard) as keeper:
        joiner = Joiner(
            cell=StateCell(AgentState(mesh=MeshState(host_id=host(1)))),
            keeper=keeper,
            registry=mesh,
            host_id=host(1),
            boot_id="1" * 32,
            past=None,
            host_name="host1",
            on_job=lambda: None,
        )
        state = MeshState(host_id=host(1), host=FACTS, uplink=uplink(1)).with_view(mesh.snapshot())
        assert joiner.step(state) == ()
        lease = eventually(held(heard))
        assert (lease.backend, lease.backend_data) == ("vxlan", data_of(OLD))
        eventually(peer.forwards_to(OLD))

        # The device was made anew, with another MAC.
        monkeypatch.setattr(vxlan, "vtep_mac", lambda _: NEW)
        state = state.with_lease(lease, None, ()).with_view(mesh.snapshot())
        assert joiner.step(state) == ()
        eventually(peer.forwards_to(NEW))
        now = mesh.snapshot().lease_of(host(1))
        assert now is not None
        assert (now.subnet, now.create_revision) == (lease.subnet, lease.create_revision)

        # Another program writes the record: the host's own data come back.
        value = encode_lease(replace(now, backend_data=data_of("02:00:00:00:00:09")))
        key = mesh.keys.of(LEASES, lease.subnet)
        mesh.client.txn("w", [], [kv.put(key, value, now.etcd_lease_id)])
        eventually(
            lambda: (mesh.snapshot().lease_of(host(1)) or now).mod_revision > now.mod_revision + 1
        )
        eventually(peer.forwards_to(NEW))
    peer.directory.stop()


def test_a_host_that_cannot_say_what_it_publishes_goes_on_with_what_it_had(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another backend in the config than this version has: peers keep what they know."""
    state = MeshState(host_id=host(1), host=FACTS, uplink=uplink(1)).with_view(mesh.snapshot())
    own = Lease(
        subnet=IPv4Network("10.65.0.0/16"),
        node_address=uplink(1).node_address,
        backend="vxlan",
        backend_data=data_of(OLD),
        host_id=host(1),
    )
    state = state.with_lease(own, None, ())
    assert state.published == Published("vxlan", own.backend_data, mtu=1500)
    monkeypatch.delitem(BACKENDS, "vxlan")
    assert state.published == Published("vxlan", own.backend_data)
    assert state.config is not None
    state = replace(state, config=replace(state.config, backend="host-gw"))
    assert state.published == Published("host-gw", mtu=1500)
