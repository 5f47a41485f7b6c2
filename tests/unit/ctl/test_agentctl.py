"""agentctl against a real HTTP server on a unix socket, and with nobody there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest

from agent.ctl import direct
from agent.ctl.main import main
from agent.ctl.verbtable import VERBS
from agent.daemon import membership
from agent.errors import CannotTell, EtcdUnavailable, HostmeshError, SettingsError
from agent.model import View
from agent.settings import AgentSettings, Settings

pytestmark = pytest.mark.unit

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]

LEASES: dict[str, Any] = {
    "version": 1,
    "cached": False,
    "leases": [
        {
            "subnet": "10.64.0.0/16",
            "host_id": "0" * 32,
            "host_name": "host1",
            "node_address": "192.0.2.1",
            "backend": "host-gw",
            "age_s": 11520.0,
            "ttl_left_s": 86000.0,
            "alive": True,
            "silent_s": None,
            "docker": "ready",
            "own": True,
        }
    ],
    "set_aside": [],
}
STATUS: dict[str, Any] = {
    "version": 1,
    "source": "agent",
    "agent_version": "9.9.9",
    "state": "ready",
    "host": {"id": "0" * 32, "name": "host1", "node_address": "192.0.2.1", "uplink": "eth0"},
    "subnet": "10.64.0.0/16",
    "docker": {"state": "ready", "version": "26.1.5", "bridge": "10.64.0.0/17"},
    "etcd": {
        "connected": True,
        "last_contact_s_ago": 2.0,
        "cluster_id": "abc",
        "revision": 42,
        "cached": False,
    },
    "mesh": {"cidr": "10.64.0.0/10", "subnet_len": 16, "backend": "host-gw"},
    "routes": {"desired": 3, "installed": 3, "drift": 0},
    "peers": [],
    "conditions": [],
}


@pytest.fixture(name="socket_path")
def socket_path_fixture(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def run(path: Path, *words: str) -> int:
    return main([*words, "--socket", str(path), "--settings", str(path.parent / "none.toml")])


def test_leases_come_through_the_socket(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": LEASES}):
        assert run(socket_path, "leases") == 0
        assert run(socket_path, "leases", "-o", "json") == 0
    out, err = capsys.readouterr()
    table, _, document = out.partition("{")
    assert table.splitlines() == [
        "  SUBNET        HOST   NODE ADDRESS  BACKEND    AGE  LEFT  HEARTBEAT",
        "* 10.64.0.0/16  host1  192.0.2.1     host-gw  3h12m   23h  alive",
    ]
    assert json.loads("{" + document) == LEASES
    assert err == ""


def test_options_count_before_and_after_the_verb(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": LEASES}):
        assert main(["-o", "json", "--socket", str(socket_path), "leases"]) == 0
    assert json.loads(capsys.readouterr().out) == LEASES


@pytest.mark.parametrize(("problem", "cached"), [("", False), ("no endpoint answered", True)])
def test_leases_ask_etcd_or_the_copy_when_no_agent_answers_and_say_so(
    socket_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: str,
    cached: bool,
) -> None:
    view = View(cluster_id=1, revision=2, cached=cached)
    monkeypatch.setattr(direct, "view", lambda _settings: (view, problem))
    monkeypatch.setattr(direct, "own_host_id", lambda: None)
    assert run(socket_path, "leases") == 0
    out, err = capsys.readouterr()
    assert out == "no host has a lease\n"
    first, *rest = err.splitlines()
    assert (
        first == f"hostmesh-agent is not running here: nobody answers on {socket_path}; asking etcd"
    )
    assert (rest[:1] == [problem] and "own copy" in rest[1]) if cached else rest == []


def test_with_agent_and_etcd_down_and_no_copy_the_error_is_etcds(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def view(_settings: Settings) -> None:
        raise EtcdUnavailable("no endpoint answered", hint="check etcd.endpoints")

    monkeypatch.setattr(direct, "view", view)
    assert run(socket_path, "leases") == EtcdUnavailable.exit_code
    assert capsys.readouterr().err.splitlines()[1:] == [
        "agentctl: no endpoint answered",
        "hint: check etcd.endpoints",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--watch"),
        ("leases", "--watch"),
        ("etcd", "accept"),
        ("firewall", "show", "--dry-run"),
        ("docker", "restart", "--now"),
    ],
)
def test_verbs_that_need_the_agent_say_that_it_is_not_running(
    socket_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(socket_path, *words) == 23
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[0].startswith("agentctl: hostmesh-agent is not running here")
    assert err[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (
            (409, {"error": {"message": "no", "hint": "do", "exit_code": 24}}),
            24,
            "agentctl: no\nhint: do\n",
        ),
        (
            (403, {"error": {"message": "a\x1b[2Jb", "hint": "", "exit_code": 11}}),
            11,
            "agentctl: a\\x1b[2Jb\n",
        ),
        ((500, {"error": {"message": "odd", "exit_code": 99}}), 1, "agentctl: odd\n"),
        ((500, {}), 23, "agentctl: hostmesh-agent answered with status 500 and no reason\n"),
    ],
)
def test_the_agents_errors_keep_their_status(
    socket_path: Path,
    serving: Serving,
    answer: object,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(socket_path, {"GET /v1/status": answer}):
        assert run(socket_path, "status") == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b"[" * 100_000])
def test_another_programs_socket_is_recognised(
    socket_path: Path, serving: Serving, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/status": (200, body)}):
        assert run(socket_path, "status") == 23
    assert "does not answer as hostmesh-agent does" in capsys.readouterr().err


def test_a_silent_agent_is_given_up_in_time(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    before_s = time.monotonic()
    with serving(socket_path, {"GET /v1/status": 5.0}):
        assert run(socket_path, "status", "--timeout", "200ms") == 23
    assert time.monotonic() - before_s < 3
    assert "did not answer" in capsys.readouterr().err


def test_an_answer_without_end_is_refused(
    socket_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("agent.ctl.client._MAX_BODY_BYTES", 10)
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert run(socket_path, "status") == 23
    assert "answer larger than 10 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "status"), [("equal", 0), ("drift", 1), ("unknown", 2), ("x", 2)]
)
def test_diff_tells_equal_drift_and_unknown_apart(
    socket_path: Path, serving: Serving, state: str, status: int
) -> None:
    document = {
        "version": 1,
        "state": state,
        "operations": [
            {
                "action": "add",
                "destination": "10.65.0.0/16",
                "reason": "lost",
                "route": "10.65.0.0/16 via x",
            }
        ],
        "conflicts": ["foreign"],
        "firewall": [],
    }
    with serving(socket_path, {"GET /v1/diff": document}):
        assert run(socket_path, "diff") == status


def test_diff_without_an_agent_cannot_tell(socket_path: Path) -> None:
    assert run(socket_path, "diff") == 2


def test_wait_returns_when_the_host_is_ready_and_names_why_it_is_not(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert run(socket_path, "wait", "--ready") == 0
    condition = {"name": "docker-pending", "cause": "containers run"}
    joining = {**STATUS, "state": "joining", "conditions": [condition]}
    with serving(socket_path, {"GET /v1/status": joining}):
        assert run(socket_path, "wait", "--ready", "--timeout", "1s") == 1
    assert run(socket_path, "wait", "--timeout", "100ms") == 2
    out, err = capsys.readouterr()
    assert out == "ready: 10.64.0.0/16\n"
    assert "not ready after 1 s: joining (docker-pending: containers run)" in err


def test_leave_and_join_go_through_the_agent(
    socket_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    answers = {
        "POST /v1/leave": {"done": ["gave back 10.64.0.0/16"], "todo": ["restart dockerd"]},
        "POST /v1/join": {"done": [], "todo": []},
    }
    with serving(socket_path, answers) as agent:
        assert run(socket_path, "leave", "--force") == 1
        assert run(socket_path, "join") == 0
    assert agent.asked == [("POST /v1/leave", {"force": True}), ("POST /v1/join", {})]
    out, err = capsys.readouterr()
    assert out == "gave back 10.64.0.0/16\nnothing to do\n"
    assert err == "left to do: restart dockerd\n"


def test_leave_join_and_cleanup_work_without_an_agent(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("leave_offline", "join_offline", "cleanup"):
        done = membership.Done(done=[f"{name} ran"])
        monkeypatch.setattr(membership, name, lambda _settings, done=done, **_how: done)
    for verb in ("leave", "join", "cleanup"):
        assert run(socket_path, verb) == 0
    out, err = capsys.readouterr()
    assert out == "leave_offline ran\njoin_offline ran\ncleanup ran\n"
    assert err.count("hostmesh-agent is not running here") == 2


@pytest.mark.parametrize("verb", ["leave", "join"])
def test_an_agent_that_is_slow_is_not_worked_around(
    socket_path: Path, verb: str, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_settings: Settings, **_how: object) -> None:
        pytest.fail("the agent runs")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("leave_offline", "join_offline"):
        monkeypatch.setattr(membership, name, fail)
    with serving(socket_path, {f"POST /v1/{verb}": 1.0}):
        assert run(socket_path, verb, "--timeout", "100ms") == 23


@pytest.mark.parametrize("verb", ["leave", "join", "cleanup"])
def test_changing_the_host_needs_root(
    socket_path: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(socket_path, verb) == 11
    assert capsys.readouterr().err.startswith("agentctl: only root may ")


Asked = list[tuple[str, Any]]

OUTLOOK = {
    "state": "pending",
    "pending": "Docker must be restarted: docker0 is 172.17.0.1/16",
    "running": ["db", "job", "web"],
    "stay_down": ["job"],
    "live_restore": False,
}
RESTARTED = {"done": ["restarted dockerd"], "todo": []}


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(name="docker")
def docker_fixture(socket_path: Path, serving: Serving) -> Iterator[Asked]:
    answers = {"GET /v1/docker": dict(OUTLOOK), "POST /v1/docker/restart": RESTARTED}
    with serving(socket_path, answers) as agent:
        yield agent.asked


def test_docker_restarts_only_with_the_operators_word(
    socket_path: Path, docker: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(socket_path, "docker", "restart") == 24
    assert docker == []
    assert run(socket_path, "docker", "restart", "--now", "--yes") == 0
    assert docker[-1] == ("POST /v1/docker/restart", {"now": True})
    assert run(socket_path, "docker", "restart", "--now", "--yes", "--replace") == 0
    assert docker[-1] == ("POST /v1/docker/restart", {"now": True, "replace": True})
    assert capsys.readouterr().out == "restarted dockerd\n" * 2


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("YES\n", 0), ("\n", 24), ("no\n", 24)])
def test_docker_restart_lists_who_stops_and_asks(
    socket_path: Path,
    docker: Asked,
    typed: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert run(socket_path, "docker", "restart", "--now") == status
    told = capsys.readouterr().err
    assert "docker0 is 172.17.0.1/16" in told
    assert "stop, and are started again by dockerd: db, web" in told
    assert "may not come back by themselves: job" in told
    posted = [target for target, _ in docker if target.startswith("POST")]
    assert len(posted) == (status == 0)


def test_docker_restart_without_a_terminal_needs_yes(
    socket_path: Path,
    docker: Asked,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(socket_path, "docker", "restart", "--now") == 24
    assert "--now --yes" in capsys.readouterr().err
    assert [target for target, _ in docker] == ["GET /v1/docker"]


@pytest.mark.parametrize(
    ("outlook", "posted"),
    [
        ({"state": "ready", "pending": None}, None),
        ({"running": [], "stay_down": []}, {}),
        ({"live_restore": True}, {"now": True}),
    ],
)
def test_docker_restart_asks_only_when_something_stops(
    socket_path: Path, serving: Serving, outlook: Mapping[str, Any], posted: Mapping[str, Any]
) -> None:
    """Who saw no container has not agreed to stop one that was started since."""
    answers = {"GET /v1/docker": {**OUTLOOK, **outlook}, "POST /v1/docker/restart": RESTARTED}
    with serving(socket_path, answers) as agent:
        assert run(socket_path, "docker", "restart", "--now") == 0
    assert [body for _, body in agent.asked[1:]] == ([] if posted is None else [posted])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["leaes"], "did you mean leases?"),
        (["statsu"], "did you mean status?"),
        (["config", "ini"], "did you mean init?"),
        (["leases", "--outptu", "json"], "did you mean --output?"),
        (["leases", "-o", "jsn"], "did you mean json?"),
        (["config"], "agentctl config --help"),
        (["wait", "--timeout", "soon"], "agentctl wait --help"),
        (["leases", "--set", "loglevel"], "for example --set log.level=debug"),
    ],
)
def test_a_mistake_gets_one_line_and_the_nearest_right_thing(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert err.splitlines()[1] == f"hint: {hint}"


def test_wrong_settings_are_all_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[log]\nlevel = 1\nlvl = 2\n")
    assert main(["status", "--settings", str(path)]) == SettingsError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": must")[0] for line in lines[:2]] == [
        f"agentctl: {path}:2: log.level",
        f"agentctl: {path}:3: log.lvl: unknown key; did you mean log.level?",
    ]


def test_version_needs_no_agent(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(socket_path, "version") == 0
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert run(socket_path, "version") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "hostmesh-agent does not answer"
    assert out[3] == "hostmesh-agent 9.9.9"


def test_every_verb_has_its_function() -> None:
    import importlib  # noqa: PLC0415

    for verb in VERBS:
        module: ModuleType = importlib.import_module(f"agent.ctl.verbs.{verb.module}")
        assert callable(getattr(module, verb.function)), verb


def test_an_interrupt_is_quiet(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.ctl.client.AgentClient.get", interrupt)
    assert run(socket_path, "status") == 130
    assert capsys.readouterr().err == ""


def agentctl(
    *words: str, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.ctl", *words],
        stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=30,
    )  # fmt: skip


def test_a_closed_pipe_is_quiet(socket_path: Path, serving: Serving) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    many = {**LEASES, "leases": [LEASES["leases"][0]] * 5000}
    with serving(socket_path, {"GET /v1/leases": many}):
        done = agentctl("leases", "--socket", str(socket_path), stdout=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_one_line(socket_path: Path, serving: Serving) -> None:
    with serving(socket_path, {"GET /v1/leases": LEASES}), Path("/dev/full").open("w") as full:
        done = agentctl("leases", "--socket", str(socket_path), stdout=full)
    assert done.returncode == 1
    assert done.stderr == "agentctl: output: No space left on device\n"


@pytest.mark.parametrize("words", [["--help"], ["version"], ["leases"], ["status"], ["diff"]])
def test_what_goes_through_the_socket_imports_no_library(
    words: list[str], socket_path: Path, serving: Serving
) -> None:
    script = (
        "import sys; from agent.ctl.main import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = ('grpc', 'etcd3', 'google', 'docker', 'requests', 'pyroute2', 'iptc',"
        " 'structlog', 'rich', 'tenacity')\n"
        "print(*[name for name in heavy if name in sys.modules], file=sys.stderr, end='')"
    )
    answers = {
        "GET /v1/leases": LEASES,
        "GET /v1/status": STATUS,
        "GET /v1/diff": {"state": "equal"},
    }
    with serving(socket_path, answers):
        done = subprocess.run(
            [sys.executable, "-c", script, *words, "--socket", str(socket_path)],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout


def test_every_error_has_a_message_of_one_line(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise HostmeshError("two\nlines\x07", hint="")

    monkeypatch.setattr("agent.ctl.client.AgentClient.get", fail)
    assert run(socket_path, "status") == 1
    assert capsys.readouterr().err == "agentctl: two\\nlines\\x07\n"


def test_with_nobody_there_stdout_stays_empty_and_the_reason_is_etcds(socket_path: Path) -> None:
    nobody = ["--set", "etcd.endpoints=http://127.0.0.1:1", "--set", "etcd.call_timeout_s=0.2"]
    done = agentctl("leases", "-o", "json", "--socket", str(socket_path), *nobody)
    assert (done.returncode, done.stdout) == (EtcdUnavailable.exit_code, "")
    assert len(done.stderr.splitlines()) == 3, done.stderr
    assert done.stderr.splitlines()[1].startswith("agentctl: ")
    assert done.stderr.splitlines()[2].startswith("hint: ")


def test_firewall_show_prints_rules_or_what_would_be_written(
    socket_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.daemon.connection import Routes  # noqa: PLC0415
    from agent.daemon.control import ControlServer  # noqa: PLC0415

    document: dict[str, Any] = {"rules": ["iptables-nft"], "restore": ["*raw", "COMMIT\x1b[1m"]}
    server = ControlServer(socket_path, "", Routes({"/v1/firewall": lambda: document}, {}))
    server.start()
    try:
        assert run(socket_path, "firewall", "show") == 0
        assert capsys.readouterr().out == "iptables-nft\n"
        assert run(socket_path, "firewall", "show", "--dry-run") == 0
        assert capsys.readouterr().out == "*raw\nCOMMIT\\x1b[1m\n"
        document["restore"] = None
        assert run(socket_path, "firewall", "show", "--dry-run") == CannotTell.exit_code
        assert "holds no subnet" in capsys.readouterr().err
    finally:
        server.stop()


def test_the_daemons_own_server_and_agentctl_understand_each_other(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.daemon.connection import Routes  # noqa: PLC0415
    from agent.daemon.control import ControlServer  # noqa: PLC0415
    from agent.errors import Refused  # noqa: PLC0415

    def refuse(_body: Mapping[str, Any]) -> Mapping[str, Any]:
        raise Refused("containers run", hint="--force")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    server = ControlServer(
        socket_path, "", Routes({"/v1/leases": lambda: LEASES}, {"/v1/leave": refuse})
    )
    server.start()
    try:
        assert run(socket_path, "leases", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == LEASES
        refused = run(socket_path, "leave")
        err = capsys.readouterr().err
        assert run(socket_path, "firewall", "show") == 2
    finally:
        server.stop()
    if os.getuid() == 0:
        assert (refused, err) == (24, "agentctl: containers run\nhint: --force\n")
    else:
        assert refused == 11


@pytest.mark.parametrize(
    ("config", "status", "said"),
    [("written", 0, "written: 10.64.0.0/16"), ("held", 0, "not written: "), ("waiting", 1, "")],
)
def test_the_gate_waits_until_daemon_json_is_decided(
    socket_path: Path,
    serving: Serving,
    capsys: pytest.CaptureFixture[str],
    config: str,
    status: int,
    said: str,
) -> None:
    document = {"state": "joining", "subnet": "10.64.0.0/16", "docker": {"config": config}}
    with serving(socket_path, {"GET /v1/status": document}):
        argv = ("wait", "--docker-config", "--timeout", "1s")
        assert run(socket_path, *argv) == status
    assert capsys.readouterr().out.startswith(said)


def test_the_gate_does_not_wait_for_a_host_that_has_left(
    socket_path: Path, serving: Serving
) -> None:
    document = {"state": "left", "subnet": None, "docker": {"config": "waiting"}}
    with serving(socket_path, {"GET /v1/status": document}):
        assert run(socket_path, "wait", "--docker-config", "--timeout", "1s") == 0


def test_a_reload_that_is_refused_says_every_mistake(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"message": "agent.toml:3: routes.x: unknown key", "hint": "h", "exit_code": 10}
    with serving(socket_path, {"POST /v1/reload": (409, {"error": error})}):
        assert run(socket_path, "reload") == 10
    assert "agent.toml:3: routes.x" in capsys.readouterr().err
    done = {"version": 1, "done": ["in force now: log.level"], "todo": ["etcd.endpoints changed"]}
    with serving(socket_path, {"POST /v1/reload": done}):
        assert run(socket_path, "reload") == 0
    out, err = capsys.readouterr()
    assert "log.level" in out
    assert "etcd.endpoints" in err


def test_with_wrong_settings_the_agent_that_runs_is_asked_all_the_same(
    socket_path: Path,
    serving: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It goes on with those of before, and its status says what is the matter."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[log]\nlevl = 1\n")
    monkeypatch.setattr(AgentSettings, "socket", socket_path)
    assert main(["--settings", str(wrong), "status"]) == 10
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert main(["--settings", str(wrong), "status"]) == 0
    out, err = capsys.readouterr()
    assert "10.64.0.0/16" in out
    assert "log.levl: unknown key" in err
