"""Read the endpoints of every host once, at one revision."""

from __future__ import annotations

from agent.etcd.client import EtcdClient
from agent.model.endpoint import Endpoint
from agent.registry.endpoints.store import EndpointStore
from agent.registry.records import ENDPOINTS, Keys
from agent.registry.snapshot import pages, whole

__all__ = ["read_endpoints", "read_store"]


def read_endpoints(client: EtcdClient, keys: Keys) -> tuple[Endpoint, ...]:
    """Return what every host says of its containers.

    A record that cannot be read costs that record. Of one host at most as many as it may publish
    count.

    Raises:
        EtcdError and what derives from it: Nothing, rather than a part.
    """
    return tuple(read_store(client, keys).view().endpoints.values())


def read_store(client: EtcdClient, keys: Keys) -> EndpointStore:
    """Read the endpoints of every host, as records that events can be folded into.

    Raises:
        EtcdError and what derives from it: Nothing, rather than a part.
    """
    return whole(lambda: _read(client, keys))


def _read(client: EtcdClient, keys: Keys) -> EndpointStore:
    folder = keys.range(ENDPOINTS)
    found: EndpointStore | None = None

    def following(key: bytes) -> bytes:
        return key if found is None else found.following(key)

    for page in pages(client, [folder], following):
        found = found or EndpointStore(folder, page.cluster_id, page.revision)
        found.load(page.records)
    if found is None:
        raise AssertionError  # there is a page, if an empty one
    return found
