"""One cgroup per lab and host: what a host's Docker makes stays below it and ends with it."""

import contextlib
import os
import time
from pathlib import Path

from hostmesh_lab.errors import LabError

_OURS = "hostmesh-lab"


def mount_point() -> Path:
    """Return where the machine has its cgroup2 tree: the whole of it, or beside cgroup v1."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields, _, filesystem = line.partition(" - ")
            if filesystem.startswith("cgroup2 "):
                return Path(fields.split()[4])
    raise LabError(
        "no cgroup2 mounted on this machine", "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
    )


def lab_group(lab: str) -> Path:
    """Return the group that holds everything of one lab."""
    return mount_point() / _OURS / lab


def create(group: Path) -> None:
    """Make a group below the lab's, with every controller that the machine lets us have."""
    top = mount_point()
    made = [top / _OURS]
    group.mkdir(parents=True, exist_ok=True)
    for name in group.relative_to(top / _OURS).parts[:-1]:
        made.append(made[-1] / name)
    for parent in made:
        enable_controllers(parent)


def enable_controllers(group: Path) -> None:
    """Pass the group's controllers on to its children; those the kernel refuses stay off."""
    for controller in (group / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def kill(group: Path, timeout_s: float = 20.0) -> None:
    """Kill every process in the group and below, and return when the last is gone."""
    if not group.is_dir():
        return
    (group / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + timeout_s
    while populated(group):
        if time.monotonic() > deadline:
            raise LabError(f"processes in {group} do not end")
        time.sleep(0.01)


def populated(group: Path) -> bool:
    """Return whether a process runs in the group or below."""
    events = group / "cgroup.events"
    return events.exists() and "populated 1" in events.read_text()


def remove(group: Path) -> None:
    """Remove an empty group with its children, and the parent of all labs after the last one."""
    for folder, _, _ in os.walk(group, topdown=False):
        _rmdir_patiently(Path(folder))
    with contextlib.suppress(OSError):
        (mount_point() / _OURS).rmdir()


def _rmdir_patiently(group: Path) -> None:
    """A group whose last process just ended may be busy for a moment longer."""
    deadline = time.monotonic() + 20.0
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                message = f"cgroup {group} cannot be removed: {error.strerror}"
                raise LabError(message) from error
            time.sleep(0.01)
