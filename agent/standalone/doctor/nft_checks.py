"""The doctor's look at chains of nft, which no rule of iptables can overrule."""

from __future__ import annotations

import os

from agent.errors import KernelError
from agent.kernel.firewall.advice.nft_chains import dropping_chains
from agent.kernel.firewall.advice.nft_conditions import nft_chains
from agent.mesh.firewall.desired import desired_firewall
from agent.mesh.world import World
from agent.model import DockerFacts, DockerNetwork, Lease, Uplink
from agent.model.family import family_of
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.mesh_checks import Mesh

__all__ = ["look_at_nft"]

_DOCKER0 = "docker0"


def look_at_nft(mesh: Mesh, uplink: Uplink, findings: Findings) -> None:
    """Check whether firewalld or another program's chain drops mesh traffic to docker0."""
    if os.geteuid() != 0:
        return  # the finding "root" says what is not tested
    subnet = mesh.subnet or mesh.config.cidr
    networks = (DockerNetwork(id="", name="bridge", subnet=subnet, bridge=_DOCKER0),)
    world = World(
        config=mesh.config,
        own=Lease(subnet=subnet, node_address=uplink.node_address, backend=mesh.config.backend),
        uplink=uplink,
        docker=DockerFacts(reachable=True, networks=networks),
    )
    peers = frozenset(
        family_of(lease.node_address).host(lease.node_address)
        for lease in mesh.view.leases
        if lease.node_address != uplink.node_address
    )
    try:
        wants = desired_firewall(world, ingress={uplink.name: peers})
        found = tuple(nft_chains(dropping_chains(), wants))
    except KernelError as error:
        findings.add("nft chains", State.UNKNOWN, error.message)
        return
    findings.conditions("nft chains", found)
    if not found:
        findings.add("nft chains", State.OK, "no chain made by nft drops the mesh")
