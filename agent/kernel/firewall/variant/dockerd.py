"""Which iptables the running dockerd writes with: its own PATH, in its own root.

dockerd looks ``iptables`` up on the PATH that it was started with and runs what that name leads
to at each call, so that a change of the system's alternatives reaches a running dockerd too. It
may live in another root than the agent (a chroot, a snap).
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from agent.kernel.firewall.variant.iptables import Variant

__all__ = ["Dockerd", "variant_of"]

_PROC: Final = Path("/proc")
_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_LINKS: Final = 40
"""MAXSYMLINKS of linux/namei.h."""


class Dockerd(Protocol):
    """A dockerd that runs."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def age_s(self) -> float:
        """Seconds since it started."""


def variant_of(pid: int, *, proc: Path = _PROC) -> Variant | None:
    """Return the variant that ``iptables`` is for the process ``pid``; None when it is not known.

    It follows from the name of the program at the end of all links (iptables' own build calls it
    ``xtables-nft-multi`` or ``xtables-legacy-multi``, before 1.8 ``xtables-multi``).
    """
    root = proc / str(pid) / "root"
    try:
        environ = (proc / str(pid) / "environ").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    pairs = (entry.partition("=") for entry in environ.split("\0"))
    path = next((value for name, _, value in pairs if name == "PATH"), _DEFAULT_PATH)
    for folder in filter(None, path.split(":")):
        program = _resolved(root, f"{folder}/iptables")
        if program is not None:
            return _named(program.name)
    return None


def _named(name: str) -> Variant | None:
    if "nft" in name:
        return Variant.NFT
    return Variant.LEGACY if "legacy" in name or name == "xtables-multi" else None


def _resolved(root: Path, name: str) -> PurePosixPath | None:
    """Return the executable file that ``name`` leads to inside ``root``, all links followed."""
    found = PurePosixPath("/")
    rest = [part for part in reversed(name.split("/")) if part not in {"", "."}]
    links = 0
    while rest:
        part = rest.pop()
        if part == "..":
            found = found.parent
            continue
        here = found / part
        try:
            target = str((root / here.relative_to("/")).readlink())
        except OSError:  # no link, or not there: checked at the end
            found = here
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        if target.startswith("/"):
            found = PurePosixPath("/")
        rest += [each for each in reversed(target.split("/")) if each not in {"", "."}]
    real = root / found.relative_to("/")
    return found if real.is_file() and os.access(real, os.X_OK) else None
