"""A disk that forgets at a power cut what was not synced: the worst that a file system may do.

A file's bytes last from its fsync on, an entry of a folder from the folder's. Two states are
made for each moment: nothing that was not synced has reached the disk; or every entry has, and
of the bytes none that was not synced, which is how a rename ahead of its data looks.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Tree = dict[str, tuple[bytes, int] | None]
"""Path below the base to bytes and mode of a file, None for a folder."""

_CHANGES = ("replace", "unlink", "mkdir", "rmdir")


class Disk:
    """Watches what is synced below a folder; what is there at first has lasted.

    Args:
        base: The folder.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._folders: dict[int, dict[str, int]] = {}
        self._files: dict[int, tuple[bytes, int]] = {}
        self._open: list[int] = []  # so that no inode is used again
        self.states: list[Tree] = []
        for folder, _, names in os.walk(base):
            self._sync_path(Path(folder))
            for name in names:
                self._sync_path(Path(folder) / name)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the states at every moment that something reaches the disk, or is about to."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", self._around(os.fsync, self._sync))
            for name in _CHANGES:
                patch.setattr(os, name, self._around(getattr(os, name), lambda _: None))
            yield
        for descriptor in self._open:
            os.close(descriptor)

    def put(self, tree: Tree) -> None:
        """Make the folder what it is in ``tree``."""
        shutil.rmtree(self._base)
        self._base.mkdir()
        for name, content in sorted(tree.items()):
            path = self._base / name
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content[0])
                path.chmod(content[1])

    def _around(
        self, real: Callable[..., object], then: Callable[[int], None]
    ) -> Callable[..., object]:
        def call(first: int, *rest: object, **named: object) -> object:
            self._note()
            result = real(first, *rest, **named)
            then(first)
            self._note()
            return result

        return call

    def _sync_path(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self._sync(descriptor)
        os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(descriptor) as entries:
                self._folders[status.st_ino] = {each.name: each.inode() for each in entries}
            return
        data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        self._files[status.st_ino] = (data, stat.S_IMODE(status.st_mode))
        self._open.append(os.dup(descriptor))

    def _note(self) -> None:
        for state in (self._lasting(self._base.stat().st_ino, ""), self._ahead()):
            if state not in self.states:
                self.states.append(state)

    def _lasting(self, folder: int, name: str) -> Tree:
        """Return the state in which nothing is there that was not synced."""
        tree: Tree = {}
        for entry, inode in self._folders.get(folder, {}).items():
            path = f"{name}{entry}"
            if inode in self._files:
                tree[path] = self._files[inode]
            elif inode in self._folders:
                tree[path] = None
                tree |= self._lasting(inode, f"{path}/")
            else:
                tree[path] = None if (self._base / path).is_dir() else (b"", 0o600)
        return tree

    def _ahead(self) -> Tree:
        """Return the state in which every entry is there, and no byte that was not synced."""
        tree: Tree = {}
        for path in self._base.rglob("*"):
            name = str(path.relative_to(self._base))
            inode = path.stat().st_ino
            tree[name] = None if path.is_dir() else self._files.get(inode, (b"", 0o600))
        return tree
