"""The keeper: what is this host's stays this host's, on a real etcd."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.errors import MeshConfigError
from agent.etcd import kv
from agent.model import LEVEL, DockerState, Heartbeat, HostSummary, Lease
from agent.registry.claiming.identity_conflicts import Claimant
from agent.registry.own.own_heartbeat import OwnHeartbeat
from agent.registry.records import CONFIG, LEASES
from agent.registry.registry import ClaimRequest, Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, request
from tests.etcd.support.keeping import REGISTRATION, SHORT, condition, held, keep, steal
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


def test_nothing_is_written_before_there_is_a_config(shared_etcd: Etcd, prefix: str) -> None:
    heard = Heard()
    with registry(shared_etcd, prefix=prefix) as mesh, keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        eventually(lambda: condition(heard) == "mesh-config-missing")
        whole = mesh.keys.everything
        assert not mesh.client.range(whole.start, whole.end).records
        mesh.create_config(config())
        lease = eventually(held(heard))
        assert heard.last[1] == ()
        assert mesh.snapshot().lease_of(host(1)) == lease


def test_lease_heartbeat_and_memory_are_kept(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        beat = eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        eventually(lambda: mesh.snapshot().heartbeats[host(1)].subnet == lease.subnet)
        assert (beat.docker, beat.boot_id) == (DockerState.PENDING, "1" * 32)
        keeper.update(replace(REGISTRATION, docker_state=DockerState.READY))
        eventually(lambda: mesh.snapshot().heartbeats[host(1)].docker is DockerState.READY)
    assert mesh.snapshot().leases
    eventually(lambda: not mesh.snapshot().heartbeats, timeout_s=10)
    assert mesh.snapshot().leases  # promise 3: a stopped agent gives nothing back


def test_promise_10_a_summary_waits_for_a_beat_and_for_the_ttl_after_the_last_write(
    mesh: Registry,
) -> None:
    """Every host follows every heartbeat: containers that come and go must not cost that."""
    now_s = 100.0
    beat = OwnHeartbeat(mesh, 30, lambda: now_s)
    me = Claimant(host(1), "1" * 32, REGISTRATION.node_address)

    def keep_and_read(containers: int, docker: DockerState = DockerState.READY) -> int | None:
        beat.keep(
            Heartbeat(
                host_id=host(1),
                host_name="host1",
                node_address=REGISTRATION.node_address,
                subnet=None,
                docker=docker,
                agent_version="0.1.1",
                boot_id="1" * 32,
                started_s=1.0,
                summary=HostSummary(containers=containers),
            ),
            me,
        )
        return mesh.snapshot().heartbeats[host(1)].summary.containers

    assert keep_and_read(0) == 0
    assert keep_and_read(1) == 0  # no beat is due
    now_s = beat.due_s
    assert keep_and_read(1) == 0  # written less than a TTL ago
    now_s = 131.0
    assert keep_and_read(2) == 2
    assert keep_and_read(3, DockerState.PENDING) == 3  # written at once: others act on it
    now_s = beat.due_s
    assert keep_and_read(4, DockerState.PENDING) == 3


def test_promise_2_a_new_node_address_keeps_the_subnet(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        keeper.update(replace(REGISTRATION, node_address=IPv4Address("192.0.2.88")))
        eventually(lambda: heard.last[0].node_address == IPv4Address("192.0.2.88"))
        assert heard.last[0].subnet == lease.subnet
        assert mesh.snapshot().lease_of(host(1)) == heard.last[0]


def test_promise_3_a_taken_subnet_is_reported_and_not_announced_until_it_is_free(
    mesh: Registry,
) -> None:
    """While Docker runs on the subnet the host takes no other, and gets its own back."""
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        keeper.update(replace(REGISTRATION, wanted_subnet=lease.subnet, may_change_subnet=False))
        steal(mesh, lease)
        eventually(lambda: condition(heard) == "lease-taken")
        assert held(heard)() is None
        assert "host9 at" in heard.last[1][0].cause
        eventually(lambda: mesh.snapshot().heartbeats[host(1)].subnet is None)
        assert mesh.snapshot().lease_of(host(1)) is None
        mesh.release(host(9))
        eventually(held(heard), timeout_s=20)
        assert (heard.last[0].subnet, heard.last[1]) == (lease.subnet, ())


def test_promise_3_a_container_that_has_just_started_keeps_the_host_from_another_subnet(
    mesh: Registry,
) -> None:
    """The registration is older than the container: Docker is asked again before a claim."""
    heard, idle = Heard(), threading.Event()
    with keep(mesh, heard, may_leave=idle.is_set) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        keeper.update(replace(REGISTRATION, wanted_subnet=lease.subnet))
        steal(mesh, lease)
        eventually(lambda: condition(heard) == "lease-taken")
        assert mesh.snapshot().lease_of(host(1)) is None
        idle.set()
        assert eventually(held(heard), timeout_s=20).subnet != lease.subnet


def test_another_subnet_is_taken_when_docker_may_be_restarted(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        steal(mesh, lease)
        eventually(lambda: heard.last[0] and heard.last[0].subnet != lease.subnet)
        assert mesh.snapshot().lease_of(host(9)) is not None


def test_a_host_that_has_left_and_joins_again_takes_another_subnet_if_its_own_is_gone(
    mesh: Registry,
) -> None:
    """Containers on the previous subnet are no reason to wait for it: the host is new here."""
    heard = Heard()
    with keep(mesh, heard, may_leave=lambda: False) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        assert keeper.pause()
        mesh.release(host(1))
        mesh.claim(request(9, wanted=lease.subnet))
        keeper.update(REGISTRATION)
        again = eventually(lambda: mesh.snapshot().lease_of(host(1)), timeout_s=10)
        assert again.subnet != lease.subnet
        eventually(lambda: heard.last[:2] == (mesh.snapshot().lease_of(host(1)), ()))


def test_a_host_that_leaves_and_joins_while_etcd_hangs_is_told_its_lease_anew(
    etcd: Etcd, prefix: str
) -> None:
    """The loop forgot the lease when the host left; a keeper that was busy then forgets it, too."""
    heard = Heard()
    with registry(etcd, prefix=prefix) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
            keeper.update(REGISTRATION)
            eventually(held(heard))
            before = len(heard)
            etcd.pause()
            try:
                keeper.update(replace(REGISTRATION, docker_state=DockerState.READY))
                eventually(keeper._busy.locked)
                assert not keeper.pause(timeout_s=0.3)
                keeper.update(REGISTRATION)
            finally:
                etcd.resume()
            eventually(lambda: len(heard) > before and held(heard)(), timeout_s=20)


def test_what_is_released_after_pause_is_not_claimed_again_by_a_write_under_way(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    entered, go_on = threading.Event(), threading.Event()
    real = mesh.claim

    def slow(wanted: ClaimRequest) -> Lease:
        entered.set()
        go_on.wait(5)
        return real(wanted)

    monkeypatch.setattr(mesh, "claim", slow)
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        assert entered.wait(5)
        assert not keeper.pause(0.1)
        threading.Timer(0.3, go_on.set).start()
        assert keeper.pause()
        mesh.release(host(1))
        time.sleep(0.5)
        assert (mesh.snapshot().leases, dict(mesh.snapshot().heartbeats)) == ((), {})
        keeper.update(REGISTRATION)
        eventually(lambda: mesh.snapshot().leases)


def test_promise_9_an_account_that_may_read_and_not_write_is_told(
    etcd: Etcd, tmp_path: Path
) -> None:
    """The directory, which only reads, has nothing to complain about."""
    password = tmp_path / "password"
    password.write_text("secret")
    heard = Heard()
    with registry(etcd) as mesh:
        mesh.create_config(config())
    for command in (
        "user add root:rootpw",
        "user grant-role root root",
        "user add reader:secret",
        "role add reader",
        "role grant-permission reader read --prefix=true /hostmesh/",
        "user grant-role reader reader",
        "auth enable",
    ):
        etcd.ctl(*command.split())
    with registry(etcd, username="reader", password_file=password) as mesh, keep(mesh, heard) as it:
        it.update(REGISTRATION)
        eventually(lambda: condition(heard) == "etcd-auth-failed")
        assert "permission denied" in heard.last[1][0].cause
        root = ["--user", "root:rootpw"]
        grant = "role grant-permission reader readwrite --prefix=true /hostmesh/"
        etcd.ctl(*grant.split(), flags=root)
        eventually(held(heard), timeout_s=20)
        assert heard.last[1] == ()


def test_promise_9_a_full_etcd_is_told_and_what_is_held_stays() -> None:
    """Reads and keepalives go on, writes are refused: a heartbeat cannot change."""
    heard = Heard()
    with Etcd(arguments=["--quota-backend-bytes", "2000000"]) as etcd, registry(etcd) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard) as keeper:
            keeper.update(REGISTRATION)
            lease = eventually(held(heard))
            eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
            for number in range(64):
                etcd.ctl("put", f"/other/{number}", "x" * 100_000, check=False)
            keeper.update(replace(REGISTRATION, docker_state=DockerState.READY))
            eventually(lambda: condition(heard) == "lease-not-held")
            assert "space exceeded" in heard.last[1][0].cause
            assert "compact, defragment" in heard.last[1][0].hint
            assert heard.last[0] == lease
            assert mesh.snapshot().lease_of(host(1)) == lease
            etcd.ctl("del", "--prefix", "/other/")
            etcd.ctl("compact", str(mesh.snapshot().revision))
            etcd.ctl("defrag")
            etcd.ctl("alarm", "disarm")
            eventually(
                lambda: mesh.snapshot().heartbeats[host(1)].docker is DockerState.READY,
                timeout_s=20,
            )
            eventually(lambda: heard.last[1] == ())


def test_an_outage_longer_than_the_heartbeat_is_made_good(etcd: Etcd) -> None:
    heard = Heard()
    with registry(etcd) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard) as keeper:
            keeper.update(REGISTRATION)
            lease = eventually(held(heard))
            etcd.kill()
            etcd.start()
            etcd.wait_healthy(mesh.client)
            beat_id = keeper._beat._written.etcd_lease_id
            mesh.client.revoke(beat_id)
            eventually(lambda: mesh.snapshot().heartbeats, timeout_s=15)
            found = mesh.snapshot().lease_of(host(1))
            assert found is not None
            assert found.subnet == lease.subnet


def test_stop_is_bounded_while_etcd_hangs(etcd: Etcd) -> None:
    heard = Heard()
    with registry(etcd) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard) as keeper:
            keeper.update(REGISTRATION)
            eventually(held(heard))
            etcd.pause()
            keeper.update(replace(REGISTRATION, host_name="other"))
            time.sleep(0.2)
            started_s = time.monotonic()
            keeper.stop()
            assert time.monotonic() - started_s < 2.5
            etcd.resume()


@pytest.mark.parametrize(
    "value",
    ["garbage", f'{{"Network":"10.64.0.0/12","Hostmesh":{{"Level":{LEVEL + 1}}}}}'],
    ids=["garbage", "later-level"],
)
def test_promise_3_a_config_that_cannot_be_used_costs_a_restarted_agent_nothing(
    mesh: Registry, value: str
) -> None:
    """Heartbeat and lease are kept, and nothing new is claimed."""
    before = mesh.claim(request(1))
    assert mesh.snapshot().leases == (before,)
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(CONFIG), value.encode())])
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(replace(REGISTRATION, wanted_subnet=before.subnet, may_change_subnet=True))
        eventually(held(heard))
        (record,) = mesh.client.range(mesh.keys.of(LEASES, before.subnet)).records
        assert record.create_revision == before.create_revision
        assert record.mod_revision > before.mod_revision, "it was renewed"
        assert mesh.snapshot().heartbeats[host(1)].level == LEVEL
    with pytest.raises(MeshConfigError, match="is not usable"):
        mesh.claim(request(2))
    with pytest.raises(MeshConfigError, match="is not usable"):
        mesh.claim(request(1, wanted=IPv4Network("10.79.0.0/16")))
