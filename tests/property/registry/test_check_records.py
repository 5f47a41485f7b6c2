"""Records of checks: each that an agent writes is read again and is bounded; others are refused."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.etcd.kv import Record
from agent.mesh.check.result import (
    WORST_MOST,
    CheckState,
    CheckSummary,
    CheckTest,
    WorstPeer,
)
from agent.model import HostId
from agent.registry.records import Keys
from agent.registry.records.checks import CHECKS, encode_check

pytestmark = pytest.mark.property

_HOST = HostId("f" * 32)
_KEYS = Keys("/hostmesh")
_NAME = _KEYS.of(CHECKS, _HOST)

tests = st.lists(st.sampled_from(list(CheckTest)), unique=True).map(tuple)
peers = st.builds(
    WorstPeer,
    subnet=st.integers(0, 255).map(lambda number: IPv4Network(f"10.{number}.0.0/16")),
    state=st.sampled_from(list(CheckState)),
    failed=tests,
    rtt_s=st.none() | st.integers(0, 60_000_000).map(lambda number: number / 1e6),
)
summaries = st.builds(
    CheckSummary,
    host_id=st.just(_HOST),
    began_s=st.integers(0, 2**40).map(lambda number: number / 8),
    own_failed=tests,
    counts=st.dictionaries(st.sampled_from(list(CheckState)), st.integers(1, 131_072)),
    worst=st.lists(peers, max_size=WORST_MOST).map(tuple),
)


@given(summaries)
def test_a_check_is_read_as_it_was_written(summary: CheckSummary) -> None:
    assert _KEYS.read(CHECKS, Record(_NAME, encode_check(summary))) == summary


def test_promise_10_the_largest_summary_fits_its_record() -> None:
    worst = WorstPeer(
        subnet=IPv4Network("100.100.100.128/28"),
        state=CheckState.UNTESTED,
        failed=tuple(CheckTest),
        rtt_s=60.0,
    )
    largest = CheckSummary(
        host_id=_HOST,
        began_s=2.0**40 - 0.001,
        own_failed=tuple(CheckTest),
        counts=dict.fromkeys(CheckState, 131_072),
        worst=(worst,) * WORST_MOST,
    )
    assert len(encode_check(largest)) <= CHECKS.largest_bytes


_GOOD = {"Time": 1, "Worst": [{"Subnet": "10.64.0.0/16", "State": "down"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"Time": None},
        {"Time": "now"},
        {"Time": -1},
        {"Counts": {"ok": -1}},
        {"Counts": {"ok": 131_073}},
        {"Counts": {"ok": "many"}},
        {"Counts": []},
        {"Own": "a b"},
        {"Own": ["names"]},
        {"Own": "x" * 300},
        {"Worst": {}},
        {"Worst": [{"Subnet": "10.64.0.0/16", "State": "down"}] * 33},
        {"Worst": [{"Subnet": "10.64.0.0/16", "State": "fine"}]},
        {"Worst": [{"Subnet": "10.64.0.0/16"}]},
        {"Worst": [{"Subnet": "10.64.0.1/16", "State": "down"}]},
        {"Worst": [{"Subnet": "10.64.0.0/16", "State": "down", "RttUs": 1e9}]},
        {"Worst": [{"Subnet": "10.64.0.0/16", "State": "down", "RttUs": -5}]},
        {"Worst": [{"Subnet": "0.0.0.0/0", "State": "down"}]},
        {"Worst": [{"Subnet": "10.64.0.0/16", "State": "down", "Failed": "\x1b[2J"}]},
    ],
    ids=str,
)
def test_promise_8_a_hostile_value_is_refused(fields: dict[str, object]) -> None:
    assert _KEYS.read(CHECKS, Record(_NAME, json.dumps(_GOOD).encode()))
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        _KEYS.read(CHECKS, Record(_NAME, json.dumps({**_GOOD, **fields}).encode()))


def test_promise_12_a_test_that_a_newer_agent_has_is_passed_over() -> None:
    fields = {**_GOOD, "Own": "names,taste", "Later": 1}
    found: CheckSummary = _KEYS.read(CHECKS, Record(_NAME, json.dumps(fields).encode()))
    assert found.own_failed == (CheckTest.NAMES,)
