"""The loop: one thread that acts. Everything else waits somewhere and posts events here.

    events -> fold into Known -> world -> desired -> plan -> apply -> report

Level-triggered: an event only says that something may have changed; what is done comes from
comparing what should be with what is. Any number of events make one pass.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import structlog

from agent.daemon import viewconditions as tell
from agent.daemon.announce import Announcer
from agent.daemon.conditions import ConditionRegistry
from agent.daemon.copying import Copying
from agent.daemon.events import (
    Command,
    ConditionsFound,
    ContactChanged,
    DockerReported,
    EndpointFound,
    Event,
    HostsSilent,
    KernelChanged,
    LeaseChanged,
    Reload,
    RulesWritten,
    Stop,
    ViewSeen,
)
from agent.daemon.grace import CALM, SWEEP, Grace
from agent.daemon.hostlook import HostLook, same_routes
from agent.daemon.inbox import Inbox
from agent.daemon.known import Known
from agent.daemon.notify import Notifier
from agent.daemon.reload import Change
from agent.daemon.rooms import Rooms
from agent.daemon.silence import Silence
from agent.daemon.snapshot import Snapshot
from agent.daemon.timers import Timers, jittered
from agent.docker.report import ConfigFile
from agent.errors import HostmeshError, SettingsError
from agent.leases import trust
from agent.mesh.world import World
from agent.settings import Settings

__all__ = ["Loop"]

_IDLE_S = 15.0
_COPY_DELAY_S = 2.0
_RETRY_S = 2.0


class Loop:
    """Folds events and reconciles until told to stop.

    Args:
        inbox: Where every other thread posts.
        clock: Monotonic seconds.
        wall_clock: Unix seconds, in which a lease says when it was renewed.
    """

    def __init__(
        self,
        *,
        inbox: Inbox,
        settings: Settings,
        rooms: Rooms,
        known: Known,
        conditions: ConditionRegistry,
        notifier: Notifier,
        silence: Silence,
        timers: Timers,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._rooms = rooms
        self._conditions = conditions
        self._notifier = notifier
        self._clock = clock
        self._wall_clock = wall_clock
        self._inbox = inbox
        self._timers = timers
        self._snapshot = Snapshot(known=known)
        self._host = HostLook(rooms.read_host)
        self._silence = silence
        self._announcer = Announcer(notifier)
        self._copying = Copying(rooms.copy, conditions, timers)
        self._grace = Grace(lambda: self._settings, timers, clock)
        self._stopping = False
        self._log = structlog.get_logger("agent.loop")
        self._handlers: dict[type[Event], Callable[[Any], object]] = {
            ViewSeen: self._view,
            ContactChanged: self._contact,
            LeaseChanged: self._lease,
            KernelChanged: self._kernel,
            RulesWritten: lambda event: rooms.passes.rules_changed(event.by),
            EndpointFound: self._endpoint,
            ConditionsFound: lambda event: conditions.replace(event.source, event.conditions),
            DockerReported: self._docker,
            Command: Command.execute,
            HostsSilent: self._silent_hosts,
            Reload: self._reload,
            Stop: self._stop,
        }

    @property
    def snapshot(self) -> Snapshot:
        """The newest state, for readers in other threads."""
        return self._snapshot

    def run(self) -> None:
        """Work until :class:`Stop`. The data path is left as it is (promise 3)."""
        self._timers.set("resync", 0)
        while not self._stopping:
            for event in self._gather():
                self._fold(event)
                self._notifier.alive()  # sixteen questions to a large mesh take a while
            self._alarm_clock()
            if not self._stopping:
                self._round()
            self._notifier.alive()
        self._notifier.stopping()
        self._copying.finish(self._snapshot.known)
        self._rooms.observer.happened(
            "agent-stopped", "hostmesh-agent ended; routes and rules stay"
        )
        self._write_history()

    def remove_all(self) -> tuple[str, ...]:
        """Take everything of ours out of the kernel; called through a :class:`Command`."""
        return self._rooms.passes.kernel.remove()

    def set_left(self, remember: Callable[[], None], *, left: bool) -> None:
        """Remember a leave or join and follow it; called through a :class:`Command`.

        An order that was withdrawn must not be remembered: the next start would carry it out.
        """
        remember()
        known = self._snapshot.known
        self._update(known=known.set_left(left=left))
        self._host.again()
        self._rooms.passes.everything()
        if left:
            self._copying.leave()
            self._rooms.keeper.pause()
            self._rooms.joining.forget()
            self._conditions.replace("joining", ())
            self._conditions.replace("lease", ())

    def accept(self) -> bool:
        """Believe the alarming view; called through a :class:`Command`. False: no alarm."""
        known = self._snapshot.known
        if known.alarming is None:
            return False
        self._update(known=known.accepted(self._wall_clock()))
        self._pin()
        self._grace.end()
        self._rooms.watch_range(self._snapshot.known)
        self._rooms.passes.world_changed()
        return True

    def copy_written(self) -> Future[None]:
        """Have the host's own copy written; called through a :class:`Command`."""
        return self._copying.written(self._snapshot.known)

    def _gather(self) -> tuple[Event, ...]:
        """Wait for an event, and take with it every event that is already here.

        The first event of a burst is acted on at once; the rest gather while its pass runs.
        """
        wait_s = self._timers.wait_s(_IDLE_S)
        if self._notifier.watchdog_s is not None:
            wait_s = min(wait_s, self._notifier.watchdog_s / 3)
        return self._inbox.take(wait_s)

    def _fold(self, event: Event) -> None:
        self._handlers[type(event)](event)

    def _view(self, event: ViewSeen) -> None:
        before = self._snapshot.known
        ttl_s = self._settings.lease.ttl_s
        known = before.with_view(event.view, now_s=self._wall_clock(), ttl_s=ttl_s)
        self._update(known=known)
        if known.alarming is None and trust.many_gone(before.believed, event.view):
            self._grace.hold()  # those that are alive may be about to register again
        self._rooms.observer.view_seen(before.believed, known.believed, known.host_id)
        self._pin()
        self._silence.update(event.view)
        if known.alarming is not None:  # before the keeper sees there what it lost
            self._rooms.keeper.hold()
        self._rooms.keeper.notice(event.view)
        if known.steers_otherwise(before):
            self._rooms.passes.world_changed()
        self._rooms.watch_range(self._snapshot.known)
        self._timers.set_sooner("copy", _COPY_DELAY_S)

    def _pin(self) -> None:
        believed = self._snapshot.known.believed
        if believed is not None:
            self._rooms.pin(believed.cluster_id)

    def _kernel(self, event: KernelChanged) -> None:
        self._rooms.passes.kernel_changed(event.event)
        self._host.noticed(event.event, self._snapshot.known.host)

    def _endpoint(self, _event: EndpointFound) -> None:
        self._host.again()
        self._rooms.watch_range(self._snapshot.known)

    def _docker(self, event: DockerReported) -> None:
        known = self._snapshot.known
        told = known.with_docker(event.report.facts, event.report.state)
        told = replace(told, docker_config=event.report.config)
        if event.report.restarted:
            self._rooms.observer.docker_restarted()
        if told.docker != known.docker:
            self._rooms.passes.world_changed()
        self._update(known=told)
        self._conditions.replace("docker", event.report.conditions)

    def _silent_hosts(self, event: HostsSilent) -> None:
        self._update(known=replace(self._snapshot.known, silent=event.addresses))
        self._rooms.passes.world_changed()

    def _reload(self, _event: Reload) -> None:
        with contextlib.suppress(SettingsError):  # a condition says so
            self.reload()

    def reload(self) -> Change:
        """Read the settings again; called through a :class:`Command`, or by SIGHUP.

        Raises:
            SettingsError: They are wrong; nothing was changed.
        """
        change = self._rooms.reloader.reload(self._settings)
        self._settings = change.settings
        if change.live:
            self._rooms.passes.adopt(change.settings.firewall.check_s)
            self._rooms.joining.adopt(change.settings)
            self._rooms.watch_range(self._snapshot.known)
            self._timers.set("resync", 0)
        return change

    def _stop(self, _event: Stop) -> None:
        self._stopping = True

    def _contact(self, event: ContactChanged) -> None:
        if event.problem is None and event.was_lost:
            self._contact_lost()
        if event.problem is None:
            self._grace.contact_made()
            self._update(contact_problem="")
            self._conditions.replace("etcd", ())
            return
        self._contact_lost()
        self._update(contact_problem=event.problem.message)
        self._conditions.replace("etcd", (tell.etcd_unreachable(event.problem),))

    def _contact_lost(self) -> None:
        believed = self._snapshot.known.believed
        self._grace.contact_lost(followed=believed is not None and not believed.cached)

    def _lease(self, event: LeaseChanged) -> None:
        before = self._snapshot.known
        # What the keeper posted before it was paused would stay for as long as the host is out.
        self._conditions.replace("lease", () if before.left else event.conditions)
        known = before.with_lease(event.lease, event.former, event.conditions)
        self._update(known=known)
        own = known.own
        if own is None or (own, known.former) == (before.own, before.former):
            return
        if before.own is None or before.own.subnet != own.subnet:
            self._log.debug("lease-held", subnet=str(own.subnet))
            subnet = str(own.subnet)
            self._rooms.observer.happened("subnet-held", f"this host holds {subnet}", subnet)
        self._rooms.passes.world_changed()
        self._timers.set_sooner("copy", 0)

    def _alarm_clock(self) -> None:
        due = self._timers.due()
        self._rooms.passes.fell_due(due)
        if "resync" in due:
            self._host.again()
            self._rooms.passes.everything()
            self._timers.set("resync", jittered(self._settings.routes.resync_s))
        if "host" in due:
            self._host.again()
        if due & {SWEEP, CALM}:
            self._rooms.passes.world_changed()
        if "copy" in due:
            self._copying.save(self._snapshot.known)

    def _round(self) -> None:
        if self._host.due:
            self._look_at_host()
        known = self._snapshot.known
        self._grace.update(alarming=known.alarming is not None, complete=known.complete)
        self._conditions.replace("view", known.conditions())
        if known.left:
            self._conditions.replace("joining", self._rooms.joining.stay_out(known))
            self._conditions.replace("leaving", self._rooms.finish_leave())
        else:
            self._conditions.replace("joining", self._rooms.joining.step(known))
            self._conditions.replace("leaving", ())
            self._want_docker()
        self._rooms.probe(known)
        world = self.world()
        passes = self._rooms.passes
        if world is None:
            passes.stand_down(wants_nothing=known.wants_nothing)
        else:
            passes.run(
                world,
                may_delete=self.may_delete,
                may_sweep=self.may_sweep,
                docker_seen=known.docker_seen,
            )
        told = known.docker_config is not ConfigFile.WAITING
        self._update(
            lease_ended=bool(self._snapshot.contact_problem)
            and known.lease_ended(self._wall_clock()),
            report=passes.report,
            passed=passes.settled,
            configured=passes.configured and told,
        )
        self._announcer.tell(self._snapshot, self._conditions.all())
        self._write_history()

    def _write_history(self) -> None:
        found = self._rooms.observer.flush()
        if found is not None:
            self._conditions.replace("events", found)

    def world(self) -> World | None:
        """The world as known now, None while there is too little to act on."""
        routes = self._settings.routes
        return self._snapshot.known.world(route_protocol=routes.protocol, route_table=routes.table)

    @property
    def may_delete(self) -> bool:
        """A route may go whose lease is known to be gone: the view is complete and believed."""
        in_contact = not self._snapshot.contact_problem
        return self._snapshot.known.complete and in_contact and self._grace.calm

    @property
    def may_sweep(self) -> bool:
        """Routes of an earlier life may go, too."""
        return self.may_delete and self._grace.sweep

    def _look_at_host(self) -> None:
        known = self._snapshot.known
        facts = known.host
        try:
            facts = self._host.look(known.host)
            uplink = self._rooms.joining.choose_uplink(facts)
            found = self._rooms.check_host(uplink)
        except HostmeshError as error:
            self._conditions.replace("host", (tell.host_unusable(error),))
            self._timers.set("host", jittered(_RETRY_S))
            # The last uplink holds, and what is seen of the host is no less true without one.
            if facts != known.host:
                self._rooms.passes.world_changed()
                self._update(known=replace(known, host=facts))
            return
        self._conditions.replace("host", found)
        if uplink != known.uplink:
            if known.uplink is not None and uplink.node_address != known.uplink.node_address:
                self._rooms.reconnect()
            self._log.info(
                "uplink", name=uplink.name, node_address=str(uplink.node_address), mtu=uplink.mtu
            )
            text = f"the uplink is {uplink.name} with {uplink.node_address}"
            self._rooms.observer.happened("uplink-changed", text, uplink.name)
        if uplink != known.uplink or not same_routes(facts, known.host):
            self._rooms.passes.world_changed()
        self._update(known=replace(known, host=facts, uplink=uplink))

    def _want_docker(self) -> None:
        known = self._snapshot.known
        if known.own is not None and known.uplink is not None:
            wants = self._rooms.docker_wants(known.own.subnet, known.container_mtu)
            former = known.former.subnet if known.former else None
            self._rooms.docker.want(replace(wants, former=former))

    def _update(self, **changes: object) -> None:
        self._snapshot = replace(self._snapshot, **changes)  # type: ignore[arg-type] # names are Snapshot's
