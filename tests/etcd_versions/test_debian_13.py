"""The whole of tests/etcd again, on the etcd of Debian 13 (3.5) instead of Debian 12's (3.4)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostmesh_lab.filesystems import images

pytestmark = [pytest.mark.etcd, pytest.mark.full, pytest.mark.timeout(1800)]

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("suite", "version"), [("trixie", "3.5.")])
def test_everything_holds_on_the_etcd_of(suite: str, version: str) -> None:
    folder = images.ensure(suite, print).rootfs / "usr/bin"
    shown = subprocess.run(
        [folder / "etcd", "--version"], check=True, capture_output=True, text=True
    ).stdout
    assert f"etcd Version: {version}" in shown
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/etcd"],
        cwd=_ROOT,
        env={**os.environ, "HOSTMESH_TEST_ETCD": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=1700,
    )
    assert done.returncode == 0, done.stdout[-4000:]
