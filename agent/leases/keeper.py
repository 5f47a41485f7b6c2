"""Keeps what is this host's in etcd: its lease, its heartbeat and the memory of its subnet.

One thread. It never writes before the mesh has a config, never overwrites what another host
owns, and never ends on an error: it waits, with back-off, and tries again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import structlog

from agent import threads
from agent.errors import (
    ClaimConflict,
    EtcdAuthError,
    EtcdUnavailable,
    HostmeshError,
    MeshConfigError,
)
from agent.leases.backoff import Backoff
from agent.leases.beating import BEATS_PER_TTL, OwnHeartbeat
from agent.leases.move import Former
from agent.leases.refusals import condition_of
from agent.leases.registry import (
    ClaimRequest,
    GraceError,
    IdentityInUseError,
    LeaseLostError,
    Registry,
)
from agent.leases.renewal import differs, renewal_pause_s
from agent.leases.request import Registration
from agent.model import (
    Condition,
    Heartbeat,
    HostId,
    Lease,
    View,
)
from agent.settings import LeaseSettings

__all__ = ["Keeper", "Registration"]

_log = structlog.get_logger()

_MOST_LIVES = 4  # of this host, that are told from clones in one step
_IDLE_S = 60.0
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 15.0


def _boot_clock() -> float:
    """Seconds since boot, the time in suspend included, so that a wake-up renews at once."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Keeper:
    """A thread that holds a lease for this host and calls back with what it holds.

    Args:
        registry: To write to.
        host_id: This host's identity.
        boot_id: Of this boot of the host, to tell an earlier life from a clone.
        agent_version: For the heartbeat.
        settings: TTLs.
        on_lease: Called on the keeper's thread with the lease it owns (None: none), what there
            is to say about it, and the former lease (see :class:`Former`), whenever one changes.
        earlier_life: Asked when another boot left a heartbeat (then the second argument is
            True) or a lease under this host's identity at another address: True when no
            clone of this host lives there, so that it was this host before it was rebooted.
            It may take seconds. Without it nothing of the sort is ever taken over.
        may_leave: Asked on the keeper's thread before another subnet is claimed in place of one
            that was held in this life: what the registration says may be older than a
            container that has just started. It may take seconds.
        clock: Seconds that never go back.
        wall_clock: Unix seconds, for the time the agent started.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        host_id: HostId,
        boot_id: str,
        agent_version: str,
        settings: LeaseSettings,
        on_lease: Callable[[Lease | None, tuple[Condition, ...], Lease | None], None],
        earlier_life: Callable[[IPv4Address, bool], bool] | None = None,
        may_leave: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = _boot_clock,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._host_id = host_id
        self._boot_id = boot_id
        self._agent_version = agent_version
        self._settings = settings
        self._on_lease = on_lease
        self._earlier_life = earlier_life
        self._may_leave = may_leave
        self._clock = clock
        self._started_s = round(wall_clock(), 3)
        self._lock = threading.Lock()
        self._busy = threading.Lock()  # held by the thread while it may write
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Shared, under the lock:
        self._registration: Registration | None = None
        self._held_back = False
        self._doubt = False
        self._paused = False
        # The thread's own:
        self._lease: Lease | None = None
        self._last_subnet: IPv4Network | None = None
        self._taken: Condition | None = None
        self._has_config = False
        self._joined_s = 0.0  # when this host first saw the mesh
        self._beat = OwnHeartbeat(registry, settings.heartbeat_ttl_s, clock)
        self._renew_due_s = 0.0
        self._former = Former(registry, clock)
        self._told: tuple[Lease | None, tuple[Condition, ...], Lease | None] | None = None

    # --- called from other threads --------------------------------------------------------

    def start(self) -> None:
        """Start keeping; nothing is written before the first :meth:`update`."""
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop within 2 s. Lease and heartbeat stay in etcd (promise 3)."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def adopt(self, settings: LeaseSettings) -> None:
        """Go on with another grace time; the TTLs hold for the keeper's whole life."""
        self._settings = settings

    def update(self, registration: Registration) -> None:
        """Say what is to be kept from now on."""
        with self._lock:
            self._registration = registration
        self._wake.set()

    def pause(self, timeout_s: float = 5.0) -> bool:
        """Keep nothing more until the next :meth:`update`; writes nothing (the host leaves).

        Args:
            timeout_s: How long to wait for a write under way: what is released while it is
                on its way would be claimed again by it.

        Returns:
            False when a write is still under way.
        """
        with self._lock:
            self._registration = None
            self._paused = True
        self._wake.set()
        idle = self._busy.acquire(timeout=timeout_s)
        if idle:
            self._busy.release()
        return idle

    def notice(self, view: View) -> None:
        """Look at a view: if it shows the own lease gone or rewritten, check at once."""
        for lease in (self._lease, self._former.lease):
            if lease is None or view.revision < lease.mod_revision:
                continue
            seen = view.by_subnet.get(lease.subnet)
            if seen is None or seen.mod_revision > lease.mod_revision:
                with self._lock:
                    self._doubt = True
                self._wake.set()

    def hold(self) -> None:
        """Claim no new subnet for now; what this host had is registered again, at once."""
        with self._lock:
            was_held_back, self._held_back = self._held_back, True
            self._doubt = self._doubt or not was_held_back
        if not was_held_back:
            self._wake.set()

    def resume(self) -> None:
        """End :meth:`hold`."""
        with self._lock:
            was_held_back, self._held_back = self._held_back, False
        if was_held_back:
            self._wake.set()

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)
        while not self._stop.is_set():
            self._wake.clear()
            try:
                with self._busy:
                    wait_s = self._step()
                backoff.reset()
            except (EtcdUnavailable, EtcdAuthError) as error:  # the directory tells the loop
                _log.warning("lease-not-kept", reason=str(error), limit_key="keeper")
                wait_s = backoff.next_s()
            except HostmeshError as error:
                self._tell(condition_of(error))
                wait_s = backoff.next_s()
            except Exception as error:  # noqa: BLE001  # the top of a thread
                threads.tell(error)
                wait_s = backoff.next_s()
            self._wake.wait(min(wait_s, self._settings.heartbeat_ttl_s / BEATS_PER_TTL))

    def _step(self) -> float:
        """Do what is due.

        Returns:
            Seconds until something is due again.

        Raises:
            HostmeshError: What stands in the way; tried again later.
        """
        with self._lock:
            registration, held_back = self._registration, self._held_back
            doubt, self._doubt = self._doubt, False
            paused, self._paused = self._paused, False
        if paused:
            self._forget()
        if registration is None:
            return _IDLE_S
        if not self._has_config:
            self._require_config()
        cleared: frozenset[IPv4Address] = frozenset()
        for last_try in (*(False,) * (_MOST_LIVES - 1), True):
            try:
                self._keep(registration, cleared, held_back=held_back, doubt=doubt)
                break
            except IdentityInUseError as error:
                if last_try or not self._left_behind(error):
                    self._lease = None
                    self._beat.give_way(self._heartbeat(registration))
                    raise
                cleared |= {error.node_address}
        self._beat.alone()
        self._former.adopt(registration)  # before anything is told: nobody may think it is gone
        self._tell()
        if self._lease is not None:
            self._move(self._lease, registration, cleared, may_claim=not held_back, doubt=doubt)
            self._tell()
        due_s = min(self._beat.due_s, self._renew_due_s)
        if self._former.lease is not None:
            due_s = min(due_s, self._former.due_s)
        return max(0.05, due_s - self._clock())

    def _keep(
        self,
        registration: Registration,
        cleared: frozenset[IPv4Address],
        *,
        held_back: bool,
        doubt: bool,
    ) -> None:
        """Keep heartbeat and lease.

        Raises:
            IdentityInUseError: Another host may live under this host's identity.
            HostmeshError: What else stands in the way.
        """
        self._keep_heartbeat(registration, cleared)
        if self._lease is not None:
            self._keep_lease(self._lease, registration, doubt=doubt)
        if self._lease is None:
            self._claim(registration, cleared, held_back=held_back)
        self._keep_heartbeat(registration, cleared)

    def _left_behind(self, error: IdentityInUseError) -> bool:
        """Whether what another boot left was this host itself, before it was rebooted."""
        asked = self._earlier_life
        return asked is not None and asked(error.node_address, error.beating)

    def _forget(self) -> None:
        """Hold nothing, and have had nothing: the host has left, whatever comes then."""
        self._lease = self._told = self._last_subnet = self._taken = None
        self._former.forget()
        self._beat.forget()

    def _require_config(self) -> None:
        """Raise MeshConfigError unless the mesh has a usable config."""
        if self._registry.config() is None:
            raise MeshConfigError(
                "there is no config in etcd yet",
                hint="create it with agentctl config init --cidr …, or bring [mesh] in agent.toml",
            )
        self._has_config = True
        self._joined_s = self._joined_s or self._clock()

    # --- heartbeat ------------------------------------------------------------------------

    def _keep_heartbeat(self, registration: Registration, cleared: frozenset[IPv4Address]) -> None:
        if self._beat.keep(self._heartbeat(registration), cleared):
            self._renew_due_s = 0.0  # away for longer than a heartbeat: look at the lease

    def _heartbeat(self, registration: Registration) -> Heartbeat:
        return Heartbeat(
            host_id=self._host_id,
            host_name=registration.host_name,
            node_address=registration.node_address,
            subnet=self._lease.subnet if self._lease else None,
            docker=registration.docker_state,
            agent_version=self._agent_version,
            boot_id=self._boot_id,
            started_s=self._started_s,
        )

    # --- lease ----------------------------------------------------------------------------

    def _keep_lease(self, lease: Lease, registration: Registration, *, doubt: bool) -> None:
        if not (doubt or differs(lease, registration) or self._clock() >= self._renew_due_s):
            return
        try:
            self._lease = self._registry.renew(
                lease,
                node_address=registration.node_address,
                host_name=registration.host_name,
                backend=registration.backend,
                ttl_s=self._settings.ttl_s,
                memory_ttl_s=self._settings.memory_ttl_s,
                boot_id=self._boot_id,
            )
        except IdentityInUseError:
            self._lease = None
            raise
        except LeaseLostError as error:
            _log.warning("lease-lost", subnet=str(lease.subnet), reason=error.message)
            self._lease = None
        except ClaimConflict as error:
            _log.error("lease-taken", subnet=str(lease.subnet), reason=error.message)
            self._lease = None
            self._taken = condition_of(error)
        self._set_renewal()

    def _claim(
        self, registration: Registration, cleared: frozenset[IPv4Address], *, held_back: bool
    ) -> None:
        had = self._last_subnet or registration.wanted_subnet
        only_wanted = had is not None and (held_back or not registration.may_change_subnet)
        if self._last_subnet is not None and not only_wanted:
            only_wanted = not self._may_leave()
        if held_back and had is None:
            raise GraceError("new claims are held back while etcd is in doubt")
        if had is None:
            self._await_holders()
        try:
            self._lease = self._registry.claim(
                replace(
                    self._request(registration, cleared),
                    wanted=had,
                    only_wanted=only_wanted,
                    registering=had is not None,
                )
            )
        except MeshConfigError:
            self._has_config = False
            raise
        self._taken = None
        self._last_subnet = self._lease.subnet
        self._set_renewal()
        _log.info("lease-claimed", subnet=str(self._lease.subnet), wanted=str(had or "any"))

    def _await_holders(self) -> None:
        """Raise GraceError while an etcd that was restored may lack holders' leases.

        A host that never held a subnet cannot see what is missing; those that hold one come
        back first, and say so.
        """
        grace_s = self._settings.empty_cluster_grace_s
        if self._clock() < self._joined_s + grace_s and self._registry.client.restored():
            raise GraceError(
                "etcd was restored from a backup: hosts that held a subnet before come back first",
                hint="the claim is tried again; nothing needs to be done",
            )

    def _request(self, registration: Registration, cleared: frozenset[IPv4Address]) -> ClaimRequest:
        return ClaimRequest(
            host_id=self._host_id,
            host_name=registration.host_name,
            node_address=registration.node_address,
            backend=registration.backend,
            boot_id=self._boot_id,
            cleared=cleared,
            avoid=registration.avoid,
            ttl_s=self._settings.ttl_s,
            memory_ttl_s=self._settings.memory_ttl_s,
        )

    def _move(
        self,
        lease: Lease,
        registration: Registration,
        cleared: frozenset[IPv4Address],
        *,
        may_claim: bool,
        doubt: bool,
    ) -> None:
        request = self._request(registration, cleared)
        own = self._former.step(lease, registration, request, may_claim=may_claim, doubt=doubt)
        if own is not lease:
            self._lease, self._last_subnet = own, own.subnet
            self._set_renewal()

    def _set_renewal(self) -> None:
        self._renew_due_s = self._clock() + renewal_pause_s(self._settings.ttl_s)

    def _tell(self, *conditions: Condition) -> None:
        found = conditions or ((self._taken,) if self._taken else ())
        told = (self._lease, found, self._former.lease)
        if told != self._told:
            self._told = told
            self._on_lease(*told)
