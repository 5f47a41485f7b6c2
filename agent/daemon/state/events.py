"""Events that threads post to the loop's inbox. Small and frozen; only the loop acts on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.timers import Timer
from agent.docker.report import AttachReport
from agent.errors import CannotTell, EtcdError, HostmeshError
from agent.kernel.netlink_monitor import KernelEvent
from agent.model import Condition, HostFacts, Lease, Route, Uplink, View
from agent.model.endpoint import Endpoint, EndpointView
from agent.model.family import Address
from agent.reconcile.reconciler import Report
from agent.settings import Settings
from agent.thread_call import CallCancelled, CallRunning, ThreadCall

__all__ = [
    "Accepted",
    "Apply",
    "Command",
    "ConditionsFound",
    "ContactChanged",
    "CopyWritten",
    "DockerReported",
    "EndpointFound",
    "EndpointViewSeen",
    "Endpoints",
    "EndpointsSeen",
    "Event",
    "HostSeen",
    "HostsSilent",
    "JobEnded",
    "KernelChanged",
    "LeaseChanged",
    "Left",
    "NamesReported",
    "Reload",
    "RoundDone",
    "RulesWritten",
    "SettingsRead",
    "Stop",
    "TimersDue",
    "ViewSeen",
]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where etcd is, as far as it is known.

    Attributes:
        address: Of the first endpoint; None: not known yet, loopback, or of no enabled family.
        addresses: Of all endpoints, the first of each name before the second of any.
    """

    address: Address | None = None
    addresses: tuple[Address, ...] = ()


class Event:
    """Something that happened. The newest of a kind replaces one that still waits."""

    __slots__ = ()

    @property
    def kind(self) -> tuple[object, ...]:
        """Return the key under which a newer event replaces an older one."""
        return (type(self),)

    def after(self, earlier: Self) -> Self:
        """Return one event for ``earlier`` and this one."""
        del earlier
        return self


@dataclass(frozen=True, slots=True)
class ViewSeen(Event):
    """A complete view of etcd, newer than the last.

    Attributes:
        passed: Views that were not acted on meanwhile and may show a loss that this one no longer
            shows in full: of a prefix that was wiped, half of the holders may be back already.
    """

    view: View
    passed: tuple[View, ...] = ()

    def after(self, earlier: Self) -> Self:
        """Keep of the views between the one with the fewest leases and that of the least revision.

        Without them, what is still missing would count as gone at once (promises 3 and 4).
        """
        passed = (*earlier.passed, earlier.view)
        fewest = min(passed, key=lambda each: len(each.leases))
        oldest = min(passed, key=lambda each: each.revision)
        kept = tuple(each for each in passed if each is fewest or each is oldest)
        return replace(self, passed=kept)


@dataclass(frozen=True, slots=True)
class ContactChanged(Event):
    """Contact with etcd was lost (why) or regained (None).

    Attributes:
        was_lost: Contact was lost before it was regained, and that was not acted on.
    """

    problem: EtcdError | None
    was_lost: bool = False

    def after(self, earlier: Self) -> Self:
        """Keep that contact was lost in between: etcd may be another than before."""
        return replace(self, was_lost=earlier.was_lost or earlier.problem is not None)


@dataclass(frozen=True, slots=True)
class LeaseChanged(Event):
    """The lease that this host owns now, and the keeper's conditions."""

    lease: Lease | None
    conditions: tuple[Condition, ...]
    former: Lease | None = None


@dataclass(frozen=True, slots=True)
class KernelChanged(Event):
    """Links, addresses or routes changed."""

    event: KernelEvent

    def after(self, earlier: Self) -> Self:
        """Join the changes of both; too many of them become a ``resync``."""
        return replace(self, event=self.event.after(earlier.event))


@dataclass(frozen=True, slots=True)
class RulesWritten(Event):
    """Another program wrote firewall rules.

    Attributes:
        by: "name (pid)" of each program; empty where the kernel's message was lost.
    """

    by: tuple[str, ...] = ()

    def after(self, earlier: Self) -> Self:
        """Keep the programs that wrote last, as far as the kernel named any."""
        return self if self.by else earlier


@dataclass(frozen=True, slots=True)
class EndpointFound(Event):
    """Addresses of etcd's endpoints became known or changed: the uplink may follow."""

    endpoints: Endpoints


@dataclass(frozen=True, slots=True)
class ConditionsFound(Event):
    """All conditions of a part outside the loop, each time."""

    source: ConditionSource
    conditions: tuple[Condition, ...]

    @property
    def kind(self) -> tuple[object, ...]:
        """Each source replaces only its own."""
        return ConditionsFound, self.source


@dataclass(frozen=True, slots=True)
class DockerReported(Event):
    """The Docker worker's report."""

    report: AttachReport

    def after(self, earlier: Self) -> Self:
        """Keep that Docker was restarted."""
        restarted = self.report.restarted or earlier.report.restarted
        return replace(self, report=replace(self.report, restarted=restarted))


@dataclass(frozen=True, slots=True)
class EndpointViewSeen(Event):
    """A complete view of the endpoints of all hosts, newer than the last."""

    view: EndpointView


@dataclass(frozen=True, slots=True)
class EndpointsSeen(Event):
    """All endpoints of this host, each time, and the conditions of looking for them."""

    endpoints: tuple[Endpoint, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class NamesReported(Event):
    """How this host's name servers and their snapshot are.

    Attributes:
        served: One of the servers answers containers.
    """

    served: bool
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class HostsSilent(Event):
    """The addresses of hosts that were probed and do not answer; all of them, each time."""

    addresses: frozenset[Address]


@dataclass(frozen=True, slots=True)
class CopyWritten(Event):
    """The host's own copy was written, or could not be."""

    problem: HostmeshError | None


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """A job at etcd has ended; the next round reads its result."""


@dataclass(frozen=True, slots=True)
class Reload(Event):
    """SIGHUP: read the settings again."""


@dataclass(frozen=True, slots=True)
class Stop(Event):
    """SIGTERM or SIGINT: leave the loop; the data path stays (promise 3)."""


@dataclass(frozen=True, slots=True)
class TimersDue(Event):
    """These deadlines have passed. Like all that follow, this comes of the loop itself."""

    timers: frozenset[Timer]


@dataclass(frozen=True, slots=True)
class HostSeen(Event):
    """The result of a look at the host.

    Attributes:
        failed: Something could not be seen; facts and uplink are as far as they are known.
    """

    facts: HostFacts | None
    uplink: Uplink | None
    conditions: tuple[Condition, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Accepted(Event):
    """The operator accepted the alarming view."""


@dataclass(frozen=True, slots=True)
class Left(Event):
    """The operator said leave, or join."""

    left: bool


@dataclass(frozen=True, slots=True)
class SettingsRead(Event):
    """Other settings are in use."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class RoundDone(Event):
    """The passes that were due have run."""

    report: Report[Route]
    settled: bool
    configured: bool


Apply = Callable[[Event], None]
"""Folds an event into the state and runs its actions; on the loop's thread only."""

_Answer = TypeVar("_Answer")
_FINISH_S = 120.0
"""Longer than a command waits to begin: a leave has several steps."""


class Command(Event, ThreadCall[_Answer]):
    """A call from another thread that the loop runs, with a function that applies events."""

    def wait(self, timeout_s: float) -> _Answer:
        """Return the answer.

        Raises:
            CannotTell: Not in time. The message says whether it was cancelled or goes on.
            Exception: What the command itself raised; a HostmeshError, but for a bug.
        """
        try:
            return self.answer(timeout_s, _FINISH_S)
        except CallCancelled as error:
            raise CannotTell(
                f"the agent did not begin within {timeout_s:g} s: nothing was done",
                hint="it may be stuck in a call to the kernel: see its log, then ask again",
            ) from error
        except CallRunning as error:
            raise CannotTell(
                "the agent has begun this, is not done yet and goes on with it",
                hint="agentctl status and agentctl events show when it is done",
            ) from error
