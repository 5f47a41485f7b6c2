"""Judge what is heard of a peer: nothing is green that was not tested (promise 9)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from agent.ctl.check.facts import Facts, PeerFacts, Target
from agent.ctl.check.judge import Evidence, MtuFinding, NamesFinding, SentBy, judge
from agent.kernel.diagnose.sweep import Heard
from agent.mesh.check.result import CheckState, CheckTest, PeerCheck, Verdict
from agent.model.family import read_address

pytestmark = pytest.mark.unit

OK, FAILED, UNTESTED = Verdict
YES, NO = Heard(rtt_s=0.001), Heard()
CONTAINER = SentBy(read_address("10.64.0.2"), "web")
ITSELF = SentBy(read_address("10.64.0.1"), "", "no container runs here")
LEASE: dict[str, Any] = {
    "host_id": "f" * 32,
    "host_name": "host2",
    "subnet": "10.65.0.0/16",
    "node_address": "192.0.2.2",
    "alive": True,
    "heartbeat": "alive",
    "last_seen_s": 3.0,
    "silent_s": None,
    "docker": "ready",
    "container": "10.65.0.2",
    "direct": False,
    "mtu": 1450,
    "moving": False,
    "backend_data": None,
}
OWN = {**LEASE, "subnet": "10.64.0.0/16"}
MTU = MtuFinding(target=read_address("10.65.0.2"), size=1450, heard=Heard(rtt_s=0.0005))
NAMES = NamesFinding(right=("host2.host.hostmesh.internal",))
ALL_GOOD = Evidence(
    host=YES, container=YES, docker0=YES, device=YES, sender=CONTAINER, tunnel="hm-vxlan",
    mtu=MTU, names=NAMES,
)  # fmt: skip


def judged(found: Evidence, *, stale: bool = False, **lease: object) -> PeerCheck:
    peer = PeerFacts(lease={**LEASE, **lease}, networks={}, names=())
    return judge(Facts(own=OWN, peers=(peer,), stale=stale), peer, found)


def verdict(found: PeerCheck, test: CheckTest) -> Verdict:
    return next(each.verdict for each in found.tests if each.test is test)


def text(found: PeerCheck, test: CheckTest) -> str:
    return next(f"{each.text}; {each.hint}" for each in found.tests if each.test is test)


def test_a_healthy_peer_is_green_and_every_test_has_its_place() -> None:
    found = judged(ALL_GOOD)
    assert found.state is CheckState.OK
    assert [each.test for each in found.tests] == list(CheckTest)
    assert {each.verdict for each in found.tests} == {OK, UNTESTED}  # no network is shared
    assert found.rtt_s == 0.0005
    assert not found.failed
    assert not any(each.hint for each in found.tests)


@pytest.mark.parametrize(
    ("found", "lease", "why"),
    [
        (replace(ALL_GOOD, sender=ITSELF), {}, "no container runs here: FORWARD here is not"),
        (replace(ALL_GOOD, container=None), {"container": None}, "FORWARD there is not tested"),
        (replace(ALL_GOOD, container=None, docker0=None, sender=None, untested="no link"), {},
         "no link"),
        (replace(ALL_GOOD, container=None, docker0=NO), {"docker": "absent", "container": None},
         "Docker there is absent"),
        (replace(ALL_GOOD, container=None, docker0=NO, device=None),
         {"docker": None, "container": None, "alive": None, "host_id": None}, "is not known"),
        (replace(ALL_GOOD, container=None, docker0=NO), {"moving": True, "container": None},
         "no container of host2 is known"),
    ],
)  # fmt: skip
def test_promise_9_a_path_that_was_not_tested_is_neither_green_nor_red(
    found: Evidence, lease: dict[str, Any], why: str
) -> None:
    result = judged(found, **lease)
    assert verdict(result, CheckTest.PATH) is UNTESTED
    assert why in text(result, CheckTest.PATH)
    assert result.state is CheckState.UNTESTED


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (replace(ALL_GOOD, container=NO), "10.65.0.1 there does"),
        (replace(ALL_GOOD, container=NO, docker0=NO), "agentctl trace 10.64.0.2 10.65.0.2"),
        (replace(ALL_GOOD, container=NO, docker0=NO, device=NO, tunnel="hm-vxlan, UDP port 8472"),
         "through the tunnel hm-vxlan, UDP port 8472; the host itself answers"),
        (replace(ALL_GOOD, container=None, docker0=NO), "docker0 of host2, does not answer"),
        (replace(ALL_GOOD, container=Heard(problem="prohibited by a filter",
                                           reporter=IPv4Address("192.0.2.2")), docker0=NO),
         "(prohibited by a filter, says 192.0.2.2)"),
    ],
)  # fmt: skip
def test_a_broken_path_is_named_with_what_to_type(found: Evidence, why: str) -> None:
    result = judged(found)
    assert result.state is CheckState.FAILED
    assert CheckTest.PATH in result.failed
    assert why in text(result, CheckTest.PATH)


def test_a_peer_that_reboots_is_down_and_says_how_fresh_its_heartbeat_is() -> None:
    silent = replace(ALL_GOOD, host=NO, container=NO, docker0=NO, device=NO, mtu=None)
    crashed = judged(silent)
    assert (crashed.state, crashed.rtt_s) == (CheckState.DOWN, None)
    assert "its heartbeat was seen 3 s ago" in text(crashed, CheckTest.HOST)
    later = judged(silent, alive=False, heartbeat="none", silent_s=40.0)
    assert later.state is CheckState.DOWN
    assert "no heartbeat for 40 s" in text(later, CheckTest.HEARTBEAT)
    assert verdict(later, CheckTest.PATH) is UNTESTED
    boots = judged(replace(silent, host=YES), alive=False, heartbeat="none", silent_s=50.0)
    assert boots.state is CheckState.DOWN


def test_an_agent_that_stopped_costs_no_path_and_is_named() -> None:
    found = judged(ALL_GOOD, alive=False, heartbeat="none", silent_s=40.0)
    assert found.state is CheckState.FAILED
    assert found.failed == (CheckTest.HEARTBEAT,)
    assert "systemctl status hostmesh-agent" in text(found, CheckTest.HEARTBEAT)


def test_a_flannel_host_has_no_heartbeat_and_lacks_none() -> None:
    found = judged(
        replace(ALL_GOOD, container=None, names=NamesFinding(problem="it has no names")),
        host_id=None, alive=None, heartbeat=None, container=None, docker=None,
    )  # fmt: skip
    assert (found.state, found.failed) == (CheckState.UNTESTED, ())


def test_without_etcd_no_heartbeat_is_missed() -> None:
    found = judged(ALL_GOOD, stale=True, alive=None, heartbeat="unknown")
    assert verdict(found, CheckTest.HEARTBEAT) is UNTESTED
    assert found.state is CheckState.OK


def test_a_host_that_drops_pings_is_not_down_while_its_containers_answer() -> None:
    for published in (None, {"NAT": True}):
        found = judged(replace(ALL_GOOD, host=NO), backend_data=published)
        assert verdict(found, CheckTest.HOST) is UNTESTED
        assert found.state is CheckState.OK


def test_large_packets_that_are_lost_are_named_and_path_mtu_discovery_is_no_fault() -> None:
    lost = replace(MTU, heard=NO, largest=1400, fix="ip link set dev eth0 mtu 1450")
    found = judged(replace(ALL_GOOD, mtu=lost))
    assert found.failed == (CheckTest.MTU,)
    assert "packets of 1450 bytes" in text(found, CheckTest.MTU)
    assert "1400 bytes pass" in text(found, CheckTest.MTU)
    assert "ip link set dev eth0 mtu 1450" in text(found, CheckTest.MTU)
    smaller = replace(MTU, heard=Heard(takes=1400), largest=1400, by_path_mtu=True)
    assert judged(replace(ALL_GOOD, mtu=smaller)).state is CheckState.OK
    assert verdict(judged(replace(ALL_GOOD, mtu=None)), CheckTest.MTU) is UNTESTED


def test_names_and_networks_fail_on_their_own() -> None:
    wrong = NamesFinding(wrong=("169.254.20.53 says host2.host is NXDOMAIN, not 192.0.2.2",))
    found = judged(replace(ALL_GOOD, names=wrong))
    assert found.failed == (CheckTest.NAMES,)
    db = Target("db.shop", (read_address("10.65.1.2"),))
    for answers, state in (((NO, NO), CheckState.FAILED), ((NO, YES), CheckState.OK)):
        asked = tuple((db, each) for each in answers)
        found = judged(replace(ALL_GOOD, networks={"shop": (CONTAINER, asked)}))
        assert found.state is state
    gap = judged(replace(ALL_GOOD, gaps=("shop: no container of this host is on it alone",)))
    assert verdict(gap, CheckTest.NETWORKS) is UNTESTED
    assert gap.state is CheckState.OK
