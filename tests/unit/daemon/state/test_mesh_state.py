"""The view that the loop believes, and when it must not delete (promises 3 and 4)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.api.status import host_state
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.mesh_state import MeshState, own_leases
from agent.mesh.backends.host_gw import HostGateway
from agent.model import (
    Attachment,
    Condition,
    Container,
    DockerFacts,
    DockerNetwork,
    DockerState,
    Heartbeat,
    HostFacts,
    HostId,
    Problem,
    SetAside,
    View,
)
from agent.model.family import IPV4, IPV6
from tests.unit.small_mesh import CONFIG, UPLINK, lease

pytestmark = pytest.mark.unit

OWN = HostId("0" * 32)


def beat(number: int) -> Heartbeat:
    return Heartbeat(
        host_id=HostId(f"{number:032x}"),
        host_name=f"host{number}",
        node_address=IPv4Address(f"192.0.2.{1 + number}"),
        subnet=None,
        docker=DockerState.READY,
        agent_version="1",
        boot_id="b",
        started_s=0,
    )


def view(*numbers: int, revision: int = 10, cluster: int = 1) -> View:
    return View(
        cluster_id=cluster,
        revision=revision,
        config=CONFIG,
        leases=tuple(lease(number) for number in numbers),
        heartbeats={HostId(f"{number:032x}"): beat(number) for number in numbers},
    )


_EMPTY = view(cluster=2, revision=1)


def member() -> MeshState:
    return replace(
        MeshState(host_id=OWN).with_view(view(0, 1, 2, 3)),
        own=lease(0),
        host=HostFacts(links=(), foreign_routes=()),
        uplink=UPLINK,
    )


def world(mesh: MeshState) -> object:
    return mesh.world(route_protocol=140, route_table=254)


def test_a_view_is_believed_and_allows_deleting() -> None:
    mesh = member()
    assert mesh.complete
    assert mesh.alarming is None
    assert mesh.conditions() == ()


def test_promise_3_the_hosts_own_copy_never_allows_deleting() -> None:
    mesh = replace(member(), believed=replace(view(0, 1), cached=True))
    assert not mesh.complete
    made = mesh.world(route_protocol=140, route_table=254)
    assert made is not None
    assert not made.complete
    assert set(made.peers) == {lease(1).subnet}


@pytest.mark.parametrize(
    "alarming",
    [
        view(0, 1, 2, 3, cluster=2),
        view(0, 1, 2, 3, revision=9),
        view(0, revision=11),
        view(revision=11),
    ],
    ids=["another cluster", "a past", "most leases gone", "all leases gone"],
)
def test_promise_4_an_alarming_view_deletes_nothing(alarming: View) -> None:
    mesh = member()
    held = mesh.with_view(alarming)
    assert held.believed is not None
    assert mesh.believed is not None
    assert held.believed.leases == mesh.believed.leases
    assert held.alarming == alarming
    assert not held.complete
    made = held.world(route_protocol=140, route_table=254)
    assert made is not None
    assert set(made.peers) == {lease(n).subnet for n in (1, 2, 3)}
    assert [each.name for each in held.conditions()] == ["etcd-alarm"]


def test_promise_4_an_alarm_in_the_same_cluster_holds_deletions_only() -> None:
    held = member().with_view(view(0, 5, 6, 7, revision=11))
    assert held.alarming is not None
    assert not held.complete
    made = held.world(route_protocol=140, route_table=254)
    assert made is not None
    assert set(made.peers) == {lease(n).subnet for n in (1, 2, 3, 5, 6, 7)}
    again = held.with_view(view(0, 5, 6, 7, 8, revision=12))
    assert again.alarming is not None, "hosts that are new are no holders that are back"
    assert again.believed is not None
    assert lease(8).subnet in again.believed.by_subnet
    gone_back = again.with_view(view(0, 1, 9, revision=11))
    assert gone_back.believed == again.believed
    assert again.with_view(view(0, 1, 2, 3, revision=13)).alarming is None


@pytest.mark.parametrize(
    "changes",
    [{"cluster": 2}, {"revision": 9}],
    ids=["another cluster", "a past"],
)
def test_promise_4_from_any_other_etcd_nothing_is_added(changes: dict[str, int]) -> None:
    held = member().with_view(view(0, 5, 6, **changes))
    assert held.believed == member().believed


def test_promise_4_a_lease_that_replaces_a_held_one_is_used() -> None:
    """Etcd gave its subnet to another host, which it does only when the lease has ended."""
    new = replace(lease(1), host_id=HostId("f" * 32), node_address=IPv4Address("192.0.2.77"))
    wider = replace(lease(2), subnet=IPv4Network("10.66.0.0/15"), host_id=HostId("e" * 32))
    held = member().with_view(replace(view(0, revision=11), leases=(lease(0), new, wider)))
    assert held.alarming is not None
    assert held.believed is not None
    assert tuple(held.believed.leases) == (lease(0), new, wider)


def test_a_view_with_another_config_adds_nothing_during_an_alarm() -> None:
    other = replace(view(0, 5, 6, revision=11), config=MOVING)
    assert member().with_view(other).believed == member().believed


def test_an_old_view_raises_no_alarm_over_leases_that_are_gone() -> None:
    day_s = 86_400.0
    mesh = MeshState(host_id=OWN).with_view(view(0, 1, 2, 3), now_s=1000.0, ttl_s=day_s)
    new = view(5, 6, 7, revision=11)
    young = mesh.with_view(new, now_s=900.0 + day_s, ttl_s=day_s)
    assert young.alarming is not None
    assert young.with_view(new, now_s=1100.0 + day_s, ttl_s=day_s).alarming is None
    old = mesh.with_view(new, now_s=1100.0 + day_s, ttl_s=day_s)
    assert (old.alarming, old.believed) == (None, new)
    other = mesh.with_view(replace(new, cluster_id=2), now_s=1100.0 + day_s, ttl_s=day_s)
    assert other.alarming is not None, "promise 4: another mesh's"


def test_promise_4_an_alarm_ends_when_the_holders_are_back_and_not_before() -> None:
    held = member().with_view(view(cluster=2, revision=1))
    held = held.with_view(view(0, cluster=2, revision=2))
    assert held.alarming is not None
    held = held.with_view(view(0, 1, cluster=2, revision=3))  # one of the three others
    assert held.alarming is not None
    back = held.with_view(view(0, 1, 2, cluster=2, revision=4))
    assert back.alarming is None
    assert back.complete


def test_promise_4_in_a_mesh_of_two_a_host_does_not_agree_with_itself() -> None:
    held = MeshState(host_id=OWN).with_view(view(0, 1)).with_view(view(cluster=2, revision=1))
    held = held.with_view(view(0, cluster=2, revision=2))  # what this host registered again
    assert held.alarming is not None
    assert held.with_view(view(0, 1, cluster=2, revision=3)).alarming is None


def test_promise_4_a_host_that_is_alone_waits_for_no_peer() -> None:
    held = MeshState(host_id=OWN).with_view(view(0)).with_view(replace(_EMPTY, config=None))
    assert held.alarming is not None
    assert held.with_view(view(0, cluster=2, revision=2)).alarming is None


def test_promise_4_an_alarm_ends_by_accept() -> None:
    held = member().with_view(view(7, cluster=2, revision=1))
    accepted = held.accepted()
    assert accepted.alarming is None
    assert accepted.believed == view(7, cluster=2, revision=1)
    assert member().accepted() == member()


def test_promise_9_the_own_lease_set_aside_has_a_condition_of_its_own() -> None:
    aside = tuple(SetAside(f"/k{n}", "it lies elsewhere", lease(n)) for n in (0, 1))
    mesh = member().with_view(replace(view(2, 3, 4, revision=11), set_aside=aside))
    found = {each.name: each.subject for each in mesh.conditions()}
    assert found == {"own-lease-set-aside": "/k0", "record-set-aside": "/k1"}


def test_one_host_may_leave_without_an_alarm() -> None:
    assert member().with_view(view(0, 1, 2, revision=11)).alarming is None


def test_a_config_that_is_gone_or_garbage_is_not_acted_on() -> None:
    mesh = member().with_view(replace(view(0, 1, 2, 3, revision=11), config=None))
    assert mesh.config == CONFIG
    assert [each.name for each in mesh.conditions()] == ["mesh-config-gone"]
    garbage = replace(
        view(0, 1, 2, 3, revision=12), config=None, config_problem=Problem("not JSON")
    )
    mesh = mesh.with_view(garbage)
    assert mesh.config == CONFIG
    assert [each.name for each in mesh.conditions()] == ["mesh-config-unusable"]
    assert world(mesh) is not None


def test_promise_12_a_host_that_reads_less_is_named_until_it_reads_more() -> None:
    config = replace(CONFIG, level=2)

    def seen(revision: int, *levels: int) -> View:
        beats = [replace(beat(number), level=level) for number, level in enumerate(levels)]
        heartbeats = {each.host_id: each for each in beats}
        return replace(view(0, 1, 2, revision=revision), config=config, heartbeats=heartbeats)

    def held_back(mesh: MeshState) -> list[str]:
        return [each.cause for each in mesh.conditions() if each.name == "level-held-back"]

    mesh = member().with_view(seen(11, 2, 2, 2))
    assert held_back(mesh) == []
    mesh = mesh.with_view(seen(12, 2, 1, 2))
    (cause,) = held_back(mesh)
    assert "allows level 2 and host1 reads level 1 (hostmesh" in cause
    assert "nothing newer than level 1 is published" in cause
    assert held_back(mesh.with_view(replace(seen(13, 2, 1, 2), config=CONFIG))) == []
    assert held_back(mesh.with_view(seen(13, 2, 2, 2))) == []
    gone = replace(seen(13, 2, 1, 2), config=None, config_problem=Problem("x"))
    assert held_back(mesh.with_view(gone)) == [cause], "by the last usable config"


def test_promise_3_docker_that_does_not_answer_has_not_lost_its_networks() -> None:
    network = DockerNetwork(
        id="1", name="bridge", bridge="docker0", subnet=IPv4Network("10.64.0.0/17"), default=True
    )
    web = Container("1", "web", (Attachment("1", IPv4Address("10.64.0.2"), ""),))
    facts = DockerFacts(
        reachable=True,
        version="26.1",
        bridge=network,
        networks=(network,),
        other_bridges=("br-six",),
        containers=(web,),
    )
    mesh = member().with_docker(facts, DockerState.READY)
    silent = mesh.with_docker(DockerFacts(reachable=False, problem="hangs"), DockerState.ABSENT)
    assert silent.docker.networks == (network,)
    assert silent.docker.bridge == network
    assert silent.docker.other_bridges == ("br-six",)
    assert silent.docker.containers == (web,)
    assert not silent.docker.reachable
    assert silent.docker_seen


def test_before_docker_ever_answered_its_networks_are_not_known() -> None:
    mesh = member().with_docker(DockerFacts(reachable=False), DockerState.ABSENT)
    assert not mesh.docker_seen


def test_no_member_no_world() -> None:
    mesh = member()
    assert world(mesh) is not None
    assert world(replace(mesh, left=True)) is None
    assert world(replace(mesh, own=None)) is None
    assert world(replace(mesh, host=None)) is None


def test_promise_3_only_a_silent_host_without_heartbeat_is_dead() -> None:
    lapsed = replace(view(0, 1, 2, 3, revision=11), heartbeats={})
    mesh = member().with_view(lapsed)
    assert {each.subnet for each in mesh.lapsed} == {lease(n).subnet for n in (1, 2, 3)}
    mesh = replace(mesh, silent=frozenset({lease(2).node_address}))
    made = mesh.world(route_protocol=140, route_table=254)
    assert made is not None
    assert made.dead_subnets == {lease(2).subnet}
    assert [each.name for each in mesh.conditions()] == ["peer-dead"]
    alive = replace(member(), silent=frozenset({lease(2).node_address}))
    made = alive.world(route_protocol=140, route_table=254)
    assert made is not None
    assert made.dead_subnets == frozenset()


def test_containers_get_the_uplinks_mtu_less_the_backends_overhead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = MeshState(host_id=OWN)
    assert mesh.container_mtu is None
    mesh = replace(mesh, uplink=replace(UPLINK, mtu=9001))
    assert mesh.container_mtu == 9001
    mesh = replace(mesh, config=CONFIG)
    assert mesh.container_mtu == 9001
    overhead = {IPV4.name: 50, IPV6.name: 70}
    monkeypatch.setattr(HostGateway, "overhead", lambda _, family: overhead[family.name])
    assert mesh.container_mtu == 8951


def test_a_clone_without_a_lease_does_not_say_that_it_keeps_one() -> None:
    clone = replace(beat(0), node_address=IPv4Address("192.0.2.99"))
    seen = replace(view(0, 1, revision=11), clones=(clone,))
    held = replace(MeshState(host_id=OWN).with_view(seen), own=lease(0))
    for mesh, words in (
        (held, "keeps its lease"),
        (replace(held, own=None), "no lease either"),
        (replace(held, unheld="another host has it"), "no lease either"),
    ):
        (found,) = mesh.conditions()
        assert found.name == "machine-id-cloned"
        assert words in found.cause


# --- the mesh moves to another CIDR -------------------------------------------------------

NEW = IPv4Network("10.32.0.0/12")
MOVING = replace(
    CONFIG,
    cidr=NEW,
    subnet_min=NEW.network_address,
    subnet_max=IPv4Address("10.47.0.0"),
    previous=(CONFIG.cidr,),
)


def docker(*subnets: str) -> DockerFacts:
    return DockerFacts(
        reachable=True,
        networks=tuple(
            DockerNetwork(id=each, name=f"net{n}", bridge=f"br-{n}", subnet=IPv4Network(each))
            for n, each in enumerate(subnets)
        ),
    )


def mover() -> MeshState:
    """A host that holds two leases, as etcd says too."""
    new = replace(lease(0), subnet=IPv4Network("10.33.0.0/16"))
    seen = replace(view(0, 1), config=MOVING)
    seen = replace(seen, leases=(new, *seen.leases))
    own, former = own_leases(seen, OWN)
    assert (own, former) == (new, lease(0))
    return replace(member(), own=own, former=former).with_view(seen)


@pytest.mark.parametrize(
    ("facts", "state", "moved", "in_place"),
    [
        (docker("10.64.0.0/17"), DockerState.READY, False, True),  # the state of before
        (docker("10.64.0.0/17"), DockerState.PENDING, False, True),
        (docker("10.33.0.0/17", "10.64.128.0/24"), DockerState.READY, False, True),
        (docker("10.33.0.0/17"), DockerState.READY, True, True),
        (docker("10.33.0.0/17", "172.20.0.0/16"), DockerState.READY, True, True),
        (docker("10.33.0.0/17"), DockerState.PENDING, False, False),
        (docker("172.17.0.0/16"), DockerState.PENDING, False, False),
        (replace(docker("10.33.0.0/17"), reachable=False), DockerState.ABSENT, False, False),
        (docker(), DockerState.READY, False, True),
    ],
)
def test_promise_3_the_former_subnet_stays_until_docker_has_nothing_there(
    facts: DockerFacts, state: DockerState, moved: bool, in_place: bool
) -> None:
    mesh = mover().with_docker(facts, state)
    assert mesh.has_moved is moved
    assert mesh.docker_in_place is in_place


def test_promise_9_hosts_that_have_not_moved_are_named() -> None:
    mesh = mover().with_docker(docker("10.33.0.0/17", "10.64.128.0/24"), DockerState.READY)
    reported = {each.name: each for each in mesh.conditions()}
    assert "2 still hold a subnet there: host0, host1" in reported["mesh-moving"].cause
    assert "net1 (10.64.128.0/24)" in reported["host-not-moved"].cause
    finished = replace(mesh, former=None).with_view(
        replace(view(revision=11), config=MOVING, leases=(mesh.own,) if mesh.own else ())
    )
    reported = {each.name: each for each in finished.conditions()}
    assert "config set --finish" in reported["mesh-moving"].hint
    assert "host-not-moved" not in reported


def test_the_world_has_both_subnets_and_no_peer_of_this_hosts_own() -> None:
    world = mover().world(route_protocol=140, route_table=254)
    assert world is not None
    assert world.own_subnets == (IPv4Network("10.33.0.0/16"), IPv4Network("10.64.0.0/16"))
    assert set(world.peers) == {lease(1).subnet}
    assert mover().set_left(left=True).own_subnets == ()


def ready(mesh: MeshState, *, ended: bool = False) -> tuple[bool, str]:
    seen = AgentState(
        mesh=mesh.with_docker(docker("10.64.0.0/17"), DockerState.READY),
        contact_problem="etcd is away" if ended else "",
        lease_ended=ended,
        passed=True,
    )
    assert (host_state(seen, ()) == "ready") is seen.readiness[0]
    return seen.readiness


TAKEN = Condition(name="lease-taken", cause="host9 owns 10.64.0.0/16", hint="")


def test_a_lease_that_is_anothers_keeps_what_runs_and_is_not_ready() -> None:
    """Promises 3 and 9."""
    held = member()
    assert ready(held) == (True, "ready")
    lost = held.with_lease(None, None, (TAKEN,))
    assert lost.own == held.own
    assert world(lost) == world(held)
    assert ready(lost) == (
        False,
        "the lease of 10.64.0.0/16 is not held: host9 owns 10.64.0.0/16",
    )
    assert ready(lost.with_lease(lease(0), None, ())) == (True, "ready")
    assert lost.set_left(left=True).with_lease(None, None, (TAKEN,)).unheld == ""
    assert "host9" in ready(replace(lost, own=None))[1]


def test_a_lease_ends_by_the_clock_once_it_was_not_renewed() -> None:
    held = replace(member(), own=replace(lease(0), renewed_s=1000.0, ttl_s=60))
    assert not held.lease_ended(1059.0)
    assert held.lease_ended(1060.0)
    assert not replace(held, own=None).lease_ended(1060.0)
    assert not member().lease_ended(1060.0), "of a flannel lease it is unknown"
    assert ready(held, ended=True) == (
        False,
        "the lease of 10.64.0.0/16 has ended, not renewed: etcd is away",
    )
