"""Keys among leases and reservations whose record cannot be read: nobody claims over them.

Such a record may be a live host's that somebody overwrote, and nobody can see whose (promise 1).
A claim passes it by, and whatever it keeps from being claimed is refused with its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.leases.records import LEASES, RESERVATIONS, SHORTEST_RANGE, Keys
from agent.mesh.ranges import OverlapIndex
from agent.model import SetAside
from agent.model.family import Network
from agent.model.untrusted import quote

__all__ = ["Obstacles", "way_out"]


class Obstacles:
    """Finds the unreadable record that a transaction for a subnet would meet.

    Args:
        keys: Of the mesh.
        unreadable: Keys with the reason; those that are in nobody's way may be among them.
    """

    def __init__(self, keys: Keys, unreadable: Mapping[bytes, str]) -> None:
        self._keys = keys
        self._index = OverlapIndex()
        self._records: dict[Network, SetAside] = {}
        self._odd: list[tuple[bytes, SetAside]] = []
        for key, reason in sorted(unreadable.items()):
            kind, rest = keys.split(key)
            if kind not in {LEASES, RESERVATIONS}:
                continue
            record = SetAside(quote(key), reason)
            try:
                subnet = LEASES.key(rest)
            except ValueError:  # in the way only where the range of keys around it is compared
                self._odd.append((key, record))
                continue
            if subnet.prefixlen < SHORTEST_RANGE:
                continue  # larger than any mesh: no claim looks there
            self._index.add(subnet)
            self._records.setdefault(subnet, record)

    def over(self, subnet: Network) -> SetAside | None:
        """One record in the way of a claim for ``subnet``, None when there is none."""
        found = self._index.find(subnet) if self._records else None
        if found is not None:
            return self._records[found]
        if not self._odd:
            return None
        ranges = (
            *self._keys.overlapping(LEASES, subnet),
            *self._keys.overlapping(RESERVATIONS, subnet),
        )
        return next(
            (
                record
                for key, record in self._odd
                if any(each.start <= key < each.end for each in ranges)
            ),
            None,
        )


def way_out(record: SetAside) -> str:
    """What an operator does about a record in the way."""
    return (
        f"see whose it is (etcdctl get {record.key}); if it is nobody's: etcdctl del {record.key}"
    )
