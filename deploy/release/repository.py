"""An apt repository as static files: any web server, bucket or folder serves it."""

from __future__ import annotations

import email.utils
import lzma
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hostmesh_lab import shell

__all__ = ["sign_file", "write"]

_RELEASE = {
    "Origin": "Hostmesh",
    "Label": "Hostmesh",
    "Components": "main",
    "Description": "one routed container network for plain Docker hosts",
}
_TIMEOUT_S = 120


def write(folder: Path, packages: Mapping[str, Sequence[Path]], *, epoch: int, key: str) -> None:
    """Add packages to a repository and write its indices anew.

    Packages that are there already stay, so that a folder may keep several versions.

    Args:
        folder: The repository; made if it is not there.
        packages: For each suite.
        epoch: Unix time that the indices are dated with.
        key: By which gpg finds the secret key that signs; empty: unsigned.

    Raises:
        CommandFailed: apt-ftparchive or gpg failed.
    """
    for suite, files in packages.items():
        pool = folder / "pool" / suite
        pool.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, pool / file.name)
    for suite in sorted(each.name for each in (folder / "pool").iterdir()):
        _index(folder, suite, epoch)
        if key:
            _sign(folder / "dists" / suite, key)
    (folder / "hostmesh.asc").unlink(missing_ok=True)
    if key:
        gpg = ["gpg", "--batch", "--armor", "--export", key]
        exported = shell.run(gpg, timeout_s=_TIMEOUT_S, doing="exporting the key").stdout
        (folder / "hostmesh.asc").write_text(exported)


def _index(folder: Path, suite: str, epoch: int) -> None:
    """Write Packages of each architecture, then Release, which has their checksums."""
    suite_folder = folder / "dists" / suite
    if suite_folder.exists():
        shutil.rmtree(suite_folder)  # a signature of the previous Release, too
    architectures = sorted(
        {file.stem.rpartition("_")[2] for file in (folder / "pool" / suite).glob("*.deb")}
    )
    for architecture in architectures:
        target = suite_folder / f"main/binary-{architecture}"
        target.mkdir(parents=True)
        wanted = ["--arch", architecture, "packages", f"pool/{suite}"]
        text = _apt_ftparchive(folder, epoch, *wanted).encode()
        (target / "Packages").write_bytes(text)
        (target / "Packages.xz").write_bytes(lzma.compress(text))
    fields = {**_RELEASE, "Suite": suite, "Codename": suite}
    fields |= {
        "Architectures": " ".join(architectures),
        "Date": email.utils.formatdate(epoch, usegmt=True),
    }
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
    release = _apt_ftparchive(folder, epoch, *options, "release", f"dists/{suite}")
    (suite_folder / "Release").write_text(release)


def _apt_ftparchive(folder: Path, epoch: int, *arguments: str) -> str:
    """Run it in the repository: the names that it writes are relative."""
    return shell.run(
        ["env", f"--chdir={folder}", "apt-ftparchive", *arguments],
        timeout_s=_TIMEOUT_S,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"},
        doing=f"apt-ftparchive {arguments[-2]}",
    ).stdout


def _sign(suite_folder: Path, key: str) -> None:
    """Sign Release inside (InRelease) and beside it (Release.gpg)."""
    release = suite_folder / "Release"
    for how, name in (("--clear-sign", "InRelease"), ("--detach-sign", "Release.gpg")):
        sign_file(release, suite_folder / name, key, how)


def sign_file(file: Path, output: Path, key: str, how: str = "--detach-sign") -> None:
    """Let gpg sign a file. Raises CommandFailed."""
    gpg = ["gpg", "--batch", "--yes", "--armor", "--local-user", key, "--output", str(output)]
    shell.run([*gpg, how, str(file)], timeout_s=_TIMEOUT_S, doing=f"signing {file.name}")
