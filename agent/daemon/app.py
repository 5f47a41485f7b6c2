"""Build the agent from its packages, run it, and stop it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Protocol

import structlog

from agent import __version__
from agent.daemon.actions import Actions
from agent.daemon.api.change_handlers import ChangeHandlers
from agent.daemon.api.check_handlers import CheckHandlers
from agent.daemon.api.mesh_handlers import MeshHandlers
from agent.daemon.api.request_handlers import RequestHandlers
from agent.daemon.api.server import ControlServer, TcpServer
from agent.daemon.checks.job import CheckJob
from agent.daemon.core.consequences import Action, watched
from agent.daemon.core.host_facts import look_at_host
from agent.daemon.core.loop import Loop
from agent.daemon.core.reload import Source, reload
from agent.daemon.membership.endpoint_finder import EndpointFinder
from agent.daemon.membership.join import Joiner
from agent.daemon.membership.leave import Leaver, UnfinishedLeave
from agent.daemon.membership.previous_boot import PreviousBoot
from agent.daemon.names.job import NamesJob
from agent.daemon.names.wanted import wanted_names
from agent.daemon.reconcile.scheduler import Scheduler
from agent.daemon.state import conditions, events
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.inbox import Inbox
from agent.daemon.state.timers import Timers
from agent.daemon.store.host_lock import HostLock
from agent.daemon.store.state_file import StateFile
from agent.daemon.store.view_cache import ViewCache
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.observer import Observer, open_history
from agent.daemon.telemetry.systemd import Notifier
from agent.daemon.telemetry.thread_errors import ThreadErrors
from agent.daemon.ui.paths import open_to_network, page_paths
from agent.daemon.wiring import (
    check_host,
    copied_lease,
    docker_manager,
    first_mesh_state,
    host_name,
    kernel_pass,
    release_lease,
)
from agent.dns.snapshot import names_folder
from agent.docker.attach.detach import DetachTerms
from agent.docker.endpoints.follower import EndpointFollower
from agent.errors import FirewallError
from agent.etcd.client import EtcdClient
from agent.etcd.endpoint_check import EndpointCheck
from agent.kernel.firewall.rule_monitor import RuleMonitor
from agent.kernel.liveness.prober import Prober, is_silent
from agent.kernel.netlink_monitor import KernelEvent, Monitor
from agent.kernel.wireguard.key import WireGuardKey
from agent.registry.checks import read_checks
from agent.registry.copy import Copy, copy_file
from agent.registry.directory import Directory
from agent.registry.endpoints.directory import EndpointDirectory
from agent.registry.endpoints.reading import read_endpoints
from agent.registry.flannel_ttl import FlannelTtls
from agent.registry.own.identity import own_host_id, read_boot_id
from agent.registry.own.keeper import Keeper
from agent.registry.own.publisher import Publisher
from agent.registry.registry import Registry
from agent.settings import Settings
from agent.threads import Jobs, Poller

__all__ = ["HostAgent", "run_forever"]

_DOCKER_BUSY_S = 180.0


def run_forever(settings: Settings, source: Source) -> int:
    """Run the agent until SIGTERM or SIGINT. The data path stays when it ends (promise 3)."""
    agent = HostAgent(settings, source)
    agent.follow_process()
    agent.run()
    return 0


class Part(Protocol):
    """A part of the agent with a thread or a socket of its own."""

    def start(self) -> None:
        """Begin its work."""

    def stop(self) -> object:
        """End its work."""


class HostAgent:
    """The daemon: its parts, one loop, the control socket.

    Inbox and state cell are made first; parts made after them post to the one and read the other.

    Args:
        settings: Those of the start.
        source: Where to read that again.

    Raises:
        Refused: Another agent runs on this host.
        HostmeshError: The host lacks something without which nothing can start.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        agent, etcd = settings.agent, settings.etcd
        self._source = source
        self._log = structlog.get_logger("agent")
        self._lock = HostLock(agent.run_dir, "hostmesh-agent")
        self._state = StateFile(agent.state_dir)
        self._inbox = inbox = Inbox()
        self._poller = poller = Poller("poller")
        self._jobs = jobs = Jobs(poller)
        self._host_id = own_host_id(settings)
        self._boot_id = read_boot_id()
        self._copy_file = copy_file(settings)
        copy = self._copy_file.load()
        if self._copy_file.problem:
            damaged = conditions.copy_damaged(self._copy_file.problem)
            inbox.post(events.ConditionsFound(ConditionSource.COPY_DAMAGED, (damaged,)))
        self._client = EtcdClient(etcd)
        if copy is not None:
            self._client.pin(copy.view.cluster_id)
        self._endpoint_finder = EndpointFinder(
            settings, client=self._client, post=inbox.post, jobs=jobs
        )
        mesh = first_mesh_state(self._host_id, copy, left=self._state.now.left)
        endpoints = self._endpoint_finder.endpoint.now
        kept = copy.kept if copy else ()
        first = AgentState(mesh=mesh, settings=settings, endpoints=endpoints, kept=kept)
        self._cell = StateCell(first)
        self._registry = Registry(self._client, etcd.prefix, bounds=first.bounds)
        self._observer = Observer(open_history(agent.state_dir))
        self._conditions = ConditionRegistry(time.monotonic, self._observer)
        self._timers = Timers(time.monotonic)
        self._make_followers(settings, copy)
        self._make_kernel_side(settings)
        self._make_loop(settings, copy)
        self._make_servers(settings)

    def _make_followers(self, settings: Settings, copy: Copy | None) -> None:
        """Make what follows etcd and Docker."""
        inbox = self._inbox
        self._docker_manager = docker_manager(settings, self._client, self._host_id)
        self._containers = EndpointFollower(
            self._docker_manager.engine,
            inbox.poster(events.EndpointsSeen),
            boot_id=self._boot_id,
            jobs=Jobs(self._poller),
        )
        self._docker = self._docker_manager.worker(
            inbox.poster(events.DockerReported), self._poller, self._containers
        )
        self._names = NamesJob(
            names_folder(settings.agent.state_dir),
            self._boot_id,
            inbox.post,
            Jobs(self._poller),
        )
        for names in wanted_names(self._cell.now) or ():  # no change will say so
            self._names.follow(names)
        self._keeper = Keeper(
            self._registry,
            host_id=self._host_id,
            boot_id=self._boot_id,
            agent_version=__version__,
            settings=settings.lease,
            on_lease=inbox.poster(events.LeaseChanged),
            may_leave=self._docker_manager.docker.may_restart,
            earlier_life=PreviousBoot(self._cell, is_silent),
        )
        self._publisher = Publisher(
            self._registry,
            self._host_id,
            inbox.poster(partial(events.ConditionsFound, ConditionSource.PUBLISHING)),
        )
        self._endpoint_directory = EndpointDirectory(
            self._registry,
            inbox.poster(events.EndpointViewSeen),
            inbox.poster(partial(events.ConditionsFound, ConditionSource.FOLLOWING)),
        )
        needed = self._cell.now.mesh.needs_endpoints  # by this host's copy: no change will say so
        self._endpoint_directory.follow(wanted=needed)
        self._directory = Directory(
            self._registry,
            on_view=inbox.poster(events.ViewSeen),
            on_problem=lambda problem, _last_contact_s: inbox.post(events.ContactChanged(problem)),
            last_view=copy.view if copy else None,
        )
        found = inbox.poster(partial(events.ConditionsFound, ConditionSource.ENDPOINTS))
        self._endpoint_check = EndpointCheck(self._client, found, jobs=self._jobs)

    def _make_kernel_side(self, settings: Settings) -> None:
        """Make what follows and writes the kernel."""
        inbox, poller = self._inbox, self._poller
        self._kernel = kernel = kernel_pass(
            settings, self._state, inbox.poster(events.RulesWritten)
        )
        self._prober = Prober(inbox.poster(events.HostsSilent), poller=poller)
        self._monitor = Monitor(
            self._on_kernel, own_ports=lambda: kernel.objects.port_ids, poller=poller
        )
        self._monitor.watch_range(*watched(self._cell.now))
        self._rule_monitor = RuleMonitor(
            lambda event: inbox.post(events.RulesWritten(event.by)),
            own_pids=kernel.own_pids,
            poller=poller,
        )
        self._scheduler = Scheduler(
            kernel=kernel,
            conditions=self._conditions,
            timers=self._timers,
            check_s=settings.firewall.check_s,
            observer=self._observer,
        )

    def _make_loop(self, settings: Settings, copy: Copy | None) -> None:
        """Make the loop and the parts that it drives."""
        inbox, cell, kernel = self._inbox, self._cell, self._kernel
        self._leaving = self._leaver()
        self._view_cache = ViewCache(self._copy_file, inbox, self._timers)
        self._reload = partial(reload, self._source.load, cell)
        self._joiner = Joiner(
            cell=cell,
            keeper=self._keeper,
            registry=self._registry,
            host_id=self._host_id,
            boot_id=self._boot_id,
            past=copied_lease(self._host_id, copy),
            on_job=inbox.poster(events.JobEnded),
            host_name=host_name(settings),
            active=lambda: [each.condition for each in self._conditions.all()],
        )
        self._loop = Loop(
            inbox=inbox,
            cell=cell,
            actions=self._actions(),
            timers=self._timers,
            read_host=partial(
                look_at_host,
                lambda: kernel.former_protocol,
                check_host,
                WireGuardKey(settings.agent.state_dir),
            ),
            joiner=self._joiner,
            unfinished_leave=UnfinishedLeave(
                self._state, self._leaving, inbox.poster(events.JobEnded)
            ),
            scheduler=self._scheduler,
            view_cache=self._view_cache,
            reload=self._reload,
            conditions=self._conditions,
            observer=self._observer,
            notifier=Notifier(os.environ),
        )

    def _make_servers(self, settings: Settings) -> None:
        """Make the control socket and the metrics listener, and order all parts."""
        answers = self._answers(settings)
        mesh = MeshHandlers(
            cell=self._cell,
            freshness=answers.freshness,
            read_endpoints=partial(read_endpoints, self._client, self._registry.keys),
        )
        self._checks = CheckJob(self._cell, self._client, Jobs(self._poller))
        checks = CheckHandlers(
            cell=self._cell,
            job=self._checks,
            freshness=answers.freshness,
            read_checks=partial(read_checks, self._client, self._registry.keys),
        )
        documents = answers.paths().and_those_of(mesh.paths(), checks.paths())
        page = page_paths(documents, answers.events)
        paths = documents.and_those_of(self._changes().paths(), checks.changes(), page)
        self._control = ControlServer(
            settings.agent.socket, settings.agent.socket_group, paths, poller=self._poller
        )
        servers: tuple[Part, ...] = (self._control,)
        if address := settings.metrics.address:
            servers += (TcpServer("metrics", address, answers.open_paths(), self._poller),)
        if address := settings.ui.address:
            servers += (TcpServer("ui", address, page, self._poller, by_address=True),)
        if settings.ui.is_open:
            reached = events.ConditionsFound(ConditionSource.PAGE, (open_to_network(settings.ui),))
            self._inbox.post(reached)
        self._host_parts: tuple[Part, ...] = (
            self._names,
            self._containers,
            self._docker,
            self._prober,
            self._endpoint_finder,
            self._monitor,
        )
        self._mesh_parts: tuple[Part, ...] = (
            self._keeper,
            self._publisher,
            self._endpoint_directory,
            self._endpoint_check,
            self._directory,
            self._checks,
            *servers,
        )

    def follow_process(self) -> None:
        """Follow signals and unexpected exceptions; only on the process's main thread."""
        threads = self._inbox.poster(partial(events.ConditionsFound, ConditionSource.THREADS))
        threading.excepthook = ThreadErrors(threads)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._inbox.post(events.Stop()))
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._inbox.post(events.Reload()))

    def run(self) -> None:
        """Start every thread, run the loop in this one, stop every thread."""
        self._log.info(
            "agent-started",
            version=__version__,
            host_id=self._host_id,
            etcd=list(self._cell.now.settings.etcd.endpoints) or "found by DNS",
            left=self._state.now.left,
        )
        self._observer.happened("agent-started", f"hostmesh-agent {__version__} started")
        try:
            self._start_rule_monitor()
            # The monitor subscribes before the first look: nothing falls between the two.
            for part in self._host_parts:
                part.start()
            self._loop.look()
            for part in self._mesh_parts:
                part.start()
            self._loop.run()
        finally:
            self._stop()

    def _stop(self) -> None:
        with ExitStack() as ending:  # a part that fails to stop keeps no other from its end
            for stop in (self._lock.release, self._client.close, self._rule_monitor.stop):
                ending.callback(stop)
            for part in (*self._host_parts, *self._mesh_parts):
                ending.callback(part.stop)
        self._log.info("agent-stopped", data_path="left as it is")

    def _start_rule_monitor(self) -> None:
        if not self._cell.now.settings.firewall.manage:
            return
        try:
            self._rule_monitor.start()
        except FirewallError as error:
            # A kernel without nf_tables has legacy rules, which the timer looks at.
            self._log.info("rules-not-watched", reason=error.message)

    def _on_kernel(self, event: KernelEvent) -> None:
        """Follow a change in the kernel. On the monitor's thread."""
        if event.neighbours:
            self._prober.hurry(frozenset(change.address for change in event.neighbours))
        if event.concerns_objects:
            self._inbox.post(events.KernelChanged(event))

    def _actions(self) -> dict[Action, Callable[..., object]]:
        return Actions(
            source=self._source,
            client=self._client,
            registry=self._registry,
            directory=self._directory,
            endpoint_directory=self._endpoint_directory,
            keeper=self._keeper,
            publisher=self._publisher,
            joiner=self._joiner,
            docker=self._docker,
            names=self._names,
            docker_manager=self._docker_manager,
            containers=self._containers,
            kernel=self._kernel,
            monitor=self._monitor,
            prober=self._prober,
            scheduler=self._scheduler,
            timers=self._timers,
            view_cache=self._view_cache,
            conditions=self._conditions,
            observer=self._observer,
        ).by_name()

    def _answers(self, settings: Settings) -> RequestHandlers:
        return RequestHandlers(
            inbox=self._inbox,
            cell=self._cell,
            kernel=self._kernel,
            conditions=self._conditions,
            time_left=FlannelTtls(self._client.time_to_live_s),
            host_name=host_name(settings),
            etcd_source=self._endpoint_finder.document,
            last_contact_s=lambda: self._directory.last_contact_s,
            certificates=lambda: self._endpoint_check.certificates,
            observer=self._observer,
            docker_outlook=self._docker_manager.docker.outlook,
            last_check=lambda: self._checks.last,
        )

    def _changes(self) -> ChangeHandlers:
        return ChangeHandlers(
            inbox=self._inbox,
            cell=self._cell,
            view_cache=self._view_cache,
            reload_settings=self._reload,
            leaver=self._leaving,
            restart_docker=lambda force, replace: self._docker.restart_now(
                force=force, replace=replace, timeout_s=_DOCKER_BUSY_S
            ),
        )

    def _leaver(self) -> Leaver:
        def restore(terms: DetachTerms) -> tuple[tuple[str, ...], tuple[str, ...]]:
            if not self._cell.now.settings.docker.manage:
                return (), ()
            report = self._docker.detach(terms, timeout_s=_DOCKER_BUSY_S)
            return report.done, report.todo

        return Leaver(
            state=self._state,
            release=lambda: release_lease(self._registry, self._host_id, self._boot_id),
            remove=lambda: self._inbox.ask(
                lambda _apply: self._kernel.remove(self._cell.now.mesh.config)
            ),
            remove_from_firewalld=self._kernel.remove_from_firewalld,
            restore=restore,
            forget=self._copy_file.forget,
            inbox=self._inbox,
        )
