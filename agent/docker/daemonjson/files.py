"""Write files with their mode, owner and attributes, old or new after a power cut, never half."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from agent import disk
from agent.docker.daemonjson.undo_journal import Content
from agent.errors import DockerConfigError

__all__ = [
    "make_folder",
    "read_content",
    "remove_file",
    "replace_file",
    "resolve",
]

_MAX_BYTES = 4 * 1024 * 1024


def resolve(path: Path) -> Path:
    """Return where ``path`` leads, symlinks followed, the last of which may dangle.

    Links in a circle lead to one of them; reading that one says so.
    """
    return Path(os.path.realpath(path, strict=False))


def read_content(path: Path) -> Content:
    """Return the file's bytes, mode and owner, ``data`` None when there is none.

    Raises:
        DockerConfigError: It is not a regular file, or cannot be read.
    """
    try:
        # Opened without waiting, so that a fifo in place of the file cannot hang the agent.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return Content(None, uid=os.geteuid(), gid=os.getegid())
    except OSError as error:
        raise _failed("read", path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            hint = "dockerd reads a regular file; put one there, or remove it"
            raise DockerConfigError(f"{path} is not a regular file", hint=hint)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise _failed("read", path, error) from error
    finally:
        os.close(descriptor)
    return Content(data, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def replace_file(path: Path, content: Content) -> None:
    """Put ``content`` at ``path`` in one step, with its mode, owner and the old file's attributes.

    Args:
        path: The file itself; symlinks are not followed. Its folder exists.
        content: What it should be; ``data`` is not None.

    Raises:
        DockerConfigError: It cannot be written; the old file is still there.
    """
    try:
        disk.replace_file(
            path, (content.data or b"",), content.mode, owner=(content.uid, content.gid)
        )
    except OSError as error:
        raise _failed("write", path, error) from error


def remove_file(path: Path) -> None:
    """Remove a file for good; one that is not there is no error.

    Raises:
        DockerConfigError: It cannot be removed.
    """
    try:
        path.unlink()
        disk.sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed("remove", path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that they last.

    Raises:
        OSError: One cannot be made or synced.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o755, exist_ok=True)
    disk.sync_folder(folder.parent)


_HINTS = {
    errno.EROFS: "make its folder writable for the agent: ReadWritePaths= in the unit; if the"
    " folder was made anew meanwhile: systemctl restart hostmesh-agent",
    errno.EBUSY: "mount its folder instead: a mount point cannot be replaced in one step",
    errno.EACCES: "let root write there",
    errno.EPERM: "give the agent CAP_CHOWN to keep the owner and mode, and see with lsattr that the"
    " file is not immutable",
    errno.ENOSPC: "free some space on that file system",
    errno.ELOOP: "repair the symbolic links: they lead in a circle",
}


def _failed(verb: str, path: Path, error: OSError) -> DockerConfigError:
    hint = _HINTS.get(error.errno or 0, "nothing was changed")
    return DockerConfigError(f"cannot {verb} {path}: {error.strerror or error}", hint=hint)
