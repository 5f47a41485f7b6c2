"""Following events is the same as reading everything anew, and costs what changed (promise 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.etcd.kv import Event, Record
from agent.model import DockerState, Heartbeat, HostId, Lease, MeshConfig, View
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    HEARTBEATS,
    LEASES,
    MEMORY,
    RESERVATIONS,
    Keys,
    check_lease,
    encode_config,
    encode_heartbeat,
    encode_lease,
    encode_memory,
    encode_reservation,
)
from agent.sharedmap import SharedMap, changed_keys

pytestmark = pytest.mark.property

KEYS = Keys("/hostmesh")
CONFIG_KEY = b"/hostmesh/config"
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
CONFIGS = [
    encode_config(CONFIG),
    encode_config(replace(CONFIG, cidr=IPv4Network("10.64.0.0/11"))),
    b"garbage",
]
HOSTS = [HostId(f"{number:032x}") for number in range(4)]
hosts = st.sampled_from(HOSTS)
subnets = st.sampled_from(
    [
        IPv4Network(text)
        for text in (
            "10.64.0.0/16",
            "10.64.0.0/24",
            "10.64.7.0/24",
            "10.65.0.0/16",
            "10.64.0.0/15",
            "10.96.0.0/12",
            "10.97.0.0/24",
            "10.70.0.0/16",
            "10.71.0.0/16",
            "10.72.0.0/16",
            "10.128.0.0/16",
        )
    ]
)
addresses = st.sampled_from(
    [IPv4Address(text) for text in ("192.0.2.1", "192.0.2.2", "10.64.0.9", "0.0.0.1")]
)
endings = st.sampled_from(["", "&fd00::-64"])


def usable(records: dict[bytes, Record], config: MeshConfig | None) -> set[Lease]:
    """The definition: by age, each that fits the mesh and overlaps none that is used already."""
    read = []
    for key, record in records.items():
        try:
            if KEYS.split(key)[0] is LEASES:
                read.append((record.create_revision, key, KEYS.read(LEASES, record)))
        except ValueError:
            continue
    used: list[Lease] = []
    for _, _, lease in sorted(read, key=lambda each: each[:2]):
        fits = config is not None and not check_lease(lease, config)
        if fits and not any(lease.subnet.overlaps(other.subnet) for other in used):
            used.append(lease)
    return set(used)


def lease_of(key: bytes, value: bytes) -> Lease | None:
    """The lease that a record says, None when it says none."""
    try:
        found = KEYS.split(key)[0] is LEASES
        return KEYS.read(LEASES, Record(key, value)) if found else None
    except ValueError:
        return None


class Mesh(RuleBasedStateMachine):
    """A program writes to etcd, well or badly; the store hears of it in batches."""

    @initialize(config=st.booleans())
    def begin(self, config: bool) -> None:
        self.revision = 10
        self.there: dict[bytes, Record] = {}
        self.readable: dict[bytes, Record] = {}  # what was there when it could be read last
        self.pending: list[Event] = []
        self.records = RecordStore(KEYS, cluster_id=1, revision=10)
        self.view = self.records.view()
        self.last_config: MeshConfig | None = None
        if config:
            self._put(CONFIG_KEY, CONFIGS[0])

    def _put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        before = self.there.get(key)
        created = before.create_revision if before else self.revision
        self.there[key] = Record(key, value, created, self.revision, 7)
        if before is None:
            self.readable.pop(key, None)
        if lease_of(key, value):
            self.readable[key] = self.there[key]
        self.pending.append(Event(key, self.there[key], self.revision))

    def _delete(self, key: bytes) -> None:
        if self.there.pop(key, None) is not None:
            self.revision += 1
            self.pending.append(Event(key, None, self.revision))

    @rule(subnet=subnets, host=hosts | st.none(), address=addresses, ending=endings)
    def lease_is_written(
        self, subnet: IPv4Network, host: HostId | None, address: IPv4Address, ending: str
    ) -> None:
        lease = Lease(
            subnet=subnet, node_address=address, backend="host-gw", host_id=host, ttl_s=60
        )
        value = encode_lease(lease) if host else b'{"PublicIP":"%s"}' % str(address).encode()
        self._put(KEYS.of(LEASES, subnet) + ending.encode(), value)

    @rule(subnet=subnets, ending=endings)
    def lease_goes(self, subnet: IPv4Network, ending: str) -> None:
        self._delete(KEYS.of(LEASES, subnet) + ending.encode())

    @rule(host=hosts, subnet=subnets, address=addresses)
    def heartbeat_is_written(self, host: HostId, subnet: IPv4Network, address: IPv4Address) -> None:
        beat = Heartbeat(
            host_id=host,
            host_name="one",
            node_address=address,
            subnet=subnet,
            docker=DockerState.READY,
            agent_version="1",
            boot_id="b",
            started_s=1.0,
        )
        self._put(KEYS.of(HEARTBEATS, host), encode_heartbeat(beat))

    @rule(host=hosts, subnet=subnets)
    def memory_is_written(self, host: HostId, subnet: IPv4Network) -> None:
        self._put(KEYS.of(MEMORY, host), encode_memory(subnet))

    @rule(host=hosts, subnet=subnets)
    def subnet_is_reserved(self, host: HostId, subnet: IPv4Network) -> None:
        self._put(KEYS.of(RESERVATIONS, subnet), encode_reservation(host))

    @rule(value=st.sampled_from(CONFIGS))
    def config_is_written(self, value: bytes) -> None:
        self._put(CONFIG_KEY, value)

    @rule(
        key=st.sampled_from(
            [
                CONFIG_KEY,
                KEYS.of(LEASES, CONFIG.cidr),
                *(KEYS.of(HEARTBEATS, host) for host in HOSTS),
                *(KEYS.of(MEMORY, host) for host in HOSTS),
                b"/hostmesh/subnets/10.65.0.0-16",
                b"/hostmesh/subnets/banana",
                b"/hostmesh/grace",
                b"/hostmesh//hosts",
                b"/hostmesh/\xff",
            ]
        ),
        value=st.sampled_from([None, b"", b"{}", b"[" * 999, b'{"PublicIP":7}']),
    )
    def garbage_is_written_or_a_key_deleted(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._delete(key)
        else:
            self._put(key, value)

    def _seen_as(self, key: bytes) -> Record:
        """A record, or the last readable one in its place while its host has a heartbeat."""
        record, last = self.there[key], self.readable.get(key)
        if last is None or lease_of(key, record.value):
            return record
        lease = lease_of(key, last.value)
        alive = (
            lease is not None and lease.host_id and KEYS.of(HEARTBEATS, lease.host_id) in self.there
        )
        return last if alive else record

    @rule()
    def changes_arrive(self) -> None:
        self.records.apply(self.pending)
        self.pending = []
        before, self.view = self.view, self.records.view()
        self.last_config = self.view.config or self.last_config
        self._what_changed_is_found(before, self.view)

    def _what_changed_is_found(self, before: View, after: View) -> None:
        maps: list[tuple[Mapping[Any, object], Mapping[Any, object]]] = [
            (before.by_subnet, after.by_subnet),
            (before.heartbeats, after.heartbeats),
            (before.memory, after.memory),
        ]
        for one, other in maps:
            differ = {key for key in {*one, *other} if one.get(key) != other.get(key)}
            assert differ <= changed_keys(one, other)

    @invariant()
    def the_view_is_what_a_fresh_list_says(self) -> None:
        if self.pending:
            return
        fresh = RecordStore(KEYS, 1, self.revision, self.last_config)
        there = {key: self._seen_as(key) for key in sorted(self.there)}
        fresh.load(there.values())
        expected = fresh.view()
        aside = {each.key for each in self.view.set_aside}
        assert {each.key for each in expected.set_aside} <= aside
        same = replace(self.view, kept=expected.kept, set_aside=expected.set_aside)
        assert same == expected, "its revision follows deletions, too"
        assert set(self.view.leases) == usable(there, self.last_config)
        assert set(self.records.leases()) >= set(self.view.leases)
        for host in HOSTS:
            owned = {lease for lease in self.view.leases if lease.host_id == host}
            assert set(self.view.leases_of(host)) == owned
        assert [lease.subnet for lease in self.view.leases] == sorted(self.view.by_subnet)


TestFold = Mesh.TestCase
TestFold.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestFold.pytestmark = [pytest.mark.property]  # type: ignore[attr-defined]


@given(st.lists(st.dictionaries(st.integers(0, 40), st.none() | st.integers(1, 2)), max_size=6))
def test_a_shared_map_is_a_dictionary_that_forgets_nothing(
    changes: list[dict[int, int | None]],
) -> None:
    model: dict[int, int] = {}
    made: SharedMap[int, int] = SharedMap()
    history = [(made, dict(model))]
    for change in changes:
        made = made.changed(change)
        for key, value in change.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        history.append((made, dict(model)))
    for known, expected in history:
        assert known == expected
        assert (len(known), set(known)) == (len(expected), set(expected))
        differ = {key for key in {*known, *made} if known.get(key) != made.get(key)}
        assert changed_keys(known, made) == differ


def test_a_change_among_many_touches_one_bucket_and_is_found() -> None:
    """The promise of the short way: what it shares is the very same."""
    subnets_of_many = [IPv4Network((10 << 24 | number << 8, 24)) for number in range(65_000)]
    before: SharedMap[IPv4Network, int] = SharedMap((each, 1) for each in subnets_of_many)
    after = before.changed({subnets_of_many[7]: 2, subnets_of_many[9]: None})
    assert len(after) == len(before) - 1
    assert changed_keys(before, after) == {subnets_of_many[7], subnets_of_many[9]}
    same = sum(one is other for one, other in zip(before._buckets, after._buckets, strict=True))
    assert same >= len(before._buckets) - 2
    assert max(map(len, before._buckets)) < 4 * 65_000 / len(before._buckets)


def test_empty_maps_share_their_buckets_and_a_map_knows_the_one_it_was_made_of() -> None:
    """Both are compared many times with every change of a mesh."""
    empty: SharedMap[int, int] = SharedMap()
    one = empty.changed({1: 1})
    assert SharedMap({})._buckets is empty._buckets is one.changed({1: None})._buckets
    two = one.changed({2: 2})
    assert two._made_of == (one._buckets, frozenset({2}))
    assert changed_keys(one, two) == changed_keys(two, one) == {2}
