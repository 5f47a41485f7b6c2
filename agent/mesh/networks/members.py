"""Follow which subnets make up the mesh networks that this host is in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.mesh.networks.accepted import AcceptedSlices
from agent.mesh.networks.own import OwnSlices, own_slices
from agent.mesh.world import World
from agent.model import Condition
from agent.model.family import Network

__all__ = ["SliceMember", "SliceMembers"]


@dataclass(frozen=True, slots=True)
class SliceMember:
    """A subnet that is a slice of a mesh network."""

    name: str
    subnet: Network


class SliceMembers:
    """The slices of every mesh network that this host is in, its own included.

    Not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._accepted = AcceptedSlices()
        self._own = OwnSlices()
        self._members: dict[str, set[Network]] = {}

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions for the operator, bounded."""
        return (*self._own.conditions, *self._accepted.conditions)

    def follow(self, world: World) -> Mapping[SliceMember, SliceMember | None]:
        """Follow the world; return members that came, and None for each that went.

        Costs what changed, and a look at this host's own networks.
        """
        was, now = self._own, own_slices(world)
        self._own = now
        own = {each.name: each.subnet for each in now.slices}
        gone: set[SliceMember] = set()
        come: set[SliceMember] = set()
        for (_, name), (old, new) in self._accepted.follow(world).items():
            if name in self._members and name in own:
                gone |= {SliceMember(name, old.subnet)} if old else set()
                come |= {SliceMember(name, new.subnet)} if new else set()
        for each in was.slices:
            if each.name not in own:
                gone |= {SliceMember(each.name, every) for every in self._members.pop(each.name)}
            elif own[each.name] != each.subnet:
                gone.add(SliceMember(each.name, each.subnet))
        for name, subnet in own.items():
            come.add(SliceMember(name, subnet))
            if name not in self._members:
                self._members[name] = set()
                others = self._accepted.of(name).values()
                come |= {SliceMember(name, other.subnet) for other in others}
        return self._change(gone, come)

    def _change(
        self, gone: set[SliceMember], come: set[SliceMember]
    ) -> Mapping[SliceMember, SliceMember | None]:
        """Let members go and come; a subnet that one host gave up and another has stays."""
        changes: dict[SliceMember, SliceMember | None] = {}
        for each in gone - come:
            self._members.get(each.name, set()).discard(each.subnet)
            changes[each] = None
        for each in come:
            if each.subnet not in self._members[each.name]:
                self._members[each.name].add(each.subnet)
                changes[each] = each
        return changes
