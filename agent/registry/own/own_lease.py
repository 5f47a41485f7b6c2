"""The host's own lease: renewed in time, claimed again when it is lost, never taken from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from agent.errors import ClaimConflict, EtcdAuthError, HostmeshError, MeshConfigError, NoFreeSubnet
from agent.model import Condition, Lease, OwnerRecords, Severity
from agent.model.family import Network
from agent.registry.claiming.identity_conflicts import IdentityInUseError
from agent.registry.claiming.request import (
    ClaimRequest,
    GraceError,
    LeaseLostError,
    Registration,
    differs,
    renewal_pause_s,
)
from agent.registry.registry import Registry
from agent.settings import LeaseSettings

__all__ = ["OwnLease", "condition_of"]

_log = structlog.get_logger()


class OwnLease:
    """Keeps one lease. For the keeper's thread.

    Args:
        registry: To write to.
        settings: TTLs and grace time that are in force now.
        may_leave: See :class:`agent.registry.own.keeper.Keeper`.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Callable[[], LeaseSettings],
        may_leave: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._may_leave = may_leave
        self._clock = clock
        self._last_subnet: Network | None = None
        self._joined_s = 0.0  # when this host first saw the mesh
        self.lease: Lease | None = None
        self.taken: Condition | None = None
        """The host that has the subnet instead, until there is a lease again."""
        self.contested: Condition | None = None
        """Set while the record is overwritten again sooner than it may be repaired."""
        self.has_config = False
        """The mesh had a config when it was last looked at."""
        self.due_s = 0.0
        """When the lease is checked again; a failure leaves it as it is."""

    def require_config(self) -> None:
        """Raise MeshConfigError unless the mesh has, or had a moment ago, a config.

        One that this host cannot use is one: what the host holds is kept, and others see the
        level that its heartbeat says.
        """
        if self.has_config:
            return
        if not self._registry.has_config():
            raise MeshConfigError(
                "there is no config in etcd yet",
                hint="create it with agentctl config init --cidr …, or bring [mesh] in agent.toml",
            )
        self.has_config = True
        self._joined_s = self._joined_s or self._clock()

    def keep(self, registration: Registration, request: ClaimRequest, *, held_back: bool) -> None:
        """Renew the lease when that is due; claim one when there is none.

        Args:
            registration: What is to be kept.
            request: Who claims.
            held_back: No subnet but the host's own.

        Raises:
            IdentityInUseError: Another host may live under this host's identity.
            HostmeshError: Any other failure; tried again later.
        """
        lease = self.lease
        if lease is not None and (differs(lease, registration) or self._clock() >= self.due_s):
            self._renew(lease, request)
        if self.lease is None:
            self._claim(registration, request, held_back=held_back)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of the lease."""
        return tuple(each for each in (self.taken, self.contested) if each is not None)

    def contest(self, wait_s: float, *, owners: OwnerRecords) -> None:
        """Report that the record was overwritten again before it may be repaired again.

        Args:
            wait_s: Until the next repair.
            owners: Where they decide, nothing is lost meanwhile.
        """
        if self.lease is None or self.contested is not None:
            return
        self.contested = Condition(
            name="own-lease-overwritten",
            subject=str(self.lease.subnet),
            severity=Severity.ERROR,
            cause=f"another program goes on to change this host's records in etcd; the lease of"
            f" {self.lease.subnet} is repaired again in {max(1, round(wait_s))} s"
            + ("; its owner record is intact" if owners is OwnerRecords.DECIDE else ""),
            hint="find the program that writes them (etcdctl watch --prefix, see also etcd's users"
            " and roles), and stop it",
        )

    def move(self, lease: Lease) -> None:
        """Hold another lease from now on: the host has moved."""
        self.lease, self._last_subnet = lease, lease.subnet
        self._set_due()

    def forget(self) -> None:
        """Hold nothing, and have had nothing; writes nothing."""
        self.lease = self.taken = self.contested = self._last_subnet = None

    def _renew(self, lease: Lease, request: ClaimRequest) -> None:
        try:
            self.lease = self._registry.renew(lease, request)
        except IdentityInUseError:
            self.lease = None
            raise
        except LeaseLostError as error:
            _log.warning("lease-lost", subnet=str(lease.subnet), reason=error.message)
            self.lease = None
        except ClaimConflict as error:
            _log.error("lease-taken", subnet=str(lease.subnet), reason=error.message)
            self.lease = None
            self.taken = condition_of(error)
        self._set_due()

    def _claim(self, registration: Registration, request: ClaimRequest, *, held_back: bool) -> None:
        had = self._last_subnet or registration.wanted_subnet
        only_wanted = had is not None and (held_back or not registration.may_change_subnet)
        if self._last_subnet is not None and not only_wanted:
            only_wanted = not self._may_leave()
        if held_back and had is None:
            raise GraceError(
                "new claims are held back while this host does not believe etcd",
                hint="etcd-alarm says why; agentctl etcd accept ends it by word",
            )
        if had is None:
            self._await_holders()
        try:
            self.lease = self._registry.claim(
                replace(request, wanted=had, only_wanted=only_wanted, registering=had is not None)
            )
        except MeshConfigError:
            self.has_config = False
            raise
        self.taken = None
        self._last_subnet = self.lease.subnet
        self._set_due()
        _log.info("lease-claimed", subnet=str(self.lease.subnet), wanted=str(had or "any"))

    def _await_holders(self) -> None:
        """Raise GraceError while an etcd that was restored may lack holders' leases.

        A host that never held a subnet cannot see what is missing; those that hold one come
        back first, and say so.
        """
        grace_s = self._settings().empty_cluster_grace_s
        if self._clock() < self._joined_s + grace_s and self._registry.client.restored():
            raise GraceError(
                "etcd was restored from a backup: hosts that held a subnet before come back first",
                hint="the claim is tried again; nothing needs to be done",
            )

    def _set_due(self) -> None:
        self.due_s = self._clock() + renewal_pause_s(self._settings().ttl_s)


def condition_of(error: HostmeshError) -> Condition:
    """Name what keeps this host from having its lease."""
    names: tuple[tuple[type[HostmeshError], str], ...] = (
        (IdentityInUseError, "machine-id-cloned"),
        (ClaimConflict, "lease-taken"),
        (NoFreeSubnet, "no-free-subnet"),
        (MeshConfigError, "mesh-config-missing"),
        (GraceError, "claims-held-back"),
        (EtcdAuthError, "etcd-auth-failed"),
    )
    name = next((name for kind, name in names if isinstance(error, kind)), "lease-not-held")
    return Condition(name=name, cause=error.message, hint=error.hint, severity=Severity.ERROR)
