"""Which labs there are, which of them live, and how the remains of a dead one are cleared.

A lab's first process (the holder) is the truth: if it is gone, the kernel has ended every
process of the lab, and what is left are folders and empty cgroups.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO

from hostmesh_lab import cgroups, paths
from hostmesh_lab.errors import LabError
from hostmesh_lab.processes import Proc, machine_boot_id, start_time

DEFAULT_NAME = "lab"
_RECORD = "lab.json"


@dataclass(frozen=True)
class Record:
    """The record of a lab, beside its machines. An owned lab is to end with its owner."""

    name: str
    suite: str
    layers: list[str]
    lab_image: str
    etcd_members: int
    host_defaults: dict[str, object]
    machine_boot_id: str
    holder_pid: int
    holder_start: int
    owner_pid: int
    owner_start: int
    topology: dict[str, object] = field(default_factory=dict)
    pid_namespace: str = field(default_factory=lambda: os.readlink("/proc/self/ns/pid"))

    @property
    def holder(self) -> Proc:
        return Proc(self.holder_pid, self.holder_start)

    def alive(self) -> bool:
        """Whether the lab runs: the same run of the machine, and its first process still there.

        Process ids of another PID namespace mean nothing here; the lab's cgroup does.
        """
        if self.machine_boot_id != machine_boot_id():
            return False
        if self._elsewhere():
            return cgroups.populated(cgroups.lab_group(self.name))
        return self.holder.alive()

    def _elsewhere(self) -> bool:
        return self.pid_namespace != os.readlink("/proc/self/ns/pid")

    def orphaned(self) -> bool:
        """Return whether it was to end with a process that is gone."""
        if self._elsewhere():
            return False
        return self.owner_pid != 0 and not Proc(self.owner_pid, self.owner_start).alive()

    def save(self) -> None:
        folder = paths.state_root() / self.name
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_RECORD}.new"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.rename(folder / _RECORD)


def load(name: str) -> Record | None:
    """Return the record of a lab, running or not."""
    try:
        raw = json.loads((paths.state_root() / name / _RECORD).read_text())
        # Another clone's lab may know more of itself, or less: it is no less alive for that.
        known = {each.name for each in fields(Record)}
        return Record(**{name: value for name, value in raw.items() if name in known})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def known_names() -> list[str]:
    """Return every lab that left a trace."""
    places = (paths.state_root(), paths.disk_root(), cgroups.lab_group("x").parent)
    found = {
        entry.name
        for place in places
        if place.is_dir()
        for entry in place.iterdir()
        if entry.is_dir()
    }
    return sorted(name for name in found if not name.startswith("failed-"))


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time make, change or end a lab. The lock's file goes with the lab."""
    path = paths.state_root() / f".{name}.lock"
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = open(path, "w")  # noqa: SIM115 - closed below, after the caller's work
        except FileNotFoundError:
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(lock, path):
                continue
            try:
                yield
            finally:
                _drop_lock(path, name)
            return


@contextlib.contextmanager
def reserved(waiting: str, place: str = "1") -> Iterator[None]:
    """Keep other tests and measurements from a place for labs; say ``waiting`` if it is taken."""
    path = paths.cache_root() / ("lab.lock" if place == "1" else f"lab-{place}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_at(lock: IO[str], path: Path) -> bool:
    """Return whether the file that was locked still is the one with that name."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _drop_lock(path: Path, name: str) -> None:
    if not (path.parent / name).exists():
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def clear(name: str) -> None:
    """End a lab and remove all it left, in whatever state it is."""
    record = load(name)
    cgroups.kill(cgroups.lab_group(name))
    same_boot = record is not None and record.machine_boot_id == machine_boot_id()
    if record is not None and same_boot and not record.holder.wait_gone(10):
        raise LabError(f"the first process of lab {name} ({record.holder_pid}) does not end")
    cgroups.remove(cgroups.lab_group(name))
    for folder in (paths.disk_root() / name, paths.state_root() / name):
        _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def clear_dead_labs(except_for: str = "") -> list[str]:
    """Clear labs that were killed, and those whose owner was; return their names."""
    cleared = []
    for name in known_names():
        if name == except_for:
            continue
        with locked(name):
            record = load(name)
            if record is not None and record.alive() and not record.orphaned():
                continue
            # A lab without a record is not one in the making: its maker holds the lock.
            clear(name)
            cleared.append(name)
    return cleared


def made_by_this_process(name: str) -> bool:
    """Return whether this process made the lab and owns it."""
    record = load(name)
    return record is not None and (record.owner_pid, record.owner_start) == this_process()


def default_name() -> str:
    """Return the lab that a command means when it names none: the only one that is running."""
    records = map(load, known_names())
    up = [each.name for each in records if each and each.alive() and not each.owner_pid]
    return up[0] if len(up) == 1 else DEFAULT_NAME


def disown(name: str) -> None:
    """Let a lab outlive the process that made it."""
    record = load(name)
    if record is not None:
        replace(record, owner_pid=0, owner_start=0).save()


def this_process() -> tuple[int, int]:
    """Pid and start time of this process, as an owner."""
    return os.getpid(), start_time(os.getpid()) or 0
