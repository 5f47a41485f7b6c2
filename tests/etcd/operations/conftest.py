"""agentctl as an operator runs it on a host whose agent is down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.ctl.main import main
from tests.etcd.support.etcdlab import Etcd

Run = Callable[..., int]


@pytest.fixture
def ctl(shared_etcd: Etcd, prefix: str, tmp_path: Path) -> Run:
    """Run agentctl against the shared etcd, under the test's prefix."""
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'[etcd]\nendpoints = ["{shared_etcd.endpoint}"]\nprefix = "{prefix}"\n', encoding="utf-8"
    )

    def run(*words: str) -> int:
        return main([*words, "--settings", str(settings), "--socket", str(tmp_path / "none")])

    return run
