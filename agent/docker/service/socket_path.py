"""Trust a path of Docker's socket only if root alone can replace it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

__all__ = ["why_replaceable"]

_MOST_LINKS: Final = 40
"""MAXSYMLINKS of linux/namei.h."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
"""With an ACL the group's bits are its mask, so that any user it lets write shows here."""


def why_replaceable(path: Path, *, owner: int = 0) -> str:
    """Return why another user could put a socket of their own at ``path``, "" when none can.

    Every folder on the way must belong to ``owner`` and be writable for that user only, links
    included. A sticky folder such as /tmp is not enough: any user can take a free name.

    Args:
        path: Of the socket, absolute. Folders missing on the way can be made by ``owner`` only.
        owner: The user who may write, root.
    """
    here = Path("/")
    rest = list(reversed(path.parts[1:]))
    links = 0
    while rest:
        why = _folder_problem(here, path, owner)
        if why:
            return why
        part = rest.pop()
        if part == "..":
            here = here.parent
            continue
        try:
            target = str((here / part).readlink())
        except FileNotFoundError:
            return ""
        except OSError:  # no link
            here = here / part
            continue
        links += 1
        if links > _MOST_LINKS:
            return f"the symbolic links of {path} lead in a circle"
        if target.startswith("/"):
            here = Path("/")
        rest += [each for each in reversed(target.split("/")) if each not in {"", "."}]
    return ""


def _folder_problem(folder: Path, path: Path, owner: int) -> str:
    try:
        status = folder.stat()
    except OSError as error:
        return f"{folder} on the way to {path} cannot be looked at: {error.strerror}"
    if status.st_uid != owner:
        return f"{folder} on the way to {path} belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        return f"{folder} on the way to {path} can be written by others (mode {mode:04o})"
    return ""
