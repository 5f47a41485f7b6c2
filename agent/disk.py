"""Make changes of files and folders last through a power cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["replace_file", "sync_folder"]


def replace_file(path: Path, pieces: Iterable[bytes], mode: int) -> None:
    """Put ``pieces`` at ``path`` in one step: a power cut leaves the old file or the new one.

    For one writer at a time; the folder exists.

    Raises:
        OSError: It cannot be written; the old file is still whole.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries last: a file that was renamed or removed there.

    Raises:
        OSError: The folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
