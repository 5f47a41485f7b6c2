"""The ipsets that rules name, as keyed objects: compared, filled and removed.

Members of the ingress sets and of the sets of slices follow the mesh, with the permission to
delete that routes have: the pass over the routes desires them. All others follow Docker, whose
answer is complete.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import FirewallError
from agent.kernel.tables.sets import SetKind, SetTable
from agent.mesh.firewall import DesiredFirewall, PublishedPort, set_name, source_member
from agent.model import Condition
from agent.model.family import Family, Network
from agent.model.objects import SetMember
from agent.reconcile.interfaces import Operation, OperationKind
from agent.reconcile.object_kind import Kind
from agent.reconcile.reconciler import Permission, Reconciler, reconcile
from agent.reconcile.tracker import compare

__all__ = ["Ipsets", "SetsReport"]

_MOST: Final = 1 << 18
"""Members of one set: subnets and node addresses of every host, or ports by three protocols."""
_ALWAYS: Final = Permission(may_delete=True)
_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetsReport:
    """How the sets are after a pass.

    Attributes:
        complete: Every member that is desired is known to be there.
        edits: The changes, a line for each set.
        repaired: Whether some of them undid another program's.
    """

    complete: bool
    edits: tuple[str, ...]
    repaired: bool
    conditions: tuple[Condition, ...]


class Ipsets:
    """The sets of one family, in the network namespace of the calling thread.

    Attributes:
        ingress: Members of the sets of sources and of slices. It takes part in the pass over
            routes, too, so that a peer is let in as soon as its route is there. Its desired members
            are written by :class:`~agent.daemon.reconcile.kernel_objects.KernelObjects` only.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, family: Family, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._family = family
        kind: Kind[SetMember] = Kind(
            name="set",
            is_own=lambda _: True,
            subject=self._subject,
            watch="ipset list",
            opens=True,
        )
        self._kind = kind
        self._links = set_name("in", family) + "-"
        prefixes = (self._links, set_name("net", family) + "-")
        nets = SetKind("hash:net", family)
        self._published = set_name("published", family)
        self._senders = set_name("senders", family)
        self._old = set_name("peers", family)
        others = {
            self._published: SetKind("hash:ip,port", family),
            self._senders: SetKind("hash:net,iface", family),
        }
        self._sources = SetTable(lambda name: nets if name.startswith(prefixes) else None, _MOST)
        self._rest = SetTable(others.get, _MOST)
        self.ingress = Reconciler(kind, self._sources, clock=clock)
        self._dockers = Reconciler(kind, self._rest, clock=clock)

    def settle(self, wants: DesiredFirewall, permission: Permission) -> SetsReport:
        """Make the sets hold the desired members, each set before a rule names it.

        Raises:
            FirewallError, NotRoot: They could not be made or listed.
        """
        self._sources.ensure(self._names(wants))
        self._rest.ensure((self._published, self._senders))
        _want_only(self._dockers, _dockers(wants))
        self.ingress.look_again()
        self._dockers.look_again()
        reports = (
            *reconcile((self.ingress,), permission),
            *reconcile((self._dockers,), _ALWAYS),
        )
        for report in reports:
            if report.error is not None:
                raise report.error
        return SetsReport(
            complete=all(each.complete for each in reports),
            edits=_words(operation for each in reports for operation in each.done),
            repaired=any(each.repaired for each in reports),
            conditions=tuple(found for each in reports for found in each.conditions),
        )

    def want_sources(self, wants: DesiredFirewall, slices: Iterable[SetMember]) -> None:
        """Desire exactly these sources and slices, where no pass over routes does it."""
        members = (source_member(link, each) for link, found in wants.ingress for each in found)
        _want_only(self.ingress, {each: each for each in (*members, *slices)})

    def difference(self, wants: DesiredFirewall, *, may_delete: bool = True) -> tuple[str, ...]:
        """Return what :meth:`settle` would change, a line for each set.

        Args:
            may_delete: Whether sources may be shut out.

        Raises:
            FirewallError, NotRoot: They could not be listed.
        """
        parts = (
            (self._sources, self.ingress.desired, may_delete),
            (self._rest, _dockers(wants), True),
        )
        found = (
            compare(self._kind, wanted, table.list_all()).plan(may_delete=may)
            for table, wanted, may in parts
        )
        return _words(operation for each in found for operation in each.operations)

    def sweep(self, wants: DesiredFirewall) -> tuple[tuple[str, ...], tuple[Condition, ...]]:
        """Destroy sets that are wanted no more, after the rules that named them.

        Returns:
            The changes, for people; a condition for each that a foreign rule still names.
        """
        wanted = self._names(wants)
        stale = set(self._sources.sets()).difference(wanted)
        if stale:  # a set that a rule will name again, such as when agent.toml opens it, stays
            stale -= {each.set for each in self.ingress.desired.values()}
        done, kept = [], []
        for name in (*sorted(stale), self._old):
            try:
                if self._sources.destroy(name):
                    done.append(f"ipset {name}: removed")
            except FirewallError as error:
                kept.append(_in_use(name, wanted, error))
        return tuple(done), tuple(kept)

    def unwanted_links(self, wants: DesiredFirewall) -> frozenset[str]:
        """Return the names of ingress sets that are there and not wanted.

        Raises:
            FirewallError, NotRoot: They could not be listed.
        """
        links = (name for name in self._sources.sets() if name.startswith(self._links))
        return frozenset(links).difference(self._names(wants))

    def slices(self, names: Collection[str]) -> Mapping[str, frozenset[Network]]:
        """Return the desired members of some sets of slices."""
        found: dict[str, set[Network]] = {name: set() for name in names}
        for each in self.ingress.desired.values() if names else ():
            if each.set in found:
                address, rest = self._split(each)
                found[each.set].add(self._family.at(address, rest[0]))
        return {name: frozenset(networks) for name, networks in found.items()}

    def remove(self) -> tuple[str, ...]:
        """Destroy every set and return which there were. Rules that name them go first.

        Raises:
            FirewallError, NotRoot: A rule still names one.
        """
        names = (*self._sources.sets(), *self._rest.sets(), self._old)
        self.ingress.look_again()
        self._dockers.forget()
        return tuple(f"ipset {name}: removed" for name in names if self._rest.destroy(name))

    def sources(self) -> dict[str, list[Network]]:
        """Return the members of each set of sources or slices, as they are in the kernel.

        Raises:
            FirewallError, NotRoot: They could not be listed.
        """
        found: dict[str, list[Network]] = {name: [] for name in self._sources.sets()}
        for each in self._sources.list_all().own:
            address, rest = self._split(each)
            found[each.set].append(self._family.at(address, rest[0]))
        return found

    def publishes(self, port: PublishedPort) -> bool:
        """Return whether the kernel's set of published ports has this one.

        Raises:
            FirewallError, NotRoot: It could not be listed.
        """
        return port.member in self._rest.list_all().own

    def show(self) -> tuple[str, ...]:
        """Return each set and its members, for people."""
        lines: list[str] = []
        for table in (self._sources, self._rest):
            members = sorted(table.list_all().own, key=lambda each: (each.set, each.member))
            for name in sorted(table.sets()):
                shown = [f"  {self._shown(each)}" for each in members if each.set == name]
                lines += [f"ipset {name}: {len(shown)} members", *shown]
        return tuple(lines)

    def _names(self, wants: DesiredFirewall) -> list[str]:
        return [
            *(set_name("in", self._family, interface) for interface in wants.interfaces),
            *(network.slices for network in wants.networks if network.slices),
        ]

    def _split(self, member: SetMember) -> tuple[int, bytes]:
        size = self._family.bits // 8
        return int.from_bytes(member.member[:size]), member.member[size:]

    def _subject(self, member: SetMember) -> str:
        return f"{member.set} {self._shown(member)}"

    def _shown(self, member: SetMember) -> str:
        address, rest = self._split(member)
        if member.set == self._published:
            protocol = _PROTOCOLS.get(rest[0], str(rest[0]))
            return f"{self._family.address(address)} {protocol} {int.from_bytes(rest[1:])}"
        if member.set == self._senders:
            return f"{self._family.address(address)} by {rest[1:].decode('ascii', 'replace')}"
        return str(self._family.at(address, rest[0]))


def _dockers(wants: DesiredFirewall) -> dict[SetMember, SetMember]:
    published = (each.member for each in wants.published)
    return {each: each for each in (*published, *(sender.member for sender in wants.senders))}


def _want_only(reconciler: Reconciler[SetMember], wanted: Mapping[Any, SetMember]) -> None:
    gone = reconciler.desired.keys() - wanted.keys()
    reconciler.want({**dict.fromkeys(gone), **wanted}, known_gone=True)


def _words(operations: Iterable[Operation[SetMember]]) -> tuple[str, ...]:
    counts = Counter((each.object.set, each.kind) for each in operations)
    return tuple(
        f"ipset {name}: {counts[name, OperationKind.REPLACE]} to add,"
        f" {counts[name, OperationKind.DELETE]} to remove"
        for name in sorted({name for name, _ in counts})
    )


def _in_use(name: str, wanted: list[str], error: FirewallError) -> Condition:
    return Condition(
        name="firewall-set-in-use",
        subject=name,
        cause=f"Hostmesh no longer fills ipset {name}, and a rule of another program or of the"
        f" operator names it: {error.message}",
        hint=f"find the rule (iptables-save | grep {name}) and have it name"
        f" {' and '.join(wanted)} instead",
    )
