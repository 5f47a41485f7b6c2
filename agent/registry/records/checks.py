"""``<prefix>/checks/<host id>``: the summary of a host's last check of its peers.

They are read when an operator asks, and by no watch: no agent does anything because of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.etcd.kv import Record
from agent.mesh.check.result import (
    WORST_MOST,
    CheckState,
    CheckSummary,
    CheckTest,
    WorstPeer,
)
from agent.model import OWNERS_LEVEL, HostId
from agent.model.untrusted import Fields, leasable, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["CHECKS", "check_fields", "encode_check"]

_MOST_PEERS: Final = 131_072
_LONGEST_RTT_US: Final = 60_000_000


def _decode(host_id: HostId, record: Record) -> CheckSummary:
    fields = Fields.parse(record.value)
    began_s = fields.time_s("Time")
    if began_s is None:
        raise ValueError("Time is missing")
    counts = fields.object("Counts") or Fields({})
    found = {each: counts.integer(each, 0, _MOST_PEERS, default=0) for each in CheckState}
    return CheckSummary(
        host_id=host_id,
        began_s=began_s,
        own_failed=_tests(fields, "Own"),
        counts={state: number for state, number in found.items() if number},
        worst=tuple(map(_decode_worst, fields.objects("Worst", WORST_MOST))),
    )


def _decode_worst(fields: Fields) -> WorstPeer:
    rtt_us = fields.integer("RttUs", 0, _LONGEST_RTT_US, default=-1)
    return WorstPeer(
        subnet=leasable(fields.network("Subnet")),
        state=CheckState(fields.text("State", longest=16)),
        failed=_tests(fields, "Failed"),
        rtt_s=None if rtt_us < 0 else rtt_us / 1e6,
    )


def _tests(fields: Fields, name: str) -> tuple[CheckTest, ...]:
    """Read names of tests, joined by commas; one that a newer agent may have counts as none."""
    found = fields.text(name, default="").split(",")
    return tuple(dict.fromkeys(CheckTest(each) for each in found if each in set(CheckTest)))


def check_fields(summary: CheckSummary) -> Mapping[str, Any]:
    """Return the fields of a record."""
    return {
        "Time": round(summary.began_s, 3),
        "Own": ",".join(summary.own_failed),
        "Counts": dict(summary.counts),
        "Worst": [_worst_fields(each) for each in summary.worst],
    }


def _worst_fields(worst: WorstPeer) -> Mapping[str, Any]:
    fields: dict[str, Any] = {"Subnet": str(worst.subnet), "State": worst.state}
    if worst.failed:
        fields["Failed"] = ",".join(worst.failed)
    if worst.rtt_s is not None:
        fields["RttUs"] = min(round(worst.rtt_s * 1e6), _LONGEST_RTT_US)
    return fields


def encode_check(summary: CheckSummary) -> bytes:
    """Write the summary of a check."""
    return dump(check_fields(summary))


CHECKS: Final[RecordKind[HostId, CheckSummary]] = RecordKind(
    name="checks",
    pattern="<host id>",
    spell=str,
    parse=parse_host_id,
    decode=_decode,
    encode=encode_check,
    writer=Writer.HOST_ID,
    ttl="24 h",
    apart=True,
    largest_bytes=4096,
    level=OWNERS_LEVEL,
)
