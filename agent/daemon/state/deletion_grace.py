"""When something may be deleted: the two grace times (promises 3 and 4). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["DeletionGrace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionGrace:
    """Holds deletions back until hosts had time to be seen. All times are monotonic seconds.

    Attributes:
        calm_from_s: From then on a route may go whose lease is known to be gone.
        sweep_from_s: From then on routes of an earlier agent may go, too; None before the first
            complete view.
        outage: Contact with etcd was lost after its view was believed.
    """

    calm_from_s: float = 0.0
    sweep_from_s: float | None = None
    outage: bool = False

    def complete(self, sweep_from_s: float) -> DeletionGrace:
        """Follow a complete view: the first one starts the sweep's time."""
        return self if self.sweep_from_s is not None else replace(self, sweep_from_s=sweep_from_s)

    def contact_lost(self, *, followed: bool) -> DeletionGrace:
        """Etcd cannot be reached.

        Args:
            followed: Its own view is believed. Else there is nothing whose end could be taken
                for news: what only the host's copy knows waits for the sweep's time.
        """
        return replace(self, outage=self.outage or followed)

    def contact_made(self, calm_from_s: float) -> DeletionGrace:
        """Etcd can be reached; after an outage it may be another than it was.

        It may have been restored meanwhile and count past where it was, without those who
        joined since the backup.
        """
        return replace(self.hold(calm_from_s), outage=False) if self.outage else self

    def hold(self, calm_from_s: float) -> DeletionGrace:
        """Let holders come back before what is missing counts as gone.

        Half of them being back ends an alarm, and the other half may be on its way.
        """
        return replace(self, calm_from_s=calm_from_s)

    def end(self) -> DeletionGrace:
        """Follow the operator: what is seen now is so."""
        return replace(self, calm_from_s=0.0)

    def calm(self, now_s: float) -> bool:
        """Return whether a route may go whose lease is known to be gone."""
        return now_s >= self.calm_from_s

    def sweep(self, now_s: float) -> bool:
        """Return whether routes of an earlier run may go, too: hosts had time to be seen."""
        return self.sweep_from_s is not None and now_s >= self.sweep_from_s
