"""agentctl's command line and exit statuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.ctl.main import main
from agent.ctl.parser import parse, parser_of
from agent.ctl.verbtable import SECTIONS, VERBS, Verb
from agent.errors import HostmeshError, SettingsError
from tests.unit.ctl.asked import LEASES, STATUS, Serving, agentctl, run
from tests.waiting import remarks

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("leaes", "unknown verb 'leaes'", "did you mean leases?"),
        ("statsu", "unknown verb 'statsu'", "did you mean status?"),
        ("config ini", "unknown verb 'ini'", "did you mean init?"),
        ("leases --outptu json", "unknown option --outptu for leases", "did you mean --output?"),
        ("status --json", "unknown option --json for status", "for JSON use -o json"),
        ("--json status", "unknown option --json for status", "for JSON use -o json"),
        ("status leases", "unexpected argument 'leases' for status", "agentctl status --help"),
        ("-o svg leases", "unknown value for -o/--output: 'svg'", "known: json, text, wide, yaml"),
        ("-o svg", "unknown value for -o/--output: 'svg'", "known: json, text, wide, yaml"),
        ("-o zzz leases", "unknown value for -o/--output: 'zzz'", "known: json, text, wide, yaml"),
        ("-o jsn leases", "unknown value for -o/--output: 'jsn'", "did you mean json?"),
        ("leases -o jsn", "unknown value for -o/--output: 'jsn'", "did you mean json?"),
        (
            "config set --access publishd",
            "unknown value for --access: 'publishd'",
            "did you mean published?",
        ),
        ("config", "config needs a verb", "agentctl config --help"),
        ("remove", "remove needs HOST", "agentctl remove --help"),
        ("leases -o", "-o/--output needs a value", "agentctl leases --help"),
        ("status --watch=1", "--watch takes no value", "agentctl status --help"),
        ("events --folow", "unknown option --folow for events", "did you mean --follow?"),
        ("events -f", "unknown option -f for events", "did you mean --follow?"),
        (
            "--follow events",
            "unknown option --follow for events",
            "write it after the verb: agentctl events --follow",
        ),
        ("help statsu", "unknown verb 'statsu'", "did you mean status?"),
        ("help config sett", "unknown verb 'config sett'", "did you mean config set?"),
        (
            "wait --timeout soon",
            "--timeout: must be a time such as 30s, not 'soon'",
            "agentctl wait --help",
        ),
        (
            "status --settings /etc/hostmesh/none.toml",
            "--settings: there is no file '/etc/hostmesh/none.toml'",
            "agentctl status --help",
        ),
        (
            "--as-operator /none status",
            "--as-operator: there is no file '/none'",
            "agentctl --help",
        ),
        (
            "events --since yesterday",
            "--since: must be a time such as 1h, 7d, 10:30 or 2026-11-27T10:30, not 'yesterday'",
            "agentctl events --help",
        ),
        (
            "events --since 9999-01-01",
            "--since: '9999-01-01' is in the future",
            "agentctl events --help",
        ),
        (
            "wait --ready --docker-config",
            "--ready and --docker-config exclude each other",
            "agentctl wait --help",
        ),
        (
            "leases --set loglevel",
            "--set needs section.key=value, not 'loglevel'",
            "for example --set log.level=debug",
        ),
    ],
)
def test_a_mistake_gets_one_line_and_the_nearest_valid_name(
    words: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split(" ")) == 2
    assert capsys.readouterr() == ("", f"agentctl: {message}\nhint: {hint}\n")


def test_a_verbs_own_form_may_be_before_the_verb() -> None:
    for verb in VERBS:
        for form in verb.forms:
            after = parse([*verb.words, "-o", form])
            assert parse(["-o", form, *verb.words]).output == after.output == form


def test_suggestions_are_options_of_this_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        parser = parser_of(verb.words)
        taken = {each for action in parser._actions for each in action.option_strings}
        for option in ("--follow", "--cidr", "--capture", "--zzz"):
            if option not in taken:
                assert main([*verb.words, option]) == 2
                hint = capsys.readouterr().err.splitlines()[1]
                assert set(re.findall(r"--[a-z-]+", hint)) - taken <= {"--help"}, hint


def test_no_list_has_verbs_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    hidden = [verb.name for verb in VERBS if verb.hidden]
    assert main(["zzzz"]) == 2
    assert main(["help"]) == 0
    assert main(["help", "zzzz"]) == 2
    text = "".join(capsys.readouterr())
    assert hidden
    assert not [name for name in hidden if name in text]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_of_a_verb_is_the_same_by_each_way(
    verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *verb.words]) == 0
    said = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*verb.words, "--help"])
    assert capsys.readouterr().out == said
    text = " ".join(said.split())
    assert all(each in text for each in (*verb.examples, " ".join(verb.note.split())))


def test_the_list_of_verbs_is_grouped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for title, verbs in SECTIONS:
        at = lines.index(f"{title}:") + 1
        shown = [each for each in verbs if not each.hidden]
        assert lines[at : at + len(shown)] == [f"  {v.name:<15}  {v.summary}" for v in shown]


def test_leave_cleanup_and_remove_explain_each_other() -> None:
    notes = {verb.name: f"{verb.summary} {verb.note}" for verb in VERBS}
    for name, others in {
        "leave": ("cleanup", "remove HOST"),
        "cleanup": ("leave", "remove HOST"),
        "remove": ("leave", "cleanup"),
    }.items():
        assert all(other in notes[name] for other in others)


def test_the_version_alone_needs_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"agentctl {__version__}\n")


def test_a_domain_of_names_is_checked_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "set", "--names", "a_b"]) == 2
    expected = "agentctl: --names 'a_b' is not on, off or a domain such as mesh.example.org\n"
    assert capsys.readouterr() == ("", expected)


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
    for verb in VERBS:
        assert callable(verb.load()), verb


def test_an_interrupt_is_quiet(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.ctl.client.AgentClient.get", interrupt)
    assert run(socket_path, "status") == 130
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_quiet(socket_path: Path, serving: Serving) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    many = {**LEASES, "leases": [LEASES["leases"][0]] * 5000}
    with serving(socket_path, {"GET /v1/leases": many}):
        done = agentctl("leases", "--socket", str(socket_path), stdout=write_end)
    os.close(write_end)
    assert (done.returncode, remarks(done.stderr)) == (141, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "words", [["status"], ["leases"], ["map"], ["ping", "unknown"], ["events"]]
)
def test_a_terminal_that_is_not_utf_8_gets_what_it_can_show(
    words: list[str], encoding: str, socket_path: Path, serving: Serving
) -> None:
    name = "Hôte-名" + "x" * 70
    leases = {**LEASES, "leases": [{**LEASES["leases"][0], "host_name": name}]}
    happened = {"id": 1, "at": 1.0, "kind": "x", "subject": "", "text": name}
    answers = {
        "GET /v1/leases": leases,
        "GET /v1/status": {**STATUS, "peers": leases["leases"]},
        "GET /v1/routes": {"routes": []},
        "GET /v1/events": {"events": [happened]},
    }
    environ = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    with serving(socket_path, answers):
        done = subprocess.run(
            [sys.executable, "-m", "agent.ctl", *words, "--socket", str(socket_path)],
            capture_output=True, check=False, timeout=30, env=environ,
        )  # fmt: skip
    assert done.returncode == (2 if words[0] == "ping" else 0)
    assert b"Traceback" not in done.stderr
    text = (done.stdout + done.stderr).decode(encoding)
    if words[0] in ("leases", "events", "map"):
        assert ("H\\xf4te" if encoding == "ascii" else "Hôte") in text
        assert "\\u540d" in text
    if words[0] == "leases":
        assert "~" in text


def test_without_any_output_it_is_quiet(socket_path: Path) -> None:
    command = 'exec "$0" -m agent.ctl version --socket "$1" >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(socket_path)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, remarks(done.stderr)) == (0, "")


def test_what_was_said_before_an_error_is_not_lost(socket_path: Path, serving: Serving) -> None:
    """The process ends at once, and stdout in a pipe is written late."""
    found = {"state": "unknown", "reason": "etcd is away", "firewall": ["add a jump"]}
    with serving(socket_path, {"GET /v1/diff": found}):
        done = agentctl("diff", "--socket", str(socket_path))
    assert (done.returncode, done.stdout) == (3, "firewall: add a jump\n")
    assert "etcd is away" in done.stderr


def test_a_full_disk_is_one_line(socket_path: Path, serving: Serving) -> None:
    with serving(socket_path, {"GET /v1/leases": LEASES}), Path("/dev/full").open("w") as full:
        done = agentctl("leases", "--socket", str(socket_path), stdout=full)
    assert done.returncode == 1
    assert remarks(done.stderr) == "agentctl: output: No space left on device\n"


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
