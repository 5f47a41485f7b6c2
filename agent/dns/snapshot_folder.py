"""Follow the folder of the snapshot: read the files that changed, one at a time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

from agent.dns.snapshot import FRESH_S, LOCAL_FILE, MOST_BYTES, decode_host, decode_local
from agent.dns.zone import Zone
from agent.model.mesh import HostId

__all__ = ["SnapshotFolder"]

_HOST_FILE: Final = re.compile(r"([0-9a-f]{32})\.json")
_log = structlog.get_logger(__name__)


class SnapshotFolder:
    """Keeps a zone as the folder's files say. A file that cannot be read changes nothing.

    Args:
        folder: Need not exist yet.
        zone: Gets what the files say.
        boot_id: Of the running kernel.
        clock: Monotonic seconds.
        wall_clock: Unix time.
    """

    def __init__(
        self,
        folder: Path,
        zone: Zone,
        boot_id: str,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._zone = zone
        self._boot_id = boot_id
        self._clock = clock
        self._wall_clock = wall_clock
        self._read: dict[str, tuple[int, ...]] = {}
        self._pending: dict[str, None] = {}
        self._damaged: set[str] = set()
        self._listed: tuple[int, ...] = ()
        self._touched_s: float | None = None

    @property
    def damaged(self) -> int:
        """Return how many files cannot be used."""
        return len(self._damaged)

    @property
    def age_s(self) -> float | None:
        """Return how long ago the agent has confirmed the snapshot, None if it never has."""
        return None if self._touched_s is None else max(0.0, self._clock() - self._touched_s)

    @property
    def fresh(self) -> bool:
        """Return whether the agent of this boot has confirmed the snapshot, whole, and lately."""
        local, age_s = self._zone.local, self.age_s
        return (
            local is not None
            and local.boot_id == self._boot_id
            and age_s is not None
            and age_s < FRESH_S
            and not self._damaged
            and not self._pending
        )

    def look(self) -> None:
        """Find the files that changed, by the times of the folder and of ``local.json``."""
        self.changed([LOCAL_FILE])
        try:
            status = self.folder.stat()
            listed = (status.st_ino, status.st_mtime_ns)
            if listed != self._listed:
                # Its time first: a file that comes during the listing is seen next time.
                found = {each.name for each in self.folder.iterdir()}
                self._listed = listed
                self.changed(sorted(found | {name for name in self._read if name != LOCAL_FILE}))
        except OSError:
            return

    def changed(self, names: Iterable[str]) -> None:
        """Have files read by the next steps."""
        for name in names:
            if name == LOCAL_FILE or _HOST_FILE.fullmatch(name):
                self._pending[name] = None

    def step(self) -> bool:
        """Read one file that changed; return whether more are waiting."""
        if self._pending:
            name = next(iter(self._pending))
            self._take(name)
            del self._pending[name]
        return bool(self._pending)

    def read_all(self) -> None:
        """Read all that is there."""
        self.look()
        while self.step():
            pass

    def _take(self, name: str) -> None:
        try:
            with open(self.folder / name, "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if name == LOCAL_FILE:
                    # Either way the clock went: a time in the future is no confirmation.
                    self._touched_s = self._clock() - abs(self._wall_clock() - status.st_mtime)
                signature = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._read.get(name) == signature:
                    return
                content = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            self._gone(name)
        except OSError as error:  # of the disk, or it is no file: the others are as good as before
            self._refuse(name, str(error.strerror))
        else:
            self._use(name, content)
            self._read[name] = signature

    def _use(self, name: str, content: bytes) -> None:
        try:
            if name == LOCAL_FILE:
                self._zone.set_local(decode_local(content))
            else:
                host = decode_host(content)
                if not name.startswith(host.host_id):
                    self._refuse(name, "it names another host")
                    return
                self._zone.set_host(host)
        except ValueError as error:
            self._refuse(name, str(error))
            return
        self._damaged.discard(name)

    def _gone(self, name: str) -> None:
        self._read.pop(name, None)
        self._damaged.discard(name)
        if name == LOCAL_FILE:
            self._touched_s = None  # the facts stay: stale ones are better than none
        else:
            self._zone.remove_host(HostId(name.removesuffix(".json")))

    def _refuse(self, name: str, reason: str) -> None:
        self._damaged.add(name)
        _log.warning("snapshot-file-refused", file=name, reason=reason, limit_key=name)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
