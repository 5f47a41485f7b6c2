"""Which hosts have, should have or still have their part of a mesh network. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from agent.mesh.networks import accepted_slices
from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, DockerState, HostId, View
from agent.model.family import Network
from agent.model.network import MeshNetwork, NetworkSlice

__all__ = ["Counts", "HostPart", "PartState", "Slices", "parts_of"]

Counts = Mapping[tuple[HostId, str], int]
"""How many running containers each host has on each mesh network."""


class PartState(enum.StrEnum):
    """How far a host is with its part of a mesh network."""

    READY = "ready"
    ASIDE = "set aside"
    MISSING = "to be made"
    LEAVING = "to be removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPart:
    """A host's part of a mesh network, there or to come.

    Attributes:
        slice: As the host publishes it; None while it has none.
        aside: Why the slice does not count, "" where it does.
        docker: From the host's heartbeat; None without one.
        level: What its agent reads; 0 without a heartbeat.
        containers: Running ones on the slice; None where that is not known, or there is none.
    """

    host_id: HostId
    host_name: str
    state: PartState
    slice: NetworkSlice | None = None
    aside: str = ""
    docker: DockerState | None = None
    level: int = 0
    containers: int | None = None

    @property
    def waits_for(self) -> str:
        """Why the host is not done, as far as others can know; "" where nothing is known."""
        if self.state in {PartState.READY, PartState.ASIDE}:
            return self.aside
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


class Slices:
    """The slices that hosts publish.

    Args:
        view: Judges them as a host outside all networks does, by leases, records and config.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._by_name: dict[str, dict[HostId, NetworkSlice]] = {}
        for each in view.slices.values():
            self._by_name.setdefault(each.network, {})[each.host_id] = each
        world = World(
            config=view.config, peers=view.by_subnet, slices=view.slices, networks=view.networks
        )
        self._aside = accepted_slices(world).set_aside

    @property
    def names(self) -> frozenset[str]:
        """Every name that a slice has."""
        return frozenset(self._by_name)

    def of(self, name: str) -> Mapping[HostId, NetworkSlice]:
        """Return the slices of a network, whether they count or not."""
        return self._by_name.get(name, {})

    def aside(self, part: NetworkSlice) -> str:
        """Return why a slice does not count, or ""."""
        return self._aside.get((part.host_id, part.network), "")

    def counted(self) -> Mapping[HostId, Mapping[str, Network]]:
        """Return the subnets of those that count, by host and network."""
        found: dict[HostId, dict[str, Network]] = {}
        for each in self._view.slices.values():
            if not self.aside(each):
                found.setdefault(each.host_id, {})[each.network] = each.subnet
        return found


def parts_of(
    view: View, name: str, slices: Slices, counts: Counts | None = None
) -> tuple[HostPart, ...]:
    """Return each host's part of a network, in order of host name.

    Args:
        counts: None where endpoints are not known.
    """
    record = view.networks.get(name)
    wanted = () if record is None or record.removed else _members(view, record)
    parts = (
        _part(view, host_id, record, slices, slices.of(name).get(host_id), counts)
        for host_id in {*slices.of(name), *wanted}
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
    record: MeshNetwork | None,
    slices: Slices,
    found: NetworkSlice | None,
    counts: Counts | None,
) -> HostPart:
    lease, beat = view.lease_of(host_id), view.heartbeats.get(host_id)
    aside = slices.aside(found) if found else ""
    state = PartState.MISSING if found is None else PartState.READY
    if aside:
        state = PartState.ASIDE
    elif found and record is not None and record.removed:
        state = PartState.LEAVING
    return HostPart(
        host_id=host_id,
        host_name=lease.host_name if lease else beat.host_name if beat else "",
        state=state,
        slice=found,
        aside=aside,
        docker=beat.docker if beat else None,
        level=beat.level if beat else 0,
        containers=None
        if counts is None or found is None
        else counts.get((host_id, found.network), 0),
    )
