"""The worker: nobody waits for Docker, wants coalesce, trouble does not end the thread."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import cast

import pytest

from agent.docker.assembly import DockerRoom
from agent.docker.attach.daemon import Configurator
from agent.docker.attach.give_back import GiveBack, GiveBackTerms
from agent.docker.attach.network import NetworkAttacher
from agent.docker.attach.wants import DockerWants, wants_of
from agent.docker.engine.engine import Engine
from agent.docker.report import ConfiguratorReport, RestoreReport
from agent.docker.worker import Attacher, DockerWorker
from agent.errors import DockerError, Refused
from agent.model import DockerFacts, DockerState
from agent.settings import DockerAttach, DockerSettings
from tests.unit.docker.engine.fake_docker import FakeDocker

pytestmark = pytest.mark.unit

_ATTACHES: tuple[DockerAttach, ...] = ("daemon", "network")
WANTS = wants_of(IPv4Network("10.64.0.0/16"), 1500)
FACTS = DockerFacts(reachable=True)
READY = ConfiguratorReport(state=DockerState.READY, facts=FACTS)
SEEN = ConfiguratorReport(state=DockerState.PENDING, facts=FACTS)


class Stub:
    """A configurator and a give-back that note what was asked of them, and when."""

    def __init__(self) -> None:
        self.ensured: list[DockerWants] = []
        self.looks: list[float] = []
        self.before: Callable[[], object] = lambda: None
        self.again_in_s: float | None = None

    def ensure(self, wants: DockerWants) -> ConfiguratorReport:
        self.looks.append(time.monotonic())
        self.ensured.append(wants)
        self.before()
        return replace(READY, again_in_s=self.again_in_s)

    def observe(self) -> ConfiguratorReport:
        self.looks.append(time.monotonic())
        return SEEN

    def restart_now(
        self, wants: DockerWants, *, force: bool, replace: bool = False
    ) -> ConfiguratorReport:
        del replace
        if not force:
            raise Refused("web runs on this Docker")
        return self.ensure(wants)

    def restore(self, terms: GiveBackTerms) -> RestoreReport:
        return RestoreReport(done=(f"{terms.asked} {terms.force}",), todo=(), facts=FACTS)


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def reports() -> list[ConfiguratorReport]:
    return []


@pytest.fixture
def worker(stub: Stub, reports: list[ConfiguratorReport]) -> Iterator[DockerWorker]:
    made = DockerWorker(
        cast("Attacher", stub),
        cast("GiveBack", stub),
        Engine(Path("/nowhere/docker.sock")),
        reports.append,
        stopping=threading.Event(),
    )
    made.start()
    yield made
    assert made.stop(5.0)


def eventually(check: Callable[[], bool]) -> None:
    for _ in range(500):
        if check():
            return
        time.sleep(0.01)
    pytest.fail("it did not come")


def test_promise_10_wants_coalesce(worker: DockerWorker, stub: Stub) -> None:
    go_on = threading.Event()
    stub.before = lambda: go_on.wait(5)
    worker.want(WANTS)
    eventually(lambda: len(stub.ensured) == 1)
    for third in range(65, 100):
        worker.want(wants_of(IPv4Network(f"10.{third}.0.0/16"), 1500))
    go_on.set()
    eventually(lambda: len(stub.ensured) == 2)
    assert str(stub.ensured[-1].subnet) == "10.99.0.0/16"


def test_the_same_again_is_no_news(
    worker: DockerWorker, stub: Stub, reports: list[ConfiguratorReport]
) -> None:
    worker.want(WANTS)
    eventually(lambda: reports[-1:] == [READY])
    for _ in range(20):
        worker.want(WANTS)
    time.sleep(0.3)
    assert len(stub.ensured) == 1


def test_what_is_wanted_is_done_at_once(worker: DockerWorker, stub: Stub) -> None:
    eventually(lambda: bool(stub.looks))
    started_s = time.monotonic()
    worker.want(WANTS)
    eventually(lambda: bool(stub.ensured))
    assert time.monotonic() - started_s < 0.3


def test_promise_10_a_storm_of_events_is_two_looks_a_second(
    worker: DockerWorker, stub: Stub
) -> None:
    worker.want(WANTS)
    eventually(lambda: len(stub.ensured) == 1)
    until_s = time.monotonic() + 1.5
    while time.monotonic() < until_s:
        worker.look()
        time.sleep(0.001)
    assert 2 <= len(stub.ensured) <= 5


def test_a_restart_that_waits_for_its_turn_is_looked_at_again_soon(
    worker: DockerWorker, stub: Stub
) -> None:
    stub.again_in_s = 0.05
    worker.want(WANTS)
    eventually(lambda: len(stub.ensured) >= 3)


def test_the_room_follows_its_settings(tmp_path: Path) -> None:
    rooms = [
        DockerRoom.of(
            DockerSettings(attach=attach, docker0_share="eighth", network_len=20), tmp_path
        )
        for attach in _ATTACHES
    ]
    assert [type(room.attacher) for room in rooms] == [Configurator, NetworkAttacher]
    wants = rooms[0].wants_of(IPv4Network("10.64.0.0/16"), 1400)
    assert (str(wants.bip), wants.mtu) == ("10.64.0.1/19", 1400)
    assert {size for _, size in wants.pools} == {20}


def test_orders_are_carried_out_in_the_workers_thread(worker: DockerWorker) -> None:
    report = worker.restore(GiveBackTerms(asked=False, force=True), timeout_s=5)
    assert report.done == ("False True",)
    with pytest.raises(DockerError, match="has no subnet"):
        worker.restart_now(force=True, timeout_s=5)
    worker.want(WANTS)
    assert worker.restart_now(force=True, timeout_s=5) == READY
    with pytest.raises(Refused, match="web runs"):
        worker.restart_now(force=False, timeout_s=5)


def test_after_a_restore_docker_is_only_looked_at(
    worker: DockerWorker, stub: Stub, reports: list[ConfiguratorReport]
) -> None:
    worker.want(WANTS)
    eventually(lambda: len(stub.ensured) == 1)
    worker.restore(GiveBackTerms(), timeout_s=5)
    eventually(lambda: reports[-1:] == [SEEN])
    assert len(stub.ensured) == 1


def test_a_bug_does_not_end_the_thread(
    worker: DockerWorker, stub: Stub, reports: list[ConfiguratorReport]
) -> None:
    def fail() -> None:
        stub.before = lambda: None
        raise RuntimeError("a bug")

    stub.before = fail
    worker.want(WANTS)
    eventually(lambda: len(stub.ensured) == 1)
    worker.look()
    eventually(lambda: reports[-1:] == [READY])


def test_promise_10_a_busy_worker_answers_within_the_deadline(
    worker: DockerWorker, stub: Stub
) -> None:
    go_on = threading.Event()
    stub.before = lambda: go_on.wait(5)
    worker.want(WANTS)
    eventually(lambda: len(stub.ensured) == 1)
    with pytest.raises(DockerError, match="busy"):
        worker.restore(GiveBackTerms(), timeout_s=0.2)
    go_on.set()


def test_promise_10_stop_does_not_wait_for_the_timer(worker: DockerWorker, stub: Stub) -> None:
    eventually(lambda: bool(stub.looks))
    started_s = time.monotonic()
    assert worker.stop(5.0)
    assert time.monotonic() - started_s < 1.0


def test_an_event_of_the_engine_is_a_look(stub: Stub, tmp_path: Path) -> None:
    fake = FakeDocker(tmp_path / "docker.sock")
    made = DockerWorker(
        cast("Attacher", stub),
        cast("GiveBack", stub),
        Engine(fake.path, 1.0),
        lambda _report: None,
        stopping=threading.Event(),
    )
    made.start()
    try:
        eventually(lambda: len(stub.looks) == 1)
        fake.say("container", "start", "web")
        eventually(lambda: len(stub.looks) == 2)
        fake.stop()
        fake.cut()
        eventually(lambda: len(stub.looks) == 3)
    finally:
        assert made.stop(5.0)
