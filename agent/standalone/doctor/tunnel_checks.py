"""Whether the tunnel carries packets to peers, and how large ones."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.kernel.diagnose.ping import Pinger
from agent.kernel.diagnose.tunnel import Trial, try_tunnel
from agent.mesh.backends import backend_by_name
from agent.model import Lease, family_of
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.mesh_checks import Mesh

__all__ = ["look_at_tunnel"]

_ASKED_PEERS = 4
_ECHOES = 2


def look_at_tunnel(mesh: Mesh, findings: Findings) -> None:
    """Ask some live peers through the tunnel, where one leads to them."""
    if mesh.own is None or os.geteuid() != 0:
        return
    passing = []
    for lease, trial in _trials(mesh):
        if trial.works:
            passing.append(trial)
        elif trial.largest is not None:
            overhead = _overhead(lease)
            findings.add(
                "tunnel",
                State.WARN,
                f"{_name(lease)}: {trial.found}; the way between takes less than both uplinks",
                f"agentctl config set --backend {lease.backend} --backend-options"
                f" MTU={trial.largest + overhead}",
            )
        elif _answers(lease):
            findings.add(
                "tunnel",
                State.FAIL,
                f"{_name(lease)} answers a ping, and {trial.found}",
                "the port must pass between both hosts, in both directions; agentctl doctor and"
                f" ip -d link show {trial.link.name} on {lease.host_name or lease.node_address}"
                " say whether its device is the same",
            )
        else:
            findings.add(
                "tunnel", State.UNKNOWN, f"{_name(lease)} answers no ping", "is the host up?"
            )
    if passing:
        findings.add("tunnel", State.OK, f"{passing[0].found}, to {len(passing)} peers")


def _trials(mesh: Mesh) -> Iterator[tuple[Lease, Trial]]:
    peers = [
        each
        for each in mesh.view.leases
        if each.host_id != mesh.host_id and each.host_id in mesh.view.heartbeats
    ]
    for lease in peers[:_ASKED_PEERS]:
        trial = try_tunnel(lease.subnet, _ECHOES)
        if trial is not None:
            yield lease, trial


def _answers(lease: Lease) -> bool:
    pinger = Pinger(lease.node_address)
    try:
        return bool(pinger.echo(_ECHOES).rtt_s)
    finally:
        pinger.close()


def _overhead(lease: Lease) -> int:
    backend = backend_by_name(lease.backend)
    return backend.overhead(family_of(lease.node_address)) if backend else 0


def _name(lease: Lease) -> str:
    return f"{lease.host_name or 'a host'} at {lease.node_address}"
