"""Records of a large mesh: what they say is kept, not how they said it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import EtcdError
from agent.etcd.kv import Event, Record
from agent.model import Access, DockerState, Heartbeat, HostId, Lease, MeshConfig, SetAside, View
from agent.model.network import MeshNetwork
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    CLONES,
    HEARTBEATS,
    KINDS,
    LEASES,
    NETWORKS,
    Keys,
    encode_config,
    encode_heartbeat,
    encode_lease,
    encode_network,
)
from agent.sharedmap import changed_keys

pytestmark = pytest.mark.unit

KEYS = Keys("/hostmesh")
CONFIG_KEY = b"/hostmesh/config"
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
LEASE = Lease(
    subnet=IPv4Network("10.64.0.0/16"),
    node_address=IPv4Address("192.0.2.1"),
    backend="host-gw",
    host_id=HostId("0" * 32),
    ttl_s=60,
)


def loaded() -> RecordStore:
    records = RecordStore(KEYS, cluster_id=1, revision=5)
    records.load(
        [
            Record(CONFIG_KEY, encode_config(CONFIG), 1, 1),
            Record(KEYS.of(LEASES, LEASE.subnet), encode_lease(LEASE), 2, 2),
            Record(b"/hostmesh/subnets/garbage", b"x" * 1000, 3, 3),
        ]
    )
    return records


def test_the_raw_value_of_a_decoded_record_is_not_kept() -> None:
    records = loaded()
    for key in (KEYS.of(LEASES, LEASE.subnet), b"/hostmesh/subnets/garbage"):
        record = records.get(key)
        assert record is not None
        assert record.value == b""
        assert record.mod_revision in (2, 3)


def test_promise_4_a_network_is_not_gone_because_its_record_cannot_be_read() -> None:
    """Hosts would remove it, and let every host into one that is for few."""
    key = KEYS.of(NETWORKS, "web")
    web = MeshNetwork(name="web", access=Access.CLOSED, hosts=("a*",))
    damaged = Record(key, b'{"Access":"private"}', 8, 9)
    records = loaded()
    records.load([Record(key, encode_network(web), 8, 8)])
    before = records.view()
    assert records.apply([Event(key, damaged, 9)])
    view = records.view()
    assert view.networks["web"] == replace(web, create_revision=8, mod_revision=8)
    assert key.decode() in {each.key for each in view.set_aside}

    restarted = loaded()
    restarted.load([damaged])
    restarted.remember(before)
    assert restarted.view().networks == view.networks
    restarted.apply([Event(key, None, 10)])
    assert not restarted.view().networks


def test_promise_10_a_hundred_thousand_unknown_keys_cost_nothing() -> None:
    """In a snapshot, where some are named, and as events, which are not even a new view."""
    records = loaded()
    before = records.view()
    tracemalloc.start()
    try:
        at_first, _ = tracemalloc.get_traced_memory()
        for first in range(0, 100_000, 1_000):
            keys = [f"/hostmesh/more-{first + n}/name".encode() for n in range(500)]
            records.load(Record(key, b"x" * 100, 6, 6) for key in keys)
            news = [f"/hostmesh/new/{first + n}".encode() for n in range(500)]
            assert not records.apply([Event(key, Record(key, b"x", 7, 7), 7) for key in news])
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - at_first < 256 * 1024  # three bytes for each of them
    assert records.unknown.count == 50_000
    assert records.unknown.names[0] == "/hostmesh/more-0/name"
    assert records.view() == replace(before, revision=7)


def test_promise_10_records_that_cannot_be_read_are_named_up_to_a_limit() -> None:
    """The next change costs itself, whatever their number; too many of one kind are no view."""
    records = loaded()
    bad = [f"/hostmesh/hosts/{number:05}".encode() for number in range(3_000)]
    records.apply(Event(key, Record(key, b"{}"), 6) for key in bad)
    aside = records.view().set_aside
    assert len(aside) == 1_001
    assert aside[-1] == SetAside("/hostmesh/*", "2001 more records cannot be read")
    follow(records, lease_record("10.65.0.0/16", 1, 20))
    assert records.view().set_aside is aside
    records.apply(Event(key, None, 30) for key in bad)
    assert [each.key for each in records.view().set_aside] == ["/hostmesh/subnets/garbage"]


def test_promise_4_more_records_of_a_kind_than_it_may_have_are_no_view() -> None:
    few = replace(CLONES, most=2)
    keys = Keys("/hostmesh", tuple(few if kind is CLONES else kind for kind in KINDS))
    records = RecordStore(keys, cluster_id=1, revision=5)
    bad = [Record(f"/hostmesh/clones/{number}".encode(), b"{}") for number in range(3)]
    records.load(bad[:2])
    records.view()
    with pytest.raises(EtcdError, match="more than 2 keys under /hostmesh/clones"):
        records.load(bad[2:])
    with pytest.raises(EtcdError, match="more than 2 keys"):
        records.view()


def test_promise_10_unknown_keys_and_oversized_values_cost_their_names_only() -> None:
    """In a snapshot and as events, whatever number of them another program writes."""
    count, size = 400, 64 * 1024
    folders = ("later", "subnets", "hosts", "memory", "reservations", "clones", "other/deep")
    keys = [f"/hostmesh/{folders[n % len(folders)]}/{n}".encode() for n in range(count)]

    def large(key: bytes, revision: int) -> Record:
        return Record(key, bytes(size), mod_revision=revision, create_revision=revision)

    records = loaded()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        records.load(large(key, 5) for key in keys[::2])
        records.apply(Event(key, large(key, 6), 6) for key in keys[1::2])
        view = records.view()
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (now - before) / count < 2048
    unknown = sum(each.split(b"/")[2] in (b"later", b"other") for each in keys)
    assert len(view.set_aside) == count - unknown + 1
    assert records.get(keys[0]) is None, "of no kind"
    found = records.get(keys[1])
    assert found is not None
    assert (found.value, found.mod_revision) == (b"", 6)


def test_later_views_still_have_config_and_leases() -> None:
    records = loaded()
    before = records.view()
    records.apply([Event(b"/hostmesh/subnets/garbage", None, 9)])
    after = records.view()
    assert after.config == before.config
    assert after.config is not None
    assert after.config.cidr == CONFIG.cidr
    assert after.leases == before.leases
    assert [lease.subnet for lease in after.leases] == [LEASE.subnet]
    assert [aside.key for aside in before.set_aside] != []
    assert after.set_aside == ()


def lease_record(subnet: str, number: int, revision: int) -> Record:
    lease = replace(LEASE, subnet=IPv4Network(subnet), host_id=HostId(f"{number:032x}"))
    return Record(KEYS.of(LEASES, lease.subnet), encode_lease(lease), revision, revision)


def follow(records: RecordStore, *made: Record) -> View:
    records.apply([Event(each.key, each) for each in made])
    return records.view()


def subnets(view: View) -> list[str]:
    return [str(lease.subnet) for lease in view.leases]


@pytest.mark.parametrize("younger", ["10.65.7.0/24", "10.64.0.0/15", "10.64.0.0/12"])
def test_promise_1_of_two_that_overlap_the_older_is_used_until_it_goes(younger: str) -> None:
    """Each comes in an event of its own, when all else has been judged long ago."""
    records = loaded()
    records.view()
    older = lease_record("10.65.0.0/16", 1, 20)
    assert subnets(follow(records, older)) == ["10.64.0.0/16", "10.65.0.0/16"]
    later = follow(records, lease_record(younger, 2, 21))
    assert subnets(later) == ["10.64.0.0/16", "10.65.0.0/16"]
    assert any("overlaps the older lease" in aside.reason for aside in later.set_aside)
    records.apply([Event(older.key, None), Event(KEYS.of(LEASES, LEASE.subnet), None)])
    assert subnets(records.view()) == [younger]


def test_a_host_with_two_leases_keeps_the_one_when_the_other_changes() -> None:
    records = loaded()
    records.view()
    follow(records, lease_record("10.65.0.0/16", 7, 20), lease_record("10.70.0.0/16", 7, 21))
    view = follow(records, lease_record("10.70.0.0/16", 7, 30))
    assert {str(each.subnet) for each in view.leases_of(HostId(f"{7:032x}"))} == {
        "10.65.0.0/16",
        "10.70.0.0/16",
    }
    records.apply([Event(KEYS.of(LEASES, IPv4Network("10.65.0.0/16")), None)])
    (left,) = records.view().leases_of(HostId(f"{7:032x}"))
    assert left.mod_revision == 30


def test_a_change_shares_all_else_with_the_view_before() -> None:
    records = loaded()
    before = follow(records, lease_record("10.65.0.0/16", 1, 20))
    after = follow(records, lease_record("10.66.0.0/16", 2, 21))
    kept = IPv4Network("10.65.0.0/16")
    assert after.by_subnet[kept] is before.by_subnet[kept]
    assert after.heartbeats is before.heartbeats
    assert after.memory is before.memory
    assert changed_keys(before.by_subnet, after.by_subnet) == {IPv4Network("10.66.0.0/16")}


# --- a record that cannot be read any more ------------------------------------------------

OWNER = HostId("0" * 32)
BEAT = Heartbeat(
    host_id=OWNER,
    host_name="host0",
    node_address=LEASE.node_address,
    subnet=LEASE.subnet,
    docker=DockerState.READY,
    agent_version="1",
    boot_id="b",
    started_s=1.0,
)
KEY = KEYS.of(LEASES, LEASE.subnet)


def damaged(records: RecordStore, *, create_revision: int = 2) -> View:
    records.apply([Event(KEY, Record(KEY, b"{", create_revision, 9), 9)])
    return records.view()


def beats(records: RecordStore, *, alive: bool) -> View:
    key = KEYS.of(HEARTBEATS, OWNER)
    record = Record(key, encode_heartbeat(BEAT), 8, 8) if alive else None
    records.apply([Event(key, record, 10)])
    return records.view()


def test_promise_3_the_last_readable_lease_is_used_while_its_host_has_a_heartbeat() -> None:
    records = loaded()
    before = beats(records, alive=True)
    view = damaged(records)
    assert view.leases == before.leases
    assert view.kept == {LEASE.subnet}
    assert {each.key for each in view.set_aside} == {KEY.decode(), "/hostmesh/subnets/garbage"}
    gone = beats(records, alive=False)
    assert (tuple(gone.leases), gone.kept) == ((), frozenset())
    assert beats(records, alive=True).leases == before.leases
    repaired = Record(KEY, encode_lease(LEASE), 2, 12)
    records.apply([Event(KEY, repaired, 12)])
    view = records.view()
    assert (view.by_subnet[LEASE.subnet].mod_revision, view.kept) == (12, frozenset())
    records.apply([Event(KEY, None, 13)])
    assert tuple(records.view().leases) == ()


def test_promise_1_a_key_that_went_away_in_between_has_no_last_lease() -> None:
    records = loaded()
    beats(records, alive=True)
    view = damaged(records, create_revision=9)
    assert (tuple(view.leases), view.kept) == ((), frozenset())


def test_a_new_snapshot_takes_the_last_readable_lease_from_the_view_before() -> None:
    before = beats(loaded(), alive=True)
    for cluster, kept in ((1, {LEASE.subnet}), (2, set())):
        records = RecordStore(KEYS, cluster_id=cluster, revision=20)
        records.load(
            [
                Record(CONFIG_KEY, encode_config(CONFIG), 1, 1),
                Record(KEYS.of(HEARTBEATS, OWNER), encode_heartbeat(BEAT), 8, 8),
                Record(KEY, b"{", 2, 9),
            ]
        )
        records.remember(before)
        assert records.view().kept == kept, "promise 4: not of another cluster"
