"""Packages for another processor: the few compiled libraries are replaced, nothing is emulated.

Python modules and their compiled forms are the same for every processor. Libraries with code for
one processor come as PyPI's wheels for the other one, by the hashes of requirements.lock.
python-iptables has no wheel: its one C file is compiled by Debian's cross compiler.
"""

from __future__ import annotations

import email.parser
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hostmesh_lab import shell
from hostmesh_lab.errors import LabError

__all__ = ["PLATFORMS", "replace_compiled"]

PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names of processors, and the kernel's."""

_SOURCE_ONLY = "python-iptables"
_TIMEOUT_S = 300


def replace_compiled(packages: Path, lock: Path, architecture: str, python: str) -> None:
    """Replace the compiled libraries in a folder of modules by those of another processor.

    Args:
        packages: The folder ``site-packages`` of a package's tree.
        lock: The requirements with their hashes.
        architecture: Debian's name.
        python: As ``python3.13``.

    Raises:
        LabError: A wheel or the cross compiler could not be had.
    """
    machine = PLATFORMS[architecture]
    names = _compiled(packages)
    with tempfile.TemporaryDirectory(prefix="hostmesh-cross-") as work:
        folder = Path(work)
        _wheels(lock, [name for name in names if name != _SOURCE_ONLY], machine, python, folder)
        wrapper = _compile_wrapper(lock, machine, python, folder)
        for old in [*packages.rglob("*.so")]:
            old.unlink()
        for new in (folder / "site").rglob("*.so"):
            target = packages / new.relative_to(folder / "site")
            shutil.copyfile(new, target)
        shutil.copyfile(wrapper, packages / wrapper.name)
    for metadata in packages.glob("*.dist-info/WHEEL"):
        metadata.write_text(re.sub(r"_x86_64\b", f"_{machine}", metadata.read_text()))


def _compiled(packages: Path) -> list[str]:
    """Return the names of libraries that are not the same for every processor."""
    found = []
    for wheel in sorted(packages.glob("*.dist-info/WHEEL")):
        if email.parser.Parser().parsestr(wheel.read_text())["Root-Is-Purelib"] == "false":
            metadata = email.parser.Parser().parsestr((wheel.parent / "METADATA").read_text())
            found.append(str(metadata["Name"]))
    return found


def _entries(lock: Path, names: Sequence[str]) -> str:
    """Return the lines of a lock file that are about these libraries, with their hashes."""
    blocks = re.findall(r"(?m)^[a-z0-9].*(?:\n .*)*", lock.read_text())
    return "\n".join(each for each in blocks if each.partition("==")[0] in names) + "\n"


def _wheels(lock: Path, names: Sequence[str], machine: str, python: str, folder: Path) -> None:
    (folder / "wheels.lock").write_text(_entries(lock, names))
    command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(folder / "site")]
    command += ["--python-platform", f"{machine}-unknown-linux-gnu"]
    command += ["--python-version", python.removeprefix("python")]
    command += ["-r", str(folder / "wheels.lock")]
    shell.run(command, timeout_s=_TIMEOUT_S, doing=f"fetching wheels for {machine}")


def _compile_wrapper(lock: Path, machine: str, python: str, folder: Path) -> Path:
    compiler = f"{machine}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        name = machine.replace("_", "-")
        raise LabError(
            f"{compiler} is not installed",
            f"apt-get install gcc-{name}-linux-gnu libc6-dev-arm64-cross",
        )
    (folder / "source.lock").write_text(_entries(lock, [_SOURCE_ONLY]))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    command += [":all:", "--no-build-isolation", "--require-hashes", "--dest", str(folder)]
    shell.run(
        [*command, "-r", str(folder / "source.lock")],
        timeout_s=_TIMEOUT_S,
        doing=f"fetching the source of {_SOURCE_ONLY}",
    )
    with tarfile.open(next(folder.glob("*.tar.gz"))) as tar:
        tar.extractall(folder / "source", filter="data")
    version = python.removeprefix("python").replace(".", "")
    target = folder / f"libxtwrapper.cpython-{version}-{machine}-linux-gnu.so"
    source = next((folder / "source").rglob("wrapper.c"))
    shell.run(
        [compiler, "-shared", "-fPIC", "-O2", "-s", f"-ffile-prefix-map={folder}=.",
         "-o", str(target), str(source)],
        timeout_s=_TIMEOUT_S,
        doing=f"compiling {source.name} for {machine}",
    )  # fmt: skip
    return target
