"""When a check is started, and how its summary is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.daemon.checks import job as module
from agent.daemon.checks.job import CheckJob
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.mesh_state import MeshState
from agent.errors import EtcdAuthError, EtcdUnavailable
from agent.mesh.check.result import CheckSummary
from agent.model import HostId, Lease, MeshConfig
from agent.programs import Finished
from agent.settings import Settings
from agent.settings.sections import CheckSettings
from agent.threads import Jobs

pytestmark = pytest.mark.unit

OWN = HostId("1" * 32)
LEASE = Lease(
    subnet=IPv4Network("10.64.0.0/16"), node_address=IPv4Address("192.0.2.1"), backend="host-gw",
    host_id=OWN, ttl_s=60, create_revision=7, etcd_lease_id=9,
)  # fmt: skip
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"), subnet_len=16, subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"), level=2,
)  # fmt: skip
MESH = MeshState(host_id=OWN, own=LEASE, config=CONFIG)
SUMMARY = CheckSummary(host_id=OWN, began_s=1.0)


class Programs:
    """Keeps the commands that were run."""

    def __init__(self) -> None:
        self.run_: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> Finished:
        assert timeout_s <= 10
        self.run_.append(tuple(argv))
        return Finished(0, "")


class Scene:
    """A job with a clock that a test moves, and what it wrote."""

    def __init__(self, mesh: MeshState = MESH, every_s: float = 900.0) -> None:
        self.now_s = 1000.0
        self.programs = Programs()
        check = CheckSettings(every_s=every_s, start_command=("check", "now"))
        self.cell = StateCell(AgentState(mesh=mesh, settings=Settings(check=check)))
        client: Any = None  # publish_check is replaced: tests/netns/ctl/test_check.py has etcd
        self.job = CheckJob(
            self.cell, client, Jobs(), runner=self.programs, clock=lambda: self.now_s
        )
        self.job._due_s = self.now_s

    def after(self, seconds: float) -> float:
        self.now_s += seconds
        return self.job.run()


def test_a_check_is_started_every_quarter_of_an_hour_and_not_in_step_with_others() -> None:
    scene = Scene()
    pauses = [scene.after(0.0)]
    for _ in range(9):
        pauses.append(scene.after(pauses[-1]))
    assert scene.programs.run_ == [("check", "now")] * 10
    assert all(720 <= each <= 1080 for each in pauses)
    assert len(set(pauses)) > 1


@pytest.mark.parametrize(
    "scene",
    [Scene(every_s=0.0), Scene(replace(MESH, own=None)), Scene(replace(MESH, left=True))],
    ids=["switched off", "no lease", "left"],
)
def test_no_check_is_started(scene: Scene) -> None:
    for _ in range(5):
        assert scene.after(1000.0) > 0
    assert scene.programs.run_ == []


def test_a_shorter_pause_takes_effect_on_its_own() -> None:
    scene = Scene(every_s=80_000.0)
    scene.after(0.0)
    settings = replace(scene.cell.now.settings, check=CheckSettings(every_s=10.0))
    scene.cell.now = replace(scene.cell.now, settings=settings)
    assert scene.after(1.0) <= 12


def test_a_summary_is_written_until_etcd_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(every_s=0.0)
    answers: list[Exception | None] = [EtcdUnavailable("away"), None]
    written = []

    def publish(_client: object, _keys: object, summary: CheckSummary, holding: Any) -> None:  # noqa: ANN401
        written.append((summary, holding.etcd_lease_id))
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(module, "publish_check", publish)
    scene.job.keep(SUMMARY)
    assert scene.after(0.0) <= 60
    scene.after(1.0)
    scene.after(1.0)
    assert written == [(SUMMARY, 9)] * 2


def test_an_account_without_the_right_is_a_reason_and_tried_at_the_next_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, tries = Scene(every_s=0.0), []

    def publish(*_: object) -> None:
        tries.append(1)
        raise EtcdAuthError("permission denied")

    monkeypatch.setattr(module, "publish_check", publish)
    scene.job.keep(SUMMARY)
    for _ in range(3):
        scene.after(1.0)
    assert (len(tries), scene.job.problem) == (1, "etcd refuses it: permission denied")


def test_promise_12_nothing_is_published_below_the_level_of_the_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(replace(MESH, config=replace(CONFIG, level=1)), every_s=0.0)
    monkeypatch.setattr(module, "publish_check", lambda *_: pytest.fail("it was written"))
    scene.job.keep(SUMMARY)
    assert scene.after(0.0) > 1
