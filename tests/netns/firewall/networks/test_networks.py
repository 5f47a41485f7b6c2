"""Slices of one mesh network reach each other on every port, and nothing else is opened."""

from typing import Any

import pytest

from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import (
    A1,
    C0,
    HOST,
    I1,
    NETWORKS,
    PEER,
    PEER_CONTAINER,
    PEER_SUBNET,
    STRANGER,
    Rig,
)

pytestmark = pytest.mark.netns

WEB, OTHER_CONTAINER = "10.66.0.0/24", "10.66.1.5"
"""The peer's slice of web, where its container is, and a container outside that."""
OWN = "10.65.128.0/24"
EVERY = ("tcp80", "tcp81", "udp80", "udp81")
SET = "hostmesh-net-4b5e57f6eb"


def labelled(bridge: str = "br-app", name: str = "web", access: str = "") -> dict[str, Any]:
    """Return the rig's networks, one of them a slice of a mesh network."""
    labels = {"hostmesh.network": name} | ({"hostmesh.access": access} if access else {})
    networks = [
        {**each, "labels": labels} if each["bridge"] == bridge else {**each} for each in NETWORKS
    ]
    return {"networks": networks, "slices": {name: [OWN, WEB]}}


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.full)])
def variant(request: pytest.FixtureRequest) -> str:
    """`make test` has legacy rules in tests/engine/firewall/test_matrix.py."""
    return str(request.param)


@pytest.fixture
def webbed(docked: Rig) -> Rig:
    """The rig whose peer has a container in another network, too."""
    docked.at["peer"].ip(f"addr replace {OTHER_CONTAINER}/32 dev lo")
    return docked


def answers(source: str | None, to: str = A1, by: str = "peer") -> tuple[Any, ...]:
    """Expect each probe of a source to be answered, or none."""
    found = [(Probe(by, to, how, source or ""), source) for how in EVERY]
    return (*found, (Probe(by, to, "icmp", source or ""), source and "yes"))


def silence(source: str, to: str = A1, by: str = "peer", hows: tuple[str, ...] = EVERY) -> Any:  # noqa: ANN401
    return [(Probe(by, to, how, source), None) for how in hows]


def closed_to_all_others(access: str = "closed") -> tuple[Any, ...]:
    """Expect what an access other than open leaves shut, whatever the mesh network opens."""
    shut = EVERY if access == "closed" else ("tcp81", "udp80", "udp81")
    ping = ("icmp",) if access == "closed" else ()
    return (
        *silence(OTHER_CONTAINER, hows=(*shut, *ping)),
        *silence(PEER, hows=(*shut, *ping)),
        *silence("", by="stranger", hows=(*EVERY, "icmp")),
        *silence("", by="c0", hows=(*EVERY, "icmp")),
        *silence("", by="o1", hows=(*EVERY, "icmp")),
        *silence("", to=C0, by="a1", hows=(*EVERY, "icmp")),
        *silence(PEER_CONTAINER, to=I1, hows=(*EVERY, "icmp")),
    )


@pytest.mark.parametrize("access", ["published", "closed"])
def test_members_reach_every_port_and_nothing_else_is_opened(webbed: Rig, access: str) -> None:
    webbed.firewall("apply", **labelled(access=access))
    webbed.expect(
        *answers(PEER_CONTAINER),
        *((Probe("a1", PEER_CONTAINER, how), A1) for how in EVERY),
        (Probe("a1", PEER_CONTAINER, "icmp"), "yes"),
        *closed_to_all_others(access),
        # Outwards a closed network is masqueraded as ever, but to its own slices.
        (Probe("a1", OTHER_CONTAINER, "tcp81"), HOST if access == "closed" else A1),
        (Probe("a1", STRANGER, "tcp81"), HOST),
        (Probe("stranger", HOST, "tcp8081"), STRANGER),
    )
    assert webbed.members(SET) == sorted([OWN, WEB])
    assert webbed.firewall("check", **labelled(access=access))["differs"] is False


def test_a_set_of_another_name_opens_nothing(webbed: Rig) -> None:
    wants = labelled(access="closed")
    webbed.firewall("apply", **{**wants, "slices": {"web": [OWN], "db": [WEB]}})
    webbed.expect(*silence(PEER_CONTAINER, hows=(*EVERY, "icmp")))
    webbed.firewall("apply", **wants)
    webbed.expect(*answers(PEER_CONTAINER))


def test_members_reach_their_own_network_only(webbed: Rig) -> None:
    """Not the others of the host: docker0 shows nothing here."""
    wants = labelled(access="closed")
    for each in wants["networks"]:
        if each["bridge"] == "docker0":
            each["labels"] = {"hostmesh.access": "closed"}
    webbed.firewall("apply", **wants)
    webbed.expect(*answers(PEER_CONTAINER), *silence(PEER_CONTAINER, to=C0, hows=(*EVERY, "icmp")))


def test_a_network_made_with_internal_is_in_none(webbed: Rig) -> None:
    webbed.firewall("apply", **labelled("br-int"))
    webbed.expect(
        *silence(PEER_CONTAINER, to=I1, hows=(*EVERY, "icmp")),
        *((Probe("i1", PEER_CONTAINER, how), None) for how in ("tcp81", "icmp")),
    )


@pytest.mark.parametrize("access", ["published", "closed"])
def test_promise_5_a_slice_that_may_not_come_by_an_interface_opens_nothing(
    webbed: Rig, access: str
) -> None:
    """Forged by a neighbour, where the peer is reached by a tunnel or not at all."""
    for sources in ([], [PEER, "10.66.1.0/24"]):
        webbed.firewall("apply", ingress={"eth0": sources}, **labelled(access=access))
        webbed.at["a1"].seen("udp")
        webbed.expect(*silence(PEER_CONTAINER, hows=(*EVERY, "icmp")))
        assert PEER_CONTAINER not in webbed.at["a1"].seen("udp"), "not even one way"


def test_promise_5_a_container_of_this_host_cannot_pose_as_a_member(webbed: Rig) -> None:
    webbed.firewall("apply", **labelled(access="closed"))
    webbed.at["a1"].seen("udp")
    for by in ("c0", "o1", "i1"):
        number = webbed.at[by].ask("forge", to=A1, port=81, source=PEER_CONTAINER)
        webbed.at[by].answers(1)[number]
    webbed.expect(*answers(PEER_CONTAINER))  # later packets have arrived
    seen = webbed.at["a1"].seen("udp")
    assert seen == {PEER_CONTAINER}
    webbed.firewall("apply", **{**labelled(access="closed"), "slices": {"web": [OWN]}})
    for by in ("c0", "o1", "i1"):
        webbed.at[by].ask("forge", to=A1, port=81, source=PEER_CONTAINER)
        webbed.at[by].answers(1)
    webbed.expect(*silence(PEER_CONTAINER))
    assert webbed.at["a1"].seen("udp") == set()


def test_a_host_that_opens_published_ports_only_opens_no_more_to_members(webbed: Rig) -> None:
    webbed.firewall("apply", host_limit="published", **labelled(access="open"))
    webbed.expect(
        (Probe("peer", A1, "tcp80", PEER_CONTAINER), PEER_CONTAINER),
        *silence(PEER_CONTAINER, hows=("tcp81", "udp81")),
    )
    webbed.firewall("apply", host_limit="closed", **labelled(access="open"))
    webbed.expect(*silence(PEER_CONTAINER, hows=(*EVERY, "icmp")))


def without(how: str, access: str) -> dict[str, Any]:
    """Return what is wanted when membership is lost."""
    wants = labelled(access=access)
    match how:
        case "peer":
            return {**wants, "slices": {"web": [OWN]}}
        case "record":  # or agent.toml: the label is there and does not count
            return {**labelled(name="NOT-COUNTED", access=access), "slices": {}}
        case _:
            return {"host_limit": "published", **wants}


@pytest.mark.parametrize("access", ["published", "closed"])
@pytest.mark.parametrize("how", ["peer", "record", "host"])
def test_what_is_lost_closes_at_once_and_running_flows_too(
    webbed: Rig, how: str, access: str
) -> None:
    def goes(by: str, port: int) -> str | None:
        source, to = (PEER_CONTAINER, A1) if by == "peer" else (A1, PEER_CONTAINER)
        number = webbed.at[by].ask(
            "udp", to=to, port=port, source=source, from_port=4000 + port, timeout_s=0.5
        )
        found: str | None = webbed.at[by].answers(1)[number]
        return found

    webbed.firewall("apply", **labelled(access=access))
    assert (goes("peer", 81), goes("a1", 81)) == (PEER_CONTAINER, A1)
    webbed.firewall("apply", **without(how, access))
    assert goes("peer", 81) is None
    assert goes("peer", 80) is None
    if access == "closed":
        assert goes("a1", 81) is None, "a flow with its true source, into a closed network"
    else:
        assert goes("a1", 81) == A1, "published: outwards the network is open as ever"
    webbed.expect(*closed_to_all_others(access))
    webbed.firewall("apply", **labelled(access=access))
    assert goes("peer", 81) == PEER_CONTAINER


def test_a_flow_that_was_ahead_of_its_member_gets_its_true_source(webbed: Rig) -> None:
    """A container of a closed network that asks a slice before that is known is masqueraded."""

    def seen() -> str | None:
        number = webbed.at["a1"].ask(
            "udp", to=PEER_CONTAINER, port=81, source=A1, from_port=4444, timeout_s=0.5
        )
        found: str | None = webbed.at["a1"].answers(1)[number]
        return found

    webbed.firewall("apply", **{**labelled(access="closed"), "slices": {"web": [OWN]}})
    assert seen() == HOST
    assert webbed.firewall("apply", **labelled(access="closed"))["freed_flows"] == 1
    assert seen() == A1


def test_while_docker_has_no_rules_members_reach_each_other(bare: Rig) -> None:
    bare.restore(docker_text("28.5"))
    bare.firewall("apply", **labelled(access="closed"))
    bare.iptables("-F")
    bare.iptables("-P", "FORWARD", "DROP")
    bare.firewall("apply", **labelled(access="closed"))
    bare.expect(*answers(PEER_CONTAINER))


def test_a_network_that_goes_takes_its_rules_and_its_set(webbed: Rig) -> None:
    webbed.firewall("apply")
    before = webbed.save()
    webbed.firewall("apply", **labelled())
    shown = webbed.firewall("show")
    assert f"ipset {SET}: 2 members" in shown
    assert "HOSTMESH-NETWORKS" in shown
    webbed.firewall("apply")
    assert webbed.save() == before
    assert SET not in webbed.host.run("ipset", "list", "-n")
    webbed.firewall("apply", **labelled())
    webbed.firewall("remove")
    assert webbed.host.run("ipset", "list", "-n") == ""


def test_the_number_of_rules_is_equal_at_3_and_at_300_hosts(webbed: Rig) -> None:
    wants = labelled(access="closed")
    webbed.firewall("apply", **wants)
    rules = webbed.save()
    many = [f"10.{67 + n // 256}.{n % 256}.0/24" for n in range(300)]
    wants["slices"]["web"] += many
    webbed.firewall("apply", ingress={"eth0": [PEER, PEER_SUBNET, *many]}, **wants)
    assert webbed.save() == rules
    assert len(webbed.members(SET)) == 302
    webbed.expect(*answers(PEER_CONTAINER), *closed_to_all_others())
