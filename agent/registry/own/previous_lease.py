"""The subnet that a host leaves while the mesh moves to another CIDR.

A host that has to move claims a second subnet beside the one it has. It holds both until
Docker has nothing in the first any more: only then is that one given back. Peers route both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from agent.errors import ClaimConflict
from agent.model import Lease
from agent.model.family import Network, within
from agent.registry.claiming.request import (
    ClaimRequest,
    LeaseLostError,
    Registration,
    differs,
    renewal_pause_s,
)
from agent.registry.registry import Registry

__all__ = ["PreviousLease"]

_log = structlog.get_logger()


class PreviousLease:
    """Keeps the lease that the host had before. For the keeper's thread.

    Args:
        registry: To write to.
        clock: Seconds that never go back.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._given_back: set[Network] = set()
        self.lease: Lease | None = None
        self.due_s = 0.0
        """When the lease is checked again; a failure leaves it as it is."""

    def adopt(self, registration: Registration) -> None:
        """Take over the lease of an earlier run; not one that this run gave back."""
        lease = None if registration.give_back else registration.former
        if self.lease is None and lease is not None and lease.subnet not in self._given_back:
            self._hold(lease)
            self.due_s = 0.0

    def step(
        self,
        own: Lease,
        registration: Registration,
        request: ClaimRequest,
        *,
        may_claim: bool,
    ) -> Lease:
        """Do what is due: move, keep the previous lease, or give it back.

        Args:
            own: The host's lease.
            registration: What is to be kept.
            request: As for the host's own lease.
            may_claim: New subnets may be claimed.

        Returns:
            The lease that is the host's own from now on.

        Raises:
            HostmeshError: It is not possible now; tried again later.
        """
        cidr = registration.move_into
        if cidr is not None and self._may_begin(own, cidr):
            return self._move(own, request) if may_claim else own
        if registration.give_back and registration.wanted_subnet == own.subnet:
            self._give_back()
        else:
            self._keep(request, own.subnet)
        return own

    def _may_begin(self, own: Lease, cidr: Network) -> bool:
        """Whether to exchange ``own``; a move that is not over ends first, unless it goes back."""
        back = self.lease is None or within(self.lease.subnet, cidr)
        return back and not within(own.subnet, cidr)

    def _move(self, lease: Lease, request: ClaimRequest) -> Lease:
        """Claim a subnet in the mesh's new CIDR, and hold ``lease`` as the previous one.

        A second lease that the host has there already is taken: it was cut off in the middle,
        or the operator turned the move round.

        Raises:
            HostmeshError: It could not be had; ``lease`` is what the host has, as before.
        """
        beside = replace(
            request, beside=lease.subnet, wanted=None, only_wanted=False, registering=False
        )
        new = self._registry.claim(beside)
        self._hold(lease)
        _log.info("lease-moves", subnet=str(new.subnet), former=str(lease.subnet))
        return new

    def _keep(self, request: ClaimRequest, own: Network) -> None:
        """Renew when it is due; claim it again when it was lost. What others took is gone."""
        lease = self.lease
        if lease is None:
            return
        if not (differs(lease, request) or self._clock() >= self.due_s):
            return
        try:
            self._hold(self._renewed(lease, request, own))
        except ClaimConflict as error:
            _log.error("former-lease-taken", subnet=str(lease.subnet), reason=error.message)
            self.lease = None

    def _give_back(self) -> None:
        """Let go of it: Docker has nothing there any more."""
        if self.lease is not None:
            self._registry.give_back(self.lease)
            self._given_back.add(self.lease.subnet)
            _log.info("former-lease-given-back", subnet=str(self.lease.subnet))
            self.lease = None

    def forget(self) -> None:
        """Hold nothing; writes nothing."""
        self.lease = None
        self._given_back.clear()

    def _renewed(self, lease: Lease, request: ClaimRequest, own: Network) -> Lease:
        try:
            return self._registry.renew(lease, request, remember=False)
        except LeaseLostError as error:
            _log.warning("former-lease-lost", subnet=str(lease.subnet), reason=error.message)
        again = replace(
            request, beside=own, wanted=lease.subnet, only_wanted=True, registering=True
        )
        return self._registry.claim(again)

    def _hold(self, lease: Lease) -> None:
        self.lease = lease
        self._given_back.discard(lease.subnet)
        self.due_s = self._clock() + renewal_pause_s(lease.ttl_s or 86_400)
