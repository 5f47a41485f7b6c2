"""What threads tell the loop. Small, frozen, posted to one queue; only the loop acts on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.docker.configurator import ConfiguratorReport
from agent.errors import CannotTell, EtcdError, HostmeshError
from agent.model import Condition, Lease, View

__all__ = [
    "Command",
    "ContactChanged",
    "DockerReported",
    "Event",
    "KernelChanged",
    "LeaseChanged",
    "Reload",
    "Stop",
    "ViewSeen",
]


@dataclass(frozen=True, slots=True)
class ViewSeen:
    """A complete view of etcd, newer than the last."""

    view: View


@dataclass(frozen=True, slots=True)
class ContactChanged:
    """Contact with etcd was lost (why) or regained (None)."""

    problem: EtcdError | None


@dataclass(frozen=True, slots=True)
class LeaseChanged:
    """What this host owns now, and what the keeper has to say about it."""

    lease: Lease | None
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class KernelChanged:
    """Links, addresses, routes or rules changed; by whom is found out by comparing."""

    what: str


@dataclass(frozen=True, slots=True)
class DockerReported:
    """What the Docker worker found or did."""

    report: ConfiguratorReport


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP: read the settings again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM or SIGINT: leave the loop; the data path stays (promise 3)."""


@dataclass(slots=True)
class Command:
    """Something the control socket asks the loop to do, with a place for the answer."""

    run: Callable[[], Mapping[str, Any]]
    _done: threading.Event = field(default_factory=threading.Event)
    _answer: Mapping[str, Any] | None = None
    _error: HostmeshError | None = None

    def execute(self) -> None:
        """Run it, in the loop's thread, and wake the asker."""
        try:
            self._answer = self.run()
        except HostmeshError as error:
            self._error = error
        finally:
            self._done.set()

    def wait(self, timeout_s: float) -> Mapping[str, Any]:
        """The answer.

        Raises:
            CannotTell: The loop did not get to it in time; it may still be done later.
            HostmeshError: What the command itself raised.
        """
        if not self._done.wait(timeout_s):
            raise CannotTell(
                f"the agent did not answer within {timeout_s:g} s",
                hint="it may still be at it: agentctl status",
            )
        if self._error is not None:
            raise self._error
        return self._answer or {}


Event = (
    ViewSeen
    | ContactChanged
    | LeaseChanged
    | KernelChanged
    | DockerReported
    | Reload
    | Stop
    | Command
)
