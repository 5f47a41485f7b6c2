"""Records that hosts wait for: ``turns/<work>`` and ``grace``. No view shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.etcd.kv import Record
from agent.model import HostId
from agent.model.untrusted import Fields, clean_name, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["GRACE", "LOCKS", "LockRecord"]


@dataclass(frozen=True, slots=True)
class LockRecord:
    """The host that does a piece of work now."""

    host_id: HostId
    host_name: str


def _decode_turn(_: str, record: Record) -> LockRecord:
    fields = Fields.parse(record.value)
    return LockRecord(parse_host_id(fields.text("HostID")), fields.text("HostName", default=""))


def _encode_turn(taker: LockRecord) -> bytes:
    return dump({"HostID": taker.host_id, "HostName": clean_name(taker.host_name)})


LOCKS: Final[RecordKind[str, LockRecord]] = RecordKind(
    name="turns",
    pattern="<work>",
    spell=str,
    parse=str,
    decode=_decode_turn,
    encode=_encode_turn,
    writer=Writer.HOST,
    ttl="15 s",
)
GRACE: Final[RecordKind[None, None]] = RecordKind(
    name="grace",
    spell=lambda _: "",
    parse=lambda _: None,
    decode=lambda _, __: None,
    encode=lambda: b"{}",
    writer=Writer.HOST,
    ttl="as long as it is set for",
    most=1,
)
