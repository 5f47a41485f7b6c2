"""Puts the agent together from its rooms, and takes it apart again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from types import FrameType

import structlog

from agent import __version__, asker
from agent.daemon.answers import Answers
from agent.daemon.conditions import ConditionRegistry
from agent.daemon.control import ControlServer, MetricsServer
from agent.daemon.earlierlife import EarlierLife
from agent.daemon.events import (
    ConditionsFound,
    ContactChanged,
    DockerReported,
    HostsSilent,
    KernelChanged,
    LeaseChanged,
    Reload,
    RulesWritten,
    Stop,
    ViewSeen,
)
from agent.daemon.finding import Finding
from agent.daemon.hostbounds import HostBounds
from agent.daemon.hostlock import HostLock
from agent.daemon.inbox import Inbox
from agent.daemon.joining import Joining
from agent.daemon.known import Known, former_lease
from agent.daemon.loop import Loop
from agent.daemon.membership import Leaver, Unfinished
from agent.daemon.mishaps import Mishaps
from agent.daemon.notify import Notifier
from agent.daemon.observer import Observer, open_history
from agent.daemon.parts import (
    check_host,
    docker_room,
    host_name,
    kernel_pass,
    release_lease,
)
from agent.daemon.passes import Passes
from agent.daemon.reload import Reloader, Source
from agent.daemon.rooms import Rooms
from agent.daemon.silence import Silence
from agent.daemon.state import StateFile
from agent.daemon.timers import Timers
from agent.docker.giveback import Order
from agent.errors import EtcdError, FirewallError, KernelError
from agent.kernel.facts import read_host_facts, uplink_target
from agent.kernel.firewall.monitor import RuleMonitor
from agent.kernel.monitor import KernelEvent, Monitor
from agent.kernel.probe import Prober, nobody_answers
from agent.leases.client import EtcdClient
from agent.leases.copy import Copy, copy_file
from agent.leases.directory import Directory
from agent.leases.identity import host_id, read_boot_id, read_machine_id
from agent.leases.keeper import Keeper
from agent.leases.registry import Registry
from agent.leases.survey import Survey
from agent.leases.timeleft import TimeLeft
from agent.model import Condition, HostFacts, Lease
from agent.settings import Settings
from agent.threads import Jobs, Poller

__all__ = ["HostAgent", "run_forever"]

_DOCKER_BUSY_S = 180.0


def run_forever(settings: Settings, source: Source) -> int:
    """Run the agent until SIGTERM or SIGINT. The data path stays when it ends (promise 3)."""
    agent = HostAgent(settings, source)
    agent.run()
    return 0


class HostAgent:
    """The daemon: every room, one loop, the control socket.

    Args:
        settings: What the operator told.
        source: Where to read that again.

    Raises:
        Refused: Another agent runs on this host.
        HostmeshError: The host lacks something without which nothing can start.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._log = structlog.get_logger("agent")
        self._lock = HostLock(settings.agent.run_dir, "hostmesh-agent")
        self._state = StateFile(settings.agent.state_dir)
        self._inbox = Inbox()
        self._poller = Poller("poller")
        self._jobs = Jobs(self._poller)
        self._host_id = host_id(read_machine_id())
        self._boot_id = read_boot_id()
        name = host_name(settings)
        self._client = EtcdClient(settings.etcd)
        self._copy_file = copy_file(settings)
        self._copy = self._copy_file.load()
        self._registry = Registry(self._client, settings.etcd.prefix, bounds=settings.mesh.bounds())
        self._observer = Observer(open_history(settings.agent.state_dir))
        self._conditions = ConditionRegistry(time.monotonic, self._observer)
        self._finding = Finding(
            settings,
            client=self._client,
            post=self._inbox.post,
            jobs=self._jobs,
        )
        self._bounds = HostBounds(
            self._registry,
            self._copy.kept if self._copy else (),
            lambda: self._finding.endpoint.addresses,
            self._look_again,
        )
        if self._copy is not None:
            self._client.clusters.pin(self._copy.view.cluster_id)
        self._survey = Survey(
            self._client,
            self._inbox.poster(partial(ConditionsFound, "endpoints")),
            jobs=self._jobs,
        )
        self._docker_room = docker_room(settings, self._client, self._host_id)
        self._keeper = self._make_keeper()
        self._docker = self._docker_room.worker(self._inbox.poster(DockerReported), self._poller)
        self._kernel = kernel_pass(settings, self._state)
        self._tell_of_copy()
        self._leaving = self._leaver()
        self._silence = Silence()
        self._loop = self._make_loop(name)
        self._directory = self._make_directory()
        self._monitor = Monitor(
            self._on_kernel, own_ports=lambda: self._kernel.objects.port_ids, poller=self._poller
        )
        self._watch_range(self._loop.snapshot.known)
        self._prober = Prober(self._inbox.poster(HostsSilent), poller=self._poller)
        self._rule_monitor = RuleMonitor(
            lambda event: self._inbox.post(RulesWritten(event.by)),
            own_pids=self._kernel.own_pids,
            poller=self._poller,
        )
        self._control = self._make_control(name)

    def run(self) -> None:
        """Start every thread, run the loop in this one, stop every thread."""
        self._log.info(
            "agent-started",
            version=__version__,
            host_id=self._host_id,
            etcd=list(self._settings.etcd.endpoints) or "looked for in DNS",
            left=self._state.left,
        )
        self._observer.happened("agent-started", f"hostmesh-agent {__version__} started")
        threading.excepthook = Mishaps(self._inbox.poster(partial(ConditionsFound, "threads")))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._inbox.post(Reload()))
        with suppress(KernelError):  # the loop's first look reports it
            self._bounds.with_needed(read_host_facts(self._settings.routes.protocol))
        # The monitor subscribes before the loop's first look: nothing falls between the two.
        self._monitor.start()
        self._start_rule_monitor()
        for start in (
            self._finding.start,
            self._prober.start,
            self._docker.start,
            self._keeper.start,
            self._directory.start,
            self._survey.start,
            self._control.start,
        ):
            start()
        if self._metrics is not None:
            self._metrics.start()
        try:
            self._loop.run()
        finally:
            self._stop()

    def _start_rule_monitor(self) -> None:
        if not self._settings.firewall.manage:
            return
        try:
            self._rule_monitor.start()
        except FirewallError as error:
            # A kernel without nf_tables has legacy rules, which the timer looks at.
            self._log.info("rules-not-watched", reason=error.message)

    def _stop(self) -> None:
        if self._metrics is not None:
            self._metrics.stop()
        stops: tuple[Callable[[], object], ...] = (
            self._control.stop,
            self._directory.stop,
            self._survey.stop,
            self._keeper.stop,
            self._monitor.stop,
            self._rule_monitor.stop,
            self._finding.stop,
            self._prober.stop,
            self._docker.stop,
            self._client.close,
            self._lock.release,
        )
        with ExitStack() as ending:  # one that fails keeps no other from its end
            for stop in reversed(stops):
                ending.callback(stop)
        self._log.info("agent-stopped", data_path="left as it is")

    def _look_again(self) -> None:
        self._directory.look_again()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.post(Stop())

    def _on_kernel(self, event: KernelEvent) -> None:
        """Called on the monitor's thread."""
        if event.neighbours:
            self._prober.hurry(frozenset(change.address for change in event.neighbours))
        if event.concerns_routes:
            self._inbox.post(KernelChanged(event))

    def _watch_range(self, known: Known) -> None:
        self._bounds.follow(known)
        self._monitor.watch_range(
            known.config.cidrs if known.config else None,
            self._settings.routes.protocol,
            uplink_target(self._settings.host.uplink, self._finding.endpoint.address),
        )

    def _probe(self, known: Known) -> None:
        asked = self._settings.routes.probe and not known.left
        addresses = (
            frozenset(lease.node_address for lease in known.lapsed) if asked else frozenset()
        )
        self._prober.watch(addresses, known.uplink)
        if known.uplink is not None:
            self._monitor.watch_neighbours(addresses, known.uplink.index)

    def _first_known(self) -> Known:
        known = Known(host_id=self._host_id, left=self._state.left)
        copy: Copy | None = self._copy
        if copy is None or self._state.left:
            return known
        return replace(
            known,
            believed=copy.view,
            seen_s=copy.saved_s,
            config=copy.view.config,
            own=self._copied_lease(),
            former=former_lease(copy.view, self._copied_lease()),
        )

    def _copied_lease(self) -> Lease | None:
        """The own lease by the copy: not that of the host whose disk this one is a clone of."""
        lease = self._copy.lease if self._copy else None
        return lease if lease is not None and lease.host_id == self._host_id else None

    def _tell_of_copy(self) -> None:
        if self._copy_file.problem:
            damaged = Condition(
                name="copy-damaged",
                cause=self._copy_file.problem,
                hint="nothing to do while etcd answers: a new copy is written; without etcd this"
                " host waits for it",
            )
            self._conditions.replace("copy-damaged", (damaged,))

    def _make_loop(self, name: str) -> Loop:
        settings = self._settings
        timers = Timers(time.monotonic)
        passes = Passes(
            kernel=self._kernel,
            conditions=self._conditions,
            timers=timers,
            check_s=settings.firewall.check_s,
            observer=self._observer,
        )
        rooms = Rooms(
            keeper=self._keeper,
            copy=self._copy_file,
            read_host=self._read_host,
            check_host=check_host,
            passes=passes,
            docker=self._docker,
            docker_wants=self._docker_room.wants_of,
            joining=self._make_joining(name),
            reloader=Reloader(
                load=self._source.load, adopt=self._adopt, conditions=self._conditions
            ),
            watch_range=self._watch_range,
            probe=self._probe,
            pin=self._client.clusters.pin,
            reconnect=self._client.reconnect,
            observer=self._observer,
            finish_leave=Unfinished(self._state, self._leaving).step,
        )
        return Loop(
            inbox=self._inbox,
            settings=settings,
            rooms=rooms,
            known=self._first_known(),
            conditions=self._conditions,
            notifier=Notifier(os.environ),
            silence=self._silence,
            timers=timers,
        )

    def _read_host(self, known: HostFacts | None) -> HostFacts:
        """Look at links, addresses and others' routes; called in the loop's thread."""
        self._kernel.settle_mark(self._loop.snapshot.known.config)  # the pass tells of failures
        return self._bounds.with_needed(read_host_facts(self._settings.routes.protocol, known))

    def _adopt(self, settings: Settings) -> None:
        """Go on with settings that were read again; called in the loop's thread."""
        self._settings = settings
        self._bounds.adopt(settings.mesh.bounds())
        self._source.configure_log(settings.log)
        self._docker_room.adopt(settings.docker)
        self._keeper.adopt(settings.lease)
        self._kernel.limit_access(settings.firewall.access)

    def _make_control(self, name: str) -> ControlServer:
        answers = Answers(
            inbox=self._inbox,
            loop=self._loop,
            kernel=self._kernel,
            conditions=self._conditions,
            silence=self._silence,
            time_left=TimeLeft(self._client.time_to_live_s),
            host_name=name,
            etcd_source=self._finding.document,
            last_contact_s=lambda: self._directory.last_contact_s,
            leaver=self._leaving,
            observer=self._observer,
            docker_outlook=self._docker_room.outlook,
            restart_docker=lambda force, replace: self._docker.restart_now(
                force=force, replace=replace, timeout_s=_DOCKER_BUSY_S
            ),
        )
        agent = self._settings.agent
        address = self._settings.metrics.address
        self._metrics = (
            MetricsServer(address, answers.open_routes(), self._poller) if address else None
        )
        return ControlServer(
            agent.socket, agent.socket_group, answers.routes(), poller=self._poller
        )

    def _make_keeper(self) -> Keeper:
        return Keeper(
            self._registry,
            host_id=self._host_id,
            boot_id=self._boot_id,
            agent_version=__version__,
            settings=self._settings.lease,
            on_lease=self._inbox.poster(LeaseChanged),
            may_leave=self._docker_room.may_restart,
            earlier_life=EarlierLife(lambda: self._loop.snapshot.known, nobody_answers),
        )

    def _make_directory(self) -> Directory:
        def on_problem(problem: EtcdError | None, _last_contact_s: float) -> None:
            self._inbox.post(ContactChanged(problem))

        return Directory(
            self._registry,
            on_view=self._inbox.poster(ViewSeen),
            on_problem=on_problem,
            last_view=self._copy.view if self._copy else None,
        )

    def _make_joining(self, name: str) -> Joining:
        copied = self._copied_lease()
        return Joining(
            settings=self._settings,
            keeper=self._keeper,
            registry=self._registry,
            host_id=self._host_id,
            boot_id=self._boot_id,
            endpoint=self._finding.endpoint,
            wanted=self._settings.mesh.config(),
            past=copied,
            host_name=name,
        )

    def _leaver(self) -> Leaver:
        def restore(order: Order) -> tuple[tuple[str, ...], tuple[str, ...]]:
            if not self._settings.docker.manage:
                return (), ()
            report = self._docker.restore(order, timeout_s=_DOCKER_BUSY_S)
            return report.done, report.todo

        return Leaver(
            state=self._state,
            release=lambda: release_lease(self._registry, self._host_id, self._boot_id),
            remove=lambda: self._inbox.ask(self._loop.remove_all),
            restore=restore,
            forget=self._copy_file.forget,
            follow=lambda remember, *, left: self._inbox.ask(
                lambda: self._loop.set_left(remember, left=left), is_waiting=asker.current()
            ),
        )
