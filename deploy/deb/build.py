"""Build the Debian packages: `make deb`, or `python -m deploy.deb.build --suite trixie`.

dpkg-deb is called directly. What debhelper automates (compiling, stripping, finding shared
libraries, installing from a build system) has no part here, where a finished tree is packed, and
its snippets for systemd wait for a service to be up, which a node agent without etcd is not.

The same sources make the same bytes: times come from SOURCE_DATE_EPOCH (else the last commit),
the compressor has one thread, and libraries come from requirements.lock with their hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hostmesh_lab import paths, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import agent_layer, images

from deploy.deb import contents, control, cross, tree

_NUMBER = {"bookworm": "deb12", "trixie": "deb13", "forky": "deb14"}
"""In the version, so that a release upgrade of Debian upgrades the package too."""

_INPUTS = (
    "agent", "deploy", "docs", "systemd", "README.md", "CHANGELOG.md", "pyproject.toml",
    "requirements.lock",
)  # fmt: skip
_GENERATE = """\
{python} -I -B -m agent.ctl.manpages /made
{python} -I -B -m agent.ctl.completions /made"""
_PACK = "dpkg-deb --root-owner-group -Zxz -z6 --threads-max=1 --build /package /out"


def main(argv: Sequence[str] | None = None) -> int:
    """Build for the suites named; the exit status."""
    parser = argparse.ArgumentParser(prog="make deb", description="Build the Debian packages.")
    parser.add_argument("--suite", choices=[*images.SUITES, "all"], default="all")
    parser.add_argument("--arch", choices=cross.PLATFORMS, help="default: this machine's")
    parser.add_argument("--out", type=Path, default=paths.clone_root() / "dist", metavar="FOLDER")
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("make deb: root is needed for the suites' root filesystems", file=sys.stderr)
        return 1
    os.umask(0o022)
    suites = list(images.SUITES) if arguments.suite == "all" else [arguments.suite]
    try:
        for suite in suites:
            print(build(suite, arguments.out, arguments.arch, say=_say))
    except LabError as error:
        print(f"make deb: {error.line()}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(f"make deb: {line}", flush=True)


def build(suite: str, out: Path, arch: str | None = None, *, say: images.Say) -> Path:
    """Build one package, unless one of the same inputs is cached.

    Args:
        suite: For which Debian.
        out: Gets the package.
        arch: Debian's name of a processor; None: this machine's.
        say: Hears of each step.

    Returns:
        Its path in ``out``.

    Raises:
        LabError: A step failed; the message names it and quotes its end.
    """
    clone, image = paths.clone_root(), images.ensure(suite, say)
    bundle = tree.dependencies(image, say)
    epoch = source_date(clone)
    arch = arch or architecture()
    name = f"hostmesh_{version_of(clone)}_{suite}_{arch}.deb"
    key = _key(clone, f"{bundle.parent.name} {arch}", epoch)
    folder = paths.cache_root() / "debs" / f"{suite}-{key}"

    def make(partial: Path) -> None:
        say(f"building {name}")
        _make(clone, image, bundle, epoch, partial, arch)
        next(partial.glob("*.deb")).rename(partial / name)

    images.build_once(folder, make, say)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / name, out / name)
    return out / name


def _make(
    clone: Path, image: images.Image, bundle: Path, epoch: int, folder: Path, arch: str
) -> None:
    root, packages = folder / "root", tree.packages_folder(image)
    shutil.copytree(bundle, root, symlinks=True)
    agent = root / packages / "agent"
    shutil.copytree(clone / "agent", agent, ignore=shutil.ignore_patterns("__pycache__"))
    tree.set_times(agent, epoch)
    tree.compile_in(image, root, f"{packages}/agent", folder / "scratch")
    contents.place(clone, root)
    contents.place_generated(_generate(image, root, folder), root)
    contents.scripts(clone, root)
    if arch != architecture():
        cross.replace_compiled(
            root / packages, clone / "requirements.lock", arch, tree.python_of(image)
        )
    details = control.Build(
        version=f"{version_of(clone)}+{_NUMBER[image.suite]}",
        suite=image.suite,
        architecture=arch,
        python=tree.python_of(image),
        epoch=epoch,
    )
    control.write(details, root, root / packages)
    _settle(root, epoch)
    images.in_overlay(
        image,
        folder / "scratch",
        _PACK,
        folder / "pack.log",
        doing=f"packing for {image.suite}",
        env={"SOURCE_DATE_EPOCH": str(epoch)},
        binds=[(root, "/package"), (folder, "/out")],
    )
    for each in (root, folder / "scratch", folder / "generated"):
        images.remove_tree(each)


def _generate(image: images.Image, root: Path, folder: Path) -> Path:
    """Man pages and completions, made by the packaged agent with the suite's Python."""
    made = folder / "generated"
    made.mkdir()
    images.in_overlay(
        image,
        folder / "scratch",
        _GENERATE.format(python=f"/{tree.HOME}/bin/python3"),
        folder / "generate.log",
        doing=f"making man pages and completions for {image.suite}",
        binds=[(root / tree.HOME, f"/{tree.HOME}"), (made, "/made")],
    )
    return made


def _settle(root: Path, epoch: int) -> None:
    """Modes that do not depend on the builder's umask; times that are not of the build."""
    for path in root.rglob("*"):
        if path.is_symlink():
            continue
        runs = path.is_dir() or bool(path.stat().st_mode & 0o100 and _is_program(path, root))
        path.chmod(0o755 if runs else 0o644)
        if path.stat().st_mtime > epoch:
            os.utime(path, (epoch, epoch))


_PROGRAMS = ("usr/bin/", "usr/sbin/", "usr/share/hostmesh/", "DEBIAN/")


def _is_program(path: Path, root: Path) -> bool:
    return str(path.relative_to(root)).startswith(_PROGRAMS)


def version_of(clone: Path) -> str:
    """The version, where setuptools reads it too."""
    found = re.search(r'^version = "([^"]+)"', (clone / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        raise LabError("pyproject.toml has no version")
    return found[1]


def source_date(clone: Path) -> int:
    """Seconds since 1970 that the package is dated with."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given.isdecimal():
        return int(given)
    command = ["git", "-C", str(clone), "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return int((clone / "CHANGELOG.md").stat().st_mtime)  # no git: an unpacked archive
    text = done.stdout.strip()
    return int(text) if text.isdigit() else int((clone / "CHANGELOG.md").stat().st_mtime)


def architecture() -> str:
    """Return Debian's name of this machine's processor; the images are of the same."""
    return shell.run(["dpkg", "--print-architecture"], timeout_s=30).check().stdout.strip()


def _key(clone: Path, bundle: str, epoch: int) -> str:
    """A hash of everything that decides what is in the package."""
    digest = hashlib.sha256(f"{bundle} {epoch} {agent_layer.FORMAT}".encode())
    for name in _INPUTS:
        top = clone / name
        files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        for path in files:
            if "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(clone)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
