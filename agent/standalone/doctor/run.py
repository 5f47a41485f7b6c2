"""Run the doctor's checks in order; a check that needs a failed one's result is left out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TypeVar

from agent.etcd.discovery import client_for
from agent.settings import Settings
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.host_checks import look_at_host, look_for_uplink
from agent.standalone.doctor.mesh_checks import Mesh, look_at_docker, look_at_etcd, look_at_mesh
from agent.standalone.doctor.names_checks import look_at_names
from agent.standalone.doctor.nft_checks import look_at_nft
from agent.standalone.doctor.tunnel_checks import look_at_tunnel
from agent.standalone.doctor.underlay_checks import look_at_underlay

__all__ = ["examine"]

_Found = TypeVar("_Found")


def examine(
    settings: Settings, *, probe: bool = False, now_for: Callable[[str], None] = lambda _what: None
) -> Findings:
    """Look at everything that a join needs. The host is not changed.

    Args:
        settings: As the agent would have them.
        now_for: Is called with what takes its time next (:class:`agent.progress.Progress`).
        probe: etcd may be written to for some seconds, see :func:`look_at_underlay`.
    """
    findings = Findings()
    attempt = partial(_attempt, findings, now_for)
    now_for("this host's services, links and rules")
    look_at_host(settings, findings)
    mesh: Mesh | None = None
    with closing(client_for(settings)) as client:
        now_for("etcd")
        look_at_etcd(settings, client, findings)
        host = look_for_uplink(settings, findings, client.endpoints)
        uplink = host[1] if host else None
        if client.endpoints:
            mesh = attempt("mesh", partial(look_at_mesh, settings, client, host, findings))
        if mesh is not None and uplink is not None:
            underlay = partial(look_at_underlay, mesh, uplink, settings, findings, claim=probe)
            attempt("underlay", underlay, State.UNKNOWN)
            attempt("tunnel", partial(look_at_tunnel, mesh, findings), State.UNKNOWN)
            look_at_nft(mesh, uplink, findings)
    if mesh is not None:
        attempt("names", partial(look_at_names, mesh, findings), State.UNKNOWN)
    attempt("docker", partial(look_at_docker, settings, mesh, uplink, findings), State.WARN)
    findings.member = mesh is not None and mesh.is_member
    if mesh is not None and not findings.member:
        peers = sum(lease.host_id != mesh.host_id for lease in mesh.view.leases)
        findings.would.append(
            f"write {peers + 1} routes of protocol {settings.routes.protocol}, Hostmesh's iptables"
            " chains with a jump to each, and one ipset"
        )
    return findings


def _attempt(
    findings: Findings,
    now_for: Callable[[str], None],
    check: str,
    look: Callable[[], _Found],
    state: State = State.FAIL,
) -> _Found | None:
    """Do one check, and say before that it is the one that may take its time."""
    now_for(f"the check of {check}")
    return findings.attempt(check, look, state)
