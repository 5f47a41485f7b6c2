"""What threads tell the loop. Small, frozen, posted to one queue; only the loop acts on them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Generic, TypeVar

from agent.docker.report import ConfiguratorReport
from agent.errors import CannotTell, EtcdError
from agent.kernel.monitor import KernelEvent
from agent.model import Condition, Lease, View

__all__ = [
    "Command",
    "ConditionsFound",
    "ContactChanged",
    "DockerReported",
    "EndpointFound",
    "Event",
    "HostsSilent",
    "KernelChanged",
    "LeaseChanged",
    "Reload",
    "RulesWritten",
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
    former: Lease | None = None


@dataclass(frozen=True, slots=True)
class KernelChanged:
    """Links, addresses or routes changed; by whom is found out by comparing."""

    event: KernelEvent


@dataclass(frozen=True, slots=True)
class RulesWritten:
    """Somebody else wrote firewall rules.

    Attributes:
        by: "name (pid)" of each program; empty where the kernel's word was lost.
    """

    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointFound:
    """The address of the etcd endpoint became known or changed: the uplink may follow."""


@dataclass(frozen=True, slots=True)
class ConditionsFound:
    """All that a part outside the loop has to tell the operator now; all of it, each time."""

    source: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class DockerReported:
    """What the Docker worker found or did."""

    report: ConfiguratorReport


@dataclass(frozen=True, slots=True)
class HostsSilent:
    """The node addresses that were probed and do not answer; all of them, each time."""

    addresses: frozenset[IPv4Address]


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP: read the settings again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM or SIGINT: leave the loop; the data path stays (promise 3)."""


_Answer = TypeVar("_Answer")


class Command(Generic[_Answer]):
    """Something another thread asks the loop to do, with a place for the answer.

    Args:
        run: Called in the loop's thread.
    """

    def __init__(self, run: Callable[[], _Answer]) -> None:
        self._run = run
        self._future: Future[_Answer] = Future()

    def execute(self) -> None:
        """Run it, in the loop's thread, and wake the asker."""
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._future.set_result(self._run())
        except Exception as error:  # noqa: BLE001 - the asker's, whose question it was
            self._future.set_exception(error)

    def wait(self, timeout_s: float) -> _Answer:
        """The answer.

        Raises:
            CannotTell: The loop did not get to it in time; it is then not done.
            Exception: What the command itself raised; a HostmeshError, but for a bug.
        """
        try:
            return self._future.result(timeout_s)
        except TimeoutError:
            self._future.cancel()
            raise CannotTell(
                f"the agent did not answer within {timeout_s:g} s",
                hint="it may be stuck in a call to the kernel: see its log",
            ) from None


Event = (
    ViewSeen
    | ContactChanged
    | LeaseChanged
    | KernelChanged
    | RulesWritten
    | EndpointFound
    | ConditionsFound
    | DockerReported
    | HostsSilent
    | Reload
    | Stop
    | Command[Any]
)
