"""A host that joins writes the config to an etcd without one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.membership.join import Joiner
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.mesh_state import MeshState
from agent.model import HostFacts, HostId, MeshConfig, Uplink, View
from agent.model.family import Network
from agent.registry.claiming.request import GraceError
from agent.registry.own.keeper import Keeper
from agent.registry.records import GRACE
from agent.registry.registry import Registry
from agent.settings import load_settings
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, request
from tests.etcd.support.keeping import SHORT
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


_RESERVED: dict[Network, HostId] = {
    IPv4Network("10.71.0.0/16"): host(5),
    IPv4Network("10.72.0.0/16"): host(6),
}


def _known(mesh: Registry, last: MeshConfig | None) -> MeshState:
    """A host that sees etcd as it is, with config and reservations of its own copy."""
    uplink = Uplink(
        index=2,
        name="eth0",
        mtu=1500,
        node_address=IPv4Address("192.0.2.1"),
        on_link=IPv4Network("192.0.2.0/24"),
    )
    facts = HostFacts(links=(), foreign_routes=())
    state = MeshState(host_id=host(1), host=facts, uplink=uplink)
    if last is not None:
        copied = View(cluster_id=1, revision=1, config=last, reservations=_RESERVED, cached=True)
        state = replace(state, believed=copied, config=last)
    return state.with_view(mesh.snapshot())


@pytest.mark.parametrize("copied", [False, True], ids=["from [mesh]", "from its copy"])
def test_promise_4_whoever_brings_the_config_has_new_claims_wait_for_holders(
    shared_etcd: Etcd, prefix: str, copied: bool
) -> None:
    """An empty etcd may be new or stand in the place of a lost one: a joiner cannot tell."""
    settings = load_settings(Path("/nonexistent/agent.toml"))
    settings = replace(settings, lease=replace(settings.lease, empty_cluster_grace_s=3))
    if not copied:
        settings = replace(settings, mesh=replace(settings.mesh, cidr=config().cidr))
    with registry(shared_etcd, prefix=prefix) as mesh:
        keeper = Keeper(
            mesh,
            host_id=host(1),
            boot_id="1" * 32,
            agent_version="0.1.0",
            settings=SHORT,
            on_lease=Heard(),
        )
        joiner = Joiner(
            cell=StateCell(AgentState(mesh=MeshState(host_id=host(1)), settings=settings)),
            keeper=keeper,
            registry=mesh,
            host_id=host(1),
            boot_id="1" * 32,
            past=None,
            host_name="host1",
            on_job=lambda: None,
        )
        state = _known(mesh, config() if copied else None)
        eventually(lambda: (joiner.step(state), mesh.snapshot().config)[1])
        with pytest.raises(GraceError):
            mesh.claim(request(9))
        held = IPv4Network("10.70.0.0/16")
        assert mesh.claim(request(2, wanted=held, registering=True)).subnet == held
        eventually(lambda: not mesh.client.range(mesh.keys.of(GRACE)).records)
        assert mesh.claim(request(9)).subnet != held
        assert mesh.snapshot().reservations == (_RESERVED if copied else {})
