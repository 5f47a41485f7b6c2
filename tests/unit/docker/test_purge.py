"""A purge of the package: removed files, and those that must stay."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SCRIPT = Path(__file__).parents[3] / "deploy/deb/scripts/postrm"


def purge(root: Path) -> str:
    """Run the script on a tree, with no program that would touch this machine's units."""
    programs = root / "bin"
    programs.mkdir()
    for name in ("rm", "rmdir", "find", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT), "purge"],
        env={"PATH": str(programs), "DPKG_ROOT": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stderr


def state(root: Path, *names: str) -> Path:
    folder = root / "var/lib/hostmesh"
    folder.mkdir(parents=True)
    for name in ("state.json", "copy.json", *names):
        (folder / name).write_text(name)
    return folder


def test_promise_7_a_purge_keeps_the_only_record_of_what_daemon_json_was(tmp_path: Path) -> None:
    kept = ("daemon.json.journal", "daemon.json.before-hostmesh")
    folder = state(tmp_path, *kept)
    (folder / "events").mkdir()
    said = purge(tmp_path)
    assert {each.name for each in folder.iterdir()} == set(kept)
    assert f"{folder}/daemon.json.before-hostmesh" in said


def test_a_purge_after_a_whole_leave_keeps_nothing(tmp_path: Path) -> None:
    folder = state(tmp_path)
    assert purge(tmp_path) == ""
    assert not folder.exists()


def test_where_there_was_no_daemon_json_a_purge_says_so(tmp_path: Path) -> None:
    folder = state(tmp_path, "daemon.json.journal")
    assert "there was no such file" in purge(tmp_path)
    assert [each.name for each in folder.iterdir()] == ["daemon.json.journal"]
