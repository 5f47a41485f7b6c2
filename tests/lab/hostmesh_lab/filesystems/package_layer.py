"""Debian packages above an image: a cached layer for each set of them.

What the image's recipe names is held meanwhile, so that Docker, systemd and iptables stay those of
the image. No service starts, here or when a machine boots: the layer enables no unit.
"""

import hashlib
import json
import re
import shlex
import time
from collections.abc import Iterable
from pathlib import Path

from hostmesh_lab import paths
from hostmesh_lab.errors import CommandFailed, LabError
from hostmesh_lab.filesystems import images

FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_NOT_NAMED = ("runc",)
"""Packages that come with the recipe's, and that may not change either."""
_SCRIPT = """\
apt-mark -q hold {held} >/dev/null
apt-get -q update
apt-get -q install -y --no-install-recommends --no-remove {wanted}
apt-mark -q unhold {held} >/dev/null
apt-get -q clean"""
_OF_THE_BUILD = (
    images.BUILD_APT_CONF,
    images.BUILD_BUNDLE,
    "etc/resolv.conf",
    "etc/hosts",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/lib/apt/lists",
    "var/cache/apt",
)


def ensure(image: images.Image, packages: Iterable[str], say: images.Say) -> list[Path]:
    """Return the layer with these packages, built if it is not there yet; none for no packages."""
    wanted = sorted(set(packages))
    if not wanted:
        return []
    bad = [name for name in wanted if not _NAME.fullmatch(name)]
    if bad:
        raise LabError(f"{bad[0]!r} is no name of a Debian package", "--packages iperf3,ufw")
    recipe = json.dumps([FORMAT, image.key, wanted])
    key = f"{image.key}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    folder = paths.cache_root() / "packages" / key
    log = paths.cache_root() / f"build-packages-{key}.log"
    images.build_once(folder, lambda temporary: _build(image, wanted, temporary, log, say), say)
    return [folder / "upper"]


def _build(
    image: images.Image, wanted: list[str], folder: Path, log: Path, say: images.Say
) -> None:
    started = time.monotonic()
    log.write_text("")
    names = " ".join(wanted)
    say(f"adding {names} to {image.suite} (less than a minute; log: {log})")
    upper = folder / "upper"
    images.lend_name_service(upper)
    images.prepare_apt(upper)
    held = shlex.join([*images.suite_named(image.suite).packages(), *_NOT_NAMED])
    script = _SCRIPT.format(held=held, wanted=shlex.join(wanted))
    doing = f"adding {names} to {image.suite}"
    try:
        images.in_overlay(image, folder, script, log, doing=doing)
    except CommandFailed as error:
        raise LabError(*_explained(error, log.read_text(errors="replace"))) from error
    _finish(upper)
    for name in ("work", "merged"):
        images.remove_tree(folder / name)
    log.rename(folder / "build.log")
    say(f"{image.suite} with {names} is ready after {time.monotonic() - started:.0f} s")


def _explained(error: CommandFailed, log: str) -> tuple[str, str]:
    """Return the failure and a hint, where apt's own message shows it."""
    unknown = re.search(r"^E: (Unable to locate package .*)$", log, re.MULTILINE)
    if unknown:
        return f"{error}: {unknown[1]}", "apt-cache search finds Debian's names"
    if "held broken packages" in log or "Held packages were changed" in log:
        return (
            f"{error}: it needs newer packages than the image has",
            "hostmesh-lab image --purge, then again",
        )
    return str(error), error.hint


def _finish(upper: Path) -> None:
    """Remove what was only for the build, what each host must have of its own, and what starts."""
    for name in _OF_THE_BUILD:
        path = upper / name
        if path.is_dir():
            images.remove_tree(path)
        else:
            path.unlink(missing_ok=True)
    for key in (upper / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for unit in (upper / "etc/systemd/system").rglob("*"):
        if unit.is_symlink():
            unit.unlink()
