"""Write the snapshot when names change, confirm it, and watch the servers that read it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from agent.daemon.names.servers import look_at_servers, server_conditions
from agent.daemon.names.snapshot_files import SnapshotFiles
from agent.daemon.names.wanted import NamesWanted
from agent.daemon.state.events import NamesReported
from agent.dns.snapshot import TOUCH_S
from agent.dns.status import STATUS_FOLDER
from agent.mesh.names import MeshNames, NamesInput, local_names
from agent.model import Condition, HostId
from agent.model.names import HostNames
from agent.threads import Jobs

__all__ = ["NamesJob"]

_LOOK_S: Final = 5.0
"""How often to look at the servers, and to try again what could not be written."""

_log = structlog.get_logger("agent.names")


class NamesJob:
    """Keeps the snapshot of the name servers, on a thread of its own.

    Nothing is removed before it is known to be gone: of other hosts' names not before all endpoints
    were read, of this host's not before Docker has answered (promise 3).

    Args:
        folder: Of the snapshot.
        boot_id: Of this run of the host.
        on_report: Gets the conditions, and whether the servers answer, when they change.
        jobs: Runs this and nothing that waits.
        status: Where the servers write how they are.
    """

    name = "names"

    def __init__(
        self,
        folder: Path,
        boot_id: str,
        on_report: Callable[[NamesReported], None],
        jobs: Jobs,
        status: Path = STATUS_FOLDER,
    ) -> None:
        self._files = SnapshotFiles(folder)
        self._boot_id = boot_id
        self._on_report = on_report
        self._jobs = jobs
        self._status = status
        self._lock = threading.Lock()
        self._newest: NamesWanted | None = None
        self._wanted: NamesWanted | None = None
        self._names = MeshNames()
        self._unwritten: dict[HostId, HostNames | None] = {}
        self._swept = False
        self._problem: Condition | None = None
        self._touched_s = self._looked_s = -TOUCH_S
        self._seen: tuple[bool, tuple[Condition, ...]] = (False, ())
        self._reported: NamesReported | None = None

    def start(self) -> None:
        """Begin; nothing is done before something is wanted."""
        self._jobs.add(self)

    def stop(self) -> None:
        """End; the snapshot stays (promise 3)."""
        self._jobs.remove(self)

    def follow(self, wanted: NamesWanted) -> None:
        """Follow the mesh. Any thread; only the newest counts."""
        with self._lock:
            self._newest = wanted
        self._jobs.hurry(self)

    def run(self) -> float:
        """Do what is due; return the seconds until more is: without names, nothing ever is."""
        with self._lock:
            newest, self._newest = self._newest, None
        self._wanted = newest or self._wanted
        if self._wanted is None:
            return math.inf
        if self._reported is None:  # Docker's configuration waits for it
            self._report(on=self._wanted.input is not None)
        try:
            self._write(self._wanted, follow=newest is not None)
            self._problem = None
        except OSError as error:
            self._problem = _not_written(error)
        self._report(on=self._wanted.input is not None)
        idle = self._wanted.input is None and self._problem is None
        return math.inf if idle else _LOOK_S

    def _write(self, wanted: NamesWanted, *, follow: bool) -> None:
        """Bring the files to what is wanted. Raises OSError; then the rest is written later."""
        if wanted.input is None:
            self._names, self._unwritten, self._swept = MeshNames(), {}, False
            if follow or self._problem:
                self._files.clear()
            return
        if self._files.lost():
            self._names, self._unwritten, self._swept, follow = MeshNames(), {}, False, True
        if follow:
            self._unwritten.update(self._names.follow(wanted.input))
        changes = self._due(wanted, wanted.input)
        for host, names in changes.items():
            self._files.write({host: names})
            self._unwritten.pop(host, None)
        self._swept = self._swept or wanted.others_known
        self._write_local(wanted, wanted.input, changed=bool(changes))

    def _due(self, wanted: NamesWanted, given: NamesInput) -> dict[HostId, HostNames | None]:
        here = given.world.host_id
        found = dict(self._unwritten)
        if wanted.others_known and not self._swept:
            gone = (each for each in self._files.hosts() if each not in self._names.hosts)
            found = {**dict.fromkeys(gone), **found}
        return {
            host: names
            for host, names in found.items()
            if (wanted.own_known if host == here else wanted.others_known)
        }

    def _write_local(self, wanted: NamesWanted, given: NamesInput, *, changed: bool) -> None:
        if not wanted.own_known:
            return
        complete = wanted.others_known and wanted.current
        local = local_names(given.world, wanted.limit, self._boot_id, complete=complete)
        if local is None:
            return
        self._files.write_local(local, changed=changed)
        now_s = time.monotonic()
        docker = given.world.docker
        if now_s - self._touched_s >= TOUCH_S / 2 and docker is not None and docker.reachable:
            self._files.touch()
            self._touched_s = now_s

    def _report(self, *, on: bool) -> None:
        """Report how servers and files are, when that has changed."""
        now_s = time.monotonic()
        if on and now_s - self._looked_s >= _LOOK_S / 2:
            self._looked_s = now_s
            servers = look_at_servers(self._status)
            self._seen = any(each.runs for each in servers), server_conditions(servers)
        served, conditions = self._seen if on else (False, ())
        problem = () if self._problem is None else (self._problem,)
        report = NamesReported(served, (*conditions, *problem))
        if report != self._reported:
            self._reported = report
            self._on_report(report)


def _not_written(error: OSError) -> Condition:
    _log.warning("names-not-written", path=error.filename, reason=error.strerror)
    return Condition(
        name="names-not-written",
        cause=f"{error.filename} cannot be written: {error.strerror}; name servers of this host"
        " answer from an older snapshot",
        hint="free space in agent.state_dir, or make it writable; the agent tries again",
    )
