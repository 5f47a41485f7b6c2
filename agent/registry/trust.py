"""Is a new view news, or is it another etcd? Pure (promise 4)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from agent.mesh.ranges import OverlapIndex
from agent.model import HostId, Lease, Leases, MeshConfig, View, within
from agent.model.family import Address, supernet_of
from agent.sharedmap import SharedMap, changed_keys

__all__ = [
    "Verdict",
    "VerdictKind",
    "agrees",
    "judge",
    "lost_unseen",
    "many_gone",
    "with_additions",
]

_K = TypeVar("_K")
_V = TypeVar("_V")


class VerdictKind(enum.StrEnum):
    """The reason not to trust a view."""

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


def judge(pinned: View | None, view: View, *, expired: bool = False) -> Verdict:
    """Hold a new complete view against the one believed before (or the host's copy of it).

    Views of one cluster come in order of revision from the directory, so an older revision
    is a store restored from a backup. Two or more leases, and more than half of them, gone
    between two views (:func:`many_gone`) is a wiped prefix or another mesh's, until the
    operator accepts it. Two facts speak against that: a lease of ``pinned`` is still there as
    it was granted, so this is the same store with its past; or ``pinned`` is so old that every
    lease in it would have ended without a renewal.

    Args:
        expired: ``pinned`` was seen longer ago than a lease lasts.
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
    gone = many_gone(pinned, view)
    if not gone or expired or _one_survives(pinned, view):
        return Verdict(VerdictKind.OK)
    return Verdict(VerdictKind.LEASES_GONE, gone)


def many_gone(pinned: View | None, view: View) -> str:
    """Say that most leases of ``pinned`` are gone in ``view``; "" when they are not.

    One host may always leave. Leases of a mesh that moved to another CIDR are not gone, nor those
    of flannel hosts that the config has come to refuse.
    """
    if pinned is None:
        return ""
    before, lost = len(pinned.leases), _gone(pinned, view)
    gone = len(lost) - _moved(pinned, view, lost) - _refused(view, lost)
    if gone >= 2 and gone * 2 > before:  # noqa: PLR2004 - one host may always leave
        return f"{gone} of {before} leases are gone from etcd at once"
    return ""


def lost_unseen(pinned: View | None, view: View) -> bool:
    """Whether leases went between two views, and not all of their holders are back yet.

    A watch that ended, with a member of etcd or by a compaction, shows no wipe that came after
    it: the next snapshot may have some holders back, and every key in it was created again. The
    lease that is gone may then be of a live host that is about to register again. A key of before
    that is still there speaks of hosts that left and joined.
    """
    if pinned is None:
        return False
    before, now = pinned.by_subnet, view.by_subnet
    changed = [before[each] for each in changed_keys(before, now) if each in before]
    back = [each for each in changed if _same_holder(each, now.get(each.subnet))]
    if not back or len(back) == len(changed) or len(changed) < len(before):
        return False
    return all(now[each.subnet].create_revision != each.create_revision for each in back)


def with_additions(pinned: View, view: View) -> View | None:
    """Make a view of all leases of ``view`` and those of ``pinned`` that it does not replace.

    Slices and records of networks are kept, too: without its record a network would be open.

    Args:
        pinned: The view believed before the alarm.
        view: The newest one, which raised it.

    Returns:
        None where not even additions are safe: another cluster, a revision that went back, or
        another config.
    """
    if view.cluster_id != pinned.cluster_id or view.revision < pinned.revision:
        return None
    if view.config is not None and not _same_config(pinned.config, view.config):
        return None
    kept = _not_replaced(_gone(pinned, view), view)
    leases = view.leases if isinstance(view.leases, Leases) else Leases(view.leases)
    return replace(
        view,
        leases=leases.changed({each.subnet: each for each in kept}),
        slices=_joined(pinned.slices, view.slices),
        networks=_joined(pinned.networks, view.networks),
    )


def _joined(before: Mapping[_K, _V], now: Mapping[_K, _V]) -> Mapping[_K, _V]:
    """Return the newer values, and the older ones that none replaces."""
    found = before if isinstance(before, SharedMap) else SharedMap(before)
    return found.changed(now)


def agrees(pinned: View, view: View, own: HostId) -> bool:
    """Whether an alarming view has come to say what was believed, so that it may be pinned.

    That is so when there is a config and no more than half of the other hosts' believed leases
    are missing: their holders have registered again. What this host itself wrote there proves
    nothing; in a mesh of two it would be half of all.
    """
    before = sum(lease.host_id != own for lease in pinned.leases)
    gone = sum(lease.host_id != own for lease in _gone(pinned, view))
    return view.config is not None and (before - gone) * 2 >= before


def _same_config(one: MeshConfig | None, other: MeshConfig) -> bool:
    return one is None or replace(one, mod_revision=0) == replace(other, mod_revision=0)


def _one_survives(pinned: View, view: View) -> bool:
    """Whether a lease is there under the etcd lease it had: no wiped or other store has it."""
    now = view.by_subnet
    return any(
        lease.etcd_lease_id != 0
        and (there := now.get(lease.subnet)) is not None
        and there.etcd_lease_id == lease.etcd_lease_id
        and _same_holder(lease, there)
        for lease in pinned.leases
    )


def _not_replaced(gone: Iterable[Lease], view: View) -> list[Lease]:
    """Those of ``gone`` that overlap no lease of ``view``."""
    gone, now = list(gone), view.by_subnet
    if not gone:
        return []
    lengths = {subnet.prefixlen for subnet in now}
    shortest = min(each.subnet.prefixlen for each in gone)
    longer = OverlapIndex(subnet for subnet in now if subnet.prefixlen > shortest)
    return [
        each
        for each in gone
        if longer.find(each.subnet) is None
        and not any(
            supernet_of(each.subnet, length) in now
            for length in lengths
            if length <= each.subnet.prefixlen
        )
    ]


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


def _refused(view: View, gone: tuple[Lease, ...]) -> int:
    """Count those of flannel hosts in a mesh that refuses them."""
    refuses = view.config is not None and not view.config.flannel
    return sum(each.host_id is None for each in gone) if refuses else 0


def _same_holder(one: Lease, other: Lease | None) -> bool:
    return other is not None and _holder(one) == _holder(other)


def _holder(lease: Lease) -> HostId | Address:
    """The holder stays the same while name and revisions of its lease change.

    A flannel host is its address.
    """
    return lease.node_address if lease.host_id is None else lease.host_id
