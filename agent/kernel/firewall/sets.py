"""All sets that rules of ours name, as one thing: compared, filled and removed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.kernel.ipset import KernelSet, SetChange, peer_set, published_set, sender_set
from agent.mesh.firewall import FirewallWants

__all__ = ["OurSets", "SetChanges"]


class _Use(NamedTuple):
    made: KernelSet[Any]
    wanted: Callable[[FirewallWants], frozenset[Any]]
    shown: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class SetChanges:
    """How the sets differ from what is wanted: each that does by its name."""

    by_name: dict[str, SetChange]

    def __bool__(self) -> bool:
        return bool(self.by_name)

    def words(self) -> tuple[str, ...]:
        """A line for each set that differs."""
        return tuple(
            f"ipset {name}: {len(change.added)} to add, {len(change.removed)} to remove"
            for name, change in self.by_name.items()
        )

    def of(self, name: str) -> SetChange:
        """How one set differs."""
        return self.by_name.get(name, SetChange())


class OurSets:
    """The sets in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._uses = (
            _Use(peer_set(), lambda wants: wants.peers, str),
            _Use(
                published_set(),
                lambda wants: wants.published,
                lambda each: f"{each.address} {each.protocol} {each.port}",
            ),
            _Use(
                sender_set(),
                lambda wants: wants.senders,
                lambda each: f"{each.address} by {each.bridge}",
            ),
        )

    def difference(self, wants: FirewallWants) -> SetChanges:
        """What :meth:`sync` would change.

        Raises:
            FirewallError: The kernel refused, or a set has another type.
        """
        changes = {use.made.name: use.made.difference(use.wanted(wants)) for use in self._uses}
        return SetChanges({name: change for name, change in changes.items() if change})

    def sync(self, wants: FirewallWants) -> None:
        """Make the sets hold what is wanted. Before the rules that name them.

        Raises:
            FirewallError: As :meth:`difference`, or a set would get too large.
        """
        for use in self._uses:
            use.made.sync(use.wanted(wants))

    def remove(self) -> tuple[str, ...]:
        """Destroy the sets and say which there were. Rules that name them go first.

        Raises:
            FirewallError: A rule still names one.
        """
        return tuple(f"ipset {use.made.name}: removed" for use in self._uses if use.made.remove())

    def show(self) -> tuple[str, ...]:
        """Lines for people: each set and its members."""
        lines: list[str] = []
        for use in self._uses:
            members = use.made.members()
            count = "absent" if members is None else f"{len(members)} members"
            lines.append(f"ipset {use.made.name}: {count}")
            lines += [f"  {use.shown(each)}" for each in sorted(members or ())]
        return tuple(lines)
