"""Describe one kind of record in etcd: its key, value, limits and writer."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.etcd.kv import Record
from agent.model import LEVEL_OF_0_1

__all__ = ["RecordKind", "Writer", "dump"]

_K = TypeVar("_K")
_V = TypeVar("_V")
_LONGEST_NAME = 200


class Writer(enum.StrEnum):
    """Whose account must be able to write a kind."""

    HOST_ID = "the host, under its own id"
    HOST = "any host"
    OPERATOR = "the operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordKind(Generic[_K, _V]):
    """One kind of record. ``agent.registry.records.KINDS`` lists all of them.

    Attributes:
        name: The key's first part behind the prefix.
        pattern: The rest of the key as documents show it; "" for a kind of one record.
        spell: Return the rest of the key.
        parse: Read the rest of the key. Raises ValueError.
        decode: Read the value of a record with that key. Raises ValueError.
        encode: Return the value to write.
        writer: Whose account writes it.
        ttl: How long a record lasts without its writer, as documents show it; "" for ever.
        view: The attribute of :class:`agent.model.View` that shows the kind; "" where only the
            hosts that compete for a record read it.
        apart: Followed in a stream of its own, by those who need it: no view of the mesh and no
            watch for it has these records.
        cached: In the host's own copy, for when etcd is away.
        lasting: While a record cannot be read, the one that was there before counts.
        largest_bytes: Larger values are not read.
        most: More records than that are refused as a view.
        level: What a host must be able to read before one is published.
    """

    name: str
    pattern: str = ""
    spell: Callable[[_K], str]
    parse: Callable[[str], _K]
    decode: Callable[[_K, Record], _V]
    encode: Callable[..., bytes]
    writer: Writer
    ttl: str = ""
    view: str = ""
    apart: bool = False
    cached: bool = False
    lasting: bool = False
    largest_bytes: int = 16 * 1024
    most: int = 131_072
    level: int = LEVEL_OF_0_1

    def key(self, rest: bytes) -> _K:
        """Read the rest of a key.

        Raises:
            ValueError: It names no record of this kind.
        """
        if len(rest) > _LONGEST_NAME:
            raise ValueError("the key is too long")
        try:
            return self.parse(rest.decode("ascii"))
        except UnicodeDecodeError:
            raise ValueError("the key is not ASCII") from None

    def read(self, key: _K, record: Record) -> _V:
        """Read a value; the limit of its size comes first.

        Raises:
            ValueError: It cannot be used; the reason is fit to be shown.
        """
        if len(record.value) > self.largest_bytes:
            raise ValueError(
                f"the value has {len(record.value)} bytes, more than {self.largest_bytes}"
            )
        return self.decode(key, record)


def dump(fields: Mapping[str, Any]) -> bytes:
    """Write an object as each kind's value has it."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii")
