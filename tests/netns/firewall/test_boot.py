"""A boot: closed before Docker starts, opened when Docker has said what there is."""

import pytest

from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import A1, C0, HOST, LEASE, PEER_CONTAINER, STRANGER, Rig
from tests.netns.firewall.test_packets import (
    ALL,
    HOST_PORTS,
    ISOLATED,
    PUBLISHED,
    STRANGERS,
    WORLD,
)

pytestmark = pytest.mark.netns

UNPUBLISHED = tuple(
    (Probe("stranger", to, how), None) for to in (C0, A1) for how in ("icmp", "tcp81", "udp81")
)


def test_promise_5_strangers_are_shut_out_from_before_docker_starts(bare: Rig, engine: str) -> None:
    """With FORWARD accepting. Docker isolates its own networks meanwhile as ever."""
    bare.expect((Probe("stranger", C0, "tcp81"), STRANGER))
    bare.firewall("close", LEASE, "eth0")
    bare.expect(*STRANGERS, (Probe("c0", STRANGER, "tcp81"), C0))
    bare.restore(docker_text(engine))
    meanwhile = (*UNPUBLISHED, *ISOLATED, *HOST_PORTS[:3], *WORLD)
    bare.expect(*meanwhile)
    # Docker has put its jumps first: ours goes where Docker leads to before all else.
    assert bare.firewall("close", LEASE, "eth0")["differs"] is True
    bare.expect(*meanwhile, *STRANGERS)
    assert bare.firewall("close", LEASE, "eth0")["differs"] is False
    bare.firewall("apply")
    bare.expect(*ALL)
    assert bare.firewall("check")["differs"] is False


def test_what_opens_waits_for_dockers_first_answer(docked: Rig) -> None:
    docked.firewall("close", LEASE, "eth0")
    docked.expect(*((probe, None) for probe, _ in PUBLISHED))
    docked.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
    assert not [line for line in docked.save() if "HOSTMESH-" in line and line.endswith("ACCEPT")]
    assert docked.host.run("ipset", "list", "-n") == ""


def test_promise_3_an_agent_that_starts_again_leaves_rules_in_force(docked: Rig) -> None:
    docked.firewall("apply")
    rules = docked.save()
    docked.reopen(docked.variant)
    assert docked.firewall("close", LEASE, "eth0")["differs"] is False
    assert docked.save() == rules
    docked.expect(*ALL)
    # Nothing leads to ours any more, or they are empty: then they close nothing.
    for words in (("-D", "DOCKER-USER", "1"), ("-F", "HOSTMESH-FORWARD")):
        docked.firewall("apply")
        docked.iptables(*words)
        assert docked.firewall("close", LEASE, "eth0")["differs"] is True
        docked.expect(*STRANGERS)


def test_promise_5_rules_of_an_earlier_run_may_be_of_another_lease(docked: Rig) -> None:
    """They were restored at a boot, or the host moved while neither agent nor Docker ran."""
    docked.firewall("apply", lease="10.70.0.0/16")
    before = docked.save()
    docked.reopen(docked.variant)
    assert docked.firewall("close", LEASE, "eth0")["differs"] is True
    docked.expect(*STRANGERS, *ISOLATED)
    assert set(before) <= set(docked.save()), "what is in force stays"
    assert docked.firewall("close", LEASE, "eth0")["differs"] is False
    docked.firewall("apply")
    docked.expect(*ALL)


def test_promise_5_own_addresses_do_not_come_from_outside_once_the_interfaces_are_known(
    bare: Rig,
) -> None:
    """Rules that only close are written again when there is more to be said."""
    bare.restore(docker_text("20.10"))
    forged = "10.65.129.77"
    bare.at["stranger"].ip(f"addr replace {forged}/32 dev lo")
    bare.at["c0"].seen("udp")
    for interfaces, arrives in (((), {forged}), (("eth1", "eth0"), set())):
        bare.firewall("close", LEASE, *interfaces)
        bare.reach(Probe("stranger", C0, "udp81", forged), timeout_s=0.2)
        assert bare.at["c0"].seen("udp") == arrives
    bare.expect(*ISOLATED)
    bare.firewall("apply")
    rules = bare.save()
    assert bare.firewall("close", LEASE)["differs"] is False
    assert bare.save() == rules


def test_the_uplink_need_not_be_known(docked: Rig) -> None:
    docked.firewall("close", LEASE)
    docked.expect(*UNPUBLISHED, *ISOLATED, (Probe("stranger", HOST, "tcp8080"), STRANGER))


@pytest.mark.parametrize("chosen", ["nft", "legacy"])
def test_docker_uses_the_other_iptables_than_was_expected(bare: Rig, chosen: str) -> None:
    """The closing rules hold beside Docker's, and move without an open moment."""
    if chosen == bare.variant:
        pytest.skip("closed where Docker is: asked above")
    default = bare.host.run("sh", "-c", "iptables -V")
    if ("nf_tables" in default) != (chosen == "nft"):
        pytest.skip(f"iptables is not {chosen} here")
    bare.reopen("auto")
    bare.firewall("close", LEASE, "eth0")
    assert [line for line in bare.save(variant=chosen) if "HOSTMESH-FORWARD" in line]
    bare.restore(docker_text("20.10"))
    bare.expect(*UNPUBLISHED, *ISOLATED, *HOST_PORTS[:3])
    assert bare.firewall("apply")["variant"] == bare.variant
    assert not [line for line in bare.save(variant=chosen) if "HOSTMESH" in line]
    bare.expect(*ALL)
