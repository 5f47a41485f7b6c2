"""A small kind of object, and a kernel that keeps several under one key, as IPv4 routes are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hypothesis import strategies as st

from agent.errors import KernelError
from agent.reconcile.interfaces import NONE_KNOWN, Listing, Operation, OperationKind, Reason, Result
from agent.reconcile.object_kind import Kind

OWN, FOREIGN = 140, 186


class ThingKey(NamedTuple):
    place: str
    metric: int


@dataclass(frozen=True)
class Thing:
    place: str
    target: str
    writer: int = OWN
    metric: int = 0
    link: str = "eth0"

    @property
    def key(self) -> ThingKey:
        return ThingKey(self.place, self.metric)

    def __str__(self) -> str:
        return f"{self.place} to {self.target} metric {self.metric} by {self.writer}"


def contested(thing: Thing) -> ThingKey:
    """The agent's own have metric 0; any metric is in the way."""
    return ThingKey(thing.place, 0)


KIND: Kind[Thing] = Kind(
    name="thing",
    is_own=lambda thing: thing.writer == OWN,
    contests=contested,
    links=lambda thing: (thing.link,),
    subject=lambda thing: thing.place,
    writer=lambda thing: f"writer {thing.writer}",
    order=lambda thing: -len(thing.place),
)

PLACES = ["a", "b", "c", "dd"]
places = st.sampled_from(PLACES)
targets = st.sampled_from(["one", "two", "three"])
things = st.builds(
    Thing,
    place=places,
    target=targets,
    writer=st.sampled_from([OWN, FOREIGN]),
    metric=st.sampled_from([0, 0, 9]),
)
own_things = st.builds(Thing, place=places, target=targets)
desired_sets = st.lists(own_things, unique_by=lambda thing: thing.key).map(
    lambda found: {thing.key: thing for thing in found}
)
kernels = st.lists(things, unique=True)


class Kernel:
    """Objects in order, exclusive adding, replacement of the first under a key.

    Attributes:
        refusing: So many operations from now on the kernel refuses one; None for never.
    """

    def __init__(self, found: Sequence[Thing] = ()) -> None:
        self.things = list(found)
        self.refusing: int | None = None

    def under(self, key: Hashable) -> list[int]:
        return [n for n, each in enumerate(self.things) if each.key == key]

    def list_all(self, known: Mapping[Any, Thing] = NONE_KNOWN) -> Listing[Thing]:
        del known
        return Listing(
            tuple(each for each in self.things if each.writer == OWN),
            tuple(each for each in self.things if each.writer != OWN),
        )

    def apply(
        self,
        operations: Sequence[Operation[Thing]],
        *,
        for_s: float | None = None,  # noqa: ARG002 - the protocol has it
    ) -> tuple[Result[Thing], ...]:
        return tuple(map(self._apply, operations))

    def _apply(self, operation: Operation[Thing]) -> Result[Thing]:
        if self.refusing is not None:
            self.refusing -= 1
            if self.refusing < 0:
                self.refusing = None
                return Result(operation, KernelError("refused"))
        thing = operation.object
        assert thing.writer == OWN, "promise 5"
        under = self.under(thing.key)
        if operation.kind is OperationKind.DELETE:
            self.things.remove(thing)
        elif operation.reason is Reason.MISSING:
            assert not under, "an object with this key exists: EEXIST"
            self.things.append(thing)
        else:
            assert self.things[under[0]].writer == OWN, "another program's was overwritten"
            self.things[under[0]] = thing
        return Result(operation)

    def replace(self, thing: Thing) -> bool:
        """As another program writes; whether one was replaced."""
        under = self.under(thing.key)
        if under:
            self.things[under[0]] = thing
        else:
            self.things.append(thing)
        return bool(under)


def taken(kernel: Kernel) -> set[str]:
    """Places where another program has an object."""
    return {each.place for each in kernel.things if each.writer != OWN}


def foreign_of(thing: Thing) -> Thing:
    return replace(thing, writer=FOREIGN, target="elsewhere")
