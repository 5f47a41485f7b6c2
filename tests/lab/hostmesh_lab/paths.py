"""Where the lab keeps things. The only place that knows.

State that a reboot must forget is under /run, disks of hosts under /var/lib, what may be
made again at any time under /var/cache. Nothing of it lies in the clone: a `git clean`
must not remove a folder that a running host has mounted.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from hostmesh_lab.errors import LabError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


def cache_root() -> Path:
    """Root filesystems and virtual environments that all labs share."""
    return Path(os.environ.get("HOSTMESH_LAB_CACHE", "/var/cache/hostmesh-lab"))


def program() -> str:
    """Return this program as it can be typed here: by its name only where that is found."""
    beside = Path(sys.executable).with_name("hostmesh-lab")
    if shutil.which("hostmesh-lab") or not beside.exists():
        return "hostmesh-lab"
    return os.path.relpath(beside)


def state_root() -> Path:
    """Which labs run, and their processes."""
    return Path("/run/hostmesh-lab")


def disk_root() -> Path:
    """Return the hosts' disks, and the logs of demos that failed."""
    return Path("/var/lib/hostmesh-lab")


def clone_root() -> Path:
    """Return the clone whose agent the lab's hosts run."""
    chosen = os.environ.get("HOSTMESH_LAB_SOURCE")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[3]


def checked_name(name: str) -> str:
    """Return a lab's or host's name: it becomes part of paths, cgroups and interface names."""
    if not _NAME.fullmatch(name):
        raise LabError(
            f"{name!r} is no name for a lab",
            "a letter, then up to 19 of a-z, 0-9 and '-'",
        )
    return name
