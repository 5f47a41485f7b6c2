"""A host of a large mesh of which only the registry is there: it reads all records, and watches."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice

from agent.errors import EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.model import MeshConfig, View
from agent.model.family import subnets_of
from agent.registry.directory import Directory
from agent.registry.records import OWNERS, encode_lease
from agent.registry.registry import Registry
from agent.settings import EtcdSettings
from tests.bench.control_path.large_mesh import heartbeat_of, lease_of
from tests.bench.control_path.peers import encoded
from tests.bench.scale.light_agent import CALL_TIMEOUT_S, Goal
from tests.etcd.support import etcdlab

__all__ = ["LightWatcher", "write_records"]


class LightWatcher:
    """A host that asks etcd what it must know of the mesh, by the agent's own code.

    Args:
        number: From 0 on.
        etcd: Endpoints.
        patience: See :class:`LightAgent`.
    """

    leased_s = 0.0

    def __init__(self, number: int, etcd: tuple[str, ...], patience: int) -> None:
        self.number = number
        self.started_s = self.met_s = 0.0
        self.excuse = "it has not been started"
        self._view: View | None = None
        settings = EtcdSettings(endpoints=etcd, call_timeout_s=CALL_TIMEOUT_S * patience)
        self._directory = Directory(Registry(EtcdClient(settings)), self._seen, self._heard)

    def start(self) -> None:
        """Read, and watch from then on."""
        self.started_s = time.monotonic()
        self._directory.start()

    def look(self, goal: Goal) -> None:
        """Note when the host knew the leases of the goal, at its revision or later."""
        view = self._view
        if view is None or self.met_s:
            return
        if len(view.leases) >= goal.routes and view.revision >= goal.revision:
            self.met_s = time.monotonic()

    def _seen(self, view: View) -> None:
        self._view = view
        self.excuse = f"it knows {len(view.leases)} leases, at revision {view.revision}"

    def _heard(self, problem: EtcdError | None, _last_contact_s: float) -> None:
        self.excuse = str(problem or "it has read etcd")


def write_records(mesh: Registry, hosts: int, config: MeshConfig) -> None:
    """Write lease, owner record, heartbeat and memory of so many hosts, which never expire."""
    for number, subnet in enumerate(islice(subnets_of(config.cidr, config.subnet_len), hosts)):
        host = etcdlab.host(number)
        lease = replace(lease_of(number), host_id=host, subnet=subnet)
        heartbeat = replace(heartbeat_of(number), host_id=host, subnet=subnet)
        owner = (mesh.keys.of(OWNERS, (host, subnet)), encode_lease(lease))
        puts = [kv.put(*each) for each in (*encoded(mesh.keys, lease, heartbeat), owner)]
        mesh.client.txn("write a host's records", [], puts)
