"""Choose the Debian package for each host: given, found, or from an apt repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.deploy.facts import HostFacts
from agent.errors import UsageError

__all__ = ["Package", "choose", "find", "given"]

_NAME = re.compile(
    r"hostmesh_(?P<version>[0-9][^_]*)_(?:(?P<codename>[a-z]+)_)?(?P<architecture>[a-z0-9]+)\.deb"
)
_RELEASES = {"12": "bookworm", "13": "trixie", "14": "forky"}


@dataclass(frozen=True)
class Package:
    """A .deb file on this machine.

    Attributes:
        codename: Of the Debian release that it is for, since it fits one release's Python only.
    """

    path: Path
    version: str
    codename: str
    architecture: str

    @property
    def upstream(self) -> str:
        """Return the version without the number of the Debian release."""
        return self.version.partition("+deb")[0]


def given(paths: Iterable[str]) -> tuple[Package, ...]:
    """Return the packages of these files.

    Raises:
        UsageError: A file is not there, or its name is not one of `make deb`.
    """
    found = []
    for text in paths:
        path = Path(text).absolute()
        package = _package(path)
        if package is None or not path.is_file():
            raise UsageError(
                f"{text} is no package of Hostmesh",
                hint="--package takes a file hostmesh_VERSION_RELEASE_ARCHITECTURE.deb of make deb",
            )
        found.append(package)
    return tuple(found)


def find(folders: Iterable[Path]) -> tuple[Package, ...]:
    """Return the packages in these folders, the newest of each release last."""
    paths = (path for folder in folders for path in folder.glob("hostmesh_*.deb"))
    known = (package for path in paths if (package := _package(path.absolute())))
    return tuple(sorted(known, key=lambda each: (_order(each.version), each.path.stat().st_mtime)))


def choose(packages: Iterable[Package], facts: HostFacts) -> Package | None:
    """Return the newest package that fits a host; None for none."""
    fitting = [
        package
        for package in packages
        if package.codename == facts.codename and package.architecture == facts.architecture
    ]
    return fitting[-1] if fitting else None


def _package(path: Path) -> Package | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    part: Mapping[str, str | None] = match.groupdict()
    version, architecture = str(part["version"]), str(part["architecture"])
    number = re.search(r"\+deb(\d+)", version)
    codename = part["codename"] or (_RELEASES.get(number[1], "") if number else "")
    return Package(path, version, codename, architecture) if codename else None


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))
