"""The address of the etcd endpoint, by which the uplink is chosen.

A name is looked up by a job: a resolver that hangs must not stop the loop.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import urlsplit

from agent.daemon.timers import jittered
from agent.kernel.facts import choose_uplink
from agent.kernel.needed import needed_addresses
from agent.model import HostFacts, Uplink
from agent.model.family import ENABLED, Address, read_address
from agent.settings import HostSettings
from agent.threads import Jobs

__all__ = ["EndpointAddress", "uplink_now", "with_needed"]

_REFRESH_S = 60.0
_MOST = 16
_NONE: frozenset[Address] = frozenset()


class EndpointAddress:
    """Knows the first endpoint's address, or None: unknown yet, loopback, or of no enabled family.

    Args:
        endpoints: URLs as in the settings.
        on_change: Called on the jobs' thread when a name's address changed.
        jobs: Runs it; None: jobs of its own.
    """

    name = "resolver"

    def __init__(
        self,
        endpoints: tuple[str, ...],
        on_change: Callable[[], None],
        jobs: Jobs | None = None,
    ) -> None:
        self._on_change = on_change
        self._name = ""
        self._jobs = jobs or Jobs()
        self.address: Address | None = None
        self._hosts: tuple[str, ...] = ()
        self._found: Mapping[str, frozenset[Address]] = MappingProxyType({})
        self._follow(endpoints)

    def start(self) -> None:
        """Begin to look the name up; nothing to do for an address."""
        self._jobs.add(self)

    @property
    def addresses(self) -> frozenset[Address]:
        """Addresses of all endpoints, as far as they are known: by a name or plain."""
        return frozenset(address for found in self._found.values() for address in found)

    def look_up_all(self) -> frozenset[Address]:
        """The same, from the resolver now, which may take its own time."""
        self._found = {
            host: _addresses(host) or self._found.get(host, _NONE) for host in self._hosts
        }
        return self.addresses

    def use(self, endpoints: tuple[str, ...]) -> None:
        """Follow other endpoints from now on. Any thread."""
        before = self.address, self.addresses
        self._follow(endpoints)
        if self.address is not None and (self.address, self.addresses) != before:
            self._on_change()
        self._jobs.hurry(self)

    def look_up(self) -> Address | None:
        """The address now: as known, else from the resolver, which may take its own time."""
        return self.address or (self._look_up() if self._name else None)

    def stop(self) -> None:
        """Look no more up; a resolver that hangs is not waited for."""
        self._jobs.remove(self)

    def _follow(self, endpoints: tuple[str, ...]) -> None:
        self._hosts = tuple(dict.fromkeys(filter(None, map(_host_of, endpoints))))[:_MOST]
        self._found = {host: _plain(host) or self._found.get(host, _NONE) for host in self._hosts}
        host = _host_of(endpoints[0]) if endpoints else ""
        try:
            self.address, self._name = _usable(read_address(host)), ""
        except ValueError:
            self._name = host  # the address known so far holds until this one is

    def run(self) -> float:
        """Look all names up; return the seconds until that is due again."""
        name = self._name
        found = self._look_up() if name else None
        if found is not None and name == self._name and found != self.address:
            self.address = found
            self._on_change()
        before = self.addresses
        if self.look_up_all() != before:
            self._on_change()
        if not name and all(map(_plain, self._hosts)):
            return math.inf
        return jittered(_REFRESH_S if found or not name else _REFRESH_S / 6)

    def _look_up(self) -> Address | None:
        found = _resolve(self._name)
        return _usable(found[0]) if found else None


def with_needed(facts: HostFacts, endpoints: tuple[str, ...]) -> HostFacts:
    """Add what the host needs beside the mesh, for a reader that has no thread for names.

    Args:
        endpoints: URLs of etcd.
    """
    etcd = EndpointAddress(endpoints, on_change=lambda: None).look_up_all()
    return replace(facts, needed=needed_addresses(facts, etcd))


def uplink_now(facts: HostFacts, host: HostSettings, endpoints: tuple[str, ...]) -> Uplink:
    """Choose the uplink as the agent does, for who has no thread to look a name up with.

    Args:
        endpoints: URLs of etcd: the way there decides, unless a setting does.

    Raises:
        KernelError: No interface fits.
    """
    etcd = None
    if not host.uplink and host.node_address is None:
        etcd = EndpointAddress(endpoints, on_change=lambda: None).look_up()
    return choose_uplink(facts, host.uplink, etcd, node_address=host.node_address)


def _host_of(endpoint: str) -> str:
    return urlsplit(endpoint).hostname or ""


def _plain(host: str) -> frozenset[Address]:
    try:
        return frozenset({read_address(host)})
    except ValueError:
        return _NONE


def _addresses(host: str) -> frozenset[Address]:
    """The addresses of a host, none while the resolver knows none."""
    return _plain(host) or frozenset(_resolve(host))


def _resolve(name: str) -> tuple[Address, ...]:
    """Ask the resolver, which may take its own time, for addresses of enabled families."""
    found: list[Address] = []
    for family in ENABLED:
        try:
            answers = socket.getaddrinfo(name, None, family=family.af, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # the latter: no name can be that, "etcd..example"
            continue
        found += [read_address(str(each[4][0])) for each in answers]
    return tuple(found)


def _usable(address: Address) -> Address | None:
    """An etcd on loopback says nothing about the uplink."""
    return None if address.is_loopback else address
