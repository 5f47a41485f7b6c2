"""Whether the tunnel carries packets to peers, and how large ones; if not, why."""

from __future__ import annotations

import os

from agent.kernel.diagnose.ping import Pinger
from agent.kernel.diagnose.tunnel import Trial, try_tunnel
from agent.kernel.diagnose.tunnel_findings import published_difference, reason_of
from agent.kernel.diagnose.tunnel_probe import TunnelEnd, probe
from agent.mesh.backends import backend_by_name
from agent.model import Lease, family_of
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.mesh_checks import Mesh

__all__ = ["look_at_tunnel"]

_ASKED_PEERS = 4
_ECHOES = 2


def look_at_tunnel(mesh: Mesh, findings: Findings) -> None:
    """Ask some live peers through the tunnel, where one leads to them."""
    own = mesh.own
    if own is None or os.geteuid() != 0:
        return
    peers = [
        each
        for each in mesh.view.leases
        if each.host_id != mesh.host_id and each.host_id in mesh.view.heartbeats
    ]
    passing = []
    for lease in peers[:_ASKED_PEERS]:
        trial = try_tunnel(lease.subnet, _ECHOES)
        if trial is None:
            _without_tunnel(own, lease, findings)
        elif trial.works:
            passing.append(trial)
        elif trial.largest is not None:
            _too_small(lease, trial, findings)
        else:
            _silent(own, lease, trial, findings)
    if passing:
        findings.add("tunnel", State.OK, f"{passing[0].found}, to {len(passing)} peers")


def _without_tunnel(own: Lease, lease: Lease, findings: Findings) -> None:
    differs = published_difference(TunnelEnd.of(own), TunnelEnd.of(lease))
    if differs is not None:
        findings.add("tunnel", State.FAIL, differs.text, differs.hint)


def _too_small(lease: Lease, trial: Trial, findings: Findings) -> None:
    largest = (trial.largest or 0) + _overhead(lease)
    findings.add(
        "tunnel",
        State.WARN,
        f"{_name(lease)}: {trial.found}; the way between takes less than both uplinks",
        f"agentctl config set --backend {lease.backend} --backend-options MTU={largest}",
    )


def _silent(own: Lease, lease: Lease, trial: Trial, findings: Findings) -> None:
    here, there = TunnelEnd.of(own), TunnelEnd.of(lease)
    reason = reason_of(trial.tunnel, here, there, probe(trial.tunnel, here, there))
    answers = _answers(lease)
    also = "answers a ping" if answers else "answers no ping either"
    findings.add(
        "tunnel",
        State.FAIL if answers or trial.tunnel.far != lease.node_address else State.UNKNOWN,
        f"{_name(lease)} {also}, and {trial.found}: {reason.text}",
        reason.hint if answers else f"is the host up? if so, {reason.hint}",
    )


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
