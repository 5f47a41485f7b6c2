"""Keep this host's heartbeat in etcd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from agent.errors import EtcdError
from agent.model import Heartbeat, View
from agent.registry.claiming.heartbeat_writer import Written
from agent.registry.claiming.identity_conflicts import Claimant
from agent.registry.registry import Registry
from agent.retry import jittered

__all__ = ["BEATS_PER_TTL", "OwnHeartbeat"]

_log = structlog.get_logger()

BEATS_PER_TTL = 3


class OwnHeartbeat:
    """Keeps one heartbeat in etcd, or the word that another host lives under this identity.

    Used by the keeper's thread only. A change of the summary alone waits for the next beat, and
    for the TTL after the last write: every host follows every heartbeat, and containers come and
    go.

    Args:
        registry: To write to.
        ttl_s: Of the heartbeat.
        clock: Seconds that never go back.
    """

    def __init__(self, registry: Registry, ttl_s: int, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._ttl_s = ttl_s
        self._clock = clock
        self._said: Heartbeat | None = None
        self._written = Written(0, 0)
        self._doubted = False
        self._clone_id = 0
        self._summary_from_s = 0.0
        self.due_s = 0.0
        """When it must be kept alive again, by ``clock``."""

    def keep(self, wished: Heartbeat, claimant: Claimant) -> bool:
        """Keep ``wished`` in etcd, writing only when something is due.

        Args:
            wished: What it shall say; with a node address.
            claimant: This host, as it tells its own records from a clone's.

        Returns:
            True when etcd had lost it: this host was away for longer than its TTL.

        Raises:
            IdentityInUseError: Another live host has this host's identity.
            EtcdError: It could not be written.
        """
        said, now_s = self._said, self._clock()
        same = said is not None and replace(wished, summary=said.summary) == said
        if same and now_s < self.due_s:
            return False
        if said is None:
            self._registry.clone_check.refuse(claimant)
        elif same and now_s < self._summary_from_s:
            wished = said
        unchanged = same and not self._doubted
        lease_id = self._written.etcd_lease_id
        # Writing the key does not prolong its etcd lease: a host that writes often would lapse.
        kept = said is not None and self._registry.client.keep_alive(lease_id) > 0
        if not (unchanged and kept and wished == said):
            self._written = self._registry.heartbeat(
                wished, self._ttl_s, lease_id, cleared=claimant.cleared
            )
            self._summary_from_s = self._clock() + self._ttl_s
        self._said, self._doubted = wished, False
        self.due_s = self._clock() + jittered(self._ttl_s / BEATS_PER_TTL, shorter=0.1, longer=0.0)
        return unchanged and not kept

    def doubt(self) -> None:
        """Write it again at once: that its etcd lease lives does not say that its key is there."""
        self._doubted = True
        self.due_s = 0.0

    def is_missing(self, view: View) -> bool:
        """Whether ``view``, by its revision, should have the heartbeat and has not.

        Called from any thread.
        """
        said, written = self._said, self._written
        return said is not None and (
            view.revision >= written.revision and said.host_id not in view.heartbeats
        )

    def give_way(self, wished: Heartbeat) -> None:
        """Another host lives under this identity: end the heartbeat, and tell that other."""
        try:
            if self._said is not None:
                self._registry.client.revoke(self._written.etcd_lease_id)
            self._clone_id = self._registry.clone_check.announce(
                wished, self._ttl_s, self._clone_id
            )
        except EtcdError as error:
            _log.warning("clone-not-reported", reason=str(error), limit_key="clone")
        self.forget()

    def alone(self) -> None:
        """Withdraw the report of :meth:`give_way`."""
        if self._clone_id:
            self._registry.clone_check.withdraw(self._clone_id)
            self._clone_id = 0

    def forget(self) -> None:
        """Start anew: what is in etcd is left to expire."""
        self._said = None
        self._written = Written(0, 0)
        self.due_s = 0.0
