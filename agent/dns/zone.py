"""The names of the mesh, as the server looks them up: a host at a time comes and goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from agent.dns.visibility import HOST, Asker, asker_at
from agent.dns.wire import AAAA, A, pack_name, pack_record
from agent.model.family import Address, family_of
from agent.model.mesh import HostId
from agent.model.names import NAME_RANK, HostNames, LocalNames, Name, NamedAddress, NameKind

__all__ = ["TTL_S", "AskerView", "Found", "Zone"]

TTL_S: Final = 5
_MOST_VIEWS: Final = 8192
_MOST_REMEMBERED: Final = 16384
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Entry:
    host_id: HostId
    kind: NameKind
    address: NamedAddress
    version: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a name: records of addresses by IP version, packed for the question's owner."""

    by_version: Mapping[int, tuple[bytes, ...]]


class AskerView:
    """The names that askers with the same networks see; answers are remembered."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.remembered: dict[bytes, Found | None] = {}

    @property
    def is_local(self) -> bool:
        """Return whether all its networks are this host's alone: no other host adds plain names."""
        return not any(each.mesh_network for each in self.asker.networks)


class Zone:
    """All names, by their labels in wire form without the domain's.

    Used by one thread.
    """

    def __init__(self) -> None:
        self._hosts: dict[HostId, dict[Address, NamedAddress]] = {}
        self._names: dict[bytes, list[_Entry]] = {}
        self._pointers: dict[Address, list[tuple[HostId, NamedAddress]]] = {}
        self._local: LocalNames | None = None
        self._views: dict[Address, AskerView] = {}
        self._shared: dict[tuple[str, ...], AskerView] = {}
        self._host_view = AskerView(HOST)

    @property
    def local(self) -> LocalNames | None:
        """Return the facts of this host, None before the first."""
        return self._local

    @property
    def names(self) -> int:
        """Return how many names there are."""
        return len(self._names)

    def set_local(self, local: LocalNames) -> None:
        """Take new facts of this host."""
        before, self._local = self._local, local
        if before is None or (before.networks, before.askers, before.host_id) != (
            local.networks,
            local.askers,
            local.host_id,
        ):
            self._views, self._shared, self._host_view = {}, {}, AskerView(HOST)

    def set_host(self, host: HostNames) -> None:
        """Replace all that a host publishes; what did not change costs nothing."""
        new = {each.address: each for each in host.addresses}
        old = self._hosts.get(host.host_id, {})
        self._remove(host.host_id, (each for key, each in old.items() if new.get(key) != each))
        self._add(host.host_id, (each for key, each in new.items() if old.get(key) != each))
        self._hosts[host.host_id] = new

    def remove_host(self, host_id: HostId) -> None:
        """Forget a host."""
        self._remove(host_id, self._hosts.get(host_id, {}).values())
        self._hosts.pop(host_id, None)

    def hosts(self) -> frozenset[HostId]:
        """Return the hosts that publish something."""
        return frozenset(self._hosts)

    def view(self, address: Address | None) -> AskerView:
        """Return the view of the container that has an address; None is this host itself."""
        if address is None or self._local is None:
            return self._host_view if address is None else AskerView(Asker())
        found = self._views.get(address)
        if found is None:
            asker = asker_at(self._local, address)
            key = tuple(each.name for each in asker.networks)
            found = self._shared.setdefault(key, AskerView(asker))
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            self._views[address] = found
        return found

    def find(self, view: AskerView, labels: bytes) -> Found | None:
        """Return the addresses behind a name, None if the asker sees none.

        Args:
            labels: In wire form and lower case, without the domain's: one (plain) or two.
        """
        try:
            return view.remembered[labels]
        except KeyError:
            pass
        entries = self._names.get(labels)
        found = self._decide(view.asker, entries) if entries else None
        if entries:  # names that do not exist would fill the memory
            if len(view.remembered) >= _MOST_REMEMBERED:
                view.remembered.clear()
            view.remembered[labels] = found
        return found

    def pointer(self, view: AskerView, address: Address) -> str | None:
        """Return the name of an address without the domain, None if the asker sees none."""
        local = self._local
        for host_id, each in self._pointers.get(address, ()):
            if local and view.asker.sees(host_id, local.host_id, each, _pointer_kind(each)):
                return each.pointer
        return None

    def _decide(self, asker: Asker, entries: list[_Entry]) -> Found | None:
        local = self._local
        if local is None:
            return None
        first = min(entries, key=lambda each: NAME_RANK[each.kind]).kind
        seen = [
            each
            for each in entries
            if each.kind is first
            and asker.sees(each.host_id, local.host_id, each.address, each.kind)
        ]
        chosen = [each for each in seen if each.address.healthy] or seen
        if not chosen:
            return None
        by_version: dict[int, list[bytes]] = {}
        for each in chosen:
            by_version.setdefault(each.version, []).append(each.record)
        return Found({version: tuple(dict.fromkeys(each)) for version, each in by_version.items()})

    def _add(self, host_id: HostId, addresses: Iterable[NamedAddress]) -> None:
        for each in addresses:
            version = family_of(each.address).version
            record = pack_record(A if version == 4 else AAAA, TTL_S, each.address.packed)  # noqa: PLR2004 - IP's versions
            for name in each.names:
                key = _key(name)
                self._names.setdefault(key, []).append(
                    _Entry(host_id, name.kind, each, version, record)
                )
                self._forget(key)
            if each.pointer:
                self._pointers.setdefault(each.address, []).append((host_id, each))

    def _remove(self, host_id: HostId, addresses: Iterable[NamedAddress]) -> None:
        gone = {each.address for each in addresses}
        if not gone:
            return
        before = self._hosts.get(host_id, {})
        for key in {_key(name) for each in gone for name in before[each].names}:
            left = [
                entry
                for entry in self._names.get(key, ())
                if entry.host_id != host_id or entry.address.address not in gone
            ]
            _put(self._names, key, left)
            self._forget(key)
        for each in gone:
            known = self._pointers.get(each, [])
            _put(self._pointers, each, [item for item in known if item[0] != host_id])

    def _forget(self, key: bytes) -> None:
        for view in (*self._shared.values(), self._host_view):
            view.remembered.pop(key, None)


def _put(table: dict[_K, list[_V]], key: _K, values: list[_V]) -> None:
    if values:
        table[key] = values
    else:
        table.pop(key, None)


def _key(name: Name) -> bytes:
    return pack_name(name.text.split("."))[:-1]


def _pointer_kind(address: NamedAddress) -> NameKind:
    own = any(each.kind is NameKind.OWN for each in address.names)
    return NameKind.OWN if own else NameKind.HOST
