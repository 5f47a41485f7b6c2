"""Runs the doctor's checks in order; what one needs from another that failed is left out."""

from __future__ import annotations

from contextlib import closing

from agent.etcd.discovery import client_for
from agent.settings import Settings
from agent.standalone.doctor import host_checks as hostpart
from agent.standalone.doctor import mesh_checks as meshpart
from agent.standalone.doctor import nft_checks as nftpart
from agent.standalone.doctor import tunnel_checks as tunnelpart
from agent.standalone.doctor import underlay_checks as underlaypart
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.mesh_checks import Mesh

__all__ = ["examine"]


def examine(settings: Settings, *, probe: bool = False) -> Findings:
    """Look at everything that a join needs. The host is not changed.

    Args:
        settings: As the agent would have them.
        probe: etcd may be written to for some seconds, see :func:`underlaypart.look_at_underlay`.
    """
    findings = Findings()
    hostpart.look_at_host(settings, findings)
    mesh: Mesh | None = None
    with closing(client_for(settings.etcd)) as client:
        meshpart.look_at_etcd(settings, client, findings)
        host = hostpart.look_for_uplink(settings, findings, client.endpoints)
        uplink = host[1] if host else None

        def look_at_mesh() -> None:
            nonlocal mesh
            mesh = meshpart.look_at_mesh(settings, client, host, findings)

        if client.endpoints:
            findings.attempt("mesh", look_at_mesh)
        known, link = mesh, uplink
        findings.member = known is not None and known.is_member
        if known is not None and link is not None:
            findings.attempt(
                "underlay",
                lambda: underlaypart.look_at_underlay(known, link, settings, findings, claim=probe),
                State.UNKNOWN,
            )
            findings.attempt(
                "tunnel", lambda: tunnelpart.look_at_tunnel(known, findings), State.UNKNOWN
            )
            nftpart.look_at_nft(known, link, findings)
    findings.attempt(
        "docker", lambda: meshpart.look_at_docker(settings, mesh, uplink, findings), State.WARN
    )
    if mesh is not None and not mesh.is_member:
        peers = sum(lease.host_id != mesh.host_id for lease in mesh.view.leases)
        findings.would.append(
            f"write {peers + 1} routes of protocol {settings.routes.protocol}, our own iptables"
            " chains with a jump to each, and one ipset"
        )
    return findings
