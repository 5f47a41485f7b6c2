"""/usr/lib/hostmesh of the package: a virtual environment on the suite's own Python.

Everything that depends on the suite happens inside the suite's root filesystem: the one C
extension is compiled there (by the lab's agent layer, from the hashes of requirements.lock), and
so are the modules. Modules are compiled here and not on the target: the agent's unit may not
write to /usr, and what dpkg does not know it cannot remove.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from hostmesh_lab import paths
from hostmesh_lab.filesystems import agent_layer, images

HOME = "usr/lib/hostmesh"
"""Where the environment is on the target, without the leading slash."""

_FORMAT = 1
_THEIR_DATE = 1767225600
"""Modification time of other projects' files: it is in their compiled modules."""

_TOOLS = re.compile(
    r"(pip|setuptools)(-.*)?|pkg_resources|_distutils_hack|distutils-precedence\.pth"
    r"|hostmesh-lab\.pth"
)
"""Packages of the environment beside the agent's dependencies."""

_PASSING = frozenset(
    {"__pycache__", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "installed-files.txt"}
)
"""Files that say how and where a package was installed."""

_COMPILE = "{python} -m compileall -q -j 0 --invalidation-mode timestamp /{place}"


def python_of(image: images.Image) -> str:
    """The suite's interpreter with its minor version: what compiled extensions fit."""
    return (image.rootfs / "usr/bin/python3").readlink().name


def packages_folder(image: images.Image) -> str:
    """Where modules are on the target, without the leading slash."""
    return f"{HOME}/lib/{python_of(image)}/site-packages"


def dependencies(image: images.Image, say: images.Say) -> Path:
    """A folder with everything under /usr/lib/hostmesh but the agent, built once and cached."""
    layer = agent_layer.ensure(image, say)
    text = f"{_FORMAT} {layer.parent.name} {Path(__file__).read_text()}"
    key = f"{image.suite}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder = paths.cache_root() / "deb-trees" / key
    images.build_once(folder, lambda partial: _build(image, layer, partial, say), say)
    return folder / "tree"


def _build(image: images.Image, layer: Path, folder: Path, say: images.Say) -> None:
    say(f"compiling what the agent needs for {image.suite}")
    tree = folder / "tree"
    target = tree / packages_folder(image)
    installed = layer / f"opt/hostmesh/venv/lib/{python_of(image)}/site-packages"
    shutil.copytree(installed, target, ignore=lambda _folder, names: _PASSING & set(names))
    for path in target.iterdir():
        if _TOOLS.fullmatch(path.name):
            images.remove_tree(path) if path.is_dir() else path.unlink()
    _link_interpreter(tree / HOME, python_of(image))
    set_times(tree, _THEIR_DATE)
    compile_in(image, tree, packages_folder(image), folder / "scratch")
    set_times(tree, _THEIR_DATE)
    images.remove_tree(folder / "scratch")


def _link_interpreter(home: Path, python: str) -> None:
    """Files that `python -m venv` makes, without those for interactive shells."""
    (home / "bin").mkdir(parents=True)
    (home / "bin/python3").symlink_to(f"/usr/bin/{python}")
    version = python.removeprefix("python")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    )


def compile_in(image: images.Image, tree: Path, place: str, scratch: Path) -> None:
    """Compile the modules in a folder of the tree, at the path that they will have."""
    images.in_overlay(
        image,
        scratch,
        _COMPILE.format(python=python_of(image), place=place),
        scratch.parent / "compile.log",
        doing=f"compiling {place} for {image.suite}",
        binds=[(tree / HOME, f"/{HOME}")],
    )


def set_times(tree: Path, epoch: int) -> None:
    """Give every file and folder one modification time."""
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
