"""Which iptables this host has, and running its programs.

iptables-nft and iptables-legacy are two rule sets that the kernel evaluates both: an ACCEPT
in one does not undo a DROP in the other. Ours belong where Docker's are, and Docker writes
with whatever ``iptables`` on its PATH resolves to.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import subprocess
from collections import deque
from typing import Final

from agent.errors import DependencyMissing, FirewallError, NotRoot
from agent.model.family import IPV4, Family

__all__ = ["Programs", "Variant"]

_TIMEOUT_S: Final = 20.0
_LOCK_WAIT_S: Final = 5
"""How long to wait for the xtables lock (iptables(8), -w)."""
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?: \((\w+)\))?")
_LAST_WORDS: Final = 500
_PIDS_KEPT: Final = 16


class Variant(enum.StrEnum):
    """The two rule sets iptables programs write to."""

    NFT = "nft"
    LEGACY = "legacy"

    @property
    def other(self) -> Variant:
        """The one that is not this."""
        return Variant.LEGACY if self is Variant.NFT else Variant.NFT


class Programs:
    """The iptables programs of this host for one family. Each run has a deadline.

    Args:
        family: Of the addresses in their rules.
        path: PATH to look on, the agent's own by default. The folders for system programs
            are looked in as well: a service's PATH may lack them.
    """

    def __init__(self, path: str | None = None, family: Family = IPV4) -> None:
        self.family = family
        own = os.environ.get("PATH", os.defpath) if path is None else path
        self._path = os.pathsep.join((own, *_SBIN))
        self._pids: deque[int] = deque(maxlen=_PIDS_KEPT)

    def own_pids(self) -> frozenset[int]:
        """The last few processes run, by which the monitor tells our own changes."""
        return frozenset(self._pids)

    def default_variant(self) -> Variant:
        """The variant that the family's program on PATH is.

        Raises:
            DependencyMissing: There is no iptables.
            FirewallError: It does not say its version.
        """
        name = self.family.iptables
        said = self.run((self._find(name), "-V"))
        version = _VERSION.search(said)
        if version is None:
            raise FirewallError(f"{name} -V says {said.strip()[:80]!r}, which is no version")
        return Variant.NFT if version[4] == "nf_tables" else Variant.LEGACY

    def has(self, variant: Variant) -> bool:
        """Whether this host can read and write ``variant``, as far as names of programs tell."""
        try:
            self._program(variant, "save")
        except (DependencyMissing, FirewallError):  # an `iptables` that fails is none
            return False
        return True

    def save(self, variant: Variant, *, counters: bool = False) -> str:
        """Every table of ``variant`` as iptables-save prints it. Makes no table.

        Raises:
            DependencyMissing, FirewallError: It is not there, or failed.
        """
        program = self._program(variant, "save")
        return self.run((program, "-c") if counters else (program,))

    def restore(self, variant: Variant, text: str) -> None:
        """Commit ``text`` with ``iptables-restore --noflush``: each table whole or not at all.

        Raises:
            DependencyMissing, FirewallError: It is not there, or refused.
        """
        program = self._program(variant, "restore")
        self.run((program, "--noflush", "-w", str(_LOCK_WAIT_S)), stdin=text)

    def run(self, argv: tuple[str, ...], *, stdin: str = "") -> str:
        """Standard output of one program.

        Raises:
            DependencyMissing: It is gone.
            NotRoot: It needs root.
            FirewallError: It failed or did not end in time; its last words are quoted.
        """
        with self._start(argv, reads=bool(stdin)) as process:
            self._pids.append(process.pid)
            try:
                said, complaint = process.communicate(stdin or None, timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise FirewallError(f"{argv[0]} did not end within {_TIMEOUT_S:g} s") from error
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            words = complaint.strip()[-_LAST_WORDS:].replace("\n", "; ")
            if "you must be root" in words:
                raise NotRoot(f"{argv[0]} needs root", hint="run it as root")
            status = process.returncode
            raise FirewallError(f"{' '.join(argv)} failed with status {status}: {words}")
        return said

    def _start(self, argv: tuple[str, ...], *, reads: bool) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={"PATH": self._path, "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            raise _missing(argv[0]) from error
        except OSError as error:
            raise FirewallError(f"{argv[0]} cannot be run: {error.strerror}") from error

    def _program(self, variant: Variant, verb: str) -> str:
        """Path of ``iptables-save`` or ``-restore`` for a variant.

        Raises:
            DependencyMissing: This host has no program for the variant.
        """
        name = self.family.iptables
        named = shutil.which(f"{name}-{variant}-{verb}", path=self._path)
        if named is not None:
            return named
        if self.default_variant() is variant:
            return self._find(f"{name}-{verb}")
        raise _missing(f"{name}-{variant}-{verb}")

    def _find(self, name: str) -> str:
        found = shutil.which(name, path=self._path)
        if found is None:
            raise _missing(name)
        return found


def _missing(name: str) -> DependencyMissing:
    return DependencyMissing(
        f"{name} is not on PATH",
        hint="install iptables with the system's packages (Debian: apt-get install iptables)",
    )
