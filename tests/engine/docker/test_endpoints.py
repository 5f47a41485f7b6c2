"""The follower of containers on real dockerds (26.1, 20.10 and 28.5), at the host's socket."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ipaddress import IPv4Network

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

from agent.docker.endpoints.follower import EndpointFollower
from agent.docker.endpoints.publishable import EndpointTerms
from agent.docker.engine.engine import Engine
from agent.docker.engine.watcher import EngineWatcher
from agent.model import Access, Condition, HostId
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.threads import Jobs, Poller

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

REST_S = 0.6
"""After that long three steps of the follower are free again."""
LEASE = IPv4Network("172.16.0.0/12")
"""Where an engine without settings has its networks."""

TERMS = EndpointTerms(host_id=HostId("a" * 32), subnets=(LEASE,))


class Followed:
    """A host whose containers are followed, with all that was said of them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.said: list[tuple[float, tuple[Endpoint, ...]]] = []
        self.changed = threading.Condition()
        self.poller = Poller("endpoints-test")
        self.asked = 0
        self.engine = Engine(host.path("/run/docker.sock"), 2.0)
        self.follower = EndpointFollower(
            self.engine, self._say, boot_id="boot", jobs=Jobs(self.poller)
        )
        self.watcher = EngineWatcher(self.engine, self.follower.notice, poller=self.poller)

    def _say(self, endpoints: tuple[Endpoint, ...], conditions: tuple[Condition, ...]) -> None:
        del conditions
        with self.changed:
            self.said.append((time.time(), endpoints))
            self.changed.notify_all()

    def start(self) -> None:
        self.follower.start()
        self.watcher.start()
        self.watcher.follow()
        self.follower.set_terms(TERMS)

    def stop(self) -> None:
        self.watcher.stop()
        self.follower.stop()

    def reconnect(self) -> None:
        """Open the stream again, as the worker does."""
        self.watcher.follow()
        self.follower.check()

    def wait(self, look: Callable[[tuple[Endpoint, ...]], object], timeout_s: float = 30) -> None:
        with self.changed:
            found = self.changed.wait_for(lambda: self.said and look(self.said[-1][1]), timeout_s)
            assert found, self.said[-1:]

    def wait_names(self, *names: str, timeout_s: float = 30) -> None:
        self.wait(lambda found: sorted(each.name for each in found) == sorted(names), timeout_s)

    def known_since_s(self, name: str) -> float:
        """Return the Unix time at which a container was first said to run."""
        self.wait_names(name)
        return next(at for at, found in self.said if any(each.name == name for each in found))

    def one(self) -> Endpoint:
        (found,) = self.said[-1][1]
        return found

    def place(self, network: str) -> EndpointAddress | None:
        return next((each for each in self.one().addresses if each.network == network), None)


@pytest.fixture(scope="module", params=["forky", "trixie", "bookworm"])
def machine(
    request: pytest.FixtureRequest,
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]],
) -> Iterator[Host]:
    options = LabOptions(
        name="dockernet",
        hosts=1,
        suite=request.param,
        etcd_members=0,
        host=HostOptions(agent=False),
    )
    with make_lab(options) as lab:
        yield lab.hosts["host1"]


@pytest.fixture
def followed(machine: Host) -> Iterator[Followed]:
    machine.run(["sh", "-c", "docker ps -aq | xargs -r docker rm -f"])
    machine.docker("network", "prune", "-f")
    made = Followed(machine)
    made.start()
    made.wait_names()
    yield made
    made.stop()


def test_a_container_as_others_need_it_from_its_start_to_its_end(followed: Followed) -> None:
    host = followed.host
    labels = ["com.docker.compose.project=shop", "com.docker.compose.service=web"]
    host.docker("network", "create", "--label", "hostmesh.network=shop", "shop_net")
    host.docker("network", "create", "--internal", "hidden")
    host.start_container(
        "shop-web-1",
        network="shop_net",
        options=[
            *(f"--label={each}" for each in labels),
            "--network-alias=api",
            "--health-cmd=test -e /healthy",
            "--health-interval=1s",
            "--health-retries=1",
        ],
    )
    followed.wait_names("shop-web-1")
    found = followed.one()
    assert (found.project, found.service, found.health) == ("shop", "web", Health.STARTING)
    assert found.container_id == host.inspect("shop-web-1")["Id"]
    place = followed.place("shop_net")
    assert place is not None
    assert place.address == host.container_address("shop-web-1", "shop_net")
    assert (place.mesh_network, place.aliases, place.access) == ("shop", ("api",), Access.PUBLISHED)
    host.docker("exec", "shop-web-1", "touch", "/healthy")
    followed.wait(lambda found: found and found[0].health is Health.HEALTHY)
    host.docker("network", "connect", "bridge", "shop-web-1")
    host.docker("network", "connect", "hidden", "shop-web-1")
    followed.wait(lambda found: found and len(found[0].addresses) == 2)
    assert [each.network for each in followed.one().addresses] == ["bridge", "shop_net"]
    host.docker("network", "disconnect", "shop_net", "shop-web-1")
    followed.wait(lambda found: found and len(found[0].addresses) == 1)
    host.docker("rename", "shop-web-1", "other")
    followed.wait_names("other")
    host.docker("stop", "-t0", "other")
    followed.wait_names()
    host.docker("start", "other")
    followed.wait_names("other")
    host.docker("rm", "-f", "other")
    followed.wait_names()


def test_a_container_without_a_routable_network_joins_one(followed: Followed) -> None:
    host = followed.host
    host.docker("network", "create", "--internal", "hidden")
    host.docker("network", "create", "net")
    host.start_container("late", network="hidden")
    host.start_container("first", network="net")
    followed.wait_names("first")
    host.docker("network", "connect", "net", "late")
    followed.wait_names("first", "late")


def test_promise_3_a_dockerd_that_is_frozen_or_restarts_with_live_restore(
    followed: Followed,
) -> None:
    host = followed.host
    host.write_file("/etc/docker/daemon.json", '{"live-restore": true}')
    try:
        host.service("restart", "docker")
        followed.reconnect()
        host.start_container("stays")
        followed.wait_names("stays")
        said = len(followed.said)
        host.service("signal", "docker", number=int(signal.SIGSTOP))
        try:
            followed.follower.check()
            assert followed.watcher.follow(), "that it does not answer is news"
        finally:
            host.service("signal", "docker", number=int(signal.SIGCONT))
        host.service("restart", "docker")
        followed.reconnect()
        host.start_container("new")
        followed.wait_names("new", "stays")
        assert all(endpoints for _, endpoints in followed.said[said - 1 :])
    finally:
        host.run(["rm", "/etc/docker/daemon.json"])
        host.docker("rm", "-f", "stays", "new", check=False)
        host.service("restart", "docker")


def test_containers_that_a_restart_of_dockerd_ends_are_gone(followed: Followed) -> None:
    host = followed.host
    host.start_container("ends", options=["--stop-signal=KILL"])
    host.start_container("again", options=["--restart=always", "--stop-signal=KILL"])
    followed.wait_names("ends", "again")
    host.service("restart", "docker")
    followed.reconnect()
    followed.wait_names("again")
    assert followed.one().addresses[0].address == host.container_address("again")


@pytest.mark.full
def test_how_long_a_start_takes_to_be_known(
    followed: Followed, record_property: Callable[[str, object], None]
) -> None:
    """From Docker's own start event, and from its command, to the callback; 50 containers.

    Each after a rest: a follower that has just looked several times waits for its next turn.
    """
    host = followed.host
    after_event: list[float] = []
    after_command: list[float] = []
    for number in range(50):
        name = f"m{number}"
        began_s = time.time()
        host.start_container(name)
        at_s = followed.known_since_s(name)
        span = ("--since", f"{began_s:.3f}", "--until", f"{time.time():.3f}")
        starts = ("--filter", "event=start", "--format", "{{.TimeNano}}")
        started = host.docker("events", *span, *starts).stdout.split()
        after_event.append(at_s - int(started[-1]) / 1e9)
        after_command.append(at_s - began_s)
        host.docker("rm", "-f", name)
        followed.wait_names()
        time.sleep(REST_S)
    for what, found in (("event", after_event), ("command", after_command)):
        cuts = statistics.quantiles(found, n=100)
        text = f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms"
        print(f"from {what}: {text}")
        record_property(what, text)
    assert statistics.median(after_event) < 0.1


@pytest.mark.full
def test_promise_10_a_burst_of_starts(followed: Followed) -> None:
    """100 real containers; a fake engine shows more (tests/unit)."""
    host = followed.host
    said, began_s = len(followed.said), time.monotonic()
    host.run(
        ["sh", "-c", "seq 100 | xargs -P8 -I{} docker run -d --name b{} lab >/dev/null"],
        timeout_s=300,
    )
    followed.wait_names(*(f"b{number}" for number in range(1, 101)), timeout_s=60)
    assert len(followed.said) - said <= 4 + 5 * (time.monotonic() - began_s)
