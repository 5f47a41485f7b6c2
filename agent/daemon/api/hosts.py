"""Show each host's heartbeat in documents: version, containers, conditions. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from agent.daemon.state.freshness import Freshness
from agent.model import Heartbeat, HostId, View

__all__ = ["Hosts", "newest_version"]

_NUMBERS: Final = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?!\d)")


@lru_cache(64)
def _numbers(version: str) -> tuple[int, ...] | None:
    """Return the numbers of a version such as 0.2.0 or 0.2.0rc1; None for another text."""
    found = _NUMBERS.match(version)
    return tuple(int(each or 0) for each in found.groups()) if found else None


def newest_version(versions: Iterable[str]) -> str | None:
    """Return the version with the highest numbers; None where none can be read."""
    known = [each for each in set(versions) if _numbers(each)]
    return max(known, key=lambda each: (_numbers(each) or (), each)) if known else None


class Hosts:
    """The hosts of one view, for documents.

    Args:
        view: A complete view.
        freshness: How old it is.
    """

    def __init__(self, view: View, freshness: Freshness) -> None:
        self._view = view
        self._stale = freshness.stale
        self.newest = newest_version(each.agent_version for each in view.heartbeats.values())

    def fields(self, host_id: HostId | None) -> dict[str, Any]:
        """Return the fields of the host's heartbeat; of a stale one only the version."""
        beat = self._view.heartbeats.get(host_id) if host_id is not None else None
        summary = beat.summary if beat is not None and not self._stale else None
        return {
            "agent_version": beat.agent_version or None if beat else None,
            "outdated": self._is_outdated(beat),
            "containers": summary.containers if summary else None,
            "conditions": list(summary.conditions) if summary else None,
        }

    def _is_outdated(self, beat: Heartbeat | None) -> bool | None:
        numbers = _numbers(beat.agent_version) if beat else None
        newest = _numbers(self.newest) if self.newest else None
        return None if numbers is None or newest is None else numbers < newest

    def without_lease(self) -> list[Mapping[str, Any]]:
        """Return the hosts that have a heartbeat and no lease, by name."""
        leased = {each.host_id for each in self._view.leases}
        waiting = [each for each in self._view.heartbeats.values() if each.host_id not in leased]
        return [
            {
                "host_id": each.host_id,
                "host_name": each.host_name,
                "node_address": str(each.node_address) if each.node_address else None,
                **self.fields(each.host_id),
            }
            for each in sorted(waiting, key=lambda each: (each.host_name, each.host_id))
        ]
