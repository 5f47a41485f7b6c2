"""Find out whether etcd lets this host write its owner records."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from agent.errors import EtcdAuthError
from agent.etcd.errors import CertificateRefusedError
from agent.model import Condition, HostId, OwnerRecords
from agent.registry.etcd_checks import may_put
from agent.registry.records import OWNERS
from agent.registry.registry import Registry

__all__ = ["OwnerPermission"]

_log = structlog.get_logger()

_ASK_AGAIN_S = 60.0


class OwnerPermission:
    """Remembers what etcd answered. For the keeper's thread.

    Where roles are as 0.1 made them, hosts go on without owner records.

    Args:
        registry: To ask.
        host_id: This host.
        clock: Seconds that never go back.
    """

    def __init__(self, registry: Registry, host_id: HostId, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._key = registry.keys.range(OWNERS).start + f"{host_id}/".encode()
        self._clock = clock
        self._granted = False
        self._ask_from_s = 0.0
        self.condition: Condition | None = None
        """Set while etcd refuses."""

    def follow(self, wished: OwnerRecords) -> OwnerRecords:
        """Return what this host does with owner records in a mesh that does ``wished``.

        Raises:
            EtcdError: It cannot be found out.
        """
        if wished is not OwnerRecords.WRITTEN:
            self.condition = None
            return wished
        if not self._granted and self._clock() >= self._ask_from_s:
            self._ask()
        return wished if self._granted else OwnerRecords.UNUSED

    def doubt(self) -> None:
        """Ask again before the next write: etcd refused one, and a role may have changed."""
        self._granted = False

    def _ask(self) -> None:
        try:
            may_put(self._registry, [self._key])
        except CertificateRefusedError:
            raise
        except EtcdAuthError as error:
            self._ask_from_s = self._clock() + _ASK_AGAIN_S
            _log.warning("owner-record-refused", reason=error.message, limit_key="owner")
            self.condition = Condition(
                name="owner-record-refused",
                cause=f"etcd does not let this host write below {self._key.decode()}:"
                f" {error.message}",
                hint="give each host an account of its own (deploy/etcd/hosts.sh add HOST), or run"
                " deploy/etcd/roles.sh of this version again",
            )
        else:
            self._granted, self.condition = True, None
