"""The agent's virtual environment for a suite: a second cached layer above the image.

It is built inside the suite with the suite's own Python, from the clone's lock file. The
compiler that one package needs lives in a throw-away overlay: hosts never have it.
The agent's source is no part of it: hosts see the clone's, read-only.
"""

import hashlib
import os
import time
from pathlib import Path

from hostmesh_lab import images, paths
from hostmesh_lab.errors import LabError

FORMAT = 2
SOURCE = "/opt/hostmesh/src"
_VENV = "opt/hostmesh/venv"
_PROGRAMS = {"hostmesh-agent": "agent", "agentctl": "agent.ctl"}
_MOUNTS = """\
mkdir -p "$0"
mount -t overlay overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_UPPER,workdir=$LAB_WORK" "$0"
mkdir -p "$0/opt/hostmesh/venv"
mount --bind "$LAB_VENV" "$0/opt/hostmesh/venv"
for folder in $LAB_LINKS; do
    mkdir -p "$0$folder"
    mount --bind "$folder" "$0$folder"
done"""
_SCRIPT = """\
apt-get -q update
apt-get -q install -y --no-install-recommends gcc libc6-dev python3-dev
python3 -m venv /opt/hostmesh/venv
/opt/hostmesh/venv/bin/pip install -q --no-input --require-hashes -r /requirements.lock
print_path='import sysconfig; print(sysconfig.get_path("purelib"))'
/opt/hostmesh/venv/bin/python -c "$print_path" > /purelib"""


def lock_file() -> Path:
    """The clone's list of what the agent needs at run time."""
    return paths.clone_root() / "requirements.lock"


def ensure(image: images.Image, say: images.Say) -> Path:
    """The layer for an image, built if it is not there yet."""
    lock = lock_file()
    if not lock.is_file():
        raise LabError(f"no {lock}", "hosts without an agent: --no-agent")
    text = f"{FORMAT} {image.key} ".encode() + lock.read_bytes()
    folder = paths.cache_root() / "venvs" / f"{image.key}-{hashlib.sha256(text).hexdigest()[:12]}"
    images.build_once(folder, lambda temporary: _build(image, lock, temporary, say), say)
    return folder / "layer"


def _build(image: images.Image, lock: Path, folder: Path, say: images.Say) -> None:
    started = time.monotonic()
    log = paths.cache_root() / f"build-venv-{image.suite}.log"
    log.write_text("")
    say(f"making the agent's environment for {image.suite} (about a minute; log: {log})")
    upper, layer = folder / "upper", folder / "layer"
    for each in (upper, folder / "work", layer / _VENV):
        each.mkdir(parents=True)
    images.lend_name_service(upper)
    images.prepare_apt(upper)
    (upper / "requirements.lock").write_bytes(lock.read_bytes())
    pip = _pip_settings(upper)
    links = " ".join(name for name in pip.get("PIP_FIND_LINKS", "").split() if Path(name).is_dir())
    mounts = {
        "LAB_LOWER": image.rootfs,
        "LAB_UPPER": upper,
        "LAB_WORK": folder / "work",
        "LAB_VENV": layer / _VENV,
        "LAB_LINKS": links,
    }
    exports = "".join(f"{name}='{value}'\n" for name, value in mounts.items())
    images.in_chroot(
        folder / "merged",
        _SCRIPT,
        log,
        doing=f"making the agent's environment for {image.suite}",
        env=pip,
        mounts=exports + _MOUNTS,
    )
    _add_programs(layer, Path((upper / "purelib").read_text().strip()))
    images.remove_tree(upper)
    images.remove_tree(folder / "work")
    say(
        f"the agent's environment for {image.suite} is ready"
        f" after {time.monotonic() - started:.0f} s"
    )


def _pip_settings(upper: Path) -> dict[str, str]:
    """pip inside uses the index, the certificates and the time-outs that pip outside uses."""
    bundle = f"/{images.BUILD_BUNDLE}"
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"):
        settings.pop(name, None)
    settings |= {
        "PIP_CERT": bundle,
        "SSL_CERT_FILE": bundle,
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        if name in os.environ:
            settings[name] = os.environ[name]
    for source in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf"):
        if source.is_file():
            (upper / "etc/pip.conf").write_bytes(source.read_bytes())
    return settings


def _add_programs(layer: Path, purelib: Path) -> None:
    """The two commands, and the path by which the environment finds the clone's agent."""
    (layer / purelib.relative_to("/") / "hostmesh-lab.pth").write_text(SOURCE + "\n")
    programs = layer / "usr/local/bin"
    programs.mkdir(parents=True)
    for name, module in _PROGRAMS.items():
        program = programs / name
        program.write_text(
            "#!/bin/sh\n# The source is mounted read-only: compiled modules go elsewhere.\n"
            "export PYTHONPYCACHEPREFIX=/var/cache/hostmesh-pyc\n"
            f'exec /{_VENV}/bin/python -m {module} "$@"\n'
        )
        program.chmod(0o755)
