"""The snapshot on disk follows the mesh, and forgets nothing that is not known to be gone."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.names.job import NamesJob
from agent.daemon.names.wanted import NamesWanted
from agent.daemon.state.events import NamesReported
from agent.dns.snapshot import decode_host, decode_local, host_file
from agent.dns.status import status_file
from agent.mesh.names import NamesInput
from agent.mesh.world import World
from agent.model import DockerFacts, HostId, Lease, MeshConfig
from agent.model.endpoint import Endpoint, EndpointAddress
from agent.model.family import Network
from agent.model.names import NAME_SERVERS
from agent.sharedmap import SharedMap
from agent.threads import Jobs

pytestmark = pytest.mark.unit

HERE, THERE, GONE = (HostId(each * 32) for each in "abc")


def lease(number: int, host: HostId) -> Lease:
    return Lease(
        subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{number}"),
        backend="host-gw",
        host_id=host,
        host_name=f"host{number}",
        create_revision=number + 1,
    )


def endpoint(host: HostId, name: str, address: str) -> Endpoint:
    place = EndpointAddress(network="bridge", address=IPv4Address(address))
    return Endpoint(host_id=host, container_id="1" * 64, name=name, addresses=(place,))


PEERS: dict[Network, Lease] = {IPv4Network("10.65.0.0/16"): lease(1, THERE)}
WORLD = World(
    host_id=HERE,
    config=MeshConfig(
        cidr=IPv4Network("10.64.0.0/12"),
        subnet_len=16,
        subnet_min=IPv4Address("10.64.0.0"),
        subnet_max=IPv4Address("10.79.0.0"),
        level=3,
        domain="mesh.example",
    ),
    own=lease(0, HERE),
    peers=SharedMap(PEERS),
    docker=DockerFacts(reachable=True),
    complete=True,
)
KNOWN = NamesWanted(
    input=NamesInput(
        world=WORLD,
        endpoints=SharedMap({(THERE, "1"): endpoint(THERE, "db", "10.65.0.2")}),
        own=(endpoint(HERE, "web", "10.64.0.2"),),
    ),
    own_known=True,
    others_known=True,
    current=True,
)


class Folder:
    """The snapshot and the job that writes it."""

    def __init__(self, root: Path) -> None:
        self.path, self.status = root / "state/names", root / "run"
        self.status.mkdir(exist_ok=True)
        self.reports: list[NamesReported] = []
        self.job = self.made()

    def made(self) -> NamesJob:
        return NamesJob(self.path, "boot", self.reports.append, Jobs(), self.status)

    def follow(self, wanted: NamesWanted) -> None:
        self.job.follow(wanted)
        self.job.run()

    def names(self, host: HostId) -> list[str]:
        content = host_file(self.path, host).read_bytes()
        found = [name.text for each in decode_host(content).addresses for name in each.names]
        return [each for each in found if "." in each]

    @property
    def hosts(self) -> set[str]:
        return {path.stem for path in self.path.glob("*.json")} - {"local"}

    def local(self) -> tuple[int, bool]:
        found = decode_local((self.path / "local.json").read_bytes())
        return found.serial, found.complete

    def times(self) -> dict[str, int]:
        return {path.stem: path.stat().st_ino for path in self.path.glob("*.json")}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.job.stop()


def shown(wanted: NamesWanted, **changes: Any) -> NamesWanted:  # noqa: ANN401
    assert wanted.input is not None
    return replace(wanted, input=replace(wanted.input, **changes))


def test_a_change_of_one_host_costs_its_file(folder: Folder) -> None:
    folder.follow(KNOWN)
    assert folder.names(THERE) == ["host1.host", "db.host1"]
    assert folder.names(HERE) == ["host0.host", "web.host0"]
    assert folder.local() == (1, True)
    before = folder.times()
    folder.follow(KNOWN)
    folder.follow(shown(KNOWN))
    assert folder.times() == before, "nothing changed"
    found: dict[tuple[HostId, str], Endpoint] = {(THERE, "1"): endpoint(THERE, "x", "10.65.0.2")}
    folder.follow(shown(KNOWN, endpoints=SharedMap(found)))
    after = folder.times()
    assert {each for each in after if after[each] != before[each]} == {THERE, "local"}
    assert (folder.names(THERE)[1], folder.local()) == ("x.host1", (2, True))


def test_promise_3_names_of_others_stay_until_all_endpoints_were_read(folder: Folder) -> None:
    peers = {**PEERS, IPv4Network("10.66.0.0/16"): lease(2, GONE)}
    folder.follow(shown(KNOWN, world=replace(WORLD, peers=SharedMap(peers))))
    assert folder.hosts == {HERE, THERE, GONE}
    folder.job = folder.made()  # the agent started again, without etcd
    nothing = shown(KNOWN, endpoints=SharedMap(), own=())
    folder.follow(replace(nothing, others_known=False, own_known=False))
    assert folder.hosts == {HERE, THERE, GONE}
    assert (folder.names(THERE)[1], folder.names(HERE)[1]) == ("db.host1", "web.host0")
    folder.follow(replace(KNOWN, others_known=False, current=False))
    assert folder.hosts == {HERE, THERE, GONE}
    assert folder.local() == (2, False), "no absence is proven"
    folder.follow(KNOWN)
    assert (folder.hosts, folder.local()) == ({HERE, THERE}, (3, True))


def test_a_snapshot_that_was_removed_is_written_again(folder: Folder) -> None:
    folder.follow(KNOWN)
    for each in folder.path.iterdir():
        each.unlink()
    folder.job.run()
    assert folder.names(THERE) == ["host1.host", "db.host1"]
    assert (folder.hosts, folder.local()[1]) == ({HERE, THERE}, True)


def test_a_host_that_cannot_be_reached_loses_its_file(folder: Folder) -> None:
    folder.follow(KNOWN)
    folder.follow(shown(KNOWN, world=replace(WORLD, dead_subnets=frozenset(PEERS))))
    assert folder.hosts == {HERE}


def test_without_names_every_file_goes_and_the_folder_stays(folder: Folder) -> None:
    folder.follow(NamesWanted())
    assert not folder.path.exists()
    folder.follow(KNOWN)
    folder.follow(NamesWanted())
    assert list(folder.path.iterdir()) == []
    folder.follow(KNOWN)
    assert folder.names(HERE)[1] == "web.host0"


def test_without_names_the_job_is_due_no_more_until_it_follows_again(folder: Folder) -> None:
    assert folder.job.run() == math.inf
    folder.follow(NamesWanted())
    assert folder.job.run() == math.inf
    folder.follow(KNOWN)
    assert folder.job.run() < 10


def test_servers_run_as_another_user(folder: Folder) -> None:
    before = os.umask(0o077)
    try:
        folder.follow(KNOWN)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    assert set(modes.values()) == {0o644}
    assert folder.path.stat().st_mode & 0o777 == 0o755


def test_promise_9_what_cannot_be_written_is_a_condition_and_comes_later(folder: Folder) -> None:
    folder.path.parent.mkdir()
    folder.path.write_text("in the way")
    folder.follow(KNOWN)
    assert "names-not-written" in {each.name for each in folder.reports[-1].conditions}
    folder.path.unlink()
    folder.job.run()
    assert folder.names(THERE)[1] == "db.host1"
    assert "names-not-written" not in {each.name for each in folder.reports[-1].conditions}


def write_status(folder: Folder, *, age_s: float = 0.0, failing: bool = False) -> None:
    for address in NAME_SERVERS:
        path = status_file(folder.status, address)
        path.write_text(json.dumps({"upstreams": [{"address": "192.0.2.1", "failing": failing}]}))
        os.utime(path, (time.time() - age_s,) * 2)


@pytest.mark.parametrize(
    ("age_s", "failing", "served", "expected"),
    [
        (0.0, False, True, set()),
        (0.0, True, True, {"dns-upstream-dead"}),
        (60.0, False, False, {"dns-server-down"}),
    ],
)
def test_promise_9_servers_are_watched_by_their_status(
    folder: Folder, age_s: float, failing: bool, served: bool, expected: set[str]
) -> None:
    write_status(folder, age_s=age_s, failing=failing)
    folder.follow(KNOWN)
    report = folder.reports[-1]
    assert (report.served, {each.name for each in report.conditions}) == (served, expected)
    folder.follow(NamesWanted())
    assert folder.reports[-1] == NamesReported(served=False, conditions=())


def test_one_server_that_does_not_run_leaves_the_other(folder: Folder) -> None:
    write_status(folder)
    status_file(folder.status, NAME_SERVERS[1]).unlink()
    folder.follow(KNOWN)
    (condition,) = folder.reports[-1].conditions
    assert (condition.subject, condition.severity) == (str(NAME_SERVERS[1]), "warning")
    assert folder.reports[-1].served
