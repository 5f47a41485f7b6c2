"""The agent's virtual environment for a suite: a second cached layer above the image.

It is built inside the suite with the suite's own Python, from the clone's lock file. The
compiler that one package needs lives in a throw-away overlay: hosts never have it.
The agent's source is no part of it: hosts see the clone's, read-only.
"""

import hashlib
import os
import re
import time
from pathlib import Path

from hostmesh_lab import paths
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images

FORMAT = 4
SOURCE = "/opt/hostmesh/src"
_VENV = "opt/hostmesh/venv"
_PROGRAMS = {
    "hostmesh-agent": "agent",
    "agentctl": "agent.ctl",
    "hostmesh-dns": "agent.dns.main",
}
_SCRIPT = """\
apt-get -q update
apt-get -q install -y --no-install-recommends gcc libc6-dev python3-dev
python3 -m venv /build
/build/bin/pip install -q --no-input --require-hashes -r /build.lock
/build/bin/pip wheel -q --no-input --require-hashes --no-build-isolation -w /wheels \\
    -r /requirements.lock
python3 -m venv /opt/hostmesh/venv
/opt/hostmesh/venv/bin/pip install -q --no-input --no-index --no-deps /wheels/*.whl
print_path='import sysconfig; print(sysconfig.get_path("purelib"))'
/opt/hostmesh/venv/bin/python -c "$print_path" > /purelib"""


_SAME_EVERY_TIME = {
    "CFLAGS": "-g0",
    "LDFLAGS": "-Wl,--build-id=none",
    "SOURCE_DATE_EPOCH": "1767225600",
}
"""Without these the one compiled package would name the folder that it was built in."""


def build_requirements(dev_lock: Path) -> str:
    """Return the lines of the developers' lock file that pin what builds packages: setuptools."""
    found = re.search(r"^setuptools==(?:.*\\\n)*.*\n", dev_lock.read_text(), re.MULTILINE)
    if found is None:
        raise LabError(f"{dev_lock} does not pin setuptools", "make lock")
    return found[0]


def lock_file() -> Path:
    """Return the clone's list of what the agent needs at run time."""
    return paths.clone_root() / "requirements.lock"


def ensure(image: images.Image, say: images.Say) -> Path:
    """Return the layer for an image, built if it is not there yet."""
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
    for each in (upper, layer / _VENV):
        each.mkdir(parents=True)
    images.lend_name_service(upper)
    images.prepare_apt(upper)
    (upper / "requirements.lock").write_bytes(lock.read_bytes())
    (upper / "build.lock").write_text(build_requirements(lock.with_name("requirements-dev.lock")))
    pip = pip_settings(upper)
    links = [Path(name) for name in pip.get("PIP_FIND_LINKS", "").split() if Path(name).is_dir()]
    images.in_overlay(
        image,
        folder,
        _SCRIPT,
        log,
        doing=f"making the agent's environment for {image.suite}",
        env={**pip, **_SAME_EVERY_TIME},
        binds=[(layer / _VENV, f"/{_VENV}"), *((link, str(link)) for link in links)],
    )
    _add_programs(layer, Path((upper / "purelib").read_text().strip()))
    for name in ("upper", "work", "merged"):
        images.remove_tree(folder / name)
    say(
        f"the agent's environment for {image.suite} is ready"
        f" after {time.monotonic() - started:.0f} s"
    )


def pip_settings(upper: Path) -> dict[str, str]:
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
    """The commands, and the path by which the environment finds the clone's agent."""
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
