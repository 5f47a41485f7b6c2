"""The mesh's name servers in daemon.json, by the rules that the lease follows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.docker.daemonjson.desired import DesiredDocker, DockerNames
from agent.docker.daemonjson.undo_journal import Phase
from agent.docker.report import AttachReport
from agent.model import Condition
from agent.settings import DockerSettings
from tests.unit.docker.dockerworld import DESIRED, Parts, World, make, names, write

pytestmark = pytest.mark.unit

SERVERS = ["169.254.20.53", "169.254.20.54"]
SERVED = replace(DESIRED, names=DockerNames(domain="mesh.example", served=True))
UNSERVED = replace(DESIRED, names=DockerNames(domain="mesh.example"))


@pytest.fixture
def searched(parts: Parts, tmp_path: Path) -> Path:
    """The host's resolv.conf."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\nsearch Corp.Example corp.example. bad_one lab.example\n")
    parts.docker.resolv_conf = path
    return path


def keys(parts: Parts) -> tuple[object, object]:
    given = json.loads(parts.text or "{}")
    return given.get("dns"), given.get("dns-search")


def ensure(parts: Parts, desired: DesiredDocker = SERVED) -> AttachReport:
    return parts.by_daemon_json.ensure(desired)


def test_servers_and_search_domains_come_with_the_lease_in_one_restart(
    parts: Parts, searched: Path
) -> None:
    assert searched.exists()
    assert ensure(parts).restarted
    assert keys(parts) == (SERVERS, ["mesh.example", "corp.example", "lab.example"])
    assert not ensure(parts).restarted
    assert parts.world.restarts == 1


def test_names_of_a_running_mesh_wait_for_the_permitted_restart(
    parts: Parts, world: World, tmp_path: Path
) -> None:
    ensure(parts, DESIRED)
    world.running = ("web",)
    report = ensure(parts)
    assert (names(report), world.restarts) == ({"docker-restart-pending"}, 1)
    assert "containers do not ask this host's name servers" in report.conditions[0].cause
    assert keys(parts)[0] == SERVERS
    parts = make(world, tmp_path / "state", DockerSettings())  # the agent started again
    assert names(ensure(parts)) == {"docker-restart-pending"}
    world.running = ()
    assert ensure(parts).restarted
    assert (names(ensure(parts)), world.restarts) == (set(), 2)


def test_names_that_are_turned_off_go_with_the_next_restart(parts: Parts, world: World) -> None:
    ensure(parts)
    world.running = ("web",)
    report = ensure(parts, DESIRED)
    assert "containers still ask this host's name servers" in report.conditions[0].cause
    assert keys(parts) == (None, None)
    world.running = ()
    assert ensure(parts, DESIRED).restarted
    assert not ensure(parts, DESIRED).conditions


def test_promise_7_other_search_domains_of_the_host_restart_nothing(
    parts: Parts, world: World, searched: Path
) -> None:
    ensure(parts)
    searched.write_text("search other.example\nnameserver 192.0.2.99\n")
    for _ in range(2):
        report = ensure(parts)
        assert (report.conditions, world.restarts) == ((), 1)
        assert keys(parts)[1] == ["mesh.example", "other.example"]
    journal = parts.store.journal()
    assert journal is not None
    assert journal.phase is Phase.APPLIED
    searched.unlink()
    assert (ensure(parts).conditions, world.restarts) == ((), 1)
    assert keys(parts)[1] == ["mesh.example"]


def test_promise_7_another_domain_needs_a_restart(parts: Parts, world: World) -> None:
    ensure(parts)
    other = replace(DESIRED, names=DockerNames(domain="other.example", served=True))
    assert ensure(parts, other).restarted
    assert (keys(parts)[1], world.restarts) == (["other.example"], 2)


def test_containers_get_no_servers_that_do_not_answer(parts: Parts, world: World) -> None:
    """Docker would have no others: no container would find any name."""
    ensure(parts, UNSERVED)
    assert (keys(parts), world.restarts) == ((None, None), 1)
    ensure(parts, SERVED)
    assert (keys(parts)[0], world.restarts) == (SERVERS, 2)
    ensure(parts, UNSERVED)
    assert (keys(parts)[0], world.restarts) == (SERVERS, 2), "fail static"


def not_used(report: AttachReport) -> Condition:
    (found,) = report.conditions
    assert found.name == "dns-not-used-by-docker"
    return found


def test_promise_7_an_operators_own_dns_stays_unless_they_allow_otherwise(
    parts: Parts, world: World
) -> None:
    write(world, '{"dns": ["192.0.2.7"]}')
    report = ensure(parts)
    assert 'daemon.json has dns = ["192.0.2.7"]' in not_used(report).cause
    assert (keys(parts), world.restarts) == ((["192.0.2.7"], None), 1)
    report = parts.restart_now(SERVED, force=False, replace=True)
    assert (report.restarted, keys(parts)[0]) == (True, SERVERS)
    assert not ensure(parts).conditions
    parts.detacher.detach()
    assert parts.text == '{"dns": ["192.0.2.7"]}'


def test_promise_7_an_operators_own_search_domains_stay(parts: Parts, world: World) -> None:
    write(world, '{"dns-search": ["corp.example"]}')
    report = ensure(parts)
    assert [each.name for each in report.conditions] == ["dns-not-searched"]
    assert keys(parts) == (SERVERS, ["corp.example"])


def test_a_flag_of_dockerd_is_never_doubled_in_the_file(parts: Parts, world: World) -> None:
    world.argv = ("dockerd", "--dns", "192.0.2.7")
    assert "--dns 192.0.2.7" in not_used(ensure(parts)).cause
    assert keys(parts) == (None, None)
    flags = [*(f"--dns={each}" for each in SERVERS), "--dns-search=mesh.example"]
    world.argv = ("dockerd", *flags)
    assert (ensure(parts).conditions, keys(parts)) == ((), (None, None))


def test_promise_7_leaving_gives_the_file_back(parts: Parts, world: World) -> None:
    write(world, '{\n  "debug": true\n}')
    ensure(parts)
    parts.detacher.detach()
    assert parts.text == '{\n  "debug": true\n}'


def test_ways_to_attach_that_leave_daemon_json_alone_say_so(
    world: World, tmp_path: Path, parts: Parts
) -> None:
    report = parts.by_network.ensure(SERVED)
    assert 'docker.attach is "network"' in not_used(report).cause
    parts = make(world, tmp_path / "other", DockerSettings(manage=False))
    assert "docker.manage is false" in not_used(ensure(parts)).cause
    write(world, json.dumps({"dns": SERVERS}))
    assert not ensure(parts).conditions
