"""The functions behind the loop's actions: one call of one part each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from agent.daemon.core.consequences import Action
from agent.daemon.core.reload import Source
from agent.daemon.membership.join import Joiner
from agent.daemon.names.job import NamesJob
from agent.daemon.reconcile.kernel_pass import KernelPass
from agent.daemon.reconcile.scheduler import Scheduler
from agent.daemon.state.timers import Timers
from agent.daemon.store.view_cache import ViewCache
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.observer import Observer
from agent.docker.daemonjson.desired import DockerNames
from agent.docker.endpoints.follower import EndpointFollower
from agent.docker.manager import DockerManager
from agent.docker.worker import DockerWorker
from agent.etcd.client import EtcdClient
from agent.kernel.liveness.prober import Prober
from agent.kernel.netlink_monitor import Monitor
from agent.model import Uplink, View
from agent.model.family import Address, Network
from agent.registry.directory import Directory
from agent.registry.endpoints.directory import EndpointDirectory
from agent.registry.own.keeper import Keeper
from agent.registry.own.publisher import Publisher
from agent.registry.registry import Registry
from agent.retry import jittered
from agent.settings import Settings

__all__ = ["Actions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """Does what the loop asks of the other parts. Only the loop's thread calls it."""

    source: Source
    client: EtcdClient
    registry: Registry
    directory: Directory
    endpoint_directory: EndpointDirectory
    keeper: Keeper
    publisher: Publisher
    joiner: Joiner
    docker: DockerWorker
    docker_manager: DockerManager
    containers: EndpointFollower
    kernel: KernelPass
    monitor: Monitor
    names: NamesJob
    prober: Prober
    scheduler: Scheduler
    timers: Timers
    view_cache: ViewCache
    conditions: ConditionRegistry
    observer: Observer

    def by_name(self) -> dict[Action, Callable[..., object]]:
        """Return the function behind each action."""
        return {
            Action.SET_CONDITIONS: self.conditions.replace,
            Action.SET_TIMER: lambda timer, in_s: self.timers.set(timer, jittered(in_s)),
            Action.SET_TIMER_AT: self.timers.set_at,
            Action.SET_TIMER_SOONER: self.timers.set_sooner,
            Action.APPLY_SETTINGS: self._adopt,
            Action.RECORD_PEERS: self.observer.view_seen,
            Action.RECORD_SUBNET: self.observer.subnet_held,
            Action.RECORD_UPLINK: self.observer.uplink_changed,
            Action.RECORD_RESTART: self.observer.docker_restarted,
            Action.PIN_CLUSTER: self.client.pin,
            Action.RECONNECT_ETCD: self.client.reconnect,
            Action.SET_BOUNDS: partial(setattr, self.registry, "bounds"),
            Action.REREAD_CONFIG: lambda *_: self.directory.look_again(),
            Action.HOLD_CLAIMS: self.keeper.hold,
            Action.CHECK_RECORDS: self._check_records,
            Action.LEAVE: self._leave,
            Action.PUBLISH: self.publisher.publish,
            Action.FOLLOW_ENDPOINTS: lambda wanted: self.endpoint_directory.follow(wanted=wanted),
            Action.CHECK_ENDPOINTS: lambda view: self.publisher.notice_endpoints(
                view.revision, view.endpoints
            ),
            Action.SAVE_COPY: self.view_cache.save,
            Action.CONFIGURE_DOCKER: self._want_docker,
            Action.CONFIGURE_NETWORKS: self.docker.set_networks,
            Action.FOLLOW_CONTAINERS: self.containers.set_terms,
            Action.FOLLOW_NAMES: self.names.follow,
            Action.WATCH_ROUTES: self.monitor.watch_range,
            Action.PROBE_HOSTS: self._probe,
            Action.PASS_KERNEL: self.scheduler.kernel_changed,
            Action.PASS_RULES: self.scheduler.rules_changed,
            Action.PASS_TIMERS: self.scheduler.fell_due,
            Action.PASS: self.scheduler.world_changed,
            Action.PASS_EVERYTHING: self.scheduler.everything,
        }

    def _adopt(self, settings: Settings) -> None:
        self.source.configure_log(settings.log)
        self.docker_manager.docker.adopt(settings.docker)
        self.keeper.adopt(settings.lease)
        self.kernel.limit_access(settings.firewall.access)
        self.scheduler.adopt(settings.firewall.check_s)

    def _check_records(self, view: View) -> None:
        self.keeper.notice(view)
        self.publisher.notice_slices(view.revision, view.slices)

    def _leave(self) -> None:
        self.view_cache.leave()
        self.publisher.pause()
        self.keeper.pause()
        self.joiner.forget()

    def _want_docker(
        self,
        subnet: Network,
        mtu: int | None,
        former: Network | None,
        names: DockerNames | None,
    ) -> None:
        desired = self.docker_manager.desired_for(subnet, mtu, names)
        self.docker.set_desired(replace(desired, former=former))

    def _probe(self, addresses: frozenset[Address], uplink: Uplink | None) -> None:
        self.prober.watch(addresses, uplink)
        if uplink is not None:
            self.monitor.watch_neighbours(addresses, uplink.index)
