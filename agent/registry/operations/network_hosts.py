"""Which hosts have, should have or still have their part of a mesh network. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.model import NETWORKS_LEVEL, DockerState, HostId, View
from agent.model.network import MeshNetwork, NetworkSlice

__all__ = ["Counts", "HostPart", "PartState", "parts_of", "slices_by_name"]

Counts = Mapping[tuple[HostId, str], int]
"""How many running containers each host has on each mesh network."""


class PartState(enum.StrEnum):
    """How far a host is with its part of a mesh network."""

    READY = "ready"
    MISSING = "to be made"
    LEAVING = "to be removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPart:
    """A host's part of a mesh network, there or to come.

    Attributes:
        slice: As the host publishes it; None while it has none.
        docker: From the host's heartbeat; None without one.
        level: What its agent reads; 0 without a heartbeat.
        containers: Running ones on the slice; None where that is not known, or there is none.
    """

    host_id: HostId
    host_name: str
    state: PartState
    slice: NetworkSlice | None = None
    docker: DockerState | None = None
    level: int = 0
    containers: int | None = None

    @property
    def waits_for(self) -> str:
        """Why the host is not done, as far as others can know; "" where nothing is known."""
        if self.state is PartState.READY:
            return ""
        if self.docker is None:
            return "host off"
        if self.level < NETWORKS_LEVEL:
            return f"its agent reads level {self.level}"
        if self.docker is not DockerState.READY:
            return f"Docker {self.docker}"
        if self.state is PartState.LEAVING and self.containers:
            return f"in use by {self.containers} container{'s' * (self.containers > 1)}"
        return ""

    def __str__(self) -> str:
        """As in a sentence: ``web1: to be made (host off)``."""
        reason = f" ({self.waits_for})" if self.waits_for else ""
        return f"{self.host_name or self.host_id}: {self.state}{reason}"


def slices_by_name(view: View) -> Mapping[str, tuple[NetworkSlice, ...]]:
    """Return the slices that hosts publish, by the name of their network."""
    found: dict[str, tuple[NetworkSlice, ...]] = {}
    for each in view.slices.values():
        found[each.network] = (*found.get(each.network, ()), each)
    return found


def parts_of(
    view: View, name: str, slices: Iterable[NetworkSlice], counts: Counts | None = None
) -> tuple[HostPart, ...]:
    """Return each host's part of a network, in order of host name.

    Args:
        slices: The network's, as hosts publish them.
        counts: None where endpoints are not known.
    """
    record = view.networks.get(name)
    published = {each.host_id: each for each in slices}
    wanted = () if record is None or record.removed else _members(view, record)
    parts = (
        _part(
            view,
            host_id,
            leaving=record is not None and record.removed,
            published=published.get(host_id),
            containers=None
            if counts is None or host_id not in published
            else counts.get((host_id, name), 0),
        )
        for host_id in {*published, *wanted}
    )
    return tuple(sorted(parts, key=lambda each: (each.host_name, each.host_id)))


def _members(view: View, record: MeshNetwork) -> tuple[HostId, ...]:
    return tuple(
        each.host_id
        for each in view.leases
        if each.host_id is not None and record.has(each.host_id, each.host_name)
    )


def _part(
    view: View,
    host_id: HostId,
    *,
    leaving: bool,
    published: NetworkSlice | None,
    containers: int | None,
) -> HostPart:
    lease, beat = view.lease_of(host_id), view.heartbeats.get(host_id)
    there = PartState.LEAVING if leaving else PartState.READY
    return HostPart(
        host_id=host_id,
        host_name=lease.host_name if lease else beat.host_name if beat else "",
        state=PartState.MISSING if published is None else there,
        slice=published,
        docker=beat.docker if beat else None,
        level=beat.level if beat else 0,
        containers=containers,
    )
