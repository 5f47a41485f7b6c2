"""Heartbeats: alive or not, and one live host per identity; the host's own is kept alive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from agent.errors import EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import Heartbeat, View
from agent.model.family import Address
from agent.registry.claiming.clones import Life
from agent.registry.records import HEARTBEATS, Keys, encode_heartbeat
from agent.retry import jittered

if TYPE_CHECKING:
    from agent.registry.registry import Registry

__all__ = ["BEATS_PER_TTL", "Heartbeats", "OwnHeartbeat", "Written"]

_log = structlog.get_logger()

BEATS_PER_TTL = 3
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Written:
    """A heartbeat that is in etcd.

    Attributes:
        etcd_lease_id: For :meth:`EtcdClient.keep_alive`.
        revision: At which it was written.
    """

    etcd_lease_id: int
    revision: int


class Heartbeats:
    """Writes heartbeats by transactions that look at who wrote the last one.

    Args:
        client: To etcd.
        keys: Of the mesh.
    """

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def write(self, heartbeat: Heartbeat, ttl_s: int, etcd_lease_id: int, life: Life) -> Written:
        """See :meth:`agent.registry.registry.Registry.heartbeat`."""
        key = self._keys.of(HEARTBEATS, heartbeat.host_id)
        compare = kv.attached(key, etcd_lease_id) if etcd_lease_id else kv.absent(key)
        for _ in range(_TRIES):
            etcd_lease_id = etcd_lease_id or self._client.grant(ttl_s).id
            put = kv.put(key, encode_heartbeat(heartbeat), etcd_lease_id)
            try:
                result = self._client.txn("write the heartbeat", [compare], [put], [kv.get(key)])
            except EtcdLeaseGoneError:
                etcd_lease_id = 0
                continue
            if result.succeeded:
                return Written(etcd_lease_id, result.revision)
            found = result.ranges[0]
            if not found:
                compare = kv.absent(key)
            else:
                self._refuse_other(found[0], life, etcd_lease_id)
                compare = kv.unchanged(key, found[0].mod_revision)
        raise EtcdError(f"the heartbeat {key.decode()} changes faster than it can be written")

    def _refuse_other(self, record: Record, life: Life, etcd_lease_id: int) -> None:
        """Raise IdentityInUseError when ``record`` was written by another live host."""
        if record.lease_id == etcd_lease_id:  # our own earlier try got through
            return
        try:
            other = self._keys.read(HEARTBEATS, record)
        except ValueError:
            return  # nobody's: overwriting it costs nothing
        life.check_heartbeat(other)


class OwnHeartbeat:
    """Keeps one heartbeat in etcd, or the word that another host lives under this identity.

    Used by the keeper's thread only.

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
        self.due_s = 0.0
        """When it must be kept alive again, by ``clock``."""

    def keep(self, wished: Heartbeat, cleared: frozenset[Address]) -> bool:
        """Keep ``wished`` in etcd, writing only when something is due.

        Args:
            wished: What it shall say; with a node address.
            cleared: Addresses of which is known that no clone lives there.

        Returns:
            True when etcd had lost it: this host was away for longer than its TTL.

        Raises:
            IdentityInUseError: Another live host has this host's identity.
            EtcdError: It could not be written.
        """
        if wished == self._said and self._clock() < self.due_s:
            return False
        if self._said is None and wished.node_address is not None:
            life = Life(wished.host_id, wished.boot_id, wished.node_address, cleared)
            self._registry.rivals.refuse(life)
        unchanged = wished == self._said and not self._doubted
        lease_id = self._written.etcd_lease_id
        # Writing the key does not prolong its etcd lease: a host that writes often would lapse.
        kept = self._said is not None and self._registry.client.keep_alive(lease_id) > 0
        alive = unchanged and kept
        if not alive:
            self._written = self._registry.heartbeat(wished, self._ttl_s, lease_id, cleared=cleared)
        self._said, self._doubted = wished, False
        self.due_s = self._clock() + jittered(self._ttl_s / BEATS_PER_TTL, shorter=0.1, longer=0.0)
        return unchanged and not alive

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
            self._clone_id = self._registry.rivals.announce(wished, self._ttl_s, self._clone_id)
        except EtcdError as error:
            _log.warning("clone-not-reported", reason=str(error), limit_key="clone")
        self.forget()

    def alone(self) -> None:
        """Take back what :meth:`give_way` told."""
        if self._clone_id:
            self._registry.rivals.withdraw(self._clone_id)
            self._clone_id = 0

    def forget(self) -> None:
        """Start anew: what is in etcd is left to expire."""
        self._said = None
        self._written = Written(0, 0)
        self.due_s = 0.0
