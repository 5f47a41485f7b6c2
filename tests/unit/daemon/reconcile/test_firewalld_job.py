"""A firewalld that hangs holds the loop up for a moment only; what it did comes later."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from agent.daemon.reconcile import firewalld_job as firewalldjob
from agent.daemon.reconcile.firewalld_job import FirewalldJob
from agent.errors import FirewallError
from agent.kernel.firewall.firewalld import Firewalld
from agent.mesh.firewall import DesiredFirewall
from tests.unit.firewall.wanted import wants

pytestmark = pytest.mark.unit

WANTS = cast("DesiredFirewall", None)


@dataclass
class Slow:
    """firewalld, which answers when it is let."""

    answer: threading.Event = field(default_factory=threading.Event)
    outcome: tuple[str, ...] | Exception = ("added",)
    runs: int = 0
    manage: bool = True

    def apply(self, _wants: DesiredFirewall, *, may_remove: bool) -> tuple[str, ...]:
        assert may_remove
        self.runs += 1
        assert self.answer.wait(20)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def remove(self) -> tuple[str, ...]:
        return ("removed",) if self.answer.is_set() else ("removed while it adds",)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setattr(firewalldjob, "_PATIENCE_S", 0.05)
    return Slow()


def job(slow: Slow, late: threading.Event) -> FirewalldJob:
    return FirewalldJob(cast("Firewalld", slow), late.set)


def test_a_quick_run_returns_its_result_at_once(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewalldjob, "_PATIENCE_S", 20.0)
    late = threading.Event()
    slow.answer.set()
    made = job(slow, late)
    assert made.apply(WANTS) == ("added",)
    assert made.apply(WANTS) == ("added",)
    assert slow.runs == 2
    assert not late.is_set(), "which would cause a pass, and that another job"


def test_promise_10_a_firewalld_that_hangs_is_waited_for_once_and_not_asked_again(
    slow: Slow,
) -> None:
    late = threading.Event()
    made = job(slow, late)
    assert made.apply(WANTS) == ()
    began_s = time.monotonic()
    for _ in range(100):
        assert made.apply(WANTS) == ()
    assert time.monotonic() - began_s < 4
    assert not late.is_set()
    slow.answer.set()
    assert late.wait(20)
    assert made.apply(WANTS) == ("added",)
    assert slow.runs == 1


def test_a_failure_that_comes_late_is_raised_in_the_next_pass(slow: Slow) -> None:
    late = threading.Event()
    slow.outcome = FirewallError("firewall-cmd did not end within 15 s")
    made = job(slow, late)
    assert made.apply(WANTS) == ()
    slow.answer.set()
    assert late.wait(20)
    with pytest.raises(FirewallError, match="did not end"):
        made.apply(WANTS)


def test_a_bug_is_reported_by_its_thread_and_the_run_repeated(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(firewalldjob, "_PATIENCE_S", 20.0)
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    slow.outcome = KeyError("x")
    slow.answer.set()
    made = job(slow, threading.Event())
    assert made.apply(WANTS) == ()
    slow.outcome = ("added",)
    assert made.apply(WANTS) == ("added",)
    assert len(reported) == 1


def test_a_run_under_way_ends_before_the_sources_are_removed(slow: Slow) -> None:
    late = threading.Event()
    made = job(slow, late)
    made.apply(WANTS)
    threading.Timer(0.05, slow.answer.set).start()
    assert made.remove() == ("removed",)


def test_changes_during_a_run_are_applied_at_once_after_it(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Event()
    made = job(slow, late)
    assert made.apply(wants(peers=1)) == ()
    assert made.apply(wants(peers=2)) == ()
    slow.answer.set()
    assert late.wait(20)
    late.clear()
    assert made.apply(wants(peers=2)) == ("added",)
    assert late.is_set(), "the job was for one peer"
    monkeypatch.setattr(firewalldjob, "_PATIENCE_S", 20.0)
    made.apply(wants(peers=2))
    assert slow.runs == 2
