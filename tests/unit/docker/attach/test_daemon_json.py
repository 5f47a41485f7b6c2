"""Attach by daemon.json to an engine that reads the file as dockerd does, without a dockerd."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.docker.attach.conditions import engine_report, network_conflicts
from agent.docker.daemonjson.desired import desired_docker
from agent.docker.daemonjson.undo_journal import Phase
from agent.docker.engine.reading import EngineKind
from agent.docker.report import ConfigFile
from agent.docker.service.dockerd_program import DockerdProgram
from agent.docker.service.restarter import Restarter
from agent.docker.service.service import DockerService
from agent.errors import Refused
from agent.model import DockerNetwork, DockerState, Severity
from agent.programs import Finished, Stopped
from agent.settings import DockerSettings
from tests.unit.docker.dockerworld import DESIRED, OLD, PREVIOUS, Parts, World, make, names, write

pytestmark = pytest.mark.unit


def test_an_idle_engine_is_restarted_once(parts: Parts) -> None:
    report = parts.ensure()
    assert (report.state, report.changed, report.restarted) == (DockerState.READY, True, True)
    report = parts.ensure()
    assert (report.state, report.changed, report.restarted) == (DockerState.READY, False, False)
    assert parts.world.restarts == 1
    journal = parts.store.journal()
    assert journal is not None
    assert journal.phase is Phase.APPLIED
    assert journal.bridge_before == "172.17.0.1/16"


def test_promise_7_nothing_is_restarted_when_the_values_are_in_force(
    parts: Parts, world: World
) -> None:
    """The file is compared by what the engine does, not by what the file says."""
    world.bip, world.pools = DESIRED.bip, DESIRED.pools
    report = parts.ensure()
    assert (report.state, report.restarted) == (DockerState.READY, False)
    assert world.restarts == 0


def test_a_file_that_is_right_already_still_needs_its_restart(parts: Parts, world: World) -> None:
    pools = [{"base": str(base), "size": size} for base, size in DESIRED.pools]
    write(world, json.dumps({"bip": str(DESIRED.bip), "default-address-pools": pools}))
    report = parts.ensure()
    assert (report.state, report.changed, report.restarted) == (DockerState.READY, False, True)
    assert parts.store.journal() is None


@pytest.mark.parametrize(
    ("settings", "restarted"),
    [
        (DockerSettings(), False),
        (DockerSettings(expendable=("web",)), False),
        (DockerSettings(expendable=("web", "db")), True),
        (DockerSettings(restart="always"), True),
        (DockerSettings(restart="never", expendable=("web", "db")), False),
    ],
)
def test_promise_7_running_containers_hold_the_restart(
    world: World, tmp_path: Path, settings: DockerSettings, restarted: bool
) -> None:
    world.running = ("db", "web")
    parts = make(world, tmp_path / "state", settings)
    report = parts.ensure()
    assert report.restarted is restarted
    assert (report.state is DockerState.READY) is restarted
    assert ("docker-restart-pending" in names(report)) is not restarted
    assert report.changed


def test_promise_7_live_restore_is_held_even_when_forced(parts: Parts, world: World) -> None:
    world.running, world.live_restore = ("web",), True
    report = parts.restart_now(DESIRED, force=True)
    assert (report.restarted, world.restarts) == (False, 0)
    assert "live-restore" in report.conditions[0].cause


def test_the_operators_restart_names_the_containers_that_stay_down(
    parts: Parts, world: World
) -> None:
    world.running, world.stay = ("db", "web"), ("db",)
    with pytest.raises(Refused, match=r"2 containers run on .*; perhaps not started again: db"):
        parts.restart_now(DESIRED, force=False)
    assert world.restarts == 0
    report = parts.restart_now(DESIRED, force=True)
    assert (report.state, world.restarts) == (DockerState.READY, 1)


def test_one_host_of_the_mesh_at_a_time(parts: Parts) -> None:
    parts.allowed[0] = False
    report = parts.ensure()
    assert names(report) == {"docker-restart-pending"}
    assert parts.world.restarts == 0
    parts.allowed[0] = True
    assert parts.ensure().state is DockerState.READY


def started(world: World) -> Callable[[], None]:
    def start() -> None:
        world.running = ("web",)

    return start


@pytest.mark.parametrize("asked", [True, False])
def test_promise_7_a_container_started_before_the_restart_is_seen(
    parts: Parts, world: World, asked: bool
) -> None:
    """Between the first look and the restart lies a wait for the lock, a minute at the worst."""
    world.meanwhile = [started(world)]
    report = parts.restart_now(DESIRED, force=False) if asked else parts.ensure()
    assert (names(report), report.restarted) == ({"docker-restart-pending"}, False)
    assert "web" in report.conditions[0].cause
    assert world.restarts == 0
    journal = parts.store.journal()
    assert journal is not None
    assert journal.phase is Phase.WRITTEN
    assert parts.restart_now(DESIRED, force=True).state is DockerState.READY


def test_promise_7_the_middle_of_a_containers_restart_is_no_idle_engine(
    parts: Parts, world: World
) -> None:
    """docker restart web, or a script that stops the old one to start the new."""
    world.ended = ("web",)
    report = parts.ensure()
    assert (names(report), world.restarts, world.asked) == ({"docker-restart-pending"}, 0, [])
    assert "web ended a moment ago" in report.conditions[0].cause
    assert report.again_in_s is not None
    world.ended, world.meanwhile = (), [lambda: setattr(world, "ended", ("web",))]
    assert names(parts.ensure()) == {"docker-restart-pending"}
    assert world.restarts == 0
    assert parts.restart_now(DESIRED, force=False).state is DockerState.READY


@pytest.mark.parametrize(
    "settings", [DockerSettings(expendable=("web",)), DockerSettings(restart="always")]
)
def test_who_may_be_restarted_with_docker_is_not_waited_for(
    world: World, tmp_path: Path, settings: DockerSettings
) -> None:
    world.ended = ("web",)
    assert make(world, tmp_path / "state", settings).ensure().state is DockerState.READY


@pytest.mark.parametrize("away", ["silent", "lock"])
def test_promise_7_what_cannot_be_known_before_the_restart_holds_it(
    parts: Parts, world: World, away: str
) -> None:
    def happens() -> None:
        world.up = away == "lock"
        parts.allowed[0] = away != "lock"

    world.meanwhile = [happens]
    report = parts.ensure()
    assert "docker-restart-pending" in names(report)
    assert (report.restarted, world.restarts) == (False, 0)
    assert report.again_in_s is not None
    world.up, parts.allowed[0], world.meanwhile = True, True, []
    assert parts.ensure().state is DockerState.READY


def test_promise_7_leaving_sees_a_container_that_was_started_while_it_waited(
    parts: Parts, world: World
) -> None:
    assert parts.ensure().state is DockerState.READY
    world.meanwhile = [started(world)]
    report = parts.detacher.detach()
    assert "web" in report.todo[0]
    assert (world.restarts, parts.text) == (1, PREVIOUS)


def test_detaching_waits_for_the_lock_and_then_leaves_the_restart_to_the_operator(
    parts: Parts, world: World
) -> None:
    assert parts.ensure().state is DockerState.READY
    parts.allowed[0] = False
    report = parts.detacher.detach()
    assert world.asked[-1], "the operator waits for it"
    assert (world.restarts, world.bip, parts.text) == (1, DESIRED.bip, PREVIOUS)
    assert "host two restarts its Docker" in report.todo[0]


def test_a_network_where_docker0_is_to_be_keeps_the_file_as_it_is(
    parts: Parts, world: World
) -> None:
    world.networks = (
        DockerNetwork(id="n", name="old", bridge="br-1", subnet=IPv4Network("10.64.5.0/24")),
    )
    report = parts.ensure()
    assert "docker-network-in-the-way" in names(report)
    assert (report.state, parts.text, world.restarts) == (DockerState.PENDING, None, 0)
    world.networks = ()
    assert parts.ensure().state is DockerState.READY


def test_promise_7_a_dockerd_that_refuses_the_file_gets_the_old_one_back(
    parts: Parts, world: World
) -> None:
    write(world, '{"debug": true}')
    world.breaks = lambda given: "failed to start daemon: no" if "bip" in given else ""
    report = parts.ensure()
    assert (report.state, report.facts.reachable) == (DockerState.PENDING, True)
    assert "failed to start daemon: no" in report.conditions[0].cause
    assert (names(report), parts.text) == ({"docker-rolled-back"}, '{"debug": true}')
    assert world.restarts == 2
    for _ in range(3):
        assert names(parts.ensure()) == {"docker-rolled-back"}
    assert (world.restarts, parts.text) == (2, '{"debug": true}')


def test_promise_7_a_previous_file_that_does_not_start_either_leaves_the_operators(
    parts: Parts, world: World
) -> None:
    """Such as after a downgrade, or with a unit that has other flags now."""
    write(world, '{"debug": true}')
    assert parts.ensure().state is DockerState.READY
    world.breaks = lambda given: "failed to start daemon: no" if "bip" in given else ""
    other = desired_docker(IPv4Network("10.65.0.0/16"), 1500)
    report = parts.by_daemon_json.ensure(other)
    assert report.facts.reachable
    assert "failed to start daemon: no" in report.conditions[0].cause
    assert (names(report), parts.text) == ({"docker-rolled-back"}, '{"debug": true}')
    for _ in range(3):
        report = parts.by_daemon_json.ensure(other)
    assert (names(report), parts.text) == ({"docker-rolled-back"}, '{"debug": true}')
    restarts = world.restarts
    parts.by_daemon_json.ensure(other)
    assert world.restarts == restarts, "and it is left in peace"
    world.breaks = lambda _: ""
    assert parts.restart_now(other, force=False).state is DockerState.READY


def test_promise_7_the_previous_lease_that_came_back_is_not_taken_for_the_operators(
    parts: Parts, world: World
) -> None:
    write(world, '{"debug": true}')
    assert parts.ensure().state is DockerState.READY
    before = parts.text
    other = desired_docker(IPv4Network("10.65.0.0/16"), 1500)
    world.breaks = lambda given: "no" if given.get("bip") == str(other.bip) else ""
    report = parts.by_daemon_json.ensure(other)
    assert (names(report), parts.text) == ({"docker-rolled-back"}, before)
    world.breaks = lambda _: ""
    assert parts.restart_now(other, force=False).state is DockerState.READY
    parts.detacher.detach()
    assert parts.text == '{"debug": true}'


def test_promise_7_a_dockerd_that_fails_at_another_programs_start_is_rolled_back(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restart was held, and then the operator restarted Docker."""
    world.running = ("web",)
    parts.ensure()
    monkeypatch.setattr(DockerService, "failed", lambda _, **__: not world.up)
    world.running, world.up = (), False
    world.breaks = lambda given: "no" if "bip" in given else ""
    report = parts.ensure()
    assert (names(report), report.facts.reachable) == ({"docker-rolled-back"}, True)
    assert parts.text is None


def test_a_dockerd_that_failed_before_the_file_was_written_says_nothing_about_it(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operator mends it and starts it: with the lease, not with a failure remembered."""
    asked: list[float] = []

    def failed(_: DockerService, *, started_within_s: float) -> bool:
        asked.append(started_within_s)
        return started_within_s > 3600

    monkeypatch.setattr(DockerService, "failed", failed)
    world.up = False
    for _ in range(2):
        report = parts.ensure()
    assert asked[0] < 60
    assert (names(report), world.restarts) == ({"docker-absent"}, 0)
    world.run(("restart-docker",), 1.0)
    assert parts.ensure().state is DockerState.READY


@pytest.mark.parametrize("what", ["file", "version", "desired", "asked"])
def test_a_failure_is_tried_again_once_something_changed(
    parts: Parts, world: World, what: str
) -> None:
    world.breaks = lambda given: "no" if "bip" in given else ""
    parts.ensure()
    world.breaks = lambda _: ""
    desired = DESIRED
    if what == "file":
        write(world, '{"debug": true}')
    elif what == "version":
        world.version = "20.10.25"
    elif what == "desired":
        desired = desired_docker(IPv4Network("10.65.0.0/16"), 1500)
    if what == "asked":
        report = parts.restart_now(desired, force=False)
    else:
        report = parts.by_daemon_json.ensure(desired)
    assert report.state is DockerState.READY


def test_a_failure_is_remembered_over_a_restart_of_the_agent(
    parts: Parts, world: World, tmp_path: Path
) -> None:
    world.breaks = lambda given: "no" if "bip" in given else ""
    parts.ensure()
    again = make(world, tmp_path / "state", DockerSettings())
    assert names(again.ensure()) == {"docker-rolled-back"}
    assert world.restarts == 2


def test_an_engine_that_comes_up_with_other_values_is_rolled_back(
    parts: Parts, world: World
) -> None:
    world.breaks = lambda _: ""
    original = world.run

    def stubborn(argv: Sequence[str], timeout_s: float) -> Finished:
        result = original(argv, timeout_s)
        world.bip = OLD
        return result

    world.run = stubborn  # type: ignore[method-assign]
    report = parts.ensure()
    assert names(report) == {"docker-rolled-back"}
    assert parts.text is None


@pytest.mark.parametrize("came_up", [True, False])
def test_promise_6_an_agent_killed_while_dockerd_restarts_goes_on(
    parts: Parts, world: World, tmp_path: Path, came_up: bool
) -> None:
    parts.store.change(parts.store.read(), {("bip",): str(DESIRED.bip)})
    parts.store.mark(Phase.RESTARTING)
    world.breaks = lambda given: "no" if "bip" in given and not came_up else ""
    world.run(("restart-docker",), 1.0)
    report = make(world, tmp_path / "state", DockerSettings()).ensure()
    assert report.facts.reachable
    if came_up:
        assert report.state is DockerState.READY
    else:
        assert names(report) == {"docker-rolled-back"}
        assert parts.text is None


def test_promise_6_an_agent_killed_after_rolling_back_starts_docker(
    parts: Parts, world: World, tmp_path: Path
) -> None:
    world.breaks = lambda given: "no" if "bip" in given else ""
    parts.ensure()
    parts.store.mark(Phase.ROLLED_BACK)
    world.up = False
    report = make(world, tmp_path / "state", DockerSettings()).ensure()
    assert report.facts.reachable
    assert names(report) == {"docker-rolled-back"}


def test_an_agent_that_stops_does_not_wait_for_dockerd(parts: Parts, world: World) -> None:
    original = world.run

    def slow(argv: Sequence[str], timeout_s: float) -> Finished:
        result = original(argv, timeout_s)
        world.up = False
        parts.stopping.set()
        return result

    world.run = slow  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        parts.ensure()
    journal = parts.store.journal()
    assert journal is not None
    assert journal.phase is Phase.RESTARTING


def test_promise_7_the_operators_bip_is_replaced_only_when_allowed(
    world: World, tmp_path: Path
) -> None:
    text = '{"bip": "192.168.5.1/24"}'
    write(world, text)
    parts = make(world, tmp_path / "state", DockerSettings())
    assert names(parts.ensure()) == {"docker-operator-key"}
    assert (parts.text, world.restarts) == (text, 0)
    parts = make(world, tmp_path / "state", DockerSettings(replace=True))
    assert parts.ensure().state is DockerState.READY
    parts.detacher.detach()
    assert parts.text == text


def test_promise_7_the_operator_may_allow_it_once_by_the_verb(parts: Parts, world: World) -> None:
    text = '{"bip": "192.168.5.1/24"}'
    write(world, text)
    assert names(parts.restart_now(DESIRED, force=True)) == {"docker-operator-key"}
    assert (parts.text, world.restarts) == (text, 0)
    replaced = parts.restart_now(DESIRED, force=True, replace=True)
    assert (replaced.state, world.bip) == (DockerState.READY, DESIRED.bip)
    assert names(parts.ensure()) == set(), "Hostmesh wrote it now"
    parts.detacher.detach()
    assert parts.text == text


def test_an_unusable_file_is_a_condition_with_its_place(parts: Parts, world: World) -> None:
    write(world, '{"debug": true,}')
    report = parts.ensure()
    assert names(report) == {"docker-config-unusable"}
    assert "daemon.json:1:16" in report.conditions[0].cause
    assert (parts.text, world.restarts) == ('{"debug": true,}', 0)


def test_promise_7_a_file_that_the_next_start_would_not_survive_holds_the_restart(
    parts: Parts, world: World
) -> None:
    """The operator's own doing, not noticed yet: the restart for the lease would be blamed."""
    text = '{"log-level": "info"}'
    write(world, text)
    world.argv = ("dockerd", "--log-level=debug")
    report = parts.ensure()
    assert names(report) == {"docker-flag-conflict"}
    assert (parts.text, world.restarts) == (text, 0)
    world.argv = ("dockerd",)
    assert parts.ensure().state is DockerState.READY


def test_a_written_key_that_became_a_flag_goes_from_the_file(parts: Parts, world: World) -> None:
    assert parts.ensure().state is DockerState.READY
    world.argv = ("dockerd", f"--bip={DESIRED.bip}")
    report = parts.ensure()
    assert {each.severity for each in report.conditions} == {Severity.INFO}
    assert "bip" not in json.loads(parts.text or "")


def test_a_swarm_is_a_condition_and_not_in_the_way(parts: Parts, world: World) -> None:
    world.swarm = "active"
    report = parts.ensure()
    assert (report.state, names(report)) == (DockerState.READY, {"docker-swarm"})
    (condition,) = report.conditions
    assert "active" in condition.cause
    assert "moves Swarm's tasks" in condition.hint


def test_promise_7_without_its_journal_nothing_is_done(
    parts: Parts, world: World, tmp_path: Path
) -> None:
    """The previous daemon.json cannot be seen in the present one."""
    assert parts.ensure().state is DockerState.READY
    journal = tmp_path / "state/daemon.json.journal"
    journal.write_text(journal.read_text()[:-20])
    before = parts.text
    report = parts.by_daemon_json.ensure(desired_docker(IPv4Network("10.65.0.0/16"), 1500))
    assert names(report) == {"docker-journal-unusable"}
    assert "daemon.json.before-hostmesh" in report.conditions[0].hint
    assert (parts.text, world.restarts) == (before, 1)


@pytest.mark.parametrize("same", [True, False])
def test_a_dockerd_that_reads_another_file_is_found_before_a_restart_in_vain(
    parts: Parts, world: World, tmp_path: Path, same: bool
) -> None:
    """As a snap's does; a link to the file is the file."""
    other = tmp_path / "other.json"
    if same:
        world.file.parent.mkdir()
        other.symlink_to(world.file)
    world.argv = ("dockerd", "--config-file", str(other))
    report = parts.ensure()
    assert names(report) == (set() if same else {"docker-config-elsewhere"})
    assert world.restarts == int(same)
    assert same or f'docker.daemon_json = "{other}"' in report.conditions[0].hint


def test_podman_is_left_alone(parts: Parts, world: World) -> None:
    world.kind = EngineKind.PODMAN
    report = parts.ensure()
    assert (report.state, names(report)) == (DockerState.ABSENT, {"docker-is-podman"})
    assert parts.text is None


def test_an_unmanaged_docker_is_only_looked_at(world: World, tmp_path: Path) -> None:
    parts = make(world, tmp_path / "state", DockerSettings(manage=False))
    report = parts.ensure()
    assert (report.state, report.changed, parts.text) == (DockerState.PENDING, False, None)
    world.bip, world.pools = DESIRED.bip, DESIRED.pools
    assert parts.ensure().state is DockerState.READY


def test_networks_outside_the_lease_are_named(parts: Parts, world: World) -> None:
    app = DockerNetwork(id="1", name="app", bridge="br-1", subnet=IPv4Network("172.18.0.0/16"))
    inside = DockerNetwork(id="2", name="in", bridge="br-2", subnet=IPv4Network("10.64.128.0/24"))
    world.networks = (app, inside, replace(app, id="3", name="db", internal=True))
    world.bip, world.pools = DESIRED.bip, DESIRED.pools
    (condition,) = parts.ensure().conditions
    assert (condition.name, condition.subject) == ("network-not-routable", "app")


def test_a_smaller_mtu_goes_again_when_it_is_no_longer_wanted(parts: Parts, world: World) -> None:
    parts.by_daemon_json.ensure(desired_docker(IPv4Network("10.64.0.0/16"), 1400))
    assert world.mtu == 1400
    report = parts.ensure()
    assert (report.state, report.restarted, world.mtu) == (DockerState.READY, True, 1500)
    assert "mtu" not in json.loads(parts.text or "")


def unknown_key(given: dict[str, object]) -> str:
    no = "the following directives don't match any configuration option: default-network-opts"
    return no if "default-network-opts" in given else ""


@pytest.mark.parametrize("killed", [False, True])
def test_promise_7_an_engine_that_was_downgraded_loses_the_key_it_does_not_know(
    parts: Parts,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: bool,
) -> None:
    """It failed to start, systemd gave up, and only the journal says which key it was."""
    desired = desired_docker(IPv4Network("10.64.0.0/16"), 1450)
    write(world, '{"debug": true}')
    world.version = "26.1.5"
    assert parts.by_daemon_json.ensure(desired).state is DockerState.READY
    assert "default-network-opts" in (parts.text or "")
    monkeypatch.setattr(DockerService, "failed", lambda _, **__: not world.up)
    monkeypatch.setattr(DockerdProgram, "version", lambda _: "20.10.24")
    world.up, world.version, world.breaks = False, "20.10.24", unknown_key
    if killed:
        with monkeypatch.context() as patched:
            patched.setattr(Restarter, "apply", raise_stopped)
            with pytest.raises(Stopped):
                parts.by_daemon_json.ensure(desired)
        parts = make(world, tmp_path / "state", DockerSettings())
    report = parts.by_daemon_json.ensure(desired)
    assert (report.state, names(report)) == (DockerState.READY, set())
    assert (world.bip, world.mtu) == (desired.bip, 1450)
    assert "default-network-opts" not in (parts.text or "")
    parts.detacher.detach()
    assert parts.text == '{"debug": true}'


def raise_stopped(*_: object, **__: object) -> None:
    raise Stopped


def test_while_the_gate_holds_docker_back_it_is_not_restarted(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At boot the agent would wait for a Docker that waits for the agent."""
    monkeypatch.setattr(DockerService, "starting", lambda _: "the gate holds Docker back")
    report = parts.ensure()
    assert (report.config, report.restarted) == (ConfigFile.WRITTEN, False)
    assert "docker-restart-pending" in names(report)
    monkeypatch.undo()
    assert parts.ensure().restarted
    assert world.restarts == 1


def test_a_restart_that_a_power_cut_broke_off_is_left_to_the_boot(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.ensure()
    parts.store.mark(Phase.RESTARTING)
    world.up = False
    monkeypatch.setattr(DockerService, "starting", lambda _: "the gate holds Docker back")
    report = parts.ensure()
    assert (report.config, report.state) == (ConfigFile.WRITTEN, DockerState.ABSENT)
    assert world.restarts == 1
    journal = parts.store.journal()
    assert journal is not None
    assert journal.phase is Phase.WRITTEN
    assert journal.failure is None


def test_the_report_says_whether_daemon_json_has_the_lease(parts: Parts, world: World) -> None:
    assert engine_report(world.read()).config is ConfigFile.WAITING
    assert parts.ensure().config is ConfigFile.WRITTEN
    world.file.write_text("{ not json")
    assert parts.ensure().config is ConfigFile.HELD


@pytest.mark.parametrize(
    ("subnet", "default", "found"),
    [
        ("10.64.3.0/24", False, 1),
        ("10.0.0.0/8", False, 1),
        ("10.64.128.0/24", False, 0),
        ("10.64.0.0/17", True, 0),
    ],
)
def test_a_network_where_docker0_is_to_be(subnet: str, default: bool, found: int) -> None:
    network = DockerNetwork(
        id="n", name="old", bridge="br-1", subnet=IPv4Network(subnet), default=default
    )
    assert len(network_conflicts(DESIRED, [network])) == found
