"""The newest of everything that events bring, and the world made of it. Pure.

Here is decided which view is believed, whether anything may be deleted, and which hosts are peers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from agent.daemon.state import conditions
from agent.docker.report import ConfigFile
from agent.mesh.backends import container_mtu
from agent.mesh.endpoints import AcceptedEndpoints
from agent.mesh.key_changes import KeyChanges
from agent.mesh.level import HeldBack
from agent.mesh.liveness import Lapsed, dead_subnets, is_dead, lapsed_leases
from agent.mesh.peer_rules import PeerRules
from agent.mesh.world import World, peers_of_view
from agent.model import (
    LEVEL_OF_0_1,
    Condition,
    DockerFacts,
    DockerNetwork,
    DockerState,
    HostFacts,
    HostId,
    Lease,
    MeshConfig,
    Published,
    Uplink,
    View,
    summarise,
)
from agent.model.endpoint import Endpoint
from agent.model.family import Address, Network, within
from agent.registry import trust

__all__ = ["MeshState", "former_lease", "own_leases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshState:
    """The state of mesh, host and Docker as the loop knows it. Immutable.

    Attributes:
        host_id: This host.
        believed: The view that is acted on: the newest that raised no alarm, or the host's
            own copy of it (``believed.cached``).
        alarming: The newest view, when it is not believed (promise 4); else None.
        verdict: Why it is not.
        baseline: During an alarm, the view believed before it: additions to ``believed`` do not
            count as holders that are back.
        seen_s: Unix time at which ``believed`` (during an alarm: ``baseline``) was seen or saved;
            0.0 while unknown.
        config: The mesh's config, the last usable one while the one in etcd is gone or is not
            usable: a slip of an editor must not take the mesh down.
        own: The lease this host holds, or held by its own copy while etcd is away.
        former: While the mesh moves to another CIDR: the lease this host had before, as long as
            Docker has networks in it.
        unheld: Why etcd does not have ``own`` as this host's lease; "" while it has it or that is
            unknown.
        silent: Addresses of hosts that were probed and do not answer.
        docker_config: Whether a Docker that starts now gets the lease.
        docker_seen: The engine answered at least once since the agent started.
        own_endpoints: This host's running containers; the last known ones while Docker does not
            answer, None before its first answer since the agent started.
        peer_endpoints: Of other hosts, those that count; followed while they are needed.
        left: The operator said leave.
        held_back: The hosts of ``believed`` that read less than the config's level.
        sends_by: The backend by which this host is known to send: that of the config when the
            last pass over the kernel refused nothing; "" before the first.
        key_changes: Hosts whose WireGuard key changed while their agent was running.
        found_lapsed: Remembered of ``believed``, so that the next view costs what changed.
    """

    host_id: HostId
    believed: View | None = None
    alarming: View | None = None
    verdict: trust.Verdict | None = None
    baseline: View | None = None
    seen_s: float = 0.0
    config: MeshConfig | None = None
    own: Lease | None = None
    former: Lease | None = None
    unheld: str = ""
    host: HostFacts | None = None
    docker: DockerFacts = DockerFacts(reachable=False, problem="not asked yet")
    docker_state: DockerState = DockerState.ABSENT
    docker_config: ConfigFile = ConfigFile.WAITING
    docker_seen: bool = False
    own_endpoints: tuple[Endpoint, ...] | None = field(default=None, repr=False)
    peer_endpoints: AcceptedEndpoints = field(
        default_factory=AcceptedEndpoints, repr=False, compare=False
    )
    silent: frozenset[Address] = frozenset()
    uplink: Uplink | None = None
    left: bool = False
    held_back: HeldBack = field(default=HeldBack(), repr=False, compare=False)
    sends_by: str = ""
    found_lapsed: Lapsed | None = field(default=None, repr=False, compare=False)
    key_changes: KeyChanges = field(default_factory=KeyChanges)

    def with_view(self, view: View, *, now_s: float = 0.0, ttl_s: float = math.inf) -> MeshState:
        """Fold in a complete view: believe it, or hold what is there and raise the alarm.

        An alarm over the same cluster at a later revision holds deletions only: what the view
        adds is believed. An alarm ends when the hosts that are believed to hold leases have
        registered them again, by the operator's :meth:`accepted`, or, where leases are
        gone, when a lease's time has passed.

        Args:
            now_s: Unix time.
            ttl_s: How long a lease lasts without a renewal.
        """
        pinned = self._pinned
        if pinned is None:
            return self._believing(view, now_s)
        expired = self.seen_s > 0 and now_s - self.seen_s > ttl_s
        verdict = trust.judge(pinned, view, expired=expired)
        if self.verdict is not None:
            ended = expired and self.verdict.kind is trust.VerdictKind.LEASES_GONE
            if trust.agrees(pinned, view, self.host_id) or (ended and not verdict.alarm):
                return self._believing(view, now_s)
            # One alarm is not ended by a view that is merely not alarming.
            verdict = verdict if verdict.alarm else self.verdict
        if not verdict.alarm:
            return self._believing(view, now_s)
        mesh = replace(self, alarming=view, verdict=verdict, baseline=pinned)
        more = trust.with_additions(pinned, view)
        return mesh if more is None else mesh.acting_on(more)

    @property
    def _pinned(self) -> View | None:
        """Return the view to judge a new one by: of an alarm's additions only the revision."""
        if self.baseline is None or self.believed is None:
            return self.believed
        return replace(self.baseline, revision=self.believed.revision)

    def _believing(self, view: View, now_s: float) -> MeshState:
        mesh = replace(self, alarming=None, verdict=None, baseline=None, seen_s=now_s)
        return mesh.acting_on(view)

    def acting_on(self, view: View) -> MeshState:
        """Act on ``view`` from now on, with or without an alarm."""
        before = self.found_lapsed
        own = self.host_id
        lapsed = Lapsed.of(view, own) if before is None else before.follow(view, own)
        config = view.config or self.config
        level = config.level if config else LEVEL_OF_0_1
        needed = config is not None and config.has_names
        known = self.peer_endpoints if needed else AcceptedEndpoints()
        return replace(
            self,
            believed=view,
            config=config,
            held_back=self.held_back.follow(view.heartbeats, level),
            found_lapsed=lapsed,
            key_changes=self.key_changes.follow(self.believed, view),
            peer_endpoints=replace(known, without=own).follow(
                mesh=view if view.config else replace(view, config=config)
            ),
        )

    def with_docker(self, facts: DockerFacts, state: DockerState) -> MeshState:
        """Fold in what Docker said; while it does not answer, its networks are the last known.

        An engine that restarts or hangs has not lost its networks: taking their rules away
        would cut containers that still run (promise 3, live-restore).
        """
        if not facts.reachable:
            facts = replace(
                facts,
                version=facts.version or self.docker.version,
                bridge=facts.bridge or self.docker.bridge,
                networks=facts.networks or self.docker.networks,
                other_bridges=facts.other_bridges or self.docker.other_bridges,
                containers=facts.containers or self.docker.containers,
                firewall_backend=facts.firewall_backend or self.docker.firewall_backend,
            )
        return replace(
            self,
            docker=facts,
            docker_state=state,
            docker_seen=self.docker_seen or facts.reachable,
        )

    def with_lease(
        self, lease: Lease | None, former: Lease | None, conditions: tuple[Condition, ...]
    ) -> MeshState:
        """Fold in what the keeper holds; without a lease what runs keeps running (promise 3).

        Args:
            conditions: What the keeper says of it.
        """
        if self.left:
            return self
        if lease is None:
            why = conditions[0].cause if conditions else "etcd does not have it as this host's"
            return replace(self, unheld=why)
        return replace(self, own=lease, former=former, unheld="")

    @property
    def needs_endpoints(self) -> bool:
        """Return whether this host follows the endpoints of all hosts: names are made of them."""
        return not self.left and self.config is not None and self.config.has_names

    def lease_ended(self, now_s: float) -> bool:
        """Return whether the own lease has ended by the clock; for use while etcd is away only.

        Args:
            now_s: Unix time.
        """
        return self.own is not None and self.own.left_s(now_s) == 0

    def set_left(self, *, left: bool) -> MeshState:
        """Follow the operator's leave or join."""
        if not left:
            return replace(self, left=False)
        nothing = AcceptedEndpoints()
        return replace(self, left=True, own=None, former=None, unheld="", peer_endpoints=nothing)

    def accepted(self, now_s: float = 0.0) -> MeshState:
        """Believe the alarming view, as the operator said.

        Args:
            now_s: Unix time.
        """
        return self if self.alarming is None else self._believing(self.alarming, now_s)

    @property
    def newest(self) -> View | None:
        """Return the newest view, believed or not."""
        return self.alarming or self.believed

    @property
    def container_mtu(self) -> int | None:
        """Return the MTU of containers: the uplink's less the backend's overhead.

        None while the uplink is not known.
        """
        return None if self.uplink is None else container_mtu(self.uplink, self.config)

    def rules(self) -> PeerRules | Condition:
        """Return what this host may have of the mesh, a lease not yet needed; or why it may not."""
        return PeerRules.of(
            World(
                host_id=self.host_id,
                config=self.config,
                own=self.own,
                former=self.former,
                uplink=self.uplink,
                host=self.host,
            )
        )

    @property
    def published(self) -> Published:
        """Return the backend by which packets travel to this host, with its data for peers.

        As it was while that cannot be said: peers go on with what they have.
        """
        rules = self.rules()
        if isinstance(rules, PeerRules):
            return rules.published(self.sends_by or (self.own.backend if self.own else ""))
        return self.own.published if self.own else Published()

    @property
    def complete(self) -> bool:
        """Return whether the believed view is etcd's and current, so that deleting is allowed."""
        return self.believed is not None and not self.believed.cached and self.alarming is None

    @property
    def own_subnets(self) -> tuple[Network, ...]:
        """Return every subnet that this host holds, the one for new networks first."""
        return tuple(each.subnet for each in (self.own, self.former) if each is not None)

    @property
    def networks_left(self) -> tuple[DockerNetwork, ...]:
        """Return Docker networks that are still in the previous subnet."""
        former = self.former
        if former is None:
            return ()
        return tuple(each for each in self.docker.networks if each.subnet.overlaps(former.subnet))

    @property
    def docker_in_place(self) -> bool:
        """Return whether Docker's networks lie in a subnet of this host: a move may take long."""
        return self.docker_state is DockerState.READY or (
            self.docker.reachable and bool(self.networks_left)
        )

    @property
    def has_moved(self) -> bool:
        """Return whether Docker has the own subnet and nothing in the previous one.

        Judged by Docker's networks, since its state may still be that of the subnet before.
        """
        own = self.own
        return (
            own is not None
            and self.former is not None
            and self.docker.reachable
            and self.docker_state is DockerState.READY
            and any(within(each.subnet, own.subnet) for each in self.docker.networks)
            and not self.networks_left
        )

    @property
    def lapsed(self) -> tuple[Lease, ...]:
        """Return leases of peers whose heartbeat is known to have lapsed."""
        found = self.found_lapsed
        if found is not None and found.view is self.believed:
            return tuple(found.by_subnet.values())
        return lapsed_leases(self.believed, self.host_id)

    def steers_otherwise(self, before: MeshState) -> bool:
        """Return whether the believed view makes another world than before.

        Most changes of a large mesh do not: heartbeats come and go, memories are renewed.
        """
        if before.believed is None or self.believed is None:
            return before.believed is not self.believed
        return (
            self.believed.by_subnet is not before.believed.by_subnet
            or self.believed.slices is not before.believed.slices
            or self.believed.networks is not before.believed.networks
            or self.config != before.config
            or self.complete != before.complete
            or dead_subnets(self.lapsed, self.silent) != dead_subnets(before.lapsed, before.silent)
        )

    def world(self, *, route_protocol: int, route_table: int) -> World | None:
        """Return the world to reconcile to, or None while too little is known.

        Without an own lease the host is no member yet: it routes nothing and opens nothing.
        """
        if self.left or self.own is None or self.believed is None or self.host is None:
            return None
        return World(
            host_id=self.host_id,
            config=self.config,
            own=self.own,
            former=self.former,
            peers=peers_of_view(self.believed, self.own),
            uplink=self.uplink,
            host=self.host,
            docker=self.docker,
            slices=self.believed.slices,
            networks=self.believed.networks,
            dead_subnets=dead_subnets(self.lapsed, self.silent),
            complete=self.complete,
            route_protocol=route_protocol,
            route_table=route_table,
        )

    @property
    def wants_nothing(self) -> bool:
        """Return whether this host should have no routes; False while that is unknown."""
        seen = bool(self.host_id) and self.believed is not None
        return self.left or (seen and self.own is None)

    def conditions(self) -> tuple[Condition, ...]:
        """Return conditions of the believed and the alarming view, bounded."""
        view = self.newest
        if view is None:
            return ()
        found: list[Condition] = []
        if self.alarming is not None and self.verdict is not None:
            found.append(conditions.alarm(self.verdict.reason))
        if view.config_problem:
            found.append(conditions.config_unusable(view.config_problem))
        elif view.config is None and self.config is not None:
            found.append(conditions.config_gone())
        if self.held_back.hosts:
            found.append(conditions.level_held_back(self.held_back))
        found.extend(conditions.dead(each) for each in self.lapsed if is_dead(each, self.silent))
        found.extend(self.key_changes.conditions(view))
        here = self.uplink.node_address if self.uplink else None
        found.extend(
            conditions.cloned(clone, leased=self.own is not None and not self.unheld)
            for clone in view.clones
            if clone.host_id == self.host_id and clone.node_address != here
        )
        if view.config is not None and view.config.previous:
            found.append(conditions.moving(view.config, view.leases))
        changing = conditions.backend_changing(view.config, view) if view.config else None
        found += [] if changing is None else [changing]
        if self.former is not None and self.own is not None and self.networks_left:
            found.append(conditions.not_moved(self.own, self.former, self.networks_left))
        for aside in view.set_aside:
            own = aside.lease is not None and aside.lease.host_id == self.host_id
            found.append(conditions.own_set_aside(aside) if own else conditions.set_aside(aside))
        return summarise(found)


def own_leases(view: View, host_id: HostId) -> tuple[Lease | None, Lease | None]:
    """Return the host's lease in ``view`` and, while the mesh moves, its previous one."""
    found = list(view.leases_of(host_id))
    config = view.config
    if config is not None:
        found.sort(key=lambda each: config.must_move(each.subnet))
    own = found[0] if found else None
    return own, former_lease(view, own)


def former_lease(view: View | None, own: Lease | None) -> Lease | None:
    """Return the other lease in ``view`` of ``own``'s host while the mesh moves."""
    if view is None or view.config is None or own is None or own.host_id is None:
        return None
    return next(
        (
            each
            for each in view.leases_of(own.host_id)
            if each.subnet != own.subnet and view.config.must_move(each.subnet)
        ),
        None,
    )
