"""The age of a view of the mesh. Pure.

Without etcd the last view stays in use, but it is no fact: a host may have died since. Every
document made of a view has these fields, and its readers show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.model import HostId, Lease, View

__all__ = ["CURRENT", "Freshness"]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old a view is.

    Attributes:
        stale: etcd does not answer: the view was true, and may not be any more.
        as_of_s: Unix time at which etcd last answered, or at which the copy was saved; None when
            it is not known.
        cached: It is the host's own copy of an earlier view.
    """

    stale: bool = False
    as_of_s: float | None = None
    cached: bool = False

    def document(self, now_s: float) -> dict[str, Any]:
        """Return the fields that a document has of it. ``now_s``: Unix time."""
        known = self.stale and self.as_of_s is not None
        return {
            "cached": self.cached,
            "stale": self.stale,
            "as_of": round(self.as_of_s, 1) if known and self.as_of_s is not None else None,
            "as_of_s_ago": self._ago(now_s) if known else None,
        }

    def heartbeat(
        self,
        host_id: HostId | None,
        view: View,
        now_s: float,
        last_heartbeat_s: Mapping[HostId, float],
    ) -> dict[str, Any]:
        """Return the fields that a document has of one host's heartbeat.

        Args:
            host_id: None for a flannel host, which has none.
            last_heartbeat_s: When each host whose heartbeat lapsed was last seen alive.
        """
        if host_id is None:
            return {"alive": None, "heartbeat": None, "last_seen_s": None, "level": None}
        beat = view.heartbeats.get(host_id)
        beats, level = beat is not None, beat.level if beat else None
        seen_s = self._ago(now_s) if beats else None
        if not beats and host_id in last_heartbeat_s:
            seen_s = _since(last_heartbeat_s[host_id], now_s)
        said = {"last_seen_s": seen_s, "level": level}
        if self.stale:
            return {"alive": None, "heartbeat": "unknown", **said}
        return {"alive": beats, "heartbeat": "alive" if beats else "none", **said}

    @staticmethod
    def container(lease: Lease, view: View) -> str | None:
        """Return the address of a container that runs there, as the owner's heartbeat last said."""
        heartbeat = view.heartbeats.get(lease.host_id) if lease.host_id is not None else None
        found = heartbeat.container if heartbeat is not None else None
        return str(found) if found is not None and found in lease.subnet else None

    def _ago(self, now_s: float) -> float | None:
        return None if self.as_of_s is None else _since(self.as_of_s, now_s)


CURRENT = Freshness()
"""etcd answers; when it last did was not measured."""


def _since(then_s: float, now_s: float) -> float:
    return round(max(0.0, now_s - then_s), 1)
