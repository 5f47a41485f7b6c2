"""Read ranges of keys completely, at one revision, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from agent.errors import EtcdUnavailable
from agent.etcd.client import EtcdClient
from agent.etcd.errors import CompactedError, TooLargeError
from agent.etcd.kv import Page
from agent.registry.records import KeyRange

__all__ = ["pages", "whole"]

_T = TypeVar("_T")
_PAGE: Final = 1_000  # keys of one range request
_TRIES: Final = 3


def whole(read: Callable[[], _T]) -> _T:
    """Return what ``read`` makes of :func:`pages`; again when etcd forgot their revision.

    Raises:
        EtcdError and what derives from it: Nothing, rather than a part.
    """
    for _ in range(_TRIES - 1):
        try:
            return read()
        except CompactedError:  # between two pages; the next try pins a newer revision
            continue
    return read()


def pages(
    client: EtcdClient,
    ranges: Sequence[KeyRange],
    following: Callable[[bytes], bytes | None],
) -> Iterator[Page]:
    """Yield all records in the ranges, at the revision of the first page; one page at least.

    Args:
        client: To etcd.
        ranges: In order of key.
        following: Return where to read on behind a key, None where nothing is left. Called when the
            caller is done with the page that ends with this key.
    """
    revision = cluster_id = 0
    for start, end in ranges:
        position: bytes | None = following(start) or start
        limit = _PAGE
        while position is not None and position < end:
            try:
                page = client.range(position, end, limit=limit, revision=revision)
            except TooLargeError:  # huge values must not cost the others
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            if revision and page.cluster_id != cluster_id:
                raise EtcdUnavailable("the pages of a snapshot came from two etcd clusters")
            revision, cluster_id = revision or page.revision, page.cluster_id
            yield page
            position = following(page.records[-1].key) if page.more else None
