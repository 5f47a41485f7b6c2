"""The worker: no caller waits for Docker, changes coalesce, errors do not end the thread."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import cast

import pytest

from agent.docker.attach.daemon_json import DaemonJsonAttacher
from agent.docker.attach.detach import Detacher, DetachTerms
from agent.docker.attach.network import NetworkAttacher
from agent.docker.daemonjson.desired import DesiredDocker, desired_docker
from agent.docker.engine.engine import Engine
from agent.docker.manager import DockerManager
from agent.docker.report import AttachReport, DetachReport
from agent.docker.service.restart_policy import Override
from agent.docker.worker import Attacher, DockerWorker
from agent.errors import DockerError, Refused
from agent.model import DockerFacts, DockerState
from agent.settings import DockerAttach, DockerSettings
from tests.unit.docker.engine.fake_docker import FakeDocker
from tests.waiting import eventually

pytestmark = pytest.mark.unit

_ATTACHES: tuple[DockerAttach, ...] = ("daemon", "network")
DESIRED = desired_docker(IPv4Network("10.64.0.0/16"), 1500)
FACTS = DockerFacts(reachable=True)
READY = AttachReport(state=DockerState.READY, facts=FACTS)


class Stub:
    """An attacher and a detacher that note what was asked of them."""

    def __init__(self) -> None:
        self.ensured: list[DesiredDocker] = []
        self.before: Callable[[], object] = lambda: None
        self.again_in_s: float | None = None

    def ensure(
        self, desired: DesiredDocker, override: Override = Override.NONE, *, replace: bool = False
    ) -> AttachReport:
        del replace
        if override is Override.POLICY:
            raise Refused("web runs on this Docker")
        self.ensured.append(desired)
        self.before()
        return dataclasses.replace(READY, again_in_s=self.again_in_s)

    def detach(self, terms: DetachTerms) -> DetachReport:
        return DetachReport(done=(f"{terms.asked} {terms.force}",), todo=(), facts=FACTS)


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def reports() -> list[AttachReport]:
    return []


@pytest.fixture
def worker(stub: Stub, reports: list[AttachReport]) -> Iterator[DockerWorker]:
    made = DockerWorker(
        cast("Attacher", stub),
        cast("Detacher", stub),
        Engine(Path("/nowhere/docker.sock")),
        reports.append,
        stopping=threading.Event(),
    )
    made.start()
    yield made
    assert made.stop(5.0)


def test_promise_10_changes_coalesce(worker: DockerWorker, stub: Stub) -> None:
    go_on = threading.Event()
    stub.before = lambda: go_on.wait(5)
    worker.set_desired(DESIRED)
    eventually(lambda: len(stub.ensured) == 1)
    for third in range(65, 100):
        worker.set_desired(desired_docker(IPv4Network(f"10.{third}.0.0/16"), 1500))
    go_on.set()
    eventually(lambda: len(stub.ensured) == 2)
    assert str(stub.ensured[-1].subnet) == "10.99.0.0/16"


def test_the_same_again_changes_nothing(
    worker: DockerWorker, stub: Stub, reports: list[AttachReport]
) -> None:
    worker.set_desired(DESIRED)
    eventually(lambda: reports[-1:] == [READY])
    for _ in range(20):
        worker.set_desired(DESIRED)
    time.sleep(0.3)
    assert len(stub.ensured) == 1


def test_what_is_wanted_is_done_at_once(
    worker: DockerWorker, stub: Stub, reports: list[AttachReport]
) -> None:
    eventually(lambda: bool(reports))
    started_s = time.monotonic()
    worker.set_desired(DESIRED)
    eventually(lambda: bool(stub.ensured))
    assert time.monotonic() - started_s < 0.3


def test_promise_10_a_storm_of_events_is_two_looks_a_second(
    worker: DockerWorker, stub: Stub
) -> None:
    worker.set_desired(DESIRED)
    eventually(lambda: len(stub.ensured) == 1)
    until_s = time.monotonic() + 1.5
    while time.monotonic() < until_s:
        worker.look()
        time.sleep(0.001)
    assert 2 <= len(stub.ensured) <= 5


def test_a_restart_that_waits_for_the_lock_is_looked_at_again_soon(
    worker: DockerWorker, stub: Stub
) -> None:
    stub.again_in_s = 0.05
    worker.set_desired(DESIRED)
    eventually(lambda: len(stub.ensured) >= 3)


def test_the_settings_name_the_way_of_attaching(tmp_path: Path) -> None:
    managers = [
        DockerManager(
            DockerSettings(attach=attach, docker0_share="eighth", network_len=20), tmp_path
        )
        for attach in _ATTACHES
    ]
    assert [type(each.attacher) for each in managers] == [DaemonJsonAttacher, NetworkAttacher]
    desired = managers[0].desired_for(IPv4Network("10.64.0.0/16"), 1400)
    assert (str(desired.bip), desired.mtu) == ("10.64.0.1/19", 1400)
    assert {size for _, size in desired.pools} == {20}


def test_calls_are_done_in_the_workers_thread(worker: DockerWorker) -> None:
    report = worker.detach(DetachTerms(asked=False, force=True), timeout_s=5)
    assert report.done == ("False True",)
    with pytest.raises(DockerError, match="has no subnet"):
        worker.restart_now(force=True, timeout_s=5)
    worker.set_desired(DESIRED)
    assert worker.restart_now(force=True, timeout_s=5) == READY
    with pytest.raises(Refused, match="web runs"):
        worker.restart_now(force=False, timeout_s=5)


def test_after_detaching_docker_is_only_looked_at(
    worker: DockerWorker, stub: Stub, reports: list[AttachReport]
) -> None:
    worker.set_desired(DESIRED)
    eventually(lambda: len(stub.ensured) == 1)
    worker.detach(DetachTerms(), timeout_s=5)
    eventually(lambda: reports[-1].state is DockerState.ABSENT)
    assert len(stub.ensured) == 1


def test_a_bug_does_not_end_the_thread(
    worker: DockerWorker, stub: Stub, reports: list[AttachReport]
) -> None:
    def fail() -> None:
        stub.before = lambda: None
        raise RuntimeError("a bug")

    stub.before = fail
    worker.set_desired(DESIRED)
    eventually(lambda: len(stub.ensured) == 1)
    worker.look()
    eventually(lambda: reports[-1:] == [READY])


def test_promise_10_a_busy_worker_answers_within_the_deadline(
    worker: DockerWorker, stub: Stub
) -> None:
    go_on = threading.Event()
    stub.before = lambda: go_on.wait(5)
    worker.set_desired(DESIRED)
    eventually(lambda: len(stub.ensured) == 1)
    with pytest.raises(DockerError, match="busy"):
        worker.detach(DetachTerms(), timeout_s=0.2)
    go_on.set()


def test_promise_10_stop_does_not_wait_for_the_timer(
    worker: DockerWorker, reports: list[AttachReport]
) -> None:
    eventually(lambda: bool(reports))
    started_s = time.monotonic()
    assert worker.stop(5.0)
    assert time.monotonic() - started_s < 1.0


def test_an_event_of_the_engine_is_a_look(
    stub: Stub, reports: list[AttachReport], tmp_path: Path
) -> None:
    fake = FakeDocker(tmp_path / "docker.sock")
    made = DockerWorker(
        cast("Attacher", stub),
        cast("Detacher", stub),
        Engine(fake.path, 1.0),
        reports.append,
        stopping=threading.Event(),
    )
    made.start()
    try:
        eventually(lambda: len(reports) == 1)
        fake.say("container", "start", "web")
        eventually(lambda: len(reports) == 2)
        fake.stop()
        fake.cut()
        eventually(lambda: len(reports) == 3)
    finally:
        assert made.stop(5.0)
