"""Man pages and completions have every verb and option of the parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agent.ctl import completions, manpages
from agent.ctl.main import main
from agent.ctl.verbtable import VERBS

pytestmark = pytest.mark.unit

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]


def asked(shell: str, folder: Path, line: str) -> str:
    """Return what ``shell`` offers after ``line``; ``agentctl`` on PATH prints two hosts."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    command = {
        "bash": [
            "bash", "--norc", "-c",
            (f"source agentctl.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1};"
            ' _shtab_agentctl; printf "%s\\n" "${COMPREPLY[@]}"'),
        ],
        "zsh": ["zsh", "-f", str(Path(__file__).with_name("offered.zsh")), str(folder), line],
        "fish": ["fish", "--no-config", "-c", f"source agentctl.fish; complete -C '{line}'"],
    }[shell]  # fmt: skip
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        env={"PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": str(folder)},
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    assert completions.main([str(tmp_path)]) == 0
    fake = tmp_path / "bin" / "agentctl"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nprintf 'host-one\\nhost-two\\n'\n")
    fake.chmod(0o755)
    return tmp_path


LINES = {
    "agentctl lea": {"leases", "leave"},
    "agentctl -o json sta": {"status"},
    "agentctl config ": {"init", "set", "show"},
    "agentctl config -o json ": {"init", "set", "show"},
    "agentctl leases -o ": {"text", "wide", "json", "yaml"},
    "agentctl leases --so": {"--sort", "--socket"},
    "agentctl status --so": {"--socket"},
    "agentctl help containe": {"containers"},
    "agentctl events --si": {"--since"},
    "agentctl completion ": {"bash", "zsh", "fish"},
    "agentctl comple": {"completion"},
    "agentctl leave --fo": {"--force"},
    "agentctl config set --fin": {"--finish"},
    "agentctl ping ": {"host-one", "host-two"},
    "agentctl trace host-one ": {"host-one", "host-two"},
    "agentctl remove ho": {"host-one", "host-two"},
    "agentctl leases --fo": set(),
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_offers_what_the_parser_takes(shell: str, folder: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED: no {shell} here; tests/prepare.sh lab brings it")
    subprocess.run([shell, "-n", str(folder / completions.FILES[shell])], check=True)
    found = {}
    for line in LINES:
        offered = asked(shell, folder, line).splitlines()
        found[line] = {each.split("\t")[0] for each in offered if each.strip()}
    assert found == LINES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_verb_and_option_is_in_every_script(shell: str) -> None:
    script = completions.script(shell)
    assert "complete-hosts:" not in script
    for verb in VERBS:
        assert verb.hidden or all(word in script for word in verb.words)
        for argument in verb.arguments:
            if argument.name.startswith("--"):
                flag = argument.name
                assert (flag if shell != "fish" else f" -l {flag.removeprefix('--')} ") in script


def test_the_verb_prints_the_same_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 0
    assert capsys.readouterr().out == completions.script("fish")


def test_promise_8_only_harmless_names_are_offered_to_a_shell(
    tmp_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["good-1", "$(reboot)", "a b", "x\x1b[2J", "`id`", "", "good-1", "*"]
    document = {"leases": [{"host_name": name} for name in names]}
    path = tmp_path / "agent.sock"
    with serving(path, {"GET /v1/leases": document}):
        assert main(["complete-hosts", "--socket", str(path)]) == 0
    assert main(["complete-hosts", "--socket", str(path)]) == 0  # no agent, no noise
    assert capsys.readouterr() == ("good-1\n", "")


def test_the_pages_have_every_verb_option_and_exit_status(tmp_path: Path) -> None:
    assert manpages.main([str(tmp_path)]) == 0
    page = (tmp_path / "agentctl.1").read_text()
    plain = page.replace("\\-", "-").replace("\\fP", "").replace("\\fB", "").replace("\\fI", "")
    for verb in VERBS:
        assert verb.hidden or verb.name in plain
        assert all(f"\n    {each}\n" in plain for each in verb.examples)
        assert all(
            (argument.value if argument.place else argument.name) in plain
            for argument in verb.arguments
        )
    assert "-o, --output text|wide|json|yaml" in plain
    assert re.search(r"^24\n", plain, re.MULTILINE)
    assert "complete-hosts" not in plain
    agent = (tmp_path / "hostmesh-agent.8").read_text().replace("\\-", "-")
    assert "--dry-run" in agent
    known = {"TH", "SH", "SS", "TP", "PP", "B", "I", "BR", "nf", "fi"}
    made = {each.name: each.read_text() for each in tmp_path.iterdir()}
    programs = {"hostmesh-agent.8", "hostmesh-dns.8", "hostmesh-deploy.1"}
    assert set(made) == {"agentctl.1", *programs}
    assert "--resolv\\-conf" in made["hostmesh-dns.8"].replace("\\-\\-", "--")
    for line in "\n".join(made.values()).splitlines():
        assert not line.startswith(".") or line[1:].split(" ")[0] in known


def test_man_shows_the_pages_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("THE MAN PAGES ARE NOT RENDERED: apt-get install man-db groff-base")
    manpages.main([str(tmp_path)])
    for page in tmp_path.iterdir():
        shown = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", str(page)],
            check=True, capture_output=True, text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
        )  # fmt: skip
        assert shown.stderr == ""
        assert "SYNOPSIS" in shown.stdout
        assert page.stem in shown.stdout


@pytest.mark.parametrize("module", ["manpages", "completions"])
def test_the_generators_say_how_they_are_called(module: str) -> None:
    command = [sys.executable, "-m", f"agent.ctl.{module}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
