"""Hear of changes in a folder from the kernel (inotify(7)), by libc's own functions."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

__all__ = ["FolderWatch"]

_IN_ATTRIB, _IN_CLOSE_WRITE, _IN_MOVED, _IN_DELETE = 0x4, 0x8, 0xC0, 0x200
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
_MASK: Final = _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_MOVED | _IN_DELETE | _IN_ONLYDIR
_EVENT: Final = struct.Struct("iIII")
_READ: Final = 65536


class FolderWatch:
    """Tells which files of a folder changed.

    Raises:
        OSError: The kernel has no watch for it, or the folder is not there.
    """

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK) < 0:
            error = ctypes.get_errno()
            self.close()
            raise OSError(error, "inotify_add_watch")

    def fileno(self) -> int:
        """Return the descriptor that is readable when something changed."""
        return int(self._descriptor)

    def read(self) -> set[str] | None:
        """Return the names of files that changed; None if the folder has to be read anew."""
        try:
            content = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return set()
        names: set[str] = set()
        at = 0
        while at + _EVENT.size <= len(content):
            _, mask, _, length = _EVENT.unpack_from(content, at)
            at += _EVENT.size
            if mask & (_IN_Q_OVERFLOW | _IN_IGNORED):
                return None
            names.add(os.fsdecode(content[at : at + length].rstrip(b"\0")))
            at += length
        return names

    def close(self) -> None:
        """Give the watch up."""
        os.close(self._descriptor)
