"""One thread that serves several sources."""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import threads
from agent.threads import Jobs, Poller, Wait

pytestmark = pytest.mark.unit


class Echo:
    """A source with a socket: notes what it reads, and by which thread."""

    def __init__(self, name: str, on_read: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self._ours, self.theirs = socket.socketpair()
        self._on_read = on_read
        self.until_s = math.inf
        self._changed = threading.Condition()
        self.served: list[tuple[bytes, str]] = []

    def waits_for(self) -> Wait:
        return Wait((self._ours.fileno(),), self.until_s)

    def serve(self, ready: frozenset[int]) -> None:
        self._on_read()
        self.until_s = math.inf
        found = self._ours.recv(10) if self._ours.fileno() in ready else b""
        with self._changed:
            self.served.append((found, threading.current_thread().name))
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.served) >= count, 10)

    def close(self) -> None:
        self._ours.close()
        self.theirs.close()


@pytest.fixture
def echoes() -> Iterator[list[Echo]]:
    made: list[Echo] = []
    yield made
    for each in made:
        each.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def ended(name: str) -> bool:
    until_s = time.monotonic() + 10
    while any(each.name == name for each in threading.enumerate()):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True


def test_one_thread_serves_all_and_ends_with_the_last(echoes: list[Echo]) -> None:
    before = open_descriptors()
    poller = Poller("p1")
    echoes += [Echo("one"), Echo("two")]
    for each in echoes:
        poller.add(each)
    assert [each.name for each in threading.enumerate()].count("p1") == 1
    for each in echoes:
        each.theirs.send(b"x")
        each.wait(1)
        assert each.served == [(b"x", each.name)]
    assert poller.remove(echoes[0])
    echoes[0].theirs.send(b"y")
    echoes[1].theirs.send(b"y")
    echoes[1].wait(2)
    assert len(echoes[0].served) == 1
    assert poller.remove(echoes[1])
    assert ended("p1")
    assert open_descriptors() == before + 4
    poller.add(echoes[0])
    echoes[0].wait(2)
    assert poller.remove(echoes[0])


def test_a_source_is_served_at_its_time_and_when_that_changes(echoes: list[Echo]) -> None:
    echoes.append(Echo("one"))
    poller = Poller("p2")
    poller.add(echoes[0])
    echoes[0].until_s = 0.0
    poller.wake()
    echoes[0].wait(1)
    assert echoes[0].served == [(b"", "one")]
    assert poller.remove(echoes[0])


def test_promise_9_a_source_that_fails_is_reported_and_others_are_served(
    echoes: list[Echo], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []

    def tell(args: threading.ExceptHookArgs) -> None:
        assert args.thread is not None
        reported.append(args.thread.name)

    def fail() -> None:
        if len(reported) < 3:
            raise KeyError("unexpected")

    monkeypatch.setattr(threading, "excepthook", tell)
    monkeypatch.setattr(threads, "_FIRST_S", 0.1)
    echoes += [Echo("bad", fail), Echo("good")]
    poller = Poller("p3")
    for each in echoes:
        poller.add(each)
        each.theirs.send(b"x")
    echoes[1].wait(1)
    began_s = time.monotonic()
    echoes[0].wait(1)
    assert reported == ["bad"] * 3
    assert time.monotonic() - began_s > 0.1, "it rests, longer each time"
    assert all(poller.remove(each) for each in echoes)


def test_promise_10_a_removed_source_is_not_served_any_more(echoes: list[Echo]) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(10)

    echoes.append(Echo("slow", hold))
    poller = Poller("p4")
    poller.add(echoes[0])
    echoes[0].theirs.send(b"x")
    assert begun.wait(10)
    assert not poller.remove(echoes[0], timeout_s=0.05), "it is still being served"
    gate.set()
    assert poller.remove(echoes[0])
    assert len(echoes[0].served) == 1
    assert ended("p4")


class Count:
    """A job that counts its runs, and does on each what a test says."""

    def __init__(self, name: str, every_s: float, work: Callable[[], object] = dict) -> None:
        self.name = name
        self._every_s = every_s
        self._work = work
        self._changed = threading.Condition()
        self.ran_by: list[str] = []

    def run(self) -> float:
        with self._changed:
            self.ran_by.append(threading.current_thread().name)
            self._changed.notify_all()
        self._work()
        return self._every_s

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ran_by) >= count, 10)


def test_jobs_run_when_due_on_a_thread_that_ends() -> None:
    jobs = Jobs(Poller("p5"))
    often, once = Count("often", 0.02), Count("once", math.inf)
    jobs.add(often)
    jobs.add(once, 0.05)
    often.wait(3)
    once.wait(1)
    assert set(often.ran_by) == {"often"}
    jobs.remove(often)
    assert ended("jobs")
    jobs.hurry(once)
    once.wait(2)
    jobs.remove(once)
    assert ended("p5")
    jobs.hurry(once)
    assert len(once.ran_by) == 2


def test_a_job_that_is_hurried_while_it_runs_runs_once_more() -> None:
    begun, gate = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(10)

    jobs = Jobs(Poller("p6"))
    job = Count("slow", math.inf, hold)
    jobs.add(job)
    assert begun.wait(10)
    jobs.hurry(job)
    gate.set()
    job.wait(2)
    jobs.remove(job)
    assert ended("p6")


def test_promise_10_a_job_that_always_fails_is_tried_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: list[float] = []

    def fail() -> None:
        times.append(time.monotonic())
        raise KeyError("unexpected")

    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    monkeypatch.setattr(threads, "_FIRST_S", 0.05)
    jobs = Jobs(Poller("p7"))
    job = Count("bad", 0.0, fail)
    jobs.add(job)
    job.wait(4)
    jobs.remove(job)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [pause >= least for pause, least in zip(pauses, (0.025, 0.05, 0.1), strict=True)] == [
        True
    ] * 3
