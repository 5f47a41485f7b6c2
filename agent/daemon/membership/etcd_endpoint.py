"""The addresses of etcd's endpoints: the first selects the uplink, and no mesh may hold any.

Names are looked up by a job: a resolver that hangs must not stop the loop.
"""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from agent.daemon.state.events import Endpoints
from agent.kernel.needed_addresses import needed_addresses
from agent.kernel.uplink import as_peers_see_it, choose_uplink
from agent.kernel.wireguard.key import WireGuardKey
from agent.model import HostFacts, Uplink
from agent.model.family import ENABLED, Address, address_order, read_address
from agent.retry import jittered
from agent.settings import Settings
from agent.threads import Jobs, start_thread

__all__ = ["EndpointAddress", "look_up", "uplink_now", "with_needed"]

_REFRESH_S = 60.0
_NAMES_MOST = 16
_PER_NAME_MOST = 8
_KEPT_S = 3600.0
"""Keep an address that long after the last answer with it: many name servers rotate their answers,
and each change of addresses would cost a snapshot of etcd."""


class EndpointAddress:
    """Knows the endpoints' addresses, and looks names up again every minute.

    Args:
        endpoints: URLs as in the settings.
        on_change: Called with what changed, on the jobs' thread or that of :meth:`use`.
        jobs: Run it; None: jobs of its own.
        ask: Asks for the addresses of names.
        clock: Monotonic seconds.
    """

    name = "resolver"

    def __init__(
        self,
        endpoints: tuple[str, ...],
        on_change: Callable[[Endpoints], None],
        *,
        jobs: Jobs | None = None,
        ask: Callable[[Iterable[str]], Mapping[str, tuple[Address, ...]]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._ask = ask or _ask
        self._clock = clock
        self._jobs = jobs or Jobs()
        self._lock = threading.Lock()
        self._seen_s: dict[str, dict[Address, float]] = {}
        self.now = Endpoints()
        self._follow(endpoints)

    def start(self) -> None:
        """Begin to look names up; nothing to do for addresses."""
        self._jobs.add(self)

    def use(self, endpoints: tuple[str, ...]) -> None:
        """Follow other endpoints from now on. Any thread."""
        if self._follow(endpoints):
            self._on_change(self.now)
        self._jobs.hurry(self)

    def look_up(self) -> bool:
        """Ask for every name now, which may take long; return whether anything changed."""
        names = [host for host in self._seen_s if _plain(host) is None]
        found = self._ask(names) if names else {}
        now_s = self._clock()
        with self._lock:
            for host in self._seen_s:
                self._seen_s[host] = _kept(self._seen_s[host], found.get(host, ()), now_s)
            return self._settle()

    def stop(self) -> None:
        """Look no more up; a resolver that hangs is not waited for."""
        self._jobs.remove(self)

    def _follow(self, endpoints: tuple[str, ...]) -> bool:
        hosts = dict.fromkeys(filter(None, map(_host_of, endpoints)))
        with self._lock:
            seen_s = {}
            for host in itertools.islice(hosts, _NAMES_MOST):
                plain = _plain(host)
                seen_s[host] = self._seen_s.get(host, {}) if plain is None else {plain: 0.0}
            self._seen_s = seen_s
            return self._settle()

    def _settle(self) -> bool:
        """Update the addresses; one that is still valid, or has no successor, stays."""
        before = self.now
        first = next(iter(self._seen_s.values()), None)
        address = before.address
        if first and address not in first:
            address = next((each for each in first if not each.is_loopback), None)
        ranks = itertools.zip_longest(*self._seen_s.values())
        every = (each for rank in ranks for each in rank if each is not None)
        self.now = Endpoints(address, tuple(dict.fromkeys(every)))
        return self.now != before

    def run(self) -> float:
        """Look all names up; return the seconds until that is due again."""
        if self.look_up():
            self._on_change(self.now)
        seen_s = self._seen_s
        if not any(_plain(host) is None for host in seen_s):
            return math.inf
        return jittered(_REFRESH_S if any(itertools.islice(seen_s.values(), 1)) else _REFRESH_S / 6)


def look_up(endpoints: tuple[str, ...]) -> Endpoints:
    """Look URLs of etcd up once, for a reader that has no thread for names."""
    found = EndpointAddress(endpoints, on_change=lambda _: None)
    found.look_up()
    return found.now


def with_needed(facts: HostFacts, endpoints: tuple[str, ...]) -> HostFacts:
    """Add the addresses that the host needs outside the mesh.

    Args:
        endpoints: URLs of etcd.
    """
    return replace(facts, needed=needed_addresses(facts, look_up(endpoints).addresses))


def uplink_now(facts: HostFacts, settings: Settings, endpoints: tuple[str, ...]) -> Uplink:
    """Choose the uplink as the agent does.

    Args:
        endpoints: URLs of etcd: the way there decides, unless a setting does.

    Raises:
        KernelError: No interface fits.
    """
    etcd, host = None, settings.host
    if not host.uplink and host.node_address is None:
        etcd = look_up(endpoints).address
    found = choose_uplink(facts, host.uplink, etcd, node_address=host.node_address)
    return as_peers_see_it(found, host, WireGuardKey(settings.agent.state_dir).public_key())


def _kept(
    seen_s: Mapping[Address, float], answers: tuple[Address, ...], now_s: float
) -> dict[Address, float]:
    """Return when each address was last answered: old ones go, and new ones never push any out."""
    if not answers:
        return dict(seen_s)
    kept = {
        each: now_s if each in answers else at_s
        for each, at_s in seen_s.items()
        if each in answers or now_s - at_s < _KEPT_S
    }
    kept |= {each: now_s for each in sorted(answers, key=address_order) if each not in kept}
    return dict(itertools.islice(kept.items(), _PER_NAME_MOST))


def _host_of(endpoint: str) -> str:
    return urlsplit(endpoint).hostname or ""


def _plain(host: str) -> Address | None:
    try:
        return read_address(host)
    except ValueError:
        return None


def _ask(names: Iterable[str]) -> Mapping[str, tuple[Address, ...]]:
    """Ask for all names at the same time: one that hangs holds no other up."""
    found: dict[str, tuple[Address, ...]] = {}

    def ask(name: str) -> None:
        found[name] = _resolve(name)

    for thread in [start_thread("resolver-name", partial(ask, each)) for each in names]:
        thread.join()
    return found


def _resolve(name: str) -> tuple[Address, ...]:
    """Ask the resolver, which may take long, for addresses of enabled families."""
    found: list[Address] = []
    for family in ENABLED:
        try:
            answers = socket.getaddrinfo(name, None, family=family.af, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # the latter: no name can be that, "etcd..example"
            continue
        found += [read_address(str(each[4][0])) for each in answers]
    return tuple(found)
