"""Promise 9: a thread that meets a bug says so, and goes on."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent import threads
from agent.daemon.membership.etcd_endpoint import EndpointAddress, look_up
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import Command, Endpoints
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.thread_errors import ThreadErrors
from agent.etcd.client import EtcdClient
from agent.etcd.discovery import Discovery, Found
from agent.etcd.endpoint_check import EndpointCheck
from agent.kernel.listener import Listener, Listening
from agent.kernel.liveness.prober import Prober
from agent.model import Condition, Severity
from agent.settings import EtcdSettings

pytestmark = pytest.mark.unit


class Reported:
    """Reported conditions, the newest last."""

    def __init__(self) -> None:
        self.conditions: tuple[Condition, ...] = ()
        self._changed = threading.Condition()

    def __call__(self, found: tuple[Condition, ...]) -> None:
        with self._changed:
            self.conditions = found
            self._changed.notify_all()

    def wait(self, count: int = 1) -> tuple[Condition, ...]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.conditions) >= count, 10)
            return self.conditions


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Reported:
    made = Reported()
    monkeypatch.setattr(threading, "excepthook", ThreadErrors(made))
    monkeypatch.setattr(threads, "_FIRST_S", 0.01)
    return made


def fail() -> None:
    raise KeyError("gone")


class Sabotaged:
    """A function that fails the first time, and then does what it is for."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.calls = 0
        self.went_on = threading.Event()

    def __call__(self, *words: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
        self.calls += 1
        if self.calls == 1:
            raise KeyError("unexpected")
        try:
            return self._real(*words, **named)
        finally:
            self.went_on.set()


@dataclass
class Case:
    """A thread of the agent's, and what fails in it."""

    name: str
    start: Callable[[], object]
    stop: Callable[[], object]
    failing: Sabotaged
    poke: Callable[[], object] = lambda: None


def survey() -> Case:
    client = EtcdClient(EtcdSettings(endpoints=("http://192.0.2.1:2379",)))
    made = EndpointCheck(client, lambda _: None, every_s=0.02)
    made._hourly = failing = Sabotaged(made._hourly)  # type: ignore[method-assign]
    return Case("etcd-survey", made.start, made.stop, failing)


def discovery() -> Case:
    failing = Sabotaged(lambda _settings: Found(("http://192.0.2.1:2379",), "x", None, 30.0))
    made = Discovery(EtcdSettings(), lambda _: None, look=failing)
    return Case("discovery", made.start, made.stop, failing)


def resolver() -> Case:
    made = EndpointAddress(("http://name.invalid:2379",), lambda _: None)
    made.look_up = failing = Sabotaged(lambda: False)  # type: ignore[method-assign]
    return Case("resolver", made.start, made.stop, failing)


def prober() -> Case:
    made = Prober(lambda _: None)
    made._follow = failing = Sabotaged(made._follow)  # type: ignore[method-assign]
    return Case("prober", made.start, made.stop, failing)


def listener() -> Case:
    ours, theirs = socket.socketpair()
    failing = Sabotaged(lambda current: current.recv(10))
    made = Listener(
        Listening(
            name="listener", open=lambda: ours, drain=failing, lost=b"lost",
            on_event=lambda _: None, coalesce_s=0.01,
        )
    )  # fmt: skip

    def stop() -> None:
        made.stop()
        theirs.close()

    return Case("listener", made.start, stop, failing, lambda: theirs.send(b"x"))


@pytest.mark.parametrize("make", [survey, discovery, resolver, prober, listener])
def test_promise_9_a_thread_that_meets_a_bug_tells_it_and_goes_on(
    reported: Reported, make: Callable[[], Case]
) -> None:
    case = make()
    with contextlib.ExitStack() as ending:
        ending.callback(case.stop)
        case.start()
        case.poke()
        (condition,) = reported.wait()
        assert (condition.name, condition.subject) == ("agent-thread-failed", case.name)
        assert condition.severity is Severity.ERROR
        assert "KeyError: 'unexpected'" in condition.cause
        assert case.failing.went_on.wait(10)


def test_events_that_a_listener_missed_by_a_bug_count_as_lost(reported: Reported) -> None:
    heard: list[bytes] = []
    came = threading.Event()

    def hear(event: bytes) -> None:
        heard.append(event)
        came.set()

    ours, theirs = socket.socketpair()
    failing = Sabotaged(lambda current: current.recv(10))
    made = Listener(
        Listening(
            name="l", open=lambda: ours, drain=failing, lost=b"lost", on_event=hear, coalesce_s=0.01
        )
    )
    made.start()
    theirs.send(b"x")
    assert came.wait(10)
    made.stop()
    theirs.close()
    assert heard[0] == b"lost"
    assert reported.conditions


def test_a_thread_that_ends_by_a_bug_is_reported_too(reported: Reported) -> None:
    thread = threading.Thread(target=fail, name="short")
    with capture_logs() as logs:
        thread.start()
        thread.join()
    assert [each.subject for each in reported.conditions] == ["short"]
    assert [(line["event"], line["thread"]) for line in logs] == [("thread-failed", "short")]


def test_promise_10_errors_are_few_however_many_threads_fail(reported: Reported) -> None:
    with capture_logs():
        for number in (*range(20), 19):
            thread = threading.Thread(target=fail, name=f"t{number}")
            thread.start()
            thread.join()
    assert len(reported.conditions) == 8
    assert "(2 times)" in reported.conditions[-1].cause


def test_a_name_that_no_name_can_be_is_no_address_and_no_end() -> None:
    assert look_up(("http://etcd..example:2379",)) == Endpoints()


def test_an_exception_of_a_command_goes_to_its_caller() -> None:
    command = Command[None](lambda _apply: fail())
    command.execute(lambda _event: None)
    with pytest.raises(KeyError):
        command.wait(1)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_conditions_can_be_read_while_a_new_source_speaks(hasty: None) -> None:
    del hasty
    registries = [ConditionRegistry(time.monotonic)]
    stopping = threading.Event()

    def speak() -> None:
        while not stopping.is_set():
            registries[0] = ConditionRegistry(time.monotonic)
            for source in ConditionSource:
                registries[0].replace(source, ())

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            registries[0].all()
    finally:
        stopping.set()
        thread.join()
