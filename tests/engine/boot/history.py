"""The Debian package of version 0.1.0, built from git history by its own recipe."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

from hostmesh_lab import shell

COMMIT = "868e1630cf76c37489b837a18b90b6aec1b9439e"
"""The last commit of version 0.1.0."""
_CLONE = Path(__file__).parents[3]
_BUILD_S = 900.0


def why_not() -> str:
    """Return why this clone does not have the commit, "" when it has."""
    asked = shell.run(_git("cat-file", "-e", f"{COMMIT}^{{commit}}"), timeout_s=30, check=False)
    if asked.returncode == 0:
        return ""
    said = shell.tail(asked.stderr.strip())
    return f"git has no commit {COMMIT[:7]} (git fetch --unshallow): {said}"


def build(suite: str, folder: Path) -> Path:
    """Build the package for a suite in a folder and return its path.

    The suite's image and the agent's dependencies are cached ones where both versions have the
    same recipe for them.
    """
    tree, out = folder / "tree", folder / "dist"
    archive = folder / "tree.tar"
    shell.run(_git("archive", f"--output={archive}", COMMIT), timeout_s=60)
    with tarfile.open(archive) as packed:
        packed.extractall(tree, filter="data")
    dated = shell.run(_git("log", "-1", "--format=%ct", COMMIT), timeout_s=30).stdout.strip()
    env = {
        **os.environ,
        "HOSTMESH_LAB_SOURCE": str(tree),
        "PYTHONPATH": str(tree / "tests/lab"),
        "SOURCE_DATE_EPOCH": dated,
    }
    argv = [sys.executable, "-m", "deploy.deb.build", "--suite", suite, "--out", str(out)]
    # With the archive's folders first on the path: its recipe and its lab.
    shell.run(["env", f"--chdir={tree}", *argv], timeout_s=_BUILD_S, env=env)
    return next(out.glob("*.deb"))


def _git(*words: str) -> list[str]:
    return ["git", "-C", str(_CLONE), *words]
