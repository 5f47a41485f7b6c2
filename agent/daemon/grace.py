"""When something may be deleted: the two grace times (promises 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable

from agent.daemon.timers import Timers
from agent.settings import Settings

__all__ = ["CALM", "SWEEP", "Grace"]

SWEEP = "sweep"
CALM = "calm"


class Grace:
    """Holds deletions back until hosts had time to be seen. For the loop's thread.

    Args:
        settings: Tells what is in force now, since both times may be changed by a reload:
            ``lease.empty_cluster_grace_s`` and ``routes.sweep_grace_s``.
        timers: Wakes the loop by the names ``SWEEP`` and ``CALM`` when a grace time is over.
        clock: Monotonic seconds.
    """

    def __init__(
        self, settings: Callable[[], Settings], timers: Timers, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._timers = timers
        self._clock = clock
        self._calm_from_s = 0.0
        self._sweep_from_s: float | None = None
        self._outage = False

    def update(self, *, alarming: bool, complete: bool) -> None:
        """Follow what is known: an alarm holds, the first complete view starts the sweep's time."""
        if alarming:
            self.hold()
        elif complete and self._sweep_from_s is None:
            sweep_s = self._settings().routes.sweep_grace_s
            self._sweep_from_s = self._clock() + sweep_s
            self._timers.set(SWEEP, sweep_s)

    def contact_lost(self, *, followed: bool) -> None:
        """Etcd cannot be reached.

        Args:
            followed: Its own view is believed. Else there is nothing whose end could be taken
                for news: what only the host's copy knows waits for the sweep's time.
        """
        self._outage = self._outage or followed

    def contact_made(self) -> None:
        """Etcd can be reached; after an outage it may be another than it was.

        It may have been restored meanwhile and count past where it was, without those who
        joined since the backup.
        """
        if self._outage:
            self._outage = False
            self.hold()

    def hold(self) -> None:
        """Let holders come back before what is missing counts as gone.

        Half of them being back ends an alarm, and the other half may be on its way.
        """
        calm_s = self._settings().lease.empty_cluster_grace_s
        self._calm_from_s = self._clock() + calm_s
        self._timers.set(CALM, calm_s)

    def end(self) -> None:
        """The operator's word: what is seen now is so."""
        self._calm_from_s = 0.0

    @property
    def calm(self) -> bool:
        """A route may go whose lease is known to be gone."""
        return self._clock() >= self._calm_from_s

    @property
    def sweep(self) -> bool:
        """Routes of an earlier life may go, too: hosts had time to be seen."""
        return self._sweep_from_s is not None and self._clock() >= self._sweep_from_s
