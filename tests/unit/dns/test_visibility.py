"""An asker sees an address only if one of its networks may reach it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.dns.visibility import HOST, Asker, asker_at
from agent.model import Access, HostId
from agent.model.names import LocalNames, LocalNetwork, NamedAddress, NameKind

pytestmark = pytest.mark.unit

HERE, THERE = HostId("a" * 32), HostId("b" * 32)
WEB = LocalNetwork(
    name="web", bridge="hm-1", subnets=(IPv4Network("10.64.1.0/24"),), mesh_network="web"
)
BRIDGE = LocalNetwork(name="bridge", bridge="docker0", subnets=(IPv4Network("10.64.0.0/24"),))
CLOSED = replace(BRIDGE, name="safe", access=Access.CLOSED)
INTERNAL = replace(BRIDGE, name="inner", internal=True)
IN_WEB = NamedAddress(
    address=IPv4Address("10.65.1.2"), network="web", mesh_network="web", access=Access.CLOSED
)
IN_BRIDGE = NamedAddress(address=IPv4Address("10.65.0.2"), network="bridge")
IN_CLOSED = replace(IN_BRIDGE, network="safe", access=Access.CLOSED)
LOCAL = LocalNames(domain="hostmesh.internal", host_id=HERE, boot_id="boot", networks=(WEB, BRIDGE))


@pytest.mark.parametrize(
    ("asker", "publisher", "address", "kind", "seen"),
    [
        pytest.param([WEB], THERE, IN_WEB, NameKind.NETWORK, True, id="one mesh network"),
        pytest.param([WEB], THERE, IN_WEB, NameKind.PLAIN, True, id="plain in one mesh network"),
        pytest.param([BRIDGE], THERE, IN_WEB, NameKind.NETWORK, False, id="closed elsewhere"),
        pytest.param([BRIDGE], THERE, IN_BRIDGE, NameKind.HOST, True, id="published elsewhere"),
        pytest.param([BRIDGE], THERE, IN_BRIDGE, NameKind.PLAIN, False, id="same name elsewhere"),
        pytest.param([BRIDGE], HERE, IN_BRIDGE, NameKind.PLAIN, True, id="plain on docker0 here"),
        pytest.param([BRIDGE], HERE, IN_BRIDGE, NameKind.HOST, True, id="same bridge"),
        pytest.param([WEB], HERE, IN_BRIDGE, NameKind.HOST, False, id="another bridge here"),
        pytest.param([WEB, BRIDGE], HERE, IN_BRIDGE, NameKind.HOST, True, id="in both"),
        pytest.param([CLOSED], THERE, IN_BRIDGE, NameKind.HOST, False, id="asker is closed"),
        pytest.param([INTERNAL], THERE, IN_BRIDGE, NameKind.HOST, False, id="asker is internal"),
        pytest.param([INTERNAL], THERE, IN_BRIDGE, NameKind.OWN, True, id="a host's own name"),
        pytest.param([], THERE, IN_BRIDGE, NameKind.HOST, False, id="an unknown asker"),
    ],
)
def test_an_asker_sees_only_what_it_may_reach(
    asker: list[LocalNetwork], publisher: HostId, address: NamedAddress, kind: NameKind, seen: bool
) -> None:
    assert Asker(tuple(asker)).sees(publisher, HERE, address, kind) is seen


def test_the_host_itself_sees_all_but_closed_networks_of_others() -> None:
    assert HOST.sees(HERE, HERE, IN_CLOSED, NameKind.HOST)
    assert HOST.sees(THERE, HERE, IN_BRIDGE, NameKind.HOST)
    assert not HOST.sees(THERE, HERE, IN_CLOSED, NameKind.HOST)
    assert not HOST.sees(HERE, HERE, IN_BRIDGE, NameKind.PLAIN)


def test_an_asker_is_found_by_subnet_or_by_its_own_list() -> None:
    both = IPv4Address("10.64.1.9")
    local = replace(LOCAL, askers={both: ("web", "bridge")})
    assert asker_at(local, IPv4Address("10.64.1.2")) == Asker((WEB,))
    assert asker_at(local, both) == Asker((WEB, BRIDGE))
    assert asker_at(local, IPv4Address("192.0.2.1")) == Asker()
