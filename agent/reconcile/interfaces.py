"""The vocabulary of reconciling: keyed objects, operations on them, and the table they are in."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

from agent.errors import HostmeshError

__all__ = [
    "NONE_KNOWN",
    "Change",
    "KeyedObject",
    "Listing",
    "Operation",
    "OperationKind",
    "Reason",
    "Result",
    "Table",
    "V",
]


NONE_KNOWN: Final[Mapping[Any, Any]] = MappingProxyType({})


class KeyedObject(Protocol):
    """An object of the kernel: equal values are the same object, one key has one value.

    It prints as iproute2 would, for messages.
    """

    @property
    def key(self) -> Hashable:
        """The key by which the kernel distinguishes objects of this kind."""

    def __hash__(self) -> int: ...


V = TypeVar("V", bound=KeyedObject)


class OperationKind(enum.StrEnum):
    """The action on an object."""

    REPLACE = "replace"
    DELETE = "delete"


class Reason(enum.StrEnum):
    """Why an operation is in a plan, as ``agentctl diff`` prints it."""

    MISSING = "missing"
    MODIFIED = "modified"
    EXTRA = "extra"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Operation(Generic[V]):
    """One change of one object.

    Attributes:
        object: What shall be there (replace) or shall go (delete).
        actual: What is there instead, for a modified object; for a conflict, the other program's
            object that the agent's gives way to.
    """

    kind: OperationKind
    object: V
    reason: Reason
    actual: V | None = None


@dataclass(frozen=True, slots=True)
class Result(Generic[V]):
    """How one operation ended.

    Attributes:
        error: None when the kernel now holds what the operation wanted.
        outrun: Another program's object came first, or the desired one was there already: no
            failure, only a reason to list again.
    """

    operation: Operation[V]
    error: HostmeshError | None = None
    outrun: bool = False

    @property
    def ok(self) -> bool:
        """Whether the kernel now holds what the operation wanted."""
        return self.error is None

    @property
    def problem(self) -> str:
        """The failure and its reason, "" for none."""
        return "" if self.error is None else self.error.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[V]):
    """One notification: an object appeared, replaced what was under its key, or went.

    One that went and replaced took all that was under its key with it.
    """

    object: V
    gone: bool = False
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Listing(Generic[V]):
    """A complete list.

    Attributes:
        own: Every object that bears the owner mark.
        foreign: Objects of other programs that may be where one of the agent's should.
    """

    own: tuple[V, ...]
    foreign: tuple[V, ...] = ()


class Table(Protocol[V]):
    """One kind of object in the kernel: listed completely, changed in batches."""

    def list_all(self, known: Mapping[Any, V] = NONE_KNOWN) -> Listing[V]:
        """Return every object there is.

        Args:
            known: Objects by key, to be returned instead of new ones that equal them: two of each
                of 30,000 take 12 MB.

        Raises:
            HostmeshError: The list could not be had completely. Never an empty list instead.
        """

    def apply(
        self, operations: Sequence[Operation[V]], *, for_s: float | None = None
    ) -> tuple[Result[V], ...]:
        """Carry out operations in order; one that fails does not stop the rest. Never raises.

        Args:
            for_s: No further batch is begun after so many seconds; None for no such limit.

        Returns:
            A result for each operation that was tried: the first so many of them.
        """
