"""Say what happens on each host, in plain words, and keep what failed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

from agent.deploy.engine import Event
from agent.settings.text import printable

__all__ = ["Failure", "Progress"]

_LINES = 6
_CHARACTERS = 400
_PATHS = "Check the paths to the other hosts"
_UNTESTED = "not tested"
_OF_ANSIBLE = ("non-zero return code", "Shared connection to", "Warning:")


@dataclass(frozen=True)
class Failure:
    """A task that failed on a host."""

    host: str
    task: str
    why: str


@dataclass
class Progress:
    """Prints events as lines, each with the seconds since the beginning.

    Args:
        hosts: All names, for the width of their column.
        out: Where lines go.
        untested: Some path between containers could not be tested: none runs on a host.
    """

    hosts: Iterable[str]
    out: TextIO
    quiet: bool = False
    failures: list[Failure] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    untested: bool = False
    _began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._width = max((len(name) for name in self.hosts), default=0)

    @property
    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return time.monotonic() - self._began_s

    def handle(self, event: Event) -> None:
        """Print an event, if it says anything to an operator."""
        if event.kind == "task":
            if event.does:
                self.line("", f"{event.does} …")
            return
        if event.status in ("failed", "unreachable"):
            why = reason(event)
            self.failures.append(Failure(event.host, event.task, why))
            self.line(event.host, f"FAILED: {_lower(event.task)}: {why}")
        elif event.task == _PATHS:
            self.untested = self.untested or _UNTESTED in event.text
        elif event.status == "changed":
            self.changed.add(event.host)
            if event.says:
                self.line(event.host, event.says)

    def line(self, host: str, text: str) -> None:
        """Print one line."""
        if not self.quiet:
            print(
                f"[{self.seconds:3.0f} s] {host:<{self._width}}  {text}", file=self.out, flush=True
            )


def reason(event: Event) -> str:
    """Return why a task failed: the last lines of what it printed, as one line."""
    lines = [printable(line.strip()) for line in event.text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(_OF_ANSIBLE)]
    return " / ".join(kept[-_LINES:])[-_CHARACTERS:] or "no reason was given"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
