"""Ask every agent and etcd how they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.deploy.deployment import Deployment
from agent.deploy.engine import Event
from agent.deploy.folder import Mesh
from agent.deploy.progress import reason
from agent.settings.text import printable

__all__ = ["HostStatus", "Status", "read_status"]

_MEMBER = re.compile(r"(https?://\S+) is (healthy|unhealthy)")


@dataclass(frozen=True)
class HostStatus:
    """How one host is.

    Attributes:
        state: As its agent says; else unreachable or unknown.
        error: Why it could not be asked; "" if it could.
    """

    name: str
    state: str
    subnet: str = ""
    version: str = ""
    conditions: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Status:
    """How the mesh is: every host, and every member of an etcd of its own."""

    hosts: tuple[HostStatus, ...]
    etcd: Mapping[str, bool] = field(default_factory=dict)
    etcd_error: str = ""

    @property
    def healthy(self) -> bool:
        """Return whether every host is ready and every member is healthy."""
        ready = all(each.state == "ready" for each in self.hosts)
        return ready and all(self.etcd.values()) and not self.etcd_error


def read_status(deployment: Deployment, mesh: Mesh) -> Status:
    """Return how the mesh is now."""
    hosts: dict[str, HostStatus] = {}
    etcd: dict[str, bool] = {}
    errors: list[str] = []

    def handle(event: Event) -> None:
        if event.kind != "result" or event.status == "skipped":
            return
        if event.status == "unreachable":
            hosts[event.host] = HostStatus(event.host, "unreachable", error=reason(event))
        elif event.task == "Ask the agent":
            hosts[event.host] = _host(event)
        else:
            found = {match[1]: match[2] == "healthy" for match in _MEMBER.finditer(event.text)}
            etcd.update(found)
            if not found:
                errors.append(reason(event))

    deployment.ask("status.yml", mesh, handle)
    known = tuple(
        hosts.get(host.name, HostStatus(host.name, "unknown", error="it was not asked"))
        for host in mesh.hosts
    )
    return Status(known, etcd, "; ".join(errors))


def _host(event: Event) -> HostStatus:
    begin = event.text.find("{")
    try:
        document: dict[str, Any] = json.loads(event.text[begin:] if begin >= 0 else "")
    except ValueError:
        return HostStatus(event.host, "unknown", error=reason(event))
    conditions = document.get("conditions") or []
    return HostStatus(
        event.host,
        printable(str(document.get("state"))),
        subnet=printable(str(document.get("subnet") or "")),
        version=printable(str(document.get("agent_version") or "")),
        conditions=tuple(printable(str(each.get("name"))) for each in conditions),
    )
