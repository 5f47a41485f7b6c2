"""The documents of checks follow their schemas, whatever was found."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.checks.documents import checks_document
from agent.mesh.check.document import check_document
from agent.mesh.check.result import (
    WORST_MOST,
    CheckState,
    CheckTest,
    HostCheck,
    PeerCheck,
    TestResult,
    Verdict,
)
from agent.model import HostId, Lease, View

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.unit.ctl.schemas import check  # the line above makes it importable

pytestmark = pytest.mark.unit

OWN = HostId("1" * 32)
PATH_FAILED = TestResult(
    test=CheckTest.PATH, verdict=Verdict.FAILED, text="no answer", hint="agentctl ping two"
)


def peer(
    number: int, state: CheckState = CheckState.OK, tests: tuple[TestResult, ...] = ()
) -> PeerCheck:
    return PeerCheck(
        host_id=HostId(f"{number:032x}"),
        host_name=f"host{number}",
        subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{number}"),
        state=state,
        rtt_s=0.000123456 if state is CheckState.OK else None,
        tests=tests,
    )


FOUND = HostCheck(
    host_id=OWN,
    began_s=100.0,
    took_s=1.234,
    peers=(peer(2), peer(3, CheckState.DOWN), peer(4, CheckState.FAILED, (PATH_FAILED,))),
)


def test_a_check_follows_its_schema() -> None:
    document = check_document(FOUND, now_s=130.0)
    check("check", document)
    assert document["state"] == "failed"
    assert document["checked_s_ago"] == 30.0
    assert document["counts"] == {"failed": 1, "down": 1, "untested": 0, "ok": 1}
    assert [each["rtt_ms"] for each in document["peers"]] == [0.123, None, None]


def test_promise_9_no_check_yet_is_not_shown_as_good() -> None:
    document = check_document(None, now_s=130.0)
    check("check", document)
    assert (document["state"], document["checked_at"]) == ("none", None)


def test_the_summary_names_the_worst_peers_first_and_is_bounded() -> None:
    summary = FOUND.summary()
    assert [each.subnet for each in summary.worst] == [
        IPv4Network("10.68.0.0/16"),
        IPv4Network("10.67.0.0/16"),
        IPv4Network("10.66.0.0/16"),
    ]
    many = HostCheck(
        host_id=OWN,
        began_s=1.0,
        took_s=1.0,
        peers=tuple(peer(number, CheckState.DOWN) for number in range(2, 100)),
    )
    assert len(many.summary().worst) == WORST_MOST


def test_checks_of_all_hosts_follow_their_schema_and_say_which_are_missing() -> None:
    leases = tuple(
        Lease(
            subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
            node_address=IPv4Address(f"192.0.2.{number}"),
            backend="host-gw",
            host_id=HostId(f"{number:032x}") if number != 4 else None,
            host_name=f"host{number}",
            ttl_s=86_400,
            renewed_s=1.0,
            claimed_s=1.0,
        )
        for number in (2, 3, 4)
    )
    view = View(cluster_id=1, revision=2, leases=leases)
    two = HostId(f"{2:032x}")
    document = checks_document(view, two, {two: FOUND.summary()}, 50.0, freshness={"stale": False})
    check("checks", document)
    first, second, third = document["hosts"]
    assert (first["state"], first["checked_s_ago"], first["own"]) == ("failed", 0.0, True)
    assert [each["host_name"] for each in first["worst"]] == ["host4", "host3", "host2"]
    assert (second["state"], second["reason"]) == ("none", "its agent does not run")
    assert third["reason"] == "a flannel host checks nothing"
