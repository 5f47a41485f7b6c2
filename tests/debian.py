"""Programs out of Debian's packages, unpacked into a cache: no service is installed or starts."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CACHE", "download", "unpacked"]

CACHE = Path(os.environ.get("HOSTMESH_LAB_CACHE", "/var/cache/hostmesh-lab"))


def unpacked(package: str, program: str) -> Path:
    """The path of ``program`` ("usr/bin/promtool"), out of a package of this machine's Debian.

    It is downloaded once, and the rest of the package is not kept. Takes a mirror that apt reaches.

    Raises:
        CalledProcessError: apt or dpkg-deb failed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / Path(program).name
    with (CACHE / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=f"{package}-new-", dir=CACHE) as work:
                download([package], Path(work))
                (Path(work) / program).rename(target)
    return target


def download(packages: Sequence[str], folder: Path) -> None:
    """Unpack packages into ``folder``. Raises CalledProcessError."""
    command = ["apt-get", "download", "-q", *packages]
    if subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode:
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True, capture_output=True)
        package.unlink()
