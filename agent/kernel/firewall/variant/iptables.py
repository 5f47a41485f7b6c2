"""Find and run this host's iptables programs.

iptables-nft and iptables-legacy write two rule sets, and the kernel evaluates both: an ACCEPT in
one does not undo a DROP in the other. The agent's rules belong where Docker's are, and Docker
writes with the ``iptables`` on its PATH.
"""

from __future__ import annotations

import contextlib
import enum
import re
import threading
from collections import deque
from typing import Final

from agent.errors import DependencyMissing, FirewallError, NotRoot
from agent.model.family import IPV4, Family
from agent.programs import ProgramRunner

__all__ = ["Iptables", "Variant"]

_TIMEOUT_S: Final = 20.0
_LOCK_WAIT_S: Final = 5
"""How long to wait for the xtables lock (iptables(8), -w)."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?: \((\w+)\))?")
_PIDS_KEPT: Final = 16


class Variant(enum.StrEnum):
    """The two rule sets iptables programs write to."""

    NFT = "nft"
    LEGACY = "legacy"

    @property
    def other(self) -> Variant:
        """The one that is not this."""
        return Variant.LEGACY if self is Variant.NFT else Variant.NFT


class Iptables:
    """The iptables programs of this host for one family. Each run has a deadline.

    Args:
        family: Of the addresses in their rules.
        path: PATH to look on, the agent's own by default. The folders for system programs
            are looked in as well: a service's PATH may lack them.
    """

    def __init__(self, path: str | None = None, family: Family = IPV4) -> None:
        self.family = family
        self._runner = ProgramRunner(path)
        self._pids: deque[int] = deque(maxlen=_PIDS_KEPT)
        self._starting = threading.Lock()  # held until the id of a new process is known

    def own_pids(self) -> frozenset[int]:
        """Return the last few processes run, by which the monitor knows the agent's own changes."""
        with self._starting:
            return frozenset(self._pids)

    def default_variant(self) -> Variant:
        """Return the variant that the family's program on PATH is.

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
        """Return every table of ``variant`` as iptables-save prints it. Makes no table.

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
        """Run a program and return its standard output.

        Raises:
            DependencyMissing: It is gone.
            NotRoot: It needs root.
            FirewallError: It failed or did not end in time; the message has its last lines.
        """
        with contextlib.ExitStack() as starting:
            starting.enter_context(self._starting)

            def started(pid: int) -> None:
                self._pids.append(pid)
                starting.close()

            done = self._runner.run(argv, _TIMEOUT_S, stdin=stdin, started=started)
        if done.status != 0:
            if "you must be root" in done.errors:
                raise NotRoot(f"{argv[0]} needs root", hint="run it as root")
            how = "" if done.status is None else f" with status {done.status}"
            raise FirewallError(f"{' '.join(argv)} failed{how}: {done.last_lines}")
        return done.output

    def _program(self, variant: Variant, verb: str) -> str:
        """Return the path of ``iptables-save`` or ``-restore`` for a variant.

        Raises:
            DependencyMissing: This host has no program for the variant.
        """
        name = self.family.iptables
        named = self._runner.find(f"{name}-{variant}-{verb}")
        if named is not None:
            return named
        if self.default_variant() is variant:
            return self._find(f"{name}-{verb}")
        raise _missing(f"{name}-{variant}-{verb}")

    def _find(self, name: str) -> str:
        found = self._runner.find(name)
        if found is None:
            raise _missing(name)
        return found


def _missing(name: str) -> DependencyMissing:
    return DependencyMissing(
        f"{name} is not on PATH",
        hint="install iptables with the system's packages (Debian: apt-get install iptables)",
    )
