"""A repository of Debian packages in a folder, which apt reads by file://.

A flat repository (sources.list(5)): packages beside their index, without a suite or a signature.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from hostmesh_lab import shell

PLACE = "/srv/packages"
SOURCE = f"deb [trusted=yes] file:{PLACE} ./\n"


def write(folder: Path, packages: Iterable[Path]) -> None:
    """Copy packages into a folder and write their index anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        shutil.copyfile(package, folder / package.name)
    index = "\n".join(_stanza(package) for package in sorted(folder.glob("*.deb")))
    (folder / "Packages").write_text(index)


def _stanza(package: Path) -> str:
    fields = shell.run(["dpkg-deb", "--field", str(package)], timeout_s=30).stdout
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    size = package.stat().st_size
    return f"{fields}Filename: ./{package.name}\nSize: {size}\nSHA256: {digest}\n"
