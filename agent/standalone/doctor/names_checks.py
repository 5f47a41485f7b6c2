"""Whether this host's name servers answer its containers, and what keeps them from it."""

from __future__ import annotations

from agent.daemon.names.servers import look_at_servers, server_conditions
from agent.dns.client import ask
from agent.errors import CannotTell
from agent.mesh.names import label_of
from agent.model.names import OWN_LABEL
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.mesh_checks import Mesh

__all__ = ["look_at_names"]

_TIMEOUT_S = 2.0


def look_at_names(mesh: Mesh, findings: Findings) -> None:
    """Ask each name server of this host for the host's own name."""
    if not mesh.config.has_names:
        return
    servers = look_at_servers()
    for condition in server_conditions(servers):
        findings.add("names", State.WARN, condition.cause, condition.hint)
    own = label_of(mesh.own.host_name) if mesh.own else ""
    name = f"{own or 'this'}.{OWN_LABEL}.{mesh.config.domain}"
    answering = []
    for each in servers:
        if not each.runs:
            continue
        try:
            answer = ask(each.address, name, asker=None, timeout_s=_TIMEOUT_S)
        except CannotTell as error:
            findings.add("names", State.WARN, error.message, error.hint)
            continue
        known = ", ".join(answer.addresses) or answer.status
        says = f"{each.address} says {name} is {known}"
        if answer.addresses or mesh.own is None:
            answering.append(says)
        else:
            unit = f"hostmesh-dns@{each.address}"
            findings.add("names", State.WARN, says, f"systemctl restart {unit}; agentctl doctor")
    if answering:
        findings.add("names", State.OK, "; ".join(answering))
