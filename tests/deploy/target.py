"""A Debian to install on: a copy of one of the lab's root filesystems."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from hostmesh_lab import paths
from hostmesh_lab.filesystems import agent_layer, images

CLONE = Path(__file__).parents[2]
_OUTSIDE = ("proc", "dev", "sys", "tmp", "run/lock", "work", "var/lib/dpkg", "var/log")


class Target:
    """A root filesystem with the image below and what the test did above.

    Args:
        suite: Which Debian.
        folder: Gets the layer; it must not be on an overlay.
        layers: Others below it, from :func:`with_packages`.
    """

    def __init__(self, suite: str, folder: Path, layers: Sequence[Path] = ()) -> None:
        self.image = images.ensure(suite, print)
        self._layers = layers
        self._folder = folder
        self._log = folder / "log"
        self._files = 0

    def run(self, script: str, *, check: bool = True, online: bool = False) -> str:
        """Run a shell script as root; returns what it said and its status.

        Args:
            script: For sh.
            check: A status other than 0 is an error.
            online: With this machine's way to PyPI; without it there is no network at all.
        """
        self._log.unlink(missing_ok=True)
        inner = f"{'' if online else 'unshare --net -- '}sh -ec {shlex.quote(script)}"
        inner = f"exec {inner}" if check else f"{inner} || echo status=$?"
        env = self._go_online() if online else {}
        images.in_overlay(
            self.image, self._folder, inner, self._log, doing=script, layers=self._layers, env=env
        )
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _go_online(self) -> dict[str, str]:
        upper = self._folder / "upper"
        images.lend_name_service(upper)
        images.prepare_apt(upper)
        return agent_layer.pip_settings(upper)

    def put(self, path: str, content: str | bytes) -> None:
        """Write a file there."""
        target = self._folder / "upper" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def take(self, file: Path) -> str:
        """Copy a file of this machine to the root of the target; returns its path there."""
        (self._folder / "upper").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, self._folder / "upper" / file.name)
        return f"/{file.name}"

    def files(self) -> dict[str, str]:
        """Every path there, with type, mode and checksum, but what dpkg itself keeps."""
        prune = " -o ".join(f"-path ./{name}" for name in _OUTSIDE)
        listing = self.run(
            f"cd / && find . -xdev \\( {prune} \\) -prune -o -printf '%y %m %l %p\\n'"
            f" && find . -xdev \\( {prune} \\) -prune -o -type f -path './etc/*' -print0"
            " | xargs -0 md5sum"
        )
        found: dict[str, str] = {}
        for line in listing.splitlines():
            about, _, path = line.rpartition(" ")
            found[path] = found.get(path, "") + about
        return found


def with_packages(suite: str, *packages: str) -> Path:
    """A layer with more of Debian's packages, made once and cached."""
    image = images.ensure(suite, print)
    folder = paths.cache_root() / "test-layers" / f"{image.key}-{'-'.join(packages)}"

    def make(partial: Path) -> None:
        images.lend_name_service(partial / "upper")
        images.prepare_apt(partial / "upper")
        images.in_overlay(
            image,
            partial,
            "apt-get -q update && apt-get -q install -y --no-install-recommends"
            f" {' '.join(packages)}"
            " && apt-get -q clean && rm -rf /var/lib/apt/lists/*",
            partial / "log",
            doing=f"installing {' '.join(packages)}",
        )

    images.build_once(folder, make, print)
    return folder / "upper"
