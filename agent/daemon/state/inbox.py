"""The loop's inbox: every other thread and signal handler posts events here, and nowhere else.

It is bounded whatever is posted (promise 10): an event takes the place of one of its kind that
still waits, or joins it. The kinds are few, and so are the commands that may wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agent.daemon.state.events import Apply, Command, Event
from agent.errors import CannotTell
from agent.thread_call import IsWaiting, always_waiting

__all__ = ["Inbox"]

_Answer = TypeVar("_Answer")
_Told = ParamSpec("_Told")

_COMMANDS_MOST = 64
_COMMAND_S = 30.0


class Inbox:
    """Events that wait for the loop, in the order in which the first of each kind came.

    No event passes a command: what was posted before it is acted on before it, and what was
    posted after it is acted on after it.

    Args:
        commands_most: Refuse commands while so many wait.
    """

    def __init__(self, commands_most: int = _COMMANDS_MOST) -> None:
        # Reentrant, because a signal handler may post while this thread holds it.
        self._filled = threading.Condition(threading.RLock())
        self._waiting: dict[tuple[object, ...], Event] = {}
        self._commands = 0
        self._commands_most = commands_most

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, event: Event) -> None:
        """Add an event. Any thread or signal handler; never blocks.

        A command beyond the bound is answered with CannotTell at once.
        """
        with self._filled:
            if isinstance(event, Command):
                if self._commands >= self._commands_most:
                    event.refuse(
                        CannotTell(
                            f"{self._commands} commands wait for the agent: nothing was done",
                            hint="it may be stuck in a call to the kernel: see its log",
                        )
                    )
                    return
                self._commands += 1
            place = (self._commands, *event.kind)
            earlier = self._waiting.get(place)
            self._waiting[place] = event if earlier is None else event.after(earlier)
            self._filled.notify()

    def poster(self, event: Callable[_Told, Event]) -> Callable[_Told, None]:
        """Return a callback that posts ``event`` made of its arguments."""

        def tell(*values: _Told.args, **named: _Told.kwargs) -> None:
            self.post(event(*values, **named))

        return tell

    def ask(
        self,
        run: Callable[[Apply], _Answer],
        timeout_s: float = _COMMAND_S,
        *,
        is_waiting: IsWaiting = always_waiting,
    ) -> _Answer:
        """Have the loop's own thread run something, and wait for what it returns.

        Args:
            run: What to run; it gets what makes a change known to the loop by an event.
            timeout_s: How long it may take to begin; it is withdrawn then.
            is_waiting: For the first step of a client's command: whether the client is there.

        Raises:
            CannotTell: It was refused or withdrawn, or goes on for long; the message says which.
            HostmeshError: What ``run`` raised.
        """
        command = Command(run, is_waiting)
        self.post(command)
        return command.wait(timeout_s)

    def take(self, timeout_s: float) -> tuple[Event, ...]:
        """Wait for an event, and take every one that is here. Only the loop's thread.

        Args:
            timeout_s: Return nothing after that long.
        """
        with self._filled:
            if not self._waiting:
                self._filled.wait(timeout_s)
            taken, self._waiting = self._waiting, {}
            self._commands = 0
        return tuple(taken.values())
