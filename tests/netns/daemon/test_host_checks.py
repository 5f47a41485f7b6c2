"""Other programs and settings of the host that undo or hinder our work: the real ones.

Each is put right as soon as the kernel allows, or said; most are both.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.kernel.hostchecks import networkd_condition
from tests.netns.daemon.member import CONTAINER, Member, make_agent, running
from tests.netns.daemon.networkd import missing, networkd
from tests.netns.netlab import Host, Pinger
from tests.netns.routes.scene import shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns


def set_sysctl(host: Host, name: str, value: str) -> None:
    host.call(Path("/proc/sys/net/ipv4", name).write_text, value)


@pytest.mark.skipif(bool(missing()), reason=f"no {missing()} here")
@pytest.mark.parametrize("manages", [True, False])
def test_promise_6_routes_that_networkd_removes_come_back(
    here: Host, tmp_path: Path, manages: bool
) -> None:
    """It sets its own address anew in either case, and the kernel takes peers' routes with it."""
    conf = "" if manages else "[Network]\nManageForeignRoutes=no\n"
    here.ip("addr flush dev eth0")
    with networkd(here, conf) as service:
        assert (networkd_condition(service.root) is not None) is manages
        agent = make_agent(here, tmp_path)
        member = Member(here, agent)
        with running(agent, here):
            member.joins()
            eventually(member.is_right, 10)
            ping = Pinger(here, CONTAINER, 0.005)
            time.sleep(0.1)
            repaired = agent._observer.counters.repairs
            service.reconfigure()
            time.sleep(1)
            eventually(member.is_right, 5)
            lost = len(ping.stop().lost)
            print(f"{lost} lost, repaired: {dict(repaired)}")
            # systemd 252 sets the address anew even so, 257 leaves it.
            assert repaired["route-missing"] in ((2,) if manages else (0, 1))
            assert lost < 200


def test_promise_9_strict_reverse_path_filtering_and_an_overlap_are_said_while_they_last(
    here: Host, tmp_path: Path
) -> None:
    set_sysctl(here, "conf/eth0/rp_filter", "1")
    agent = make_agent(here, tmp_path)
    member = Member(here, agent)
    with running(agent, here):
        member.joins()
        eventually(member.is_right, 10)
        eventually(lambda: "rp-filter-strict" in member.conditions())
        assert "eth0" in member.conditions()["rp-filter-strict"]
        set_sysctl(here, "conf/eth0/rp_filter", "2")
        here.ip("link add vpn0 type bridge")
        here.ip("addr add 10.70.0.1/16 dev vpn0")
        here.ip("link set vpn0 up")
        eventually(lambda: "cidr-overlaps-host" in member.conditions())
        assert "10.70.0.1/16 of vpn0" in member.conditions()["cidr-overlaps-host"]
        assert "rp-filter-strict" not in member.conditions()
        here.ip("link del vpn0")
        eventually(lambda: "cidr-overlaps-host" not in member.conditions())
        assert member.is_right()
        assert "route-conflict" not in member.conditions()
        assert shown(here)
