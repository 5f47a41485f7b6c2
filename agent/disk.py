"""Make changes of files and folders last through a power cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["replace_file", "sync_folder"]


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(
    path: Path, pieces: Iterable[bytes], mode: int, *, owner: tuple[int, int] | None = None
) -> None:
    """Put ``pieces`` at ``path`` in one step: a power cut leaves the old file or the new one.

    For one writer at a time; the folder exists.

    Args:
        path: The file itself; a symlink is replaced.
        pieces: The new bytes.
        mode: The new mode.
        owner: User and group, where they are to stay as they are. Extended attributes of the
            old file stay as well. Comes last: a file of another user cannot be changed any
            more by an agent with CAP_CHOWN and without CAP_FOWNER.

    Raises:
        OSError: It cannot be written; the old file is still whole.
    """
    temporary = path.with_name(f".{path.name}.hostmesh-new")
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, _CREATE, 0o600), "wb") as file:
            file.writelines(pieces)
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                _copy_attributes(path, temporary)
                status = os.fstat(file.fileno())
                if (status.st_uid, status.st_gid) != owner:
                    os.fchown(file.fileno(), *owner)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _copy_attributes(source: Path, target: Path) -> None:
    """Copy extended attributes (SELinux label, ACL) where the file system has them."""
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))


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
