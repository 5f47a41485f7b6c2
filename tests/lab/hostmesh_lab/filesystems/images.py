"""Root filesystems of the lab's hosts: made once with debootstrap, shared by all labs.

An image is a plain folder that hosts mount as the lower layer of an overlay. It is built
under a temporary name and renamed when it is whole, so a folder with the right name is
always complete; its name carries a hash of the recipe, so a changed recipe is another image.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostmesh_lab import paths, shell
from hostmesh_lab.errors import CommandFailed, LabError
from hostmesh_lab.filesystems import apt_sources

Say = Callable[[str], None]

FORMAT = 1
DEFAULT_SUITE = "trixie"
_COMMON = (
    "iproute2 iptables ipset conntrack tcpdump iputils-ping procps curl ca-certificates python3 "
    "python3-venv docker.io containerd etcd-server etcd-client busybox-static util-linux nftables "
    "kmod less systemd systemd-sysv dbus"
).split()
_NEEDED_BYTES = 3 * 1024**3
_BUILD_TIMEOUT_S = 900.0
_KEPT_S = 14 * 86400.0


@dataclass(frozen=True)
class Suite:
    """A Debian release that hosts can run, with what is peculiar about it."""

    name: str
    script: str
    extra: tuple[str, ...] = ()

    def packages(self) -> list[str]:
        return sorted([*_COMMON, *self.extra])


SUITES = {
    suite.name: suite
    for suite in (
        Suite("bookworm", "bookworm"),
        Suite("trixie", "trixie", ("docker-cli",)),
        Suite("forky", "sid", ("docker-cli",)),
    )
}


@dataclass(frozen=True)
class Image:
    """A root filesystem that is ready for use."""

    suite: str
    key: str
    folder: Path

    @property
    def rootfs(self) -> Path:
        return self.folder / "rootfs"


def image_of(suite: str, layers: Sequence[str]) -> Image:
    """Return the image that a machine's layers end in."""
    folder = Path(layers[-1]).parent
    return Image(suite, folder.name, folder)


def suite_named(name: str) -> Suite:
    """Return the suite of that name, or an error that lists those there are."""
    if name not in SUITES:
        raise LabError(f"no suite {name!r}", "one of " + ", ".join(SUITES))
    return SUITES[name]


def recipe_key(suite: Suite) -> str:
    """Return a hash of everything that decides what is in the image."""
    recipe = json.dumps([FORMAT, suite.name, suite.script, suite.packages()])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def ensure(suite_name: str, say: Say) -> Image:
    """Return the image of a suite, built if it is not there yet."""
    suite = suite_named(suite_name)
    key = f"{suite.name}-{recipe_key(suite)}"
    folder = paths.cache_root() / "images" / key
    build_once(folder, lambda temporary: _build(suite, temporary, say), say)
    return Image(suite.name, key, folder)


def build_once(folder: Path, build: Callable[[Path], None], say: Say) -> None:
    """Let one process fill `folder` while others wait. What a killed one left is cleared."""
    if folder.is_dir():
        os.utime(folder)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{folder.name}.lock", say, folder.name):
        if folder.is_dir():
            return
        temporary = folder.parent / f".{folder.name}.partial"
        remove_tree(temporary)
        temporary.mkdir()
        try:
            build(temporary)
            temporary.rename(folder)
        finally:
            remove_tree(temporary)
        _forget_old(folder.parent)


def _forget_old(parent: Path) -> None:
    """Recipes and lock files change: what no lab used for two weeks and none uses now may go."""
    used: list[str] = []
    for machine in paths.disk_root().glob("*/*/machine.json"):
        with contextlib.suppress(FileNotFoundError):
            used += json.loads(machine.read_text())["layers"]
    for folder in parent.iterdir():
        idle = time.time() - folder.stat().st_mtime > _KEPT_S
        if idle and folder.is_dir() and not any(layer.startswith(f"{folder}/") for layer in used):
            remove_tree(folder)


@contextlib.contextmanager
def _locked(path: Path, say: Say, what: str) -> Iterator[None]:
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that prepares {what}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _build(suite: Suite, folder: Path, say: Say) -> None:
    require_tools()
    require_space(folder, _NEEDED_BYTES, "set HOSTMESH_LAB_CACHE to a folder on a larger disk")
    started = time.monotonic()
    rootfs = folder / "rootfs"
    log = paths.cache_root() / f"build-{suite.name}.log"
    log.write_text("")
    say(f"making the {suite.name} root filesystem (one to two minutes; log: {log})")
    source = apt_sources.mirror()
    trusted = _debootstrap(suite, rootfs, source, log, say)
    lend_name_service(rootfs)
    (rootfs / "etc/apt/sources.list").write_text(
        f"deb {'[trusted=yes] ' if trusted else ''}{source} {suite.name} main\n"
    )
    prepare_apt(rootfs)
    packages = " ".join(suite.packages())
    in_chroot(
        rootfs,
        f"apt-get -q update && apt-get -q install -y --no-install-recommends {packages}"
        " && apt-get -q clean",
        log,
        doing=f"installing the packages of {suite.name}",
    )
    _finish(rootfs)
    say(f"the {suite.name} root filesystem is ready after {time.monotonic() - started:.0f} s")


def require_tools() -> None:
    """Refuse before anything is done when a program that the build needs is missing."""
    for tool in ("debootstrap", "unshare", "chroot"):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            raise LabError(f"{tool} is not installed", f"apt-get install {tool}")


def require_space(folder: Path, needed: int, hint: str) -> None:
    """Refuse when the disk would fill up half-way."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LabError(
            f"{folder} has {free / 1024**3:.1f} GiB free, {needed / 1024**3:.0f} GiB are needed",
            hint,
        )


def _debootstrap(suite: Suite, rootfs: Path, source: str, log: Path, say: Say) -> bool:
    """Make the base system. True if its signature could not be checked with this machine's keys."""
    base = ["debootstrap", "--variant=minbase", "--components=main"]
    target = [suite.name, str(rootfs), source, suite.script]
    try:
        _isolated([*base, *target], log, f"debootstrap {suite.name}")
    except CommandFailed:
        if "elease" not in log.read_text(errors="replace").splitlines()[-1]:
            raise
        say(f"this machine's keyring does not know {suite.name}: making it unchecked")
        remove_tree(rootfs)
        _isolated([*base, "--no-check-gpg", *target], log, f"debootstrap {suite.name}")
        return True
    return False


def _isolated(argv: list[str], log: Path, doing: str) -> None:
    """Run with mounts and processes that end with it, whatever ends it."""
    shell.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "--",
            *argv,
        ],
        timeout_s=_BUILD_TIMEOUT_S,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
        log=log,
        doing=doing,
    )


def in_chroot(
    rootfs: Path,
    script: str,
    log: Path,
    *,
    doing: str,
    env: dict[str, str] | None = None,
    mounts: str = ":",
) -> None:
    """Run a shell script inside a root filesystem with /proc; `mounts` is run before it."""
    wrapped = (
        f'{mounts}\nmount -t proc proc "$0/proc"\nexec env -i HOME=/root LC_ALL=C.UTF-8'
        " DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        f' {_assignments(env or {})} chroot "$0" sh -ec "$1"'
    )
    _isolated(["sh", "-ec", wrapped, str(rootfs), script], log, doing)


_OVERLAY = """\
mount -t overlay overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_UPPER,workdir=$LAB_WORK" "$0"
bind() {
    mkdir -p "$0$2"
    mount --bind "$1" "$0$2"
}"""


def in_overlay(
    image: Image,
    scratch: Path,
    script: str,
    log: Path,
    *,
    doing: str,
    env: dict[str, str] | None = None,
    binds: Sequence[tuple[Path, str]] = (),
    layers: Sequence[Path] = (),
) -> None:
    """Run a shell script above an image that stays as it is.

    Args:
        image: The lower layer.
        scratch: Gets ``upper`` (what the script wrote; may be there already), ``work``, ``merged``.
        script, log, doing, env: As for :func:`in_chroot`.
        binds: Folders of this machine, and where the script finds them.
        layers: Cached folders between the image and the scratch, uppermost first.
    """
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    lower = ":".join(str(each) for each in (*layers, image.rootfs))
    places = {"LOWER": lower, "UPPER": scratch / "upper", "WORK": scratch / "work"}
    mounts = [f"LAB_{name}={shlex.quote(str(folder))}" for name, folder in places.items()]
    mounts.append(_OVERLAY)
    mounts += [f"bind {shlex.quote(str(folder))} {shlex.quote(at)}" for folder, at in binds]
    in_chroot(scratch / "merged", script, log, doing=doing, env=env, mounts="\n".join(mounts))


def _assignments(env: dict[str, str]) -> str:
    return " ".join(
        "'" + f"{name}={value}".replace("'", "'\\''") + "'" for name, value in env.items()
    )


def lend_name_service(folder: Path) -> None:
    """Let programs in a root filesystem find what this machine finds, while it is being built."""
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    for name in ("resolv.conf", "hosts"):
        _copy_in(Path("/etc") / name, folder / "etc" / name)


def _copy_in(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.write_bytes(source.read_bytes() if source.exists() else b"")


def prepare_apt(rootfs: Path) -> None:
    """Let apt inside behave as apt outside does, and let no package start a service."""
    for name in ("usr/sbin", "etc/dpkg/dpkg.cfg.d", "etc/apt/apt.conf.d"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    policy = rootfs / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (rootfs / "etc/dpkg/dpkg.cfg.d/lab").write_text(
        "force-unsafe-io\nforce-confold\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n"
    )
    (rootfs / BUILD_APT_CONF).write_text(_apt_conf())
    _copy_in(MACHINE_BUNDLE, rootfs / BUILD_BUNDLE)


MACHINE_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
BUILD_BUNDLE = "etc/lab-build-ca.crt"
BUILD_APT_CONF = "etc/apt/apt.conf.d/00lab-build"


def _apt_conf() -> str:
    """The machine's own way to its mirror (proxies, time-outs); an old Release file is fine."""
    dump = shell.run(["apt-config", "dump"], timeout_s=30).stdout
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Retries")
    lines = [
        line for line in dump.splitlines() if line.startswith(wanted) and not line.endswith('"";')
    ]
    lines += [
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Languages "none";',
        f'Acquire::https::CAInfo "/{BUILD_BUNDLE}";',
    ]
    return "\n".join(lines) + "\n"


def _finish(rootfs: Path) -> None:
    """Remove what was only for the build, and what each host must have of its own."""
    for name in (
        BUILD_APT_CONF,
        BUILD_BUNDLE,
        "etc/resolv.conf",
        "etc/hostname",
        "var/lib/dbus/machine-id",
    ):
        (rootfs / name).unlink(missing_ok=True)
    (rootfs / "etc/machine-id").write_text("")
    shutil.rmtree(rootfs / "var/lib/apt/lists", ignore_errors=True)
    for name in (
        "var/lib/docker",
        "var/lib/containerd",
        "opt/hostmesh/src/agent",
        "etc/docker",
        "etc/hostmesh",
        "var/lib/apt/lists/partial",
    ):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
