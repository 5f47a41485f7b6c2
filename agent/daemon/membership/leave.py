"""Leave, join and clean up, with and without a running agent.

Both run the same steps in the same order. That the host has left is saved first: a crash at any
point ends in a host that stays out, and running the verb again finishes it. A step that fails is
listed in "todo" and stops no other step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.daemon.membership.retrying_job import RetryingJob
from agent.daemon.state.events import Apply, Left
from agent.daemon.state.inbox import Inbox
from agent.daemon.store.state_file import StateFile
from agent.docker.attach.detach import DetachTerms
from agent.errors import HostmeshError, Refused
from agent.model import Condition, Severity
from agent.thread_call import client_is_waiting

__all__ = [
    "Leaver",
    "Outcome",
    "UnfinishedLeave",
    "not_finished",
]


_log = structlog.get_logger("agent")

_AGAIN_S = 10.0
_LEAVE_WAITS_S = 30.0
_JOIN_WAITS_S = 10.0
"""How long a verb waits for another one: less than agentctl waits for its answer."""


@dataclass(slots=True)
class Outcome:
    """Lines for the operator: steps that a verb did, and those that it could not do now."""

    done: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def attempt(self, what: str, step: Callable[[], tuple[str, ...]]) -> None:
        """Run a step; its failure becomes a line of ``todo``."""
        try:
            self.done += step()
        except HostmeshError as error:
            self.todo.append(f"{what}: {error}")

    def document(self) -> Mapping[str, Any]:
        """Return the control socket's document."""
        return {"version": 1, "done": self.done, "todo": self.todo}


class Leaver:
    """The steps of leaving and joining, one verb at a time.

    A kill, a power cut, an unreachable etcd or a full disk between two steps must not leave a host
    that is half a member without a condition (promises 6 and 9): :meth:`finish` does the rest.

    Args:
        release: Deletes lease and heartbeat in etcd. Returns lines of what was done.
        remove: Removes the agent's rules and objects from the kernel.
        remove_from_firewalld: Removes the agent's sources there; may hang.
        restore: Gives Docker its previous configuration back, by those terms: (done, todo).
        forget: Deletes the host's own copy of the mesh: when it joins again, what it holds
            is what etcd says, not what the copy remembers.
        inbox: The running agent's, whose loop follows the command; None without an agent.
    """

    def __init__(
        self,
        *,
        state: StateFile,
        release: Callable[[], tuple[str, ...]],
        remove: Callable[[], tuple[str, ...]],
        remove_from_firewalld: Callable[[], tuple[str, ...]],
        restore: Callable[[DetachTerms], tuple[tuple[str, ...], tuple[str, ...]]],
        forget: Callable[[], None],
        inbox: Inbox | None = None,
    ) -> None:
        self._state = state
        self._release = release
        self._remove = remove
        self._remove_from_firewalld = remove_from_firewalld
        self._restore = restore
        self._forget = forget
        self._inbox = inbox
        self._one = threading.Lock()
        self._finished: set[str] = set()
        self._left_over: tuple[str, ...] = ()

    @property
    def left_over(self) -> tuple[str, ...]:
        """Return lines for the operator: steps that the last leave could not do yet."""
        return self._left_over

    def leave(self, *, force: bool = False) -> Outcome:
        """Stay out from now on, release the lease, undo the agent's changes to the host.

        Args:
            force: Restart Docker even while containers run.

        Raises:
            Refused: Another leave or join is under way.
            CannotTell: The running agent did not begin in time, and nothing was done.
        """
        with self._alone("leave", _LEAVE_WAITS_S):
            self._set_left(left=True)
            self._finished.clear()
            return self._run(DetachTerms(force=force))

    def finish(self) -> None:
        """Repeat the steps that a leave could not do, unless one is under way."""
        if not self._one.acquire(blocking=False):
            return
        try:
            if self._state.now.leaving:
                before = self._left_over
                outcome = self._run(DetachTerms(asked=False))
                if outcome.done or outcome.todo != list(before):
                    _log.info("leave-continued", done=outcome.done, todo=outcome.todo)
        finally:
            self._one.release()

    def join(self) -> bool:
        """Become a member again; return whether the host had left.

        Raises:
            Refused: A leave is under way, which would undo it.
        """
        with self._alone("join", _JOIN_WAITS_S):
            if not self._state.now.left:
                return False
            self._set_left(left=False)
            self._left_over = ()
            return True

    def clean(self) -> Outcome:
        """Undo the agent's changes to the host; the lease stays."""
        outcome = Outcome()
        outcome.attempt("not all rules and routes could be removed", self._remove)
        outcome.attempt("firewalld keeps the mesh's sources", self._remove_from_firewalld)
        self._give_docker_back(outcome, DetachTerms(again="agentctl cleanup"))
        return outcome

    def _set_left(self, *, left: bool) -> None:
        """Save the operator's command and have the agent's loop follow it, or do neither.

        A cancelled command must not be saved: the next start would carry it out.
        """

        def both(apply: Apply) -> None:
            self._state.change(left=left, leaving=left)
            apply(Left(left=left))

        if self._inbox is None:
            self._state.change(left=left, leaving=left)
        else:
            self._inbox.ask(both, is_waiting=client_is_waiting())

    @contextmanager
    def _alone(self, verb: str, wait_s: float) -> Iterator[None]:
        """Let no other leave or join run: its later steps would undo this one's."""
        if not self._one.acquire(timeout=wait_s):
            raise Refused(
                "another leave is under way on this host",
                hint=f"agentctl {verb} again when it has ended",
            )
        try:
            yield
        finally:
            self._one.release()

    def _run(self, terms: DetachTerms) -> Outcome:
        """Do the steps that are not done yet; one that fails stops no other."""
        outcome = Outcome()
        steps = {
            "the lease could not be released yet": self._release,
            "this host's copy of the mesh could not be deleted": lambda: (self._forget(), ())[1],
            "not all rules and routes could be removed": self._remove,
            "firewalld keeps the mesh's sources": self._remove_from_firewalld,
        }
        for what, step in steps.items():
            if what in self._finished:
                continue
            left = len(outcome.todo)
            outcome.attempt(what, step)
            if len(outcome.todo) == left:
                self._finished.add(what)
        self._give_docker_back(outcome, terms)
        self._left_over = tuple(outcome.todo)
        if not outcome.todo:
            self._state.change(leaving=False)
        return outcome

    def _give_docker_back(self, outcome: Outcome, terms: DetachTerms) -> None:
        try:
            done, todo = self._restore(terms)
            outcome.done += done
            outcome.todo += todo
        except HostmeshError as error:
            outcome.todo.append(f"Docker's configuration was not restored: {error}")


class UnfinishedLeave:
    """Repeats the steps that a leave could not do until all are done.

    The leave may have been cut off in an earlier run of the agent.

    Args:
        leaver: Does the steps; those that are done cost a check.
        on_job: Called when a try has ended: the next step says how.
    """

    def __init__(self, state: StateFile, leaver: Leaver, on_job: Callable[[], None]) -> None:
        self._state = state
        self._leaver = leaver
        self._job = RetryingJob("leave-not-finished", on_job, _AGAIN_S)

    def step(self) -> tuple[Condition, ...]:
        """Continue a leave that is not done. Never blocks."""
        if not self._state.now.leaving:
            return ()
        failed = self._job.ensure(self._leaver.finish)
        return not_finished(self._leaver.left_over) or failed


def not_finished(
    left_over: tuple[str, ...], hint: str = "agentctl leave; the agent tries again as well"
) -> tuple[Condition, ...]:
    """Return the condition of a leave that is not finished."""
    if not left_over:
        return ()
    return (
        Condition(
            name="leave-not-finished",
            severity=Severity.ERROR,
            cause=f"this host left, but not completely: {'; '.join(left_over)}",
            hint=hint,
        ),
    )
