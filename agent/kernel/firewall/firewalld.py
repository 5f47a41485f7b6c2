"""Keep the mesh's sources in firewalld's zone `trusted`, where settings say so.

firewalld is asked and changed by firewall-cmd, its stable interface, both at run time and in its
permanent configuration: a source survives firewalld's reload and restart. It runs only when the
kernel's rules or the mesh have changed. Sources of the operator and of other programs stay.
Sources: firewall-cmd(1), firewall-offline-cmd(1).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from agent.errors import DependencyMissing, FirewallError, HostmeshError
from agent.kernel.firewall.advice.nft_chains import NftChain, dropping_chains
from agent.kernel.firewall.advice.nft_conditions import (
    FIREWALLD,
    dropped_sources,
    mesh_sources,
    shown,
)
from agent.mesh.firewall import DesiredFirewall
from agent.programs import ProgramRunner

__all__ = ["FirewallCmd", "Firewalld", "SourceRecord"]

_ZONE: Final = "--zone=trusted"
_TIMEOUT_S: Final = 15.0
_BUDGET_S: Final = 30.0
"""For all runs of one pass: the loop waits for them, and systemd ends a loop that waits 60 s."""
_PAUSE_S: Final = 60.0
"""After an error, and where another program keeps taking sources away."""
_OFFLINE: Final = "firewall-offline-cmd"
_NOT_RUNNING: Final = 252
"""firewall-cmd's exit status for NOT_RUNNING."""
_SOURCES: Final = re.compile(r"^ *sources: *(.*)$", re.MULTILINE)

_log = structlog.get_logger("agent.firewalld")


class SourceRecord(Protocol):
    """The sources that the agent added, kept over its restarts."""

    @property
    def firewalld_sources(self) -> tuple[str, ...]:
        """Sources that this agent put into firewalld."""

    def set_firewalld_sources(self, sources: tuple[str, ...]) -> None:
        """Write them down; called before they are added. May raise StateError."""


class FirewallCmd:
    """firewall-cmd on the zone `trusted`. Each run has a deadline and a minimal environment."""

    def __init__(self, path: str | None = None) -> None:
        self._until_s = math.inf
        self._runner = ProgramRunner(path)

    def begin(self) -> None:
        """Begin a pass: its runs together get half a minute, counted from now."""
        self._until_s = time.monotonic() + _BUDGET_S

    def sources(self, *, permanent: bool) -> frozenset[str]:
        """Return the zone's sources.

        Raises:
            DependencyMissing: There is no firewall-cmd.
            FirewallError: It failed; firewalld may not run.
        """
        said = self._run("firewall-cmd", _where(permanent), "--info-zone=trusted")
        found = _SOURCES.search(said)
        if found is None:
            raise FirewallError(f"firewall-cmd --info-zone=trusted lists no sources: {said[:80]!r}")
        return frozenset(found[1].split())

    def change(self, option: str, sources: Iterable[str], *, permanent: bool) -> None:
        """Run with ``--add-source`` or ``--remove-source`` for each; nothing for none.

        Raises:
            DependencyMissing, FirewallError: As for :meth:`sources`.
        """
        options = [f"{option}={each}" for each in sources]
        if options:
            self._run("firewall-cmd", _where(permanent), _ZONE, *options)

    def running(self) -> bool:
        """Whether firewalld answers. Raises DependencyMissing, FirewallError."""
        return self._run("firewall-cmd", "", "--state", fine=_NOT_RUNNING).strip() == "running"

    def remove_offline(self, sources: Iterable[str]) -> None:
        """Remove sources from the permanent configuration while firewalld does not run.

        Raises:
            DependencyMissing, FirewallError: It could not be done.
        """
        present = self._run(_OFFLINE, "", _ZONE, "--list-sources").split()
        options = [f"--remove-source={each}" for each in sources if each in present]
        if options:
            self._run(_OFFLINE, "", _ZONE, *options)

    def _run(self, name: str, *arguments: str, fine: int = 0) -> str:
        argv = (name, *filter(None, arguments))
        timeout_s = min(_TIMEOUT_S, max(0.0, self._until_s - time.monotonic()))
        if self._runner.find(name) is None:
            raise DependencyMissing(f"{name} is not on PATH", hint="apt-get install firewalld")
        done = self._runner.run(argv, timeout_s)
        if done.status not in {0, fine}:
            how = "" if done.status is None else f" with status {done.status}"
            raise FirewallError(
                f"{' '.join(argv)} failed{how}: {done.last_lines}",
                hint=f"systemctl {'start' if name == _OFFLINE else 'status'} firewalld",
            )
        return done.output


def _where(permanent: bool) -> str:  # noqa: FBT001 - the option's own name
    return "--permanent" if permanent else ""


@dataclass(slots=True)
class Firewalld:
    """The sources of this host's mesh in firewalld.

    Args:
        record: Which of them the agent added.
        manage: Whether to add any. Those added earlier are removed in any case on ``leave``.
        chains: Lists chains made with nft that drop forwarded traffic.
        clock: Monotonic seconds.
    """

    record: SourceRecord
    manage: bool
    command: FirewallCmd = field(default_factory=FirewallCmd)
    chains: Callable[[], tuple[NftChain, ...]] = dropping_chains
    clock: Callable[[], float] = time.monotonic
    _not_before_s: float = 0.0
    _problem: HostmeshError | None = None

    def apply(self, wants: DesiredFirewall, *, may_remove: bool = True) -> tuple[str, ...]:
        """Add sources that firewalld drops, remove own ones that the mesh needs no more.

        Args:
            may_remove: Whether a source that is not wanted is known to be gone (promises 3, 4).

        Returns:
            The changes, for people.

        Raises:
            DependencyMissing, FirewallError, StateError: Something could not be done; it is tried
                again after a pause.
        """
        if not self.manage:
            return ()
        if self.clock() < self._not_before_s:
            if self._problem is not None:
                raise self._problem
            return ()
        self._not_before_s = self.clock() + _PAUSE_S
        try:
            done, again = self._settle(wants, may_remove=may_remove)
        except HostmeshError as error:
            self._problem = error
            raise
        self._problem = None
        if again:
            self._not_before_s = 0.0
        if done:
            _log.info("firewalld-changed", edits=done)
        return done

    def _settle(self, wants: DesiredFirewall, *, may_remove: bool) -> tuple[tuple[str, ...], bool]:
        """Return the changes, and whether the next pass may look again at once."""
        self.command.begin()
        running = [chain for chain in self.chains() if chain.table == FIREWALLD]
        wanted = tuple(shown(source) for source in mesh_sources(wants))
        ours = self.record.firewalld_sources if may_remove else ()
        stale = set(ours) - set(wanted)
        dropped = {shown(each) for chain in running for each in dropped_sources(chain, wants)}
        if not running or not (dropped or stale):
            return (), True
        done = self._add([each for each in wanted if each in dropped])
        done += self._remove(stale)
        running = [chain for chain in self.chains() if chain.table == FIREWALLD]
        return done, not any(dropped_sources(chain, wants) for chain in running)

    def remove(self) -> tuple[str, ...]:
        """Remove own sources from firewalld, whether it runs or not, and return the changes.

        Raises:
            FirewallError, StateError: They may still be there; run it again.
        """
        ours = self.record.firewalld_sources
        if not ours:
            return ()
        self.command.begin()
        try:
            if self.command.running():
                return self._remove(set(ours))
            self.command.remove_offline(ours)
        except DependencyMissing:  # firewalld was purged, and its configuration with it
            pass
        self.record.set_firewalld_sources(())
        return _words("removed", ours)

    def _add(self, needed: list[str]) -> tuple[str, ...]:
        """Own a source only if neither the run-time nor the permanent configuration has it."""
        present = {each: self.command.sources(permanent=each) for each in (False, True)}
        ours = self.record.firewalld_sources
        theirs = (present[False] | present[True]) - set(ours)
        adding = [each for each in needed if each not in theirs]
        self.record.set_firewalld_sources(tuple(dict.fromkeys((*ours, *adding))))
        for permanent in (True, False):
            missing = [each for each in adding if each not in present[permanent]]
            self.command.change("--add-source", missing, permanent=permanent)
        return _words("added", adding)

    def _remove(self, stale: set[str]) -> tuple[str, ...]:
        if not stale:
            return ()
        for permanent in (True, False):
            gone = sorted(stale & self.command.sources(permanent=permanent))
            self.command.change("--remove-source", gone, permanent=permanent)
        kept = (each for each in self.record.firewalld_sources if each not in stale)
        self.record.set_firewalld_sources(tuple(kept))
        return _words("removed", sorted(stale))


def _words(verb: str, sources: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"firewalld zone trusted: {verb} source {each}" for each in sources)
