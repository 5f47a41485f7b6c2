"""Write the snapshot's files, each in one step, and only those that changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from agent.disk import replace_file, sync_folder
from agent.dns.snapshot import LOCAL_FILE, decode_local, encode_host, encode_local, host_file
from agent.model import HostId
from agent.model.names import HostNames, LocalNames
from agent.model.untrusted import parse_host_id

__all__ = ["SnapshotFiles"]

_FILE_MODE, _FOLDER_MODE = 0o644, 0o755


class SnapshotFiles:
    """The folder that the name servers read. For one thread.

    Args:
        folder: Made when it is first written to, and never removed: the servers watch it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local_path = folder / LOCAL_FILE
        self._local: LocalNames | None = None

    def hosts(self) -> Iterator[HostId]:
        """Yield the hosts that have a file."""
        for path in self._folder.glob("*.json"):
            try:
                yield parse_host_id(path.stem)
            except ValueError:  # local.json
                continue

    def write(self, changes: Mapping[HostId, HostNames | None]) -> None:
        """Write hosts' files; None removes one.

        Raises:
            OSError: One cannot be written; the old one is whole.
        """
        for host, names in changes.items():
            path = host_file(self._folder, host)
            if names is None:
                path.unlink(missing_ok=True)
            else:
                self._replace(path, encode_host(names))

    def write_local(self, local: LocalNames, *, changed: bool) -> None:
        """Write ``local.json`` with the next serial number, if there is anything new.

        Args:
            changed: Some host's file was written since.

        Raises:
            OSError: It cannot be written; the old one is whole.
        """
        last = self._local
        if not changed and last is not None and replace(local, serial=last.serial) == last:
            return
        serial = (last.serial if last else self._last_serial()) + 1
        self._local = replace(local, serial=serial)
        try:
            self._replace(self._local_path, encode_local(self._local))
        except OSError:
            self._local = None
            raise

    def lost(self) -> bool:
        """Return, once, whether another program has removed what was written here."""
        if self._local is None or self._local_path.exists():
            return False
        self._local = None
        return True

    def touch(self) -> None:
        """Confirm that the snapshot is true now.

        Raises:
            OSError: It is not there.
        """
        os.utime(self._local_path)

    def clear(self) -> None:
        """Remove every file: from now on the servers only forward.

        Raises:
            OSError: One cannot be removed.
        """
        self._local = None
        if not self._folder.is_dir():
            return
        self._local_path.unlink(missing_ok=True)
        for host in list(self.hosts()):
            host_file(self._folder, host).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _last_serial(self) -> int:
        try:
            return decode_local(self._local_path.read_bytes()).serial
        except (OSError, ValueError):
            return 0

    def _replace(self, path: Path, content: bytes) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._folder.chmod(_FOLDER_MODE)  # the servers run as another user
        replace_file(path, [content], _FILE_MODE)
