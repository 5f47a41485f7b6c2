"""The follower of containers: at once, bounded, complete, and nothing lost while Docker hangs."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from agent.docker.endpoints.follower import EndpointFollower
from agent.docker.endpoints.publishable import EndpointTerms
from agent.docker.engine.engine import Engine
from agent.docker.engine.watcher import EngineWatcher
from agent.model import Access, Condition, HostId
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint, Health
from agent.threads import Jobs, Poller
from tests.unit.docker.engine.fake_docker import APP, BRIDGE, FakeDocker
from tests.waiting import eventually

pytestmark = pytest.mark.unit

TERMS = EndpointTerms(host_id=HostId("a" * 32), subnets=(IPv4Network("10.64.0.0/16"),))
SHOP = {
    **APP,
    "Id": "d" * 64,
    "Name": "shop",
    "Internal": False,
    "IPAM": {"Config": [{"Subnet": "10.64.130.0/24"}]},
    "Labels": {"hostmesh.network": "shop", "hostmesh.access": "closed"},
}
OUTSIDE = {
    **SHOP,
    "Id": "e" * 64,
    "Name": "outside",
    "IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}]},
}
FIRST = {"bridge": "10.64.0", "shop": "10.64.130", "app": "10.64.129", "outside": "172.20.0"}
IDS = {"bridge": "b" * 64, "shop": "d" * 64, "app": "a" * 64, "outside": "e" * 64}


class Host:
    """A host's Docker with its containers, and what a follower says of them."""

    def __init__(self, fake: FakeDocker) -> None:
        self.fake = fake
        self.running: dict[str, dict[str, Any]] = {}
        self.said: list[tuple[tuple[Endpoint, ...], tuple[Condition, ...]]] = []
        self.times_s: list[float] = []
        self.changed = threading.Condition()
        fake.answers["/networks"] = [BRIDGE, APP, SHOP, OUTSIDE]
        self._publish()

    def on_endpoints(self, found: tuple[Endpoint, ...], conditions: tuple[Condition, ...]) -> None:
        with self.changed:
            self.said.append((found, conditions))
            self.times_s.append(time.monotonic())
            self.changed.notify_all()

    @property
    def names(self) -> list[str]:
        return sorted(each.name for each in self.said[-1][0]) if self.said else ["nothing said"]

    @property
    def conditions(self) -> set[str]:
        return {each.name for each in self.said[-1][1]}

    def wait(self, *names: str, timeout_s: float = 10.0) -> None:
        with self.changed:
            found = self.changed.wait_for(lambda: self.names == sorted(names), timeout_s)
        assert found, self.names

    def run(
        self,
        number: int,
        name: str = "",
        *,
        say: bool = True,
        networks: Mapping[str, Sequence[str]] = MappingProxyType({"bridge": ()}),
        health: str | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        identity = f"{number:064x}"
        places = {
            network: {
                "NetworkID": IDS[network],
                "IPAddress": f"{FIRST[network]}.{number % 250 + 2}",
                "Aliases": [*aliases, identity[:12]],
            }
            for network, aliases in networks.items()
        }
        self.running[identity] = {
            "Id": identity,
            "Name": f"/{name or f'c{number}'}",
            "State": {"Running": True, "Health": {"Status": health}},
            "Config": {"Labels": dict(labels)},
            "NetworkSettings": {"Networks": places},
        }
        self._publish()
        if say:
            self.fake.say("container", "start", name, identity)
        return identity

    def end(self, identity: str, say: bool = True) -> None:
        del self.running[identity]
        self._publish()
        if say:
            self.fake.say("container", "die", "", identity)

    def _publish(self) -> None:
        """Swap all answers at once: an inspection may be under way."""
        answers = self.fake.answers
        kept = {path: answers[path] for path in answers if not path.startswith("/containers/")}
        inspections = {f"/containers/{i}/json": each for i, each in self.running.items()}
        listed = [
            {
                "Id": identity,
                "Names": [each["Name"]],
                "Created": int(identity, 16),
                "Status": f"Up 1 second ({each['State']['Health']['Status']})",
                "NetworkSettings": each["NetworkSettings"],
            }
            for identity, each in self.running.items()
        ]
        self.fake.answers = {**kept, **inspections, "/containers/json": listed}

    def calls(self, path: str) -> int:
        return sum(each == path for each in self.fake.paths)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDocker]:
    server = FakeDocker(tmp_path / "docker.sock")
    yield server
    server.stop()


@pytest.fixture
def host(fake: FakeDocker) -> Host:
    return Host(fake)


@pytest.fixture
def follower(host: Host) -> Iterator[EndpointFollower]:
    poller = Poller("test")
    engine = Engine(host.fake.path, 0.5)
    made = EndpointFollower(engine, host.on_endpoints, boot_id="boot", jobs=Jobs(poller))
    watcher = EngineWatcher(engine, made.notice, poller=poller)
    made.start()
    watcher.start()
    watcher.follow()
    yield made
    watcher.stop()
    made.stop()


def test_an_endpoint_has_all_that_other_hosts_need(host: Host, follower: EndpointFollower) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    networks = {"shop": ("web", "api"), "bridge": (), "app": (), "outside": ()}
    host.run(7, "shop-web-1", networks=networks, health="healthy", labels=labels)
    follower.set_terms(TERMS)
    host.wait("shop-web-1")
    (found,) = host.said[-1][0]
    assert (found.host_id, found.boot_id, found.container_id) == ("a" * 32, "boot", f"{7:064x}")
    assert (found.project, found.service, found.health) == ("shop", "web", Health.HEALTHY)
    first, second = found.addresses  # none in an internal network, nor outside the lease
    assert (first.network, str(first.address), first.access) == ("bridge", "10.64.0.9", Access.OPEN)
    assert (second.network, second.mesh_network, second.access, second.aliases) == (
        "shop",
        "shop",
        Access.CLOSED,
        ("api", "web"),
    )


def test_starts_and_ends_are_said_at_once(host: Host, follower: EndpointFollower) -> None:
    follower.set_terms(TERMS)
    host.wait()
    for number in range(1, 6):
        began_s = time.monotonic()
        identity = host.run(number)
        host.wait(f"c{number}")
        started_s = time.monotonic() - began_s
        host.end(identity)
        host.wait()
        assert started_s < 0.5
    assert host.calls("/containers/json") == 1, "no list for what an event says"


def test_an_end_costs_no_question(host: Host, follower: EndpointFollower) -> None:
    identity = host.run(1, say=False)
    follower.set_terms(TERMS)
    host.wait("c1")
    asked = len(host.fake.paths)
    host.end(identity)
    host.wait()
    assert len(host.fake.paths) == asked


def test_networks_that_a_container_leaves_and_joins(host: Host, follower: EndpointFollower) -> None:
    identity = host.run(1, networks={"bridge": (), "shop": ()}, say=False)
    follower.set_terms(TERMS)
    host.wait("c1")
    host.fake.say("network", "disconnect", "shop", IDS["shop"], container=identity)
    eventually(lambda: [each.network for each in host.said[-1][0][0].addresses] == ["bridge"])
    host.fake.say("network", "connect", "shop", IDS["shop"], container=identity)
    eventually(lambda: len(host.said[-1][0][0].addresses) == 2)
    host.run(1, "other", networks={"bridge": (), "shop": ()}, say=False)
    host.fake.say("container", "rename", "other", identity)
    host.wait("other")
    host.run(1, "other", health="unhealthy", say=False)
    host.fake.say("container", "health_status: unhealthy", "other", identity)
    eventually(lambda: host.said[-1][0][0].health is Health.UNHEALTHY)


def test_a_container_joins_its_first_routable_network(
    host: Host, follower: EndpointFollower
) -> None:
    identity = host.run(1, networks={"outside": ()}, say=False)
    follower.set_terms(TERMS)
    host.wait()
    host.run(1, networks={"outside": (), "shop": ()}, say=False)
    host.fake.say("network", "connect", "shop", IDS["shop"], container=identity)
    host.wait("c1")


def test_a_network_that_was_just_made(host: Host, follower: EndpointFollower) -> None:
    host.fake.answers["/networks"] = [BRIDGE]
    follower.set_terms(TERMS)
    host.wait()
    host.fake.answers["/networks"] = [BRIDGE, SHOP]
    host.run(1, networks={"shop": ()})
    host.wait("c1")


def test_promise_10_a_burst_costs_bounded_questions_and_calls(
    host: Host, follower: EndpointFollower
) -> None:
    follower.set_terms(TERMS)
    host.wait()
    asked, began_s = len(host.fake.paths), time.monotonic()
    numbers = range(1, 301)
    for number in numbers:
        host.run(number)
    host.wait(*(f"c{number}" for number in numbers), timeout_s=60)
    took_s = time.monotonic() - began_s
    assert len(host.said) - 1 <= 4 + 5 * took_s
    assert len(host.fake.paths) - asked <= 300


def test_promise_10_a_container_that_starts_again_and_again(
    host: Host, follower: EndpointFollower
) -> None:
    follower.set_terms(TERMS)
    host.wait()
    began_s = time.monotonic()
    for _ in range(300):
        identity = host.run(1)
        host.fake.say("container", "die", "", identity)
    host.run(1)
    host.run(2)
    host.wait("c1", "c2")
    took_s = time.monotonic() - began_s
    assert len(host.fake.paths) < 10 + 6 * took_s


def test_events_that_were_lost_are_made_up_for(host: Host, follower: EndpointFollower) -> None:
    gone = host.run(1, say=False)
    host.run(2, say=False)
    follower.set_terms(TERMS)
    host.wait("c1", "c2")
    host.end(gone, say=False)
    host.run(2, "renamed", say=False)
    host.run(3, say=False)
    follower.check()
    host.wait("renamed", "c3")
    inspected = [each for each in host.fake.paths if each.endswith("/json") and "0" in each]
    follower.check()
    eventually(lambda: host.calls("/containers/json") == 3)
    host.run(4)
    host.wait("renamed", "c3", "c4")
    again = [each for each in host.fake.paths if each.endswith("/json") and "0" in each]
    assert len(again) == len(inspected) + 1, "containers that agree are not inspected"


def test_promise_3_the_last_known_stay_while_docker_does_not_answer(
    host: Host, follower: EndpointFollower
) -> None:
    host.run(1, say=False)
    follower.set_terms(TERMS)
    host.wait("c1")
    said = len(host.said)
    host.fake.delay_s = 5.0
    host.fake.answers["/containers/json"] = b"nonsense"
    follower.check()
    eventually(lambda: len(host.fake.paths) > 3, 20)
    host.fake.delay_s = 0.0
    eventually(lambda: host.calls("/containers/json") >= 2)
    assert (len(host.said), host.names) == (said, ["c1"])
    host.run(2, say=False)
    host.wait("c1", "c2")


def test_a_container_that_hangs_holds_up_no_other(host: Host, follower: EndpointFollower) -> None:
    follower.set_terms(TERMS)
    host.wait()
    host.fake.delays_s[f"/containers/{1:064x}/json"] = 30.0
    host.run(1, say=False)
    host.run(2, say=False)
    follower.check()
    host.wait("c2")
    host.fake.delays_s.clear()
    host.wait("c1", "c2")


def test_nothing_is_said_before_all_is_known(host: Host, follower: EndpointFollower) -> None:
    """A publisher deletes what is not there."""
    host.fake.answers["/networks"] = [7]
    host.run(1, say=False)
    follower.set_terms(TERMS)
    eventually(lambda: host.calls("/networks") > 1)
    assert host.said == []
    for number in range(2, 200):
        host.run(number, say=False)
    host.fake.answers["/networks"] = [BRIDGE, SHOP]
    eventually(lambda: bool(host.said), 30)
    assert len(host.said[0][0]) == 199


def test_one_of_the_first_that_ends_before_it_is_inspected_holds_up_no_other(
    host: Host, follower: EndpointFollower
) -> None:
    for number in range(1, 200):  # more than one step inspects
        host.run(number, say=False)
    host.fake.delays_s[f"/containers/{1:064x}/json"] = 0.4
    follower.set_terms(TERMS)
    eventually(lambda: host.calls(f"/containers/{1:064x}/json") > 0)
    assert host.said == []
    host.end(f"{199:064x}")
    host.wait(*(f"c{number}" for number in range(1, 199)))


def test_other_terms_and_none(host: Host, follower: EndpointFollower) -> None:
    host.run(1, networks={"bridge": ()}, say=False)
    host.run(2, networks={"outside": ()}, say=False)
    follower.set_terms(TERMS)
    host.wait("c1")
    follower.set_terms(EndpointTerms(host_id=HostId("a"), subnets=(IPv4Network("172.20.0.0/16"),)))
    host.wait("c2")
    follower.set_terms(None)
    host.wait()
    host.run(3)
    follower.set_terms(TERMS)
    host.wait("c1", "c3")


def test_promise_10_at_most_2000_are_shown_the_oldest(
    host: Host, follower: EndpointFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ENDPOINTS_MOST == 2_000
    monkeypatch.setattr("agent.docker.endpoints.follower.ENDPOINTS_MOST", 3)
    ids = [host.run(number, say=False) for number in range(1, 6)]
    follower.set_terms(TERMS)
    host.wait("c1", "c2", "c3")
    assert host.conditions == {"endpoints-too-many"}
    host.run(6)
    host.end(ids[0])
    host.wait("c2", "c3", "c4")
    host.end(ids[1])
    host.end(ids[2])
    host.wait("c4", "c5", "c6")
    assert host.conditions == set()


def test_names_that_others_could_not_read_are_left_out(
    host: Host, follower: EndpointFollower
) -> None:
    host.run(1, "n" * 200, networks={"shop": ("a b", "x" * 300, "ok")}, say=False)
    follower.set_terms(TERMS)
    host.wait(f"{1:064x}"[:12])
    assert host.said[-1][0][0].addresses[0].aliases == ("ok",)
    assert host.conditions == {"endpoint-names-left-out"}
