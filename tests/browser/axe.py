"""axe-core, the accessibility checker, out of the npm registry into the lab's cache."""

from __future__ import annotations

import shutil
import subprocess
import tarfile

import pytest

from tests.debian import CACHE

__all__ = ["VIOLATIONS", "axe_script"]

VERSION = "4.10.3"
VIOLATIONS = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  (found) => done(found.violations.map((each) =>
    `${each.id}: ${each.help}: ${each.nodes.slice(0, 3).map((node) => node.html).join(" ")}`)),
  (error) => done([String(error)]));
"""
"""A script that returns a line per rule that the page breaks."""


def axe_script() -> str:
    """Return axe-core's script; skips the test where npm is missing."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, so there is no axe-core")
    packed = CACHE / f"axe-core-{VERSION}.tgz"
    if not packed.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"axe-core@{VERSION}"]
        subprocess.run(command, cwd=CACHE, check=True, capture_output=True)
    with tarfile.open(packed) as archive:
        found = archive.extractfile("package/axe.min.js")
        assert found is not None
        return found.read().decode()
