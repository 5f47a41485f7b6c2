"""Promise 9: nothing degrades silently, and a condition is logged once when it begins and ends."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from agent.daemon.reconcile.kernel_pass import refused
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.errors import DependencyMissing, KernelError
from agent.model import Condition, Severity

pytestmark = pytest.mark.unit

SOURCES = tuple(ConditionSource)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def condition(name: str, cause: str = "because", **more: object) -> Condition:
    return Condition(name=name, cause=cause, hint="do this", **more)  # type: ignore[arg-type]


def test_a_condition_is_logged_when_raised_and_when_cleared_and_not_between() -> None:
    clock = Clock()
    registry = ConditionRegistry(clock)
    with capture_logs() as logs:
        registry.replace(ConditionSource.ETCD, [condition("etcd-unreachable")])
        registry.replace(ConditionSource.ETCD, [condition("etcd-unreachable")])
        clock.now += 7
        registry.replace(ConditionSource.ETCD, [])
    assert [(line["event"], line["condition"]) for line in logs] == [
        ("condition-raised", "etcd-unreachable"),
        ("condition-cleared", "etcd-unreachable"),
    ]
    assert logs[1]["after_s"] == 7


def test_a_condition_with_another_cause_keeps_its_since() -> None:
    clock = Clock()
    registry = ConditionRegistry(clock)
    registry.replace(ConditionSource.ETCD, [condition("etcd-unreachable", "refused")])
    clock.now += 5
    registry.replace(ConditionSource.ETCD, [condition("etcd-unreachable", "timed out")])
    (active,) = registry.all()
    assert active.since_s == 100.0
    assert active.condition.cause == "timed out"


def test_a_reader_of_another_thread_goes_through_a_registry_that_changes() -> None:
    """The control socket's threads read while the loop writes."""
    registry = ConditionRegistry(Clock())
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(len(registry.all()))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(3000):
            registry.replace(SOURCES[number % len(SOURCES)], [condition("x")] * (number % 3 > 0))
        done.set()
        for reader in readers:
            reader.result(20)
    assert seen


def test_sources_do_not_clear_each_other() -> None:
    registry = ConditionRegistry(Clock())
    registry.replace(ConditionSource.ETCD, [condition("a")])
    registry.replace(ConditionSource.DOCKER, [condition("b")])
    registry.replace(ConditionSource.DOCKER, [])
    assert [each.condition.name for each in registry.all()] == ["a"]


def test_two_subjects_of_one_name_stand_side_by_side_and_the_gravest_comes_first() -> None:
    registry = ConditionRegistry(Clock())
    registry.replace(
        ConditionSource.HOST,
        [
            condition("record-set-aside", subject="x"),
            condition("record-set-aside", subject="y"),
            condition("etcd-alarm", severity=Severity.ERROR),
        ],
    )
    assert registry.all()[0].condition.name == "etcd-alarm"
    assert len(registry.all()) == 3


def test_an_iptables_that_is_gone_is_the_firewalls_condition() -> None:
    gone = refused("firewall", DependencyMissing("iptables is not on PATH", hint="install it"))
    assert (gone.name, gone.hint) == ("firewall-refused", "install it")
    assert refused("forwarding", KernelError("no such sysctl")).name == "kernel-refused"
