"""What threads tell the loop. Small, frozen, posted to one queue; only the loop acts on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.asker import GoesOn, IsWaiting, Order, Withdrawn, always
from agent.docker.report import ConfiguratorReport
from agent.errors import CannotTell, EtcdError
from agent.kernel.monitor import KernelEvent
from agent.model import Condition, Lease, View
from agent.model.family import Address

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

    addresses: frozenset[Address]


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP: read the settings again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM or SIGINT: leave the loop; the data path stays (promise 3)."""


_Answer = TypeVar("_Answer")
_FINISH_S = 120.0
"""What has begun is waited for longer: a leave of several steps is not cut in two."""


class Command(Generic[_Answer]):
    """Something another thread asks the loop to do, with a place for the answer.

    Args:
        run: Called in the loop's thread.
        is_waiting: Asked there before it begins: it is withdrawn if its client has gone.
    """

    def __init__(self, run: Callable[[], _Answer], is_waiting: IsWaiting = always) -> None:
        self._order = Order(run, is_waiting)

    def execute(self) -> None:
        """Run it, in the loop's thread, and wake the asker."""
        self._order.carry_out()

    def wait(self, timeout_s: float) -> _Answer:
        """The answer.

        Raises:
            CannotTell: Not in time. The message says whether it was withdrawn or goes on.
            Exception: What the command itself raised; a HostmeshError, but for a bug.
        """
        try:
            return self._order.answer(timeout_s, _FINISH_S)
        except Withdrawn as error:
            raise CannotTell(
                f"the agent did not begin within {timeout_s:g} s: nothing was done",
                hint="it may be stuck in a call to the kernel: see its log, then ask again",
            ) from error
        except GoesOn as error:
            raise CannotTell(
                "the agent has begun this, is not done yet and goes on with it",
                hint="agentctl status and agentctl events show when it is done",
            ) from error


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
