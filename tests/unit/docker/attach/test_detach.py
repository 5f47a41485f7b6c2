"""Leaving: docker0 and daemon.json go back to what they were, at once or when it can be."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.docker.attach.detach import DetachTerms, free_bridge_address, read_routes
from agent.docker.daemonjson.desired import desired_docker
from agent.docker.daemonjson.files import replace_file
from agent.docker.daemonjson.undo_journal import Content
from agent.errors import DockerConfigError
from agent.model import DockerState
from agent.settings import DockerSettings
from tests.unit.docker.dockerworld import DESIRED, OLD, PREVIOUS, Parts, World, make, write

pytestmark = pytest.mark.unit

UNASKED = DetachTerms(asked=False)


def test_leaving_moves_docker0_back_with_one_restart(parts: Parts, world: World) -> None:
    write(world, '{ "debug": true }')
    parts.ensure()
    report = parts.detacher.detach()
    assert (parts.text, world.bip, world.restarts) == ('{ "debug": true }', OLD, 2)
    assert report.todo == ()
    assert parts.detacher.detach().done == ()


def test_with_containers_running_it_waits_and_names_them_and_the_command(
    parts: Parts, world: World
) -> None:
    parts.ensure()
    world.running = ("web",)
    for _ in range(2):
        report = parts.detacher.detach()
        assert (parts.text, world.restarts, report.done) == (PREVIOUS, 1, ())
        still = f"docker0 still uses {DESIRED.bip} because web is running."
        assert report.todo == (f"{still} When web may stop: agentctl leave --force",)
    world.running = ("db", "web")
    report = parts.detacher.detach(DetachTerms(again="agentctl cleanup"))
    assert report.todo[0].endswith("db, web are running. When they may stop: agentctl cleanup")


def test_force_gives_back_what_had_to_wait(parts: Parts, world: World) -> None:
    parts.ensure()
    world.running = ("web",)
    assert parts.detacher.detach().todo
    assert parts.detacher.detach(DetachTerms(force=True)).todo == ()
    assert (world.bip, world.restarts, parts.text) == (OLD, 2, None)
    assert parts.store.journal() is None


def test_when_the_containers_have_gone_it_is_given_back_without_a_word(
    parts: Parts, world: World
) -> None:
    parts.ensure()
    world.running = ("web",)
    parts.detacher.detach()
    world.running, world.ended = (), ("web",)
    assert "ended a moment ago" in parts.detacher.detach(UNASKED).todo[0]
    world.ended = ()
    assert parts.detacher.detach(UNASKED).todo == ()
    assert world.asked[-1] is False
    assert (world.bip, world.restarts, parts.text) == (OLD, 2, None)


def test_a_restart_by_another_moves_docker0_back(parts: Parts, world: World) -> None:
    parts.ensure()
    world.running = ("web",)
    parts.detacher.detach()
    world.run(("restart-docker",), 1.0)
    assert world.bip == OLD
    assert parts.detacher.detach(UNASKED).todo == ()
    assert (parts.text, world.restarts) == (None, 2)


def test_what_the_operator_wrote_meanwhile_is_theirs(parts: Parts, world: World) -> None:
    parts.ensure()
    world.running = ("web",)
    parts.detacher.detach()
    write(world, '{"bip": "192.168.9.1/24"}')
    assert parts.detacher.detach().todo
    assert json.loads(parts.text or "") == {"bip": "192.168.9.1/24"}
    assert parts.detacher.detach(DetachTerms(force=True)).todo == ()
    assert world.bip == IPv4Interface("192.168.9.1/24")
    assert json.loads(parts.text or "") == {"bip": "192.168.9.1/24"}


def test_with_live_restore_force_says_what_else_it_takes(parts: Parts, world: World) -> None:
    parts.ensure()
    world.running, world.live_restore = ("web",), True
    report = parts.detacher.detach(DetachTerms(force=True))
    assert "live-restore" in report.todo[0]
    assert "stop the containers" in report.todo[0]


def test_a_host_that_joins_again_before_it_was_given_back(parts: Parts, world: World) -> None:
    parts.ensure()
    world.running = ("web",)
    parts.detacher.detach()
    assert parts.ensure().state is DockerState.READY
    world.running = ()
    later = desired_docker(IPv4Network("10.65.0.0/16"), 1500)
    assert parts.by_daemon_json.ensure(later).state is DockerState.READY
    assert parts.detacher.detach().todo == ()
    assert (world.bip, parts.text) == (OLD, None)


@pytest.mark.parametrize("had_it", [True, False])
def test_a_docker_that_does_not_answer_gets_it_with_its_next_start(
    parts: Parts, world: World, had_it: bool
) -> None:
    """dockerd has docker0's address in its own store as well as in daemon.json."""
    world.up = had_it
    parts.ensure()
    world.up = False
    report = parts.detacher.detach()
    assert (parts.text, world.restarts) == (PREVIOUS if had_it else None, int(had_it))
    said = f"docker0 keeps {DESIRED.bip} until Docker starts again"
    assert [said in line for line in report.todo] == [True] * had_it
    if had_it:
        world.run(("restart-docker",), 1.0)
        assert parts.detacher.detach(UNASKED).todo == ()
    assert parts.text is None


def test_where_nothing_was_written_nothing_is_put_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """daemon.json is immutable: neither the lease nor the way back can be written."""
    write(world, '{"debug": true}')
    parts = make(world, tmp_path / "state", DockerSettings())

    def refuse(path: Path, content: Content) -> None:
        if path == world.file:
            raise DockerConfigError("cannot write: Operation not permitted")
        replace_file(path, content)

    monkeypatch.setattr("agent.docker.daemonjson.store.replace_file", refuse)
    assert [each.name for each in parts.ensure().conditions] == ["docker-config-unusable"]
    assert parts.store.journal() is not None
    report = parts.detacher.detach()
    assert (report.done, report.todo) == ((), ())
    assert parts.store.journal() is None


def test_a_folder_that_was_removed_hinders_nothing(parts: Parts, world: World) -> None:
    parts.ensure()
    world.file.unlink()
    world.file.parent.rmdir()
    world.running = ("web",)
    assert "web is running" in parts.detacher.detach().todo[0]
    world.running = ()
    assert parts.detacher.detach(UNASKED).todo == ()
    assert (world.bip, parts.text) == (OLD, None)


def test_a_folder_that_was_removed_from_an_idle_docker(parts: Parts, world: World) -> None:
    world.up = False
    parts.ensure()
    world.file.unlink()
    world.file.parent.rmdir()
    assert parts.detacher.detach().todo == ()
    assert parts.store.journal() is None


def test_docker0_goes_where_docker_itself_would_put_it() -> None:
    lease = IPv4Network("10.64.0.0/17")
    taken = [lease, IPv4Network("172.17.0.0/16"), IPv4Network("172.18.4.0/24")]
    assert free_bridge_address(taken, lease) == IPv4Interface("172.19.0.1/16")
    assert (
        free_bridge_address([IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")], lease) is None
    )


def test_routes(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0132A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert read_routes(table) == (IPv4Network("172.17.0.0/16"),)
    assert read_routes(tmp_path / "none") == ()
