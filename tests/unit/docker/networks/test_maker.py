"""Networks of records are made in steps, and one that Docker refuses keeps no other waiting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.docker.daemonjson.desired import desired_docker
from agent.docker.engine.engine import Engine
from agent.docker.networks.maker import NetworkMaker
from agent.docker.networks.plan import Wanted
from agent.docker.report import AttachReport
from agent.errors import DockerError
from agent.mesh.networks import DesiredNetwork
from agent.model import DockerFacts, DockerState
from agent.model.family import Network
from tests.unit.docker.engine.fake_docker import BRIDGE, FakeDocker

pytestmark = pytest.mark.unit

NAMES = [f"net{number:02}" for number in range(30)]
REPORT = AttachReport(facts=DockerFacts(reachable=True), state=DockerState.READY)


class ChoosyEngine(Engine):
    """Refuses what a test says, and does the rest."""

    def __init__(self, fake: FakeDocker) -> None:
        super().__init__(fake.path, 1.0)
        self.fake = fake
        self.refused: set[str] = set()

    @property
    def names(self) -> set[str]:
        return {each["Name"] for each in self.fake.answers["/networks"]} - {"bridge"}

    def create_bridge(
        self, name: str, subnet: Network, *, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        self._check(name)
        made: dict[str, Any] = {
            "Id": f"{name:x>64}",
            "Name": name,
            "Driver": "bridge",
            "IPAM": {"Config": [{"Subnet": str(subnet)}]},
            "Options": dict(options),
            "Labels": dict(labels),
        }
        self.fake.answers["/networks"] = [*self.fake.answers["/networks"], made]

    def remove_network(self, identity: str) -> None:
        self._check(identity.lstrip("x"))
        kept = [each for each in self.fake.answers["/networks"] if each["Id"] != identity]
        self.fake.answers["/networks"] = kept

    def _check(self, name: str) -> None:
        if name in self.refused:
            raise DockerError(f"{name} has active endpoints")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ChoosyEngine]:
    fake = FakeDocker(tmp_path / "docker.sock")
    fake.answers["/networks"] = [BRIDGE]
    fake.answers["/containers/json"] = []
    yield ChoosyEngine(fake)
    fake.stop()


def looks(engine: ChoosyEngine, *names: str) -> Iterator[AttachReport]:
    """Look as the worker does, until nothing is to be done soon."""
    maker = NetworkMaker(engine, lambda: True, lambda _: False)
    networks = tuple(DesiredNetwork(name=each, length=24) for each in names)
    docker = desired_docker(IPv4Network("10.64.0.0/16"), None)
    while True:
        report = maker.ensure(Wanted(networks, complete=True), docker, REPORT)
        yield report
        if report.again_in_s is None:
            return


def test_promise_10_networks_that_docker_refuses_keep_no_other_waiting(
    engine: ChoosyEngine,
) -> None:
    engine.refused = set(NAMES[:10])
    last = list(looks(engine, *NAMES))
    assert engine.names == set(), "Docker is left alone for a while where it refuses all"
    assert {each.name for each in last[-1].conditions} == {"network-refused"}

    engine.refused = set(NAMES[:7])
    last = list(looks(engine, *NAMES))
    assert engine.names == set(NAMES[7:])
    assert 1 < len(last) < 10

    engine.refused = set(engine.names)
    list(looks(engine, "other"))
    assert "other" in engine.names, "a removal that is refused keeps no network waiting"
