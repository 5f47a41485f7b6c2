"""Everything in the package but the Python tree: which file of the clone goes where."""

from __future__ import annotations

import gzip
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

_UNITS = "usr/lib/systemd/system"
_DOC = "usr/share/doc/hostmesh"
CONFFILES = ("/etc/iproute2/rt_protos.d/hostmesh.conf",)
"""Files that an operator may change, so that dpkg must ask. postinst makes agent.toml."""

_FILES = {
    "deploy/iproute2.conf": "etc/iproute2/rt_protos.d/hostmesh.conf",
    "deploy/deb/agent.toml": "usr/share/hostmesh/agent.toml",
    "deploy/deb/networkd.conf": "usr/lib/systemd/networkd.conf.d/hostmesh.conf",
    "deploy/deb/tunnels.network": "usr/lib/systemd/network/05-hostmesh.network",
    "deploy/deb/lintian-overrides": "usr/share/lintian/overrides/hostmesh",
    "deploy/deb/log.conf": f"{_UNITS}/hostmesh-agent.service.d/log.conf",
    "README.md": f"{_DOC}/README.md",
}
_COMPLETIONS = {
    "agentctl.bash": "usr/share/bash-completion/completions/agentctl",
    "_agentctl": "usr/share/zsh/vendor-completions/_agentctl",
    "agentctl.fish": "usr/share/fish/vendor_completions.d/agentctl.fish",
}
KITS = ("ansible", "cloud-init", "etcd", "monitoring")
"""Folders of deploy/ that operators use as they are; each goes to /usr/share/hostmesh."""

_DAEMONS = ("hostmesh-agent", "hostmesh-dns")
"""Programs for units; the other ones are for people."""

_PROGRAM = """\
#!/usr/lib/hostmesh/bin/python3 -I
import sys

from {module} import {function}

sys.exit({function}())
"""


def place(clone: Path, root: Path) -> None:
    """Put every file but the Python tree under ``root``."""
    for source, target in _FILES.items():
        _write(root / target, (clone / source).read_bytes())
    for name, entry in programs(clone).items():
        module, _, function = entry.partition(":")
        text = _PROGRAM.format(module=module, function=function)
        folder = "usr/sbin" if name in _DAEMONS else "usr/bin"
        _write(root / folder / name, text.encode(), mode=0o755)
    for file in kits(clone):
        place = root / "usr/share/hostmesh" / file.relative_to(clone / "deploy")
        _write(place, file.read_bytes(), mode=0o755 if file.stat().st_mode & 0o100 else 0o644)
    for unit in units(clone):
        _write(root / _UNITS / unit.name, unit.read_bytes())
    for page in sorted((clone / "docs").glob("*.md")):
        _write(root / _DOC / page.name, page.read_bytes())
    _write(root / _DOC / "NEWS.gz", zipped((clone / "CHANGELOG.md").read_bytes()))


def programs(clone: Path) -> Mapping[str, str]:
    """Return each program's name with its module and function, as setuptools reads them."""
    project = tomllib.loads((clone / "pyproject.toml").read_text())["project"]
    return dict(project["scripts"])


def kits(clone: Path) -> list[Path]:
    """Return the files of the kits."""
    found = (path for kit in KITS for path in (clone / "deploy" / kit).rglob("*"))
    return sorted(path for path in found if path.is_file())


def place_generated(pages: Path, root: Path) -> None:
    """Put the man pages and completions that the agent's own generators made under ``root``."""
    for name, target in _COMPLETIONS.items():
        _write(root / target, (pages / name).read_bytes())
    for page in sorted(pages.glob("*.[18]")):
        place = root / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz"
        _write(place, zipped(page.read_bytes()))


def units(clone: Path) -> list[Path]:
    """The units of the clone."""
    return sorted(
        each for each in (clone / "systemd").iterdir() if each.suffix in (".service", ".socket")
    )


def enabled_units(clone: Path) -> list[str]:
    """The names of those that an installation enables: they say when they want to start."""
    return [unit.name for unit in units(clone) if "[Install]" in unit.read_text()]


def scripts(clone: Path, root: Path) -> None:
    """The maintainer scripts, with the units' names in them."""
    names = {
        "@UNITS@": " ".join(enabled_units(clone)),
        # Sockets first: a service that is stopped would be started by its next query.
        "@ALL_UNITS@": " ".join(
            sorted((each.name.replace("@.", "@*.") for each in units(clone)), key=_is_service)
        ),
    }
    for script in sorted((clone / "deploy/deb/scripts").iterdir()):
        text = re.sub(r"@[A-Z_]+@", lambda match: names[match[0]], script.read_text())
        _write(root / "DEBIAN" / script.name, text.encode(), mode=0o755)


def _is_service(name: str) -> bool:
    return name.endswith(".service")


def zipped(content: bytes) -> bytes:
    """The content compressed, the same every time."""
    return gzip.compress(content, 9, mtime=0)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
