"""Is a new view news, or is it another etcd? Pure (promise 4)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address

from agent.model import HostId, Lease, View, within
from agent.sharedmap import changed_keys

__all__ = ["Verdict", "VerdictKind", "agrees", "judge"]


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
    before, lost = len(pinned.leases), _gone(pinned, view)
    gone = len(lost) - _moved(pinned, view, lost)
    if gone >= 2 and gone * 2 > before:  # noqa: PLR2004 - one host may always leave
        return Verdict(
            VerdictKind.LEASES_GONE, f"{gone} of {before} leases are gone from etcd at once"
        )
    return Verdict(VerdictKind.OK)


def agrees(pinned: View, view: View, own: HostId) -> bool:
    """Whether an alarming view has come to say what was believed, so that it may be pinned.

    That is so when there is a config and no more than half of the other hosts' believed leases
    are missing: their holders have registered again. What this host itself wrote there proves
    nothing; in a mesh of two it would be half of all.
    """
    before = sum(lease.host_id != own for lease in pinned.leases)
    gone = sum(lease.host_id != own for lease in _gone(pinned, view))
    return view.config is not None and (before - gone) * 2 >= before


def _gone(pinned: View, view: View) -> tuple[Lease, ...]:
    """Leases that have another holder now, or none."""
    before, now = pinned.by_subnet, view.by_subnet
    return tuple(
        before[subnet]
        for subnet in changed_keys(before, now)
        if subnet in before and not _same_holder(before[subnet], now.get(subnet))
    )


def _moved(pinned: View, view: View, gone: tuple[Lease, ...]) -> int:
    """How many of these went along when the mesh moved to another CIDR."""
    config = view.config
    if config is None or pinned.config is None or config.cidr == pinned.config.cidr:
        return 0
    there = {_holder(each) for each in view.leases if within(each.subnet, config.cidr)}
    return sum(_holder(each) in there for each in gone)


def _same_holder(one: Lease, other: Lease | None) -> bool:
    return other is not None and _holder(one) == _holder(other)


def _holder(lease: Lease) -> HostId | IPv4Address:
    """Whatever changes in a lease's life (name, revisions), its holder stays.

    A flannel host is its address.
    """
    return lease.node_address if lease.host_id is None else lease.host_id
