"""All endpoints under the prefix, kept current by events, seen as one :class:`EndpointView`.

A record that cannot be used costs that record, and a host that publishes too many costs itself: of
each host as many count as it may have, whichever came first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.etcd.kv import Event, Record
from agent.model import HostId
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint, EndpointView
from agent.model.untrusted import quote
from agent.registry.record_table import RecordTable
from agent.registry.records import ENDPOINTS, KeyRange

__all__ = ["EndpointStore"]

_Key = tuple[HostId, str]
_MOST_ASIDE: Final = 1_000
"""So many keys that name no container are kept, to be shown."""


@dataclass(slots=True)
class EndpointStore:
    """The endpoints of one mesh at one revision. Not thread-safe: one thread owns it.

    Attributes:
        folder: The range of their keys.
        cluster_id: etcd's.
        revision: At which all of it is true.
        most: So many of one host count.
    """

    folder: KeyRange
    cluster_id: int
    revision: int
    most: int = ENDPOINTS_MOST
    _endpoints: RecordTable[_Key, Endpoint] = field(default_factory=RecordTable)
    _aside: RecordTable[str, str] = field(default_factory=RecordTable)
    _of_host: dict[HostId, set[str]] = field(default_factory=dict)
    _too_many: set[HostId] = field(default_factory=set)

    def apply(self, events: Iterable[Event]) -> bool:
        """Fold events in; return whether a view differs now."""
        for event in events:
            self._set(event.key, event.record)
            self.revision = max(self.revision, event.revision)
        return bool(self._endpoints.changes or self._aside.changes)

    def load(self, records: Iterable[Record]) -> None:
        """Add records of a snapshot."""
        for record in records:
            self._set(record.key, record)

    def following(self, key: bytes) -> bytes:
        """Return where to read on behind ``key``: what does not count of a host is passed over."""
        host_id, slash, _ = key[len(self.folder.start) :].partition(b"/")
        if slash and host_id.decode("latin-1") in self._too_many:
            return self.folder.start + host_id + b"0"
        return key + b"\0"

    def view(self) -> EndpointView:
        """See the records as values; sound for any content."""
        return EndpointView(
            cluster_id=self.cluster_id,
            revision=self.revision,
            endpoints=self._endpoints.settle(),
            set_aside=self._aside.settle(),
            complete=True,
        )

    def _set(self, key: bytes, record: Record | None) -> None:
        rest = key[len(self.folder.start) :]
        shown = f"{ENDPOINTS.name}/{quote(rest)}"
        try:
            found = ENDPOINTS.key(rest)
        except ValueError as error:
            self._put_aside(shown, None if record is None else str(error))
            return
        if not self._counts(found, there=record is not None):
            return
        try:
            self._endpoints.put(found, None if record is None else ENDPOINTS.read(found, record))
            self._put_aside(shown, None)
        except ValueError as error:
            self._endpoints.put(found, None)
            self._put_aside(shown, quote(str(error)))

    def _counts(self, key: _Key, *, there: bool) -> bool:
        """Follow which records of a host count; return whether this one does, or did."""
        host_id, container = key
        held = self._of_host.setdefault(host_id, set())
        if not there:
            counted = container in held
            held.discard(container)
            if not held:
                del self._of_host[host_id]
            return counted
        if container in held:
            return True
        if len(held) >= self.most:
            self._too_many.add(host_id)
            self._put_aside(
                f"{ENDPOINTS.name}/{host_id}", f"the host has more than {self.most}: no more count"
            )
            return False
        held.add(container)
        return True

    def _put_aside(self, shown: str, reason: str | None) -> None:
        full = len(self._aside) >= _MOST_ASIDE and shown not in self._aside.settled
        if reason is None or not full:
            self._aside.put(shown, reason)
