"""The host's own copy of its lease and of the last complete view, for when etcd is away.

One JSON file, replaced atomically (write, fsync, rename, fsync of the folder), with a
version and a checksum. A file that is damaged or cannot be read is renamed aside and reported,
never fatal: etcd is the truth, the copy only bridges its absence (promises 3 and 4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from agent.disk import replace_file, sync_folder
from agent.errors import StateError
from agent.model import (
    Bounds,
    Lease,
    View,
    within,
)
from agent.model.family import Network
from agent.model.untrusted import quote
from agent.registry.copy_format import LARGEST_BYTES, Copy, copy_bytes, parse_copy
from agent.settings import Settings

__all__ = ["Copy", "CopyFile", "bounds_of", "copy_file"]

_log = structlog.get_logger()

_DEFAULT_BOUNDS = Bounds()


class CopyFile:
    """Reads and writes the copy. One writer at a time.

    Args:
        path: Such as /var/lib/hostmesh/copy.json; its folder is made when missing.
        bounds: What this host allows of a config. A saved one outside of it is not used, unless
            it was saved by a version that did not ask.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        bounds: Bounds = _DEFAULT_BOUNDS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._bounds = bounds
        self._kept: tuple[Network, ...] = ()
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self.problem = ""
        """Why the last :meth:`load` set the file aside; "" when it did not."""

    def save(
        self, *, view: View, lease: Lease | None, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Replace the file, piece by piece: as one text a large mesh would take 100 MB.

        Args:
            wanted: Asked when no other call is under way any more: False, and nothing is written.

        Raises:
            StateError: It cannot be written; the old file is still whole.
        """
        with self._lock:
            if not wanted():
                return
            try:
                body = copy_bytes(view, lease, self._still_kept(view), self._wall_clock())
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                replace_file(self._path, body, 0o644)
            except OSError as error:
                raise StateError(
                    f"cannot write {self._path}: {error.strerror or error}",
                    hint="is the disk full, or read-only?",
                ) from error

    def load(self) -> Copy | None:
        """Read the file.

        Returns:
            None when there is none, or when it was damaged or cannot be read and has been set
            aside (then :attr:`problem` says why).
        """
        self.problem = ""
        found: Copy | None = None
        try:
            raw = self._read()
            if raw is not None:
                found = parse_copy(raw, self._bounds)
        except StateError as error:
            self._set_aside(error.message)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._set_aside(f"{self._path} is damaged: {quote(str(error))}")
        self._kept = found.kept if found else ()
        return found

    def peek(self) -> Copy | None:
        """Read the file as :meth:`load` does, but leave a damaged one where it is.

        For readers beside the agent, whose business the file is.

        Raises:
            StateError: It is there but cannot be read, or is damaged.
        """
        try:
            raw = self._read()
            return None if raw is None else parse_copy(raw, self._bounds)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StateError(f"{self._path} is damaged: {quote(str(error))}") from error

    def forget(self) -> None:
        """Delete the file (the host leaves the mesh); one that is not there is fine.

        Raises:
            StateError: It cannot be deleted.
        """
        try:
            with self._lock:
                if self._path.exists():
                    self._path.unlink()
                    sync_folder(self._path.parent)
        except OSError as error:
            raise StateError(f"cannot delete {self._path}: {error.strerror or error}") from error

    def _still_kept(self, view: View) -> tuple[Network, ...]:
        """Return those of the kept CIDRs that the mesh still uses: none comes back later."""
        used = view.config.cidrs if view.config else ()
        return tuple(each for each in self._kept if any(within(cidr, each) for cidr in used))

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                return file.read(LARGEST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read {self._path}: {error.strerror or error}") from error

    def _set_aside(self, reason: str) -> None:
        aside = self._path.with_name(self._path.name + ".damaged")
        self.problem = f"{reason}; the file is now {aside}"
        try:
            self._path.replace(aside)
        except OSError as error:
            self.problem = f"{reason}; the file cannot be moved: {error.strerror or error}"
        _log.warning("copy-set-aside", path=str(self._path), reason=reason)


def copy_file(settings: Settings) -> CopyFile:
    """Return this host's copy, as its settings say."""
    return CopyFile(settings.agent.mesh_copy, bounds=settings.mesh.bounds())


def bounds_of(settings: Settings) -> Bounds:
    """Return what this host allows of a config, for readers beside the agent.

    A copy that cannot be read keeps no CIDR: what is in doubt is not allowed.
    """
    try:
        copy = copy_file(settings).peek()
    except StateError:
        copy = None
    bounds = settings.mesh.bounds()
    if copy is None:
        return bounds
    config = copy.view.config
    return replace(bounds, kept=copy.kept, in_force=config.cidrs if config else ())
