"""Is a new view news, or is it another etcd? Pure (promise 4)."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from agent.model import Lease, View

__all__ = ["Verdict", "VerdictKind", "agrees", "judge"]


_Holding = tuple[str, str]
"""A subnet and who holds it."""


class VerdictKind(enum.StrEnum):
    """What is wrong with a view."""

    OK = "ok"
    OTHER_CLUSTER = "other-cluster"
    REVISION_WENT_BACK = "revision-went-back"
    LEASES_GONE = "leases-gone"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a view may be acted on.

    Attributes:
        kind: OK, or the kind of alarm.
        reason: For the operator; empty when OK.
    """

    kind: VerdictKind
    reason: str = ""

    @property
    def alarm(self) -> bool:
        """The view must not be acted on."""
        return self.kind is not VerdictKind.OK


def judge(pinned: View | None, view: View) -> Verdict:
    """Hold a new complete view against the one believed before (or the host's copy of it).

    Views of one cluster come in order of revision from the directory, so an older revision
    is a store restored from a backup. Leases go one at a time: two or more, and more than
    half of them, gone between two views is a wiped prefix or another mesh's, until
    somebody says otherwise.
    """
    if pinned is None:
        return Verdict(VerdictKind.OK)
    if view.cluster_id != pinned.cluster_id:
        return Verdict(
            VerdictKind.OTHER_CLUSTER,
            f"etcd is cluster {view.cluster_id:x}, this host's copy is of {pinned.cluster_id:x}",
        )
    if view.revision < pinned.revision:
        return Verdict(
            VerdictKind.REVISION_WENT_BACK,
            f"etcd is at revision {view.revision} and was at {pinned.revision} before",
        )
    before, now = _holders(pinned.leases), _holders(view.leases)
    gone = len(before - now) - len(_moved(pinned, view))
    if gone >= 2 and gone * 2 > len(before):  # noqa: PLR2004 - one host may always leave
        return Verdict(
            VerdictKind.LEASES_GONE, f"{gone} of {len(before)} leases are gone from etcd at once"
        )
    return Verdict(VerdictKind.OK)


def agrees(pinned: View, view: View) -> bool:
    """Whether an alarming view has come to say what was believed, so that it may be pinned.

    That is so when there is a config and no more than half of the believed leases are
    missing: their holders have registered again.
    """
    before, now = _holders(pinned.leases), _holders(view.leases)
    return view.config is not None and len(before & now) * 2 >= len(before)


def _moved(pinned: View, view: View) -> frozenset[_Holding]:
    """Leases that are gone since the mesh moves to another CIDR and their holders went along."""
    config = view.config
    if config is None or pinned.config is None or config.cidr == pinned.config.cidr:
        return frozenset()
    now = _holders(view.leases)
    arrived = _holders(each for each in view.leases if each.subnet.subnet_of(config.cidr))
    there = {who for _, who in arrived}
    return frozenset(each for each in _holders(pinned.leases) - now if each[1] in there)


def _holders(leases: Iterable[Lease]) -> frozenset[_Holding]:
    """Who holds what, without what changes in a lease's life (address, name, revisions)."""
    return frozenset(
        (str(lease.subnet), lease.host_id or f"flannel {lease.node_address}") for lease in leases
    )
