"""Make a release: `make release`, or `python -m deploy.release.build --suite trixie --key ID`.

One folder gets everything that is published: packages, a tarball, the man pages, an apt
repository as static files, a bill of materials and checksums. The same sources make the same
bytes, but for signatures.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hostmesh_lab import paths, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images

from agent.ctl import manpages
from deploy.deb import build as deb
from deploy.deb import cross
from deploy.release import repository

__all__ = ["IN_ARCHIVE", "SUMS", "archive", "bill_of_materials", "checksums", "main"]

IN_ARCHIVE = (
    "agent", "deploy", "docs", "systemd", "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md",
    "pyproject.toml", "requirements-dev.lock", "requirements.lock",
)  # fmt: skip
_BILL_TOOL = "cyclonedx-bom==7.5.0"
_BILL_TIMEOUT_S = 600
SUMS = "SHA256SUMS"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the release; the exit status."""
    clone = paths.clone_root()
    version = deb.version_of(clone)
    parser = argparse.ArgumentParser(prog="make release", description="Make a release.")
    parser.add_argument("--suite", choices=[*images.SUITES, "all"], default="all")
    parser.add_argument(
        "--arch", nargs="+", choices=cross.PLATFORMS, default=[None], help="default: this machine's"
    )
    parser.add_argument("--key", default="", metavar="ID", help="sign with this key of gpg's")
    parser.add_argument(
        "--out", type=Path, default=clone / f"dist/hostmesh-{version}", metavar="FOLDER"
    )
    parser.add_argument(
        "--index",
        type=Path,
        metavar="FOLDER",
        help="build nothing: write a release's indices, signatures and checksums anew",
    )
    arguments = parser.parse_args(argv)
    if arguments.index is None and os.geteuid() != 0:
        print("make release: root is needed for the suites' root filesystems", file=sys.stderr)
        return 1
    os.umask(0o022)
    suites = list(images.SUITES) if arguments.suite == "all" else [arguments.suite]
    epoch = deb.source_date(clone)
    try:
        if arguments.index is None:
            packages = _make(clone, suites, arguments.arch, arguments.out, epoch)
            _publish(arguments.out, packages, epoch, arguments.key)
        else:
            _publish(arguments.index, {}, epoch, arguments.key)
    except LabError as error:
        print(f"make release: {error.line()}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(f"make release: {line}", flush=True)


def _make(
    clone: Path, suites: Sequence[str], arches: Sequence[str | None], out: Path, epoch: int
) -> Mapping[str, Sequence[Path]]:
    """Build everything that the sources decide; return the packages of each suite."""
    if out.exists():
        shutil.rmtree(out)  # of another version of the sources
    out.mkdir(parents=True)
    packages = {
        suite: [deb.build(suite, out, each, say=_say) for each in arches] for suite in suites
    }
    _say("packing the tarball and the man pages")
    archive(clone, out, epoch)
    manpages.main([str(out / "man")])
    _say("asking the lock file's libraries for the bill of materials")
    bill_of_materials(clone, out, epoch)
    return packages


def _publish(out: Path, packages: Mapping[str, Sequence[Path]], epoch: int, key: str) -> None:
    """Write the repository, then the checksums of all that is there."""
    _say("writing the apt repository, " + (f"signed by {key}" if key else "unsigned"))
    repository.write(out / "apt", packages, epoch=epoch, key=key)
    (out / f"{SUMS}.asc").unlink(missing_ok=True)
    checksums(out)
    if key:
        repository.sign_file(out / SUMS, out / f"{SUMS}.asc", key)
    print(out)


def archive(clone: Path, out: Path, epoch: int) -> Path:
    """Pack the sources that deploy/install.sh needs; return the tarball's path.

    Raises:
        LabError: The clone is no clone.
    """
    name = f"hostmesh-{deb.version_of(clone)}"
    listed = shell.run(
        ["git", "-C", str(clone), "ls-files", "-z", "--cached", "--others", "--exclude-standard",
         "--", *IN_ARCHIVE],
        timeout_s=60,
    ).stdout  # fmt: skip
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for each in sorted(filter(None, listed.split("\0"))):
            if (clone / each).exists():  # one that was removed and not yet committed is listed
                _add(tar, clone / each, f"{name}/{each}", epoch)
        link = tarfile.TarInfo(f"{name}/install.sh")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "deploy/install.sh", epoch
        tar.addfile(link)
    target = out / f"{name}.tar.gz"
    target.write_bytes(gzip.compress(content.getvalue(), 9, mtime=0))
    return target


def _add(tar: tarfile.TarFile, file: Path, name: str, epoch: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = file.stat().st_size, epoch
    info.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
    with file.open("rb") as stream:
        tar.addfile(info, stream)


def bill_of_materials(clone: Path, out: Path, epoch: int) -> Path:
    """Write which libraries are inside, in CycloneDX's JSON; return its path.

    The lock file is installed, with its hashes, into an environment of its own, and
    CycloneDX's tool reads that: versions, licenses, and which library needs which.

    Raises:
        CommandFailed: The libraries or the tool could not be had.
    """
    target = out / f"hostmesh-{deb.version_of(clone)}.cdx.json"
    uv = str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory(prefix="hostmesh-bill-") as folder:
        python = f"{folder}/venv/bin/python"
        sync = ["pip", "sync", "--quiet", "--require-hashes", "--python", python]
        tool = ["tool", "run", "--quiet", "--from", _BILL_TOOL, "cyclonedx-py", "environment"]
        for command in (
            ["venv", "--quiet", "--python", sys.executable, f"{folder}/venv"],
            [*sync, str(clone / "requirements.lock")],
            [*tool, "--output-reproducible", "--pyproject", str(clone / "pyproject.toml"),
             "--output-file", str(target), python],
        ):  # fmt: skip
            shell.run(
                [uv, *command],
                timeout_s=_BILL_TIMEOUT_S,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
                doing=f"uv {command[0]} {command[1]}",
            )
    return target


def checksums(out: Path) -> None:
    """Write SHA256SUMS of all files, as `sha256sum --check` reads it."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n"
        for path in files
    ]
    (out / SUMS).write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())
