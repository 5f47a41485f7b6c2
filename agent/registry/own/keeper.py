"""Keeps what is this host's in etcd: its lease, its heartbeat and the memory of its subnet.

One thread. It never writes before the mesh has a config, never overwrites what another host
owns, and never ends on an error: it waits, with back-off, and tries again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from agent import threads
from agent.errors import EtcdUnavailable, HostmeshError
from agent.etcd.errors import CertificateRefusedError, PermissionDeniedError
from agent.model import LEVEL, Condition, Heartbeat, HostId, Lease, OwnerRecords, View
from agent.model.family import Address
from agent.registry.claiming.identity_conflicts import IdentityInUseError
from agent.registry.claiming.request import ClaimRequest, Registration
from agent.registry.own.own_heartbeat import BEATS_PER_TTL, OwnHeartbeat
from agent.registry.own.own_lease import OwnLease, condition_of
from agent.registry.own.owner_permission import OwnerPermission
from agent.registry.own.previous_lease import PreviousLease
from agent.registry.registry import Registry
from agent.retry import Backoff
from agent.settings import LeaseSettings

__all__ = ["Keeper", "Registration"]

_log = structlog.get_logger()

_MOST_FOUND = 4  # hosts of this identity that are checked in one step
_IDLE_S = 60.0
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 15.0
_FIRST_LOOK_S = 0.2
_LONGEST_LOOK_S = 60.0


def _boot_clock() -> float:
    """Seconds since boot, the time in suspend included, so that a wake-up renews at once."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Keeper:
    """A thread that holds a lease for this host and calls back with what it holds.

    Args:
        registry: To write to.
        host_id: This host's identity.
        boot_id: Of this boot of the host, to distinguish an earlier run from a clone.
        agent_version: For the heartbeat.
        settings: TTLs.
        on_lease: Called on the keeper's thread with the lease it owns (None: none), what there
            is to say about it, and the previous lease (:class:`PreviousLease`), when one changes.
        earlier_life: Asked when another boot left a heartbeat (then the second argument is
            True) or a lease under this host's identity at another address: True when no
            clone of this host lives there, so that it was this host before it was rebooted.
            It may take seconds. Without it nothing of the sort is ever taken over.
        may_leave: Asked on the keeper's thread before another subnet is claimed in place of one
            that was held in this run: what the registration says may be older than a
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
        earlier_life: Callable[[Address, bool], bool] | None = None,
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
        self._seen: View | None = None
        self._paused = False
        # The thread's own:
        self._own = OwnLease(registry, lambda: self._settings, may_leave, clock)
        self._beat = OwnHeartbeat(registry, settings.heartbeat_ttl_s, clock)
        self._former = PreviousLease(registry, clock)
        self._permission = OwnerPermission(registry, host_id, clock)
        self._owners = OwnerRecords.UNUSED
        self._looks = Backoff(_FIRST_LOOK_S, _LONGEST_LOOK_S)
        self._look_from_s = 0.0
        self._reported: tuple[Lease | None, tuple[Condition, ...], Lease | None] | None = None

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
        """Go on with another grace time; the TTLs hold for the keeper's whole run."""
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
        """Look at a view: if something of this host's is gone or rewritten, write it at once.

        That an etcd lease lives, which is all that keeping it alive tells, does not say that
        the keys are there: a prefix may be wiped, a host be removed by an operator's slip.
        """
        with self._lock:
            self._seen = view
        if self._denied_by(view):
            self._wake.set()

    def _denied_by(self, view: View | None) -> bool:
        """Whether ``view`` is newer than what this host wrote and does not say it."""
        if view is None:
            return False
        return self._beat.is_missing(view) or self._lease_denied_by(view)

    def _lease_denied_by(self, view: View | None) -> bool:
        held = [each for each in (self._own.lease, self._former.lease) if each is not None]
        return view is not None and any(self._is_news(each, view) for each in held)

    def _is_news(self, lease: Lease, view: View) -> bool:
        """Whether ``view`` is as new as ``lease`` and does not say what this host wrote."""
        if view.revision < lease.mod_revision:
            return False
        if lease.subnet in view.kept or lease.subnet in view.overwritten:
            return True  # a key was damaged, and peers go on with what it said
        written = self._owners is not OwnerRecords.UNUSED
        if written and (self._host_id, lease.subnet) not in view.owners:
            return True
        aside = (each for each in view.set_aside_of(self._host_id) if each.subnet == lease.subnet)
        seen = view.by_subnet.get(lease.subnet) or next(aside, None)
        if seen is None or seen.mod_revision != lease.mod_revision:
            return True  # an older one: etcd was restored, and counts past where it was
        return self._host_id not in view.memory

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
            except (EtcdUnavailable, CertificateRefusedError) as error:  # the directory tells it
                _log.warning("lease-not-kept", reason=str(error), limit_key="keeper")
                wait_s = backoff.next_s()
            except HostmeshError as error:
                if isinstance(error, PermissionDeniedError):
                    self._permission.doubt()
                self._tell(condition_of(error))
                wait_s = backoff.next_s()
            except Exception as error:  # noqa: BLE001  # the top of a thread
                threads.report_error(error)
                wait_s = backoff.next_s()
            self._wake.wait(min(wait_s, self._settings.heartbeat_ttl_s / BEATS_PER_TTL))

    def _step(self) -> float:
        """Do what is due.

        Returns:
            Seconds until something is due again.

        Raises:
            HostmeshError: It is not possible now; tried again later.
        """
        with self._lock:
            registration, held_back = self._registration, self._held_back
            paused, self._paused = self._paused, False
        if paused:
            self._forget()
        if registration is None:
            return _IDLE_S
        wait_s = self._look()
        self._own.require_config()
        owners = self._permission.follow(registration.owners)
        if owners is not self._owners:
            self._owners, self._own.due_s, self._former.due_s = owners, 0.0, 0.0
        cleared: frozenset[Address] = frozenset()
        for last_try in (*(False,) * (_MOST_FOUND - 1), True):
            request = self._request(registration, cleared)
            try:
                self._keep(registration, request, held_back=held_back)
                break
            except IdentityInUseError as error:
                if last_try or not self._left_behind(error):
                    self._own.lease = None
                    self._beat.give_way(self._heartbeat(registration))
                    raise
                cleared |= {error.node_address}
        self._beat.alone()
        self._former.adopt(registration)  # before any report: no peer may think it is gone
        self._tell()
        if self._own.lease is not None:
            self._move(self._own.lease, registration, request, may_claim=not held_back)
            self._tell()
        due_s = min(self._beat.due_s, self._own.due_s)
        if self._former.lease is not None:
            due_s = min(due_s, self._former.due_s)
        return max(0.05, min(wait_s, due_s - self._clock()))

    def _look(self) -> float:
        """If there is doubt, have everything written again, each by a write that compares.

        What cannot be written now stays due. What a view goes on to deny is looked at less and
        less: another's fault must not make this host write without end.

        Returns:
            Seconds until a doubt that waits may be followed.
        """
        now_s = self._clock()
        with self._lock:
            doubt, self._doubt = self._doubt, False
            seen = self._seen
        if not doubt:
            # Looked at again here: the view may have come while this thread wrote.
            if not self._denied_by(seen):
                if now_s >= self._look_from_s:
                    self._own.contested = None
                return _IDLE_S
            if now_s < self._look_from_s:
                # While a repair is due, etcd refused it: no other program wrote again.
                if self._lease_denied_by(seen) and self._own.due_s > now_s:
                    self._own.contest(self._look_from_s - now_s, owners=self._owners)
                return self._look_from_s - now_s
        if now_s - self._look_from_s > _LONGEST_LOOK_S:
            self._looks.reset()
        # Peers hold their deletions for the grace time: what was lost is back well before.
        longest_s = max(_FIRST_LOOK_S, self._settings.empty_cluster_grace_s / 2)
        self._look_from_s = now_s + self._looks.next_s(longest_s)
        self._own.due_s = self._former.due_s = 0.0
        self._beat.doubt()
        return _IDLE_S

    def _keep(
        self,
        registration: Registration,
        request: ClaimRequest,
        *,
        held_back: bool,
    ) -> None:
        """Keep heartbeat and lease.

        Raises:
            IdentityInUseError: Another host may live under this host's identity.
            HostmeshError: Any other failure.
        """
        self._keep_heartbeat(registration, request)
        self._own.keep(registration, request, held_back=held_back)
        self._keep_heartbeat(registration, request)

    def _left_behind(self, error: IdentityInUseError) -> bool:
        """Whether what another boot left was this host itself, before it was rebooted."""
        asked = self._earlier_life
        return asked is not None and asked(error.node_address, error.beating)

    def _forget(self) -> None:
        """Hold nothing, and have had nothing: the host has left, whatever comes then."""
        self._reported = None
        self._own.forget()
        self._former.forget()
        self._beat.forget()

    # --- heartbeat ------------------------------------------------------------------------

    def _keep_heartbeat(self, registration: Registration, request: ClaimRequest) -> None:
        if self._beat.keep(self._heartbeat(registration), request.claimant):
            self._own.due_s = 0.0  # away for longer than a heartbeat: look at the lease

    def _heartbeat(self, registration: Registration) -> Heartbeat:
        return Heartbeat(
            host_id=self._host_id,
            host_name=registration.host_name,
            node_address=registration.node_address,
            subnet=self._own.lease.subnet if self._own.lease else None,
            docker=registration.docker_state,
            agent_version=self._agent_version,
            boot_id=self._boot_id,
            started_s=self._started_s,
            container=registration.container,
            needed=registration.needed,
            level=LEVEL,
            summary=registration.summary,
        )

    # --- lease ----------------------------------------------------------------------------

    def _request(self, registration: Registration, cleared: frozenset[Address]) -> ClaimRequest:
        return ClaimRequest(
            host_id=self._host_id,
            host_name=registration.host_name,
            node_address=registration.node_address,
            published=registration.published,
            boot_id=self._boot_id,
            owners=self._owners,
            cleared=cleared,
            avoid=registration.avoid,
            past=registration.past,
            ttl_s=self._settings.ttl_s,
            memory_ttl_s=self._settings.memory_ttl_s,
        )

    def _move(
        self,
        lease: Lease,
        registration: Registration,
        request: ClaimRequest,
        *,
        may_claim: bool,
    ) -> None:
        own = self._former.step(lease, registration, request, may_claim=may_claim)
        if own is not lease:
            self._own.move(own)

    def _tell(self, *conditions: Condition) -> None:
        refused = self._permission.condition
        found = conditions or (*self._own.conditions, *((refused,) if refused else ()))
        report = (self._own.lease, found, self._former.lease)
        if report != self._reported:
            self._reported = report
            self._on_lease(*report)
