"""Read the endpoints of every host once, at one revision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agent.etcd.client import EtcdClient
from agent.etcd.kv import Page
from agent.model import HostId
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint
from agent.registry.records import ENDPOINTS, Keys
from agent.registry.snapshot import pages, whole

__all__ = ["read_endpoints"]


def read_endpoints(client: EtcdClient, keys: Keys) -> tuple[Endpoint, ...]:
    """Return what every host says of its containers, in order of key.

    A record that cannot be read costs that record. Of one host at most as many as it may publish
    count.

    Raises:
        EtcdError and what derives from it: Nothing, rather than a part.
    """
    place = keys.range(ENDPOINTS)
    return whole(lambda: tuple(_decoded(keys, pages(client, (place,), lambda key: key + b"\0"))))


def _decoded(keys: Keys, every: Iterator[Page]) -> Iterator[Endpoint]:
    counted: Counter[HostId] = Counter()
    for page in every:
        for record in page.records:
            try:
                found = keys.read(ENDPOINTS, record)
            except ValueError:
                continue
            counted[found.host_id] += 1
            if counted[found.host_id] <= ENDPOINTS_MOST:
                yield found
