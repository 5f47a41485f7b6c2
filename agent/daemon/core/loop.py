"""The loop: one thread that acts. Other threads wait for events and post them here.

    events -> fold into the state -> actions -> world -> desired -> plan -> apply -> report

Level-triggered: an event only says that something may have changed, and the pass compares desired
with actual. Any number of events make one pass. A few actions, which wake other threads, wait for
it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.daemon.core.consequences import Action, Effect, consequences
from agent.daemon.core.event_handlers import Moment, fold
from agent.daemon.core.reload import Change
from agent.daemon.membership.join import Joiner
from agent.daemon.membership.leave import UnfinishedLeave
from agent.daemon.reconcile.scheduler import Scheduler
from agent.daemon.state import events
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.inbox import Inbox
from agent.daemon.state.timers import Timer, Timers
from agent.daemon.store.view_cache import ViewCache
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.observer import Observer
from agent.daemon.telemetry.systemd import Notifier, StatusLine
from agent.errors import SettingsError

__all__ = ["Loop"]

_IDLE_S = 15.0
_AFTER_PASSES = frozenset({Action.RECORD_PEERS, Action.CHECK_RECORDS, Action.FOLLOW_NAMES})
"""Actions that wait until the kernel is written: the threads that they wake would slow it down."""


@dataclass(slots=True, kw_only=True)
class Loop:
    """Folds events and reconciles until it is stopped.

    Args:
        inbox: Where every other thread posts.
        cell: Where the state is.
        actions: The function behind each action.
        read_host: Looks at the host.
        reload: Reads the settings again.
        unfinished_leave: Finishes a leave that was cut off.
        clock: Monotonic seconds.
        wall_clock: Unix seconds.
    """

    inbox: Inbox
    cell: StateCell
    actions: Mapping[Action, Callable[..., object]]
    timers: Timers
    read_host: Callable[[AgentState], events.HostSeen]
    joiner: Joiner
    unfinished_leave: UnfinishedLeave
    scheduler: Scheduler
    view_cache: ViewCache
    reload: Callable[[events.Apply], Change]
    conditions: ConditionRegistry
    observer: Observer
    notifier: Notifier
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    _stopping: bool = field(default=False, init=False)
    _postponed: list[Effect] = field(default_factory=list, init=False)
    _status_line: StatusLine = field(init=False)

    def __post_init__(self) -> None:
        self._status_line = StatusLine(self.notifier)

    def apply(self, event: events.Event) -> None:
        """Fold an event into the state and run its actions. Only the loop's thread.

        Those of :data:`_AFTER_PASSES` run after the passes over the kernel.
        """
        before = self.cell.now
        after = fold(before, event, Moment(self.clock(), self.wall_clock()))
        self.cell.now = after
        for effect in consequences(before, after, event):
            if effect.action in _AFTER_PASSES:
                self._postponed.append(effect)
            else:
                self._act(effect)

    def _act(self, effect: Effect) -> None:
        self.actions[effect.action](*effect.given)

    def _act_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        for effect in postponed:
            self._act(effect)

    def look(self) -> None:
        """Look at the host now: the first config is checked against the addresses it needs."""
        self.apply(self.read_host(self.cell.now))

    def run(self) -> None:
        """Work until :class:`events.Stop`. The data path is left as it is (promise 3)."""
        self.timers.set(Timer.RESYNC, 0)
        while not self._stopping:
            for event in self.inbox.take(self._wait_s()):
                self._take(event)
                self.notifier.alive()  # sixty questions to a large mesh take a while
            due = self.timers.due()
            if due:
                self.apply(events.TimersDue(due))
            if not self._stopping:
                self._round()
            self.notifier.alive()
        self._act_postponed()
        self.notifier.stopping()
        self.view_cache.finish(self.cell.now.mesh)
        self.observer.happened("agent-stopped", "hostmesh-agent ended; routes and rules stay")
        self._write_history()

    def _wait_s(self) -> float:
        wait_s = self.timers.wait_s(_IDLE_S)
        watchdog_s = self.notifier.watchdog_s
        return wait_s if watchdog_s is None else min(wait_s, watchdog_s / 3)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Command():
                event.execute(self.apply)
            case events.Reload():
                with contextlib.suppress(SettingsError):  # it has raised a condition
                    self.reload(self.apply)
            case events.Stop():
                self._stopping = True
            case _:
                self.apply(event)

    def _round(self) -> None:
        if self.cell.now.look.links:
            self.look()
        self._run_passes()
        self._act_postponed()
        self._step_membership()  # what is published says what the pass has done
        self._status_line.report(self.cell.now, self.conditions.all())
        self._write_history()

    def _step_membership(self) -> None:
        mesh = self.cell.now.mesh
        joiner = self.joiner
        for source, found in (
            (ConditionSource.VIEW, mesh.conditions()),
            (
                ConditionSource.JOINING,
                joiner.stay_out(mesh) if mesh.left else joiner.step(mesh),
            ),
            (ConditionSource.LEAVING, self.unfinished_leave.step() if mesh.left else ()),
        ):
            self.apply(events.ConditionsFound(source, found))

    def _run_passes(self) -> None:
        state, scheduler, now_s = self.cell.now, self.scheduler, self.clock()
        world = state.world()
        if world is None:
            scheduler.stand_down(wants_nothing=state.mesh.wants_nothing)
        else:
            scheduler.run(
                world,
                may_delete=state.may_delete(now_s),
                may_sweep=state.may_sweep(now_s),
                docker_seen=state.mesh.docker_seen,
            )
        self.apply(events.RoundDone(scheduler.report, scheduler.settled, scheduler.configured))

    def _write_history(self) -> None:
        found = self.observer.flush()
        if found is not None:
            self.apply(events.ConditionsFound(ConditionSource.EVENTS, found))
