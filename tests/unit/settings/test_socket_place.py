"""The quick look for the control socket never contradicts the whole reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.settings import load_settings
from agent.settings import place as place_module
from agent.settings.place import socket_at_a_glance

pytestmark = pytest.mark.unit


@pytest.fixture(name="run_dir")
def run_dir_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A default run directory with a socket's file in it."""
    default = tmp_path / "default"
    default.mkdir()
    (default / "agent.sock").touch()
    monkeypatch.setattr(place_module, "DEFAULT_RUN_DIR", default)
    return default


def test_without_a_file_or_without_the_key_it_is_the_default(tmp_path: Path, run_dir: Path) -> None:
    path = tmp_path / "agent.toml"
    assert socket_at_a_glance(path, {}) == run_dir / "agent.sock"
    path.write_text('[etcd]\nendpoints = ["http://192.0.2.1:2379"]\n')
    assert socket_at_a_glance(path, {"PATH": "/bin"}) == run_dir / "agent.sock"
    (run_dir / "agent.sock").unlink()
    assert socket_at_a_glance(path, {}) is None  # then the settings must be right, all of them


@pytest.mark.parametrize(
    "text",
    [
        '[agent]\nrun_dir = "{}"\n',
        'agent.run_dir = "{}"\n',
        'agent = {{ run_dir = "{}" }}\n',
        '["agent"]\n"run\\u005fdir" = "{}"\n',
        "\ufeff['agent']\n'run_dir' = '{}'  # a BOM, as Windows writes it\n",
        '["a\\u0067ent"]\nrun_dir = "{}"\n',
    ],
)
def test_a_set_place_wins_however_it_is_written(text: str, tmp_path: Path, run_dir: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "agent.sock").touch()
    path = tmp_path / "agent.toml"
    path.write_text(text.format(own))
    assert load_settings(path).agent.socket == own / "agent.sock"
    assert socket_at_a_glance(path, {}) == own / "agent.sock"
    assert run_dir != own


@pytest.mark.parametrize(
    "text",
    [
        "[agent\nrun_dir = 1",
        '[agent]\nrun_dir = "relative"\n',
        "[agent]\nrun_dir = 7\n",
        'agent = "run_dir"\n',
        "[agent]\nrun_dir = '/no/such/folder'\n",
        "\udcff run_dir",
        'b = "run_dir"\na = ' + "[" * 100_000,
    ],
)
def test_a_file_that_is_not_plain_is_left_to_the_whole_reader(
    text: str, tmp_path: Path, run_dir: Path
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text, errors="surrogateescape")
    assert run_dir.exists()
    assert socket_at_a_glance(path, {}) is None


def test_a_variable_with_the_prefix_is_for_the_whole_reader(tmp_path: Path, run_dir: Path) -> None:
    assert run_dir.exists()
    environ = {"HOSTMESH_AGENT_RUN_DIR": "/elsewhere"}
    assert socket_at_a_glance(tmp_path / "agent.toml", environ) is None
    assert socket_at_a_glance(tmp_path, {}) is None  # a folder is no file
