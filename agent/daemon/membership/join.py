"""Check that this host may join, and register it with the lease keeper.

A CIDR that overlaps the host's own addresses or routes is refused before anything is written to
etcd, to Docker or to the kernel. A member that finds such an overlap later stays and reports it:
taking a working host out of the mesh would be worse (promise 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from agent.daemon.membership.named_container import NamedContainer
from agent.daemon.membership.retrying_job import RetryingJob
from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.conditions import outside_bounds
from agent.daemon.state.mesh_state import MeshState, former_lease
from agent.docker.service.restart_policy import policy_hold
from agent.mesh.needed import needed_condition, needed_in
from agent.mesh.overlap import host_overlaps, networks_in_use
from agent.model import (
    Condition,
    HostFacts,
    HostId,
    HostSummary,
    Lease,
    MeshConfig,
    OwnerRecords,
    Severity,
    Uplink,
    first_few,
)
from agent.model.family import Network, within
from agent.registry.own.keeper import Keeper, Registration
from agent.registry.registry import Registry
from agent.settings import Settings

__all__ = ["Joiner", "overlap_condition", "summary_of"]

_MOST_NAMES = 8
_SHARED = frozenset(
    {
        "level-held-back",
        "mesh-config-gone",
        "record-set-aside",
        "slice-set-aside",
    }
)
_KEEPS_HERE = frozenset({"cidr-overlaps-host", "cidr-holds-needed-address"})


class Joiner:
    """Decides whether this host may claim, and hands the keeper what to claim for.

    Args:
        cell: Has the settings in use.
        registry: To create the config with, or to give a lease back.
        host_id, boot_id: This host, since its last boot.
        past: The lease of this host's own copy, None when it has none.
        host_name: As peers and operators should see it.
        on_job: Called when a job on another thread has ended: the next step says how.
        active: Return the conditions that hold, the most severe first.
    """

    def __init__(
        self,
        *,
        cell: StateCell,
        keeper: Keeper,
        registry: Registry,
        host_id: HostId,
        boot_id: str,
        past: Lease | None,
        host_name: str,
        on_job: Callable[[], None],
        active: Callable[[], Iterable[Condition]] = tuple,
    ) -> None:
        self._cell = cell
        self._keeper = keeper
        self._registry = registry
        self._host_id = host_id
        self._boot_id = boot_id
        self._config_job = RetryingJob("mesh-config-not-created", on_job)
        self._grace_job = RetryingJob("claims-not-held-back", on_job)
        self._release_job = RetryingJob("lease-not-given-back", on_job)
        self._past = past
        self._host_name = host_name
        self._active = active
        self._graced = False
        self._registered: Registration | None = None
        self._container = NamedContainer()

    @property
    def _settings(self) -> Settings:
        return self._cell.now.settings

    @property
    def _wanted(self) -> MeshConfig | None:
        """Return the config in [mesh], None when there is none."""
        return self._settings.mesh.config()

    def step(self, mesh: MeshState) -> tuple[Condition, ...]:
        """Go one step towards membership; return conditions for what prevents it."""
        view = mesh.newest
        if view is None or view.cached or mesh.host is None or mesh.uplink is None:
            return ()
        held = self._hold(mesh)
        if view.config is None and not view.config_problem:
            found = self._without_config(mesh, mesh.host)
        elif view.config is None:
            found = ()  # the view has a condition for it, and the key is not overwritten
        else:
            found = self._with_config(mesh, mesh.host, view.config, view.by_subnet)
        if mesh.own is not None or (
            view.config is not None and not any(c.severity is Severity.ERROR for c in found)
        ):
            stays = any(c.name in _KEEPS_HERE and not c.subject for c in found)
            self._register(mesh, mesh.uplink, None if stays else view.config)
        return (*held, *found)

    def _hold(self, mesh: MeshState) -> tuple[Condition, ...]:
        """Claim nothing while etcd is in doubt, and have held leases registered again."""
        if mesh.alarming is None:
            self._keeper.resume()
            self._graced = False
            return ()
        self._keeper.hold()
        grace_s = round(self._settings.lease.empty_cluster_grace_s)
        if self._graced or mesh.alarming.config is None or grace_s == 0:
            return ()

        def begin() -> None:
            self._registry.begin_grace(grace_s)
            self._graced = True

        return self._grace_job.ensure(begin)

    def _with_config(
        self,
        mesh: MeshState,
        host: HostFacts,
        config: MeshConfig,
        leases: Mapping[Network, Lease],
    ) -> tuple[Condition, ...]:
        conditions = list(self._differences(config))
        bounds = self._registry.bounds
        outside = bounds.outside(config)
        if outside:
            conditions.append(outside_bounds(bounds, outside))
        own = self._own(mesh)
        joined = mesh.own is not None
        for cidr in config.cidrs:
            overlaps = host_overlaps(host, cidr, mesh.docker, own, leases)
            found = _in_the_way(host, cidr, overlaps, joined=joined)
            subject = "" if cidr == config.cidr else str(cidr)
            conditions += [replace(each, subject=subject) for each in found]
        rules = replace(mesh, config=config).rules()
        if isinstance(rules, Condition):
            conditions.append(rules)
        return tuple(conditions)

    def _without_config(self, mesh: MeshState, host: HostFacts) -> tuple[Condition, ...]:
        """Bring the config: from this host's copy if there is one, else from [mesh].

        A copy's config is never replaced by the settings' (promise 4). For a while after it was
        created, only hosts that held a subnet get one: a host that joins cannot see whether this
        etcd is new or replaces one that was lost.
        """
        if mesh.config is not None:
            reserved = mesh.believed.reservations if mesh.believed else {}
            return self._create_config(mesh.config, reserved)
        wanted = self._wanted
        if wanted is None:
            return (
                Condition(
                    name="mesh-config-missing",
                    severity=Severity.ERROR,
                    cause=f"there is no {self._settings.etcd.prefix}/config in etcd",
                    hint="create the mesh once, on any host: agentctl config init",
                ),
            )
        cidr = wanted.cidr
        found = _in_the_way(host, cidr, host_overlaps(host, cidr, mesh.docker), joined=False)
        return found or self._create_config(wanted, {})

    def _create_config(
        self, config: MeshConfig, reservations: Mapping[Network, HostId]
    ) -> tuple[Condition, ...]:
        grace_s = round(self._settings.lease.empty_cluster_grace_s)
        return self._config_job.ensure(
            lambda: self._registry.create_config(config, grace_s=grace_s, reservations=reservations)
        )

    def stay_out(self, mesh: MeshState) -> tuple[Condition, ...]:
        """Release a lease that etcd still has of this host, which has left.

        ``agentctl leave`` does so, too, but etcd may have been unreachable then.
        """
        view = mesh.believed
        if view is None or view.cached or view.lease_of(self._host_id) is None:
            return ()
        return self._release_job.ensure(
            lambda: self._registry.release(self._host_id, self._boot_id)
        )

    def _differences(self, config: MeshConfig) -> tuple[Condition, ...]:
        wanted = self._wanted
        if wanted is None:
            return ()
        names = ("cidr", "subnet_len", "backend")
        different = [
            f"{name} is {getattr(config, name)} in etcd and {getattr(wanted, name)} in [mesh]"
            for name in names
            if getattr(config, name) != getattr(wanted, name)
        ]
        if not different:
            return ()
        return (
            Condition(
                name="mesh-settings-differ",
                severity=Severity.INFO,
                cause="; ".join(different),
                hint="what is in etcd is used; correct [mesh] in agent.toml or remove it",
            ),
        )

    def _register(self, mesh: MeshState, uplink: Uplink, config: MeshConfig | None) -> None:
        """Register with the keeper; ``config``: where to move to, None while it must not move."""
        had = mesh.own or self._past
        registration = Registration(
            node_address=uplink.node_address,
            host_name=self._host_name,
            docker_state=mesh.docker_state,
            published=mesh.published,
            avoid=self._avoid(mesh),
            wanted_subnet=had.subnet if had else None,
            past=self._past,
            may_change_subnet=mesh.own is None or self._may_restart_docker(mesh),
            move_into=config.cidr if config is not None and config.previous else None,
            former=mesh.former or former_lease(mesh.believed, mesh.own),
            give_back=mesh.complete and mesh.has_moved,
            needed=mesh.host.needed if mesh.host else (),
            owners=mesh.config.owner_records if mesh.config else OwnerRecords.UNUSED,
            container=self._container.choose(mesh, self._settings.firewall.access),
            summary=summary_of(mesh, self._active()),
        )
        if registration != self._registered:
            self._registered = registration
            self._keeper.update(registration)

    def _own(self, mesh: MeshState) -> tuple[Network, ...]:
        """Return the subnets that this host holds, or held by its own copy.

        When it has left and joins again, Docker may still have networks in its past subnet: they
        do not overlap the mesh. Anything else there does.
        """
        if mesh.own is not None:
            return mesh.own_subnets
        if self._past is not None:
            return (self._past.subnet,)
        view = mesh.newest
        past = view.memory.get(self._host_id) if view is not None else None
        if past is None:
            return ()
        return tuple(each.subnet for each in mesh.docker.networks if within(each.subnet, past))

    def _may_restart_docker(self, mesh: MeshState) -> bool:
        """Return whether another subnet will do if the own one is lost: Docker then restarts."""
        docker = self._settings.docker
        if not docker.manage or not mesh.docker.reachable:
            return False
        hold = policy_hold(mesh.docker, policy=docker.restart, expendable=docker.expendable)
        return hold is None

    def _avoid(self, mesh: MeshState) -> tuple[Network, ...]:
        """Return subnets in use: Docker's networks, own addresses, foreign routes in the CIDR.

        A host that is a member already may have some there.
        """
        own = self._own(mesh)
        docker = tuple(
            network.subnet
            for network in mesh.docker.networks
            if not network.default and not any(network.subnet.overlaps(each) for each in own)
        )
        if mesh.host is None or mesh.config is None:
            return docker
        seen = networks_in_use(mesh.host, mesh.config.cidr, mesh.docker, own)
        return tuple(dict.fromkeys((*docker, *seen)))

    def forget(self) -> None:
        """Forget the past lease: the host leaves, and others may claim its subnet."""
        self._registered = None
        self._past = None


def summary_of(mesh: MeshState, conditions: Iterable[Condition]) -> HostSummary:
    """Return the part of the heartbeat that is for people.

    It names warnings and errors, but none about a peer or the whole mesh: every host has those at
    the same time.
    """
    names = (each.name for each in conditions if _is_of_this_host(each))
    docker = mesh.docker
    return HostSummary(
        conditions=tuple(dict.fromkeys(names))[:_MOST_NAMES],
        containers=len(docker.running) if docker.reachable else None,
    )


def _is_of_this_host(condition: Condition) -> bool:
    name = condition.name
    shared = name.startswith("peer-") or name in _SHARED
    return condition.severity is not Severity.INFO and not shared


def _in_the_way(
    host: HostFacts, cidr: Network, overlaps: tuple[str, ...], *, joined: bool
) -> tuple[Condition, ...]:
    """Return the conditions that keep this host from using ``cidr``."""
    needed = needed_in((cidr,), host.needed)
    found = []
    if overlaps:
        found.append(overlap_condition(cidr, overlaps, joined=joined, removable=not needed))
    if needed:
        found.append(needed_condition(cidr, needed, joined=joined))
    return tuple(found)


def overlap_condition(
    cidr: Network, overlaps: tuple[str, ...], *, joined: bool, removable: bool = True
) -> Condition:
    """Report that the mesh's CIDR overlaps subnets in use; name the first of them.

    Args:
        removable: The host needs no address in the CIDR, so no route there is needed.
    """
    what = first_few(overlaps)
    return Condition(
        name="cidr-overlaps-host",
        severity=Severity.WARNING if joined else Severity.ERROR,
        cause=f"the mesh's CIDR {cidr} overlaps {what} of this host",
        hint="choose another CIDR (agentctl config init proposes one)"
        + (", or remove what overlaps" if removable else ""),
    )
