"""The result of a check: what this host found when it asked every peer. Frozen values.

A result says only what was tested. What was not is UNTESTED, with the reason as its text.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.model.family import Address, Network
from agent.model.mesh import HostId

__all__ = [
    "WORST_MOST",
    "CheckState",
    "CheckSummary",
    "CheckTest",
    "HostCheck",
    "PeerCheck",
    "TestResult",
    "Verdict",
    "WorstPeer",
]

WORST_MOST: Final = 32
"""So many peers are named in the summary that a host publishes."""


class CheckTest(enum.StrEnum):
    """A test of one peer, in the order in which a check shows them."""

    HEARTBEAT = "heartbeat"
    HOST = "host"
    PATH = "path"
    MTU = "mtu"
    NAMES = "names"
    NETWORKS = "networks"


class Verdict(enum.StrEnum):
    """The result of one test."""

    OK = "ok"
    FAILED = "failed"
    UNTESTED = "untested"


class CheckState(enum.StrEnum):
    """The result of all tests of a peer, the worst first.

    DOWN: neither the host nor a container there answers. UNTESTED: nothing failed, and no
    container of this host could send to one of that peer.
    """

    FAILED = "failed"
    DOWN = "down"
    UNTESTED = "untested"
    OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The result of one test.

    Attributes:
        text: The finding, or why there is none.
        hint: With FAILED: an imperative with a command.
    """

    __test__ = False  # pytest collects classes of such a name

    test: CheckTest
    verdict: Verdict
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCheck:
    """All tests of one peer.

    Attributes:
        host_id: None for a flannel host.
        rtt_s: The shortest round-trip time to a container there, else to the host; None: no answer.
    """

    host_id: HostId | None
    host_name: str
    subnet: Network
    node_address: Address
    state: CheckState
    rtt_s: float | None = None
    tests: tuple[TestResult, ...] = ()

    @property
    def failed(self) -> tuple[CheckTest, ...]:
        """The tests that failed."""
        return tuple(each.test for each in self.tests if each.verdict is Verdict.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstPeer:
    """A peer in the summary that a host publishes.

    Attributes:
        subnet: It names flannel hosts, too.
        failed: The tests that failed.
    """

    subnet: Network
    state: CheckState
    failed: tuple[CheckTest, ...] = ()
    rtt_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSummary:
    """Summarise a check for other hosts.

    Attributes:
        began_s: Unix time, by the clock of the host that checked.
        own_failed: Tests of the host itself that failed, such as its name servers.
        counts: Peers by state; states without a peer are absent.
        worst: At most :data:`WORST_MOST` peers: those that are not OK, then the slowest.
    """

    host_id: HostId
    began_s: float
    own_failed: tuple[CheckTest, ...] = ()
    counts: Mapping[CheckState, int] = field(default_factory=dict)
    worst: tuple[WorstPeer, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether anything failed, or a peer is down."""
        bad = (CheckState.FAILED, CheckState.DOWN)
        return bool(self.own_failed) or any(self.counts.get(each) for each in bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck:
    """One check of every peer from this host.

    Attributes:
        began_s: Unix time.
        took_s: How long it took.
        own: Tests of this host itself, such as its name servers.
        untested: Why no packet was sent from a container of this host; "" if some were.
        peers: In order of subnet.
    """

    host_id: HostId
    began_s: float
    took_s: float
    own: tuple[TestResult, ...] = ()
    untested: str = ""
    peers: tuple[PeerCheck, ...] = ()

    def summary(self) -> CheckSummary:
        """Return what other hosts may know of it."""
        order = list(CheckState)
        worst = sorted(
            self.peers,
            key=lambda each: (order.index(each.state), -len(each.failed), -(each.rtt_s or 0.0)),
        )
        return CheckSummary(
            host_id=self.host_id,
            began_s=self.began_s,
            own_failed=tuple(each.test for each in self.own if each.verdict is Verdict.FAILED),
            counts=dict(Counter(each.state for each in self.peers)),
            worst=tuple(
                WorstPeer(
                    subnet=each.subnet, state=each.state, failed=each.failed, rtt_s=each.rtt_s
                )
                for each in worst[:WORST_MOST]
            ),
        )
