"""One kind of object in the kernel: list all of it, apply operations in batches.

The only writer of what it lists. Three rules keep it harmless (promises 4 to 6): a list is complete
or an error; a missing object is added exclusively where another program may have added one
meanwhile; a deletion names what marks the object as the agent's.
"""

from __future__ import annotations

import errno
import math
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple

import structlog

from agent.errors import KernelError
from agent.kernel.netlink import NetlinkError, NetlinkSocket
from agent.kernel.netlink.links import RawLink, find_link
from agent.kernel.netlink.message import ACK, frame
from agent.kernel.tables.session import NetlinkSession
from agent.reconcile.interfaces import (
    NONE_KNOWN,
    Listing,
    Operation,
    OperationKind,
    Reason,
    Result,
    V,
)

__all__ = ["Dump", "NetlinkTable", "Request"]

_log = structlog.get_logger(__name__)

_BATCH: Final = 500
"""Operations in one send: 40 kB, well under the default send buffer of 208 kB; were all of them
refused, the answers (about 1 kB each in the kernel) fit the receive buffer four times."""
_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL})
"""Errors that answer a deletion when there is nothing to delete."""


class Request(NamedTuple):
    """A message without its sequence number."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """One question of which a list consists.

    Attributes:
        kind, body: The request.
        keep: What matters of a payload, None for nothing: of very many objects only those that
            matter are held. Two lists are compared by it, so it leaves out ages and counters.
        parts: Cuts a payload that has several objects into one part to be decoded for each.
        nothing: Error numbers that mean "there are none".
    """

    kind: int
    body: bytes
    keep: Callable[[bytes], bytes | None] | None = None
    parts: Callable[[bytes], Iterable[bytes]] | None = None
    nothing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Payloads:
    """The kernel's answer, kept for comparing: one text takes half of what its parts would."""

    text: bytes
    lengths: array[int]

    @classmethod
    def of(cls, payloads: Sequence[bytes]) -> _Payloads:
        return cls(b"".join(payloads), array("H", map(len, payloads)))

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        for length in self.lengths:
            yield self.text[at : at + length]
            at += length


class _Answer(NamedTuple, Generic[V]):
    """The answer to one question, and what it was decoded to."""

    payloads: _Payloads
    objects: tuple[V | None, ...]


class NetlinkTable(ABC, Generic[V]):
    """The objects of one kind in this network namespace.

    May be used from several threads; calls wait for each other.

    Attributes:
        noun, plural: For messages: "route", "routes".
        exclusive: Whether a missing object is added exclusively, so that "exists" is the answer
            where another program came first.

    Args:
        session: May be shared with other tables.
    """

    noun: str
    plural: str
    exclusive = False

    def __init__(self, session: NetlinkSession | None = None) -> None:
        self.session = session or NetlinkSession()
        self._answers: dict[bytes, _Answer[V]] | None = None
        self._version = 0
        self._listing: Listing[V] = Listing(())

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports this writes from: a notification that bears one echoes the agent."""
        return self.session.port_ids

    def close(self) -> None:
        """Close the socket; the next call opens another."""
        with self.session.lock:
            self.session.close()

    def list_all(self, known: Mapping[Any, V] = NONE_KNOWN) -> Listing[V]:
        """Return every object; the very same tuples while nothing changed.

        Args:
            known: As for :meth:`agent.reconcile.interfaces.Table.list_all`.

        Raises:
            KernelError: The list could not be had completely. Never an empty list instead.
        """
        with self.session.lock:
            try:
                return self._list(self._dumps(), known)
            except KernelError:
                self.session.close()
                raise

    def _dumps(self) -> Sequence[Dump]:
        links = self.session.list_links()
        if self._version != self.session.version:
            self._answers = None  # decoded with names that links no longer have
            self._version = self.session.version
        return self.dumps(links)

    @abstractmethod
    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """Return the questions of which a list consists, on a host with these links."""

    @abstractmethod
    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> V | None:
        """Return the object in a payload, None when it is none of this kind."""

    def is_own(self, value: V) -> bool:
        """Whether an object bears the owner mark; objects of the agent's links count as such."""
        del value
        return True

    @abstractmethod
    def encode(
        self, operation: Operation[V], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Return the messages that carry out an operation, in order.

        Raises:
            KernelError: It cannot be done; ``link_of`` raises it for a link that is missing.
        """

    def apply(
        self, operations: Sequence[Operation[V]], *, for_s: float | None = None
    ) -> tuple[Result[V], ...]:
        """Carry out operations in order; one that fails does not stop the rest.

        Never raises: what could not even be sent has a result that says so. A failed operation
        is to be planned again from a new list.

        Args:
            for_s: No further batch is begun after so many seconds; None for no such limit.

        Returns:
            A result for each operation that was tried: the first so many of them.
        """
        results: list[Result[V]] = []
        until_s = math.inf if for_s is None else time.monotonic() + for_s
        with self.session.lock:
            self.session.written()
            found: dict[str, RawLink] = {}
            for start in range(0, len(operations), _BATCH):
                results += self._apply_batch(operations[start : start + _BATCH], found)
                if time.monotonic() >= until_s:
                    break
        failed = [each.error for each in results if each.error is not None and not each.outrun]
        if failed:
            _log.warning(
                f"{self.plural}-refused".replace(" ", "-"),
                failed=len(failed),
                of=len(results),
                first=failed[0].message,
            )
        return tuple(results)

    def _list(self, dumps: Iterable[Dump], known: Mapping[Any, V]) -> Listing[V]:
        before = self._answers or {}
        after = {each.body: self._ask(each, before.get(each.body), known) for each in dumps}
        same = self._answers is not None and after.keys() == before.keys()
        self._answers = after
        if same and all(after[key] is before[key] for key in after):
            return self._listing
        found = [each for answer in after.values() for each in answer.objects if each is not None]
        own = tuple(each for each in found if self.is_own(each))
        foreign = tuple(each for each in found if not self.is_own(each))
        self._listing = Listing(
            self._listing.own if own == self._listing.own else own,
            self._listing.foreign if foreign == self._listing.foreign else foreign,
        )
        return self._listing

    def _ask(self, dump: Dump, before: _Answer[V] | None, known: Mapping[Any, V]) -> _Answer[V]:
        """Return the answer to one question: the very same one while the kernel says the same.

        Between two lists most objects stay as they are, byte for byte: those are not decoded again.
        """
        try:
            what = f"listing {self.plural}"
            got = self.session.open().dump(dump.kind, dump.body, what, pick=dump.keep)
        except NetlinkError as error:
            if error.errno not in dump.nothing:
                raise
            got = []
        payloads = _Payloads.of(got)
        if before is not None and payloads == before.payloads:
            return before
        old = (
            {}
            if before is None
            else dict(zip(_cut(dump, before.payloads), before.objects, strict=True))
        )
        parts = _cut(dump, got)
        objects = (old[each] if each in old else self._decode(each, known) for each in parts)
        return _Answer(payloads, tuple(objects))

    def _decode(self, payload: bytes, known: Mapping[Any, V]) -> V | None:
        found = self.decode(payload, self.session.name_of)
        same = None if found is None else known.get(found.key)
        return same if same == found else found

    def _apply_batch(
        self, operations: Sequence[Operation[V]], found: dict[str, RawLink]
    ) -> list[Result[V]]:
        """Apply them in one call of the kernel; ``found`` collects links that were looked up."""
        try:
            connection = self.session.open()

            def link_of(name: str) -> RawLink:
                if name not in found:
                    found[name] = find_link(connection, name)
                return found[name]

            requests: list[Request] = []
            ends: list[int | NetlinkError] = []
            for operation in operations:
                try:
                    requests += self.encode(operation, link_of)
                    ends.append(len(requests))
                except NetlinkError as error:
                    ends.append(error)
            failed = self._send(connection, requests)
        except KernelError as error:
            self.session.close()
            return [Result(each, error) for each in operations]
        return list(self._results(operations, ends, failed))

    def _send(
        self, connection: NetlinkSocket, requests: Sequence[Request]
    ) -> dict[int, tuple[int, str]]:
        """Send all in one call and return what failed, by its place in ``requests``."""
        if not requests:
            return {}
        first = connection.next_sequences(len(requests))
        last = first + len(requests) - 1
        frames = [
            frame(kind, flags | ACK if number == last else flags, number, body)
            for number, (kind, flags, body) in enumerate(requests, first)
        ]
        failed = connection.batch(frames, f"writing {self.plural}")
        return {number - first: failure for number, failure in failed.items()}

    def _results(
        self,
        operations: Sequence[Operation[V]],
        ends: Sequence[int | NetlinkError],
        failed: dict[int, tuple[int, str]],
    ) -> Iterator[Result[V]]:
        start = 0
        for operation, end in zip(operations, ends, strict=True):
            if isinstance(end, NetlinkError):
                yield self._result(operation, (end.errno, end.detail))
                continue
            numbers = (number for number in range(start, end) if number in failed)
            number = next(numbers, None) if failed else None
            yield self._result(operation, None if number is None else failed[number])
            start = end

    def _result(self, operation: Operation[V], failure: tuple[int, str] | None) -> Result[V]:
        if failure is None:
            return Result(operation)
        number, words = failure
        if number in _GONE and operation.kind is OperationKind.DELETE:
            return Result(operation)
        missing = operation.reason is Reason.MISSING
        outrun = self.exclusive and missing and number == errno.EEXIST
        if outrun:
            words = f"another {self.noun} appeared there meanwhile; it is left alone"
        what = f"{self.noun} {operation.kind} {operation.object}"
        refused = NetlinkError(what, number, words)
        return Result(operation, self._explained(operation, refused), outrun)

    def _explained(self, operation: Operation[V], refused: NetlinkError) -> NetlinkError:
        """Return a refusal with what the operator should know beside it."""
        del operation
        return refused


def _cut(dump: Dump, payloads: Iterable[bytes]) -> Iterable[bytes]:
    """Return one part for each object in the payloads."""
    if dump.parts is None:
        return payloads
    return (part for payload in payloads for part in dump.parts(payload))
