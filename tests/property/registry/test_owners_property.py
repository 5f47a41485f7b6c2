"""No history of one host's writes changes what the others get of honest hosts' leases.

The attacker writes any key under ``subnets/`` and below its own id, as its role lets it. Honest
hosts claim as :mod:`agent.registry.claiming.claims` does: not where an owner record of any host is.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.etcd.kv import Event, Record
from agent.model import HostId, Lease, MeshConfig, View
from agent.registry.record_store import RecordStore
from agent.registry.records import CONFIG, LEASES, OWNERS, Keys, encode_config, encode_lease

pytestmark = pytest.mark.property

KEYS = Keys("/hostmesh")
MESH = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
    level=2,
    owners=True,
    flannel=False,
)
HONEST = [HostId(f"{number:032x}") for number in (1, 2, 3)]
ATTACKER = HostId("e" * 32)
SUBNETS = [
    IPv4Network(text)
    for text in (
        "10.64.0.0/16",
        "10.64.3.0/24",
        "10.65.0.0/16",
        "10.64.0.0/15",
        "10.66.0.0/16",
        "10.67.0.0/16",
        "10.128.0.0/16",
    )
]
honest = st.sampled_from(HONEST)
subnets = st.sampled_from(SUBNETS)
addresses = st.integers(1, 6).map(lambda number: IPv4Address(f"192.0.2.{number}"))


def lease(host: HostId | None, subnet: IPv4Network, address: IPv4Address) -> Lease:
    return Lease(subnet=subnet, node_address=address, backend="host-gw", host_id=host)


def value_of(says: HostId | None, subnet: IPv4Network, address: IPv4Address) -> bytes:
    if says is None:
        return b'{"PublicIP":"%s","BackendType":"host-gw"}' % str(address).encode()
    return encode_lease(lease(says, subnet, address))


names = st.sampled_from([*HONEST, ATTACKER, None])
values = st.builds(value_of, names, subnets, addresses) | st.sampled_from([b"", b"garbage", b"{}"])


class Mesh(RuleBasedStateMachine):
    """etcd, what a host follows of it, and the leases that honest hosts have."""

    def __init__(self) -> None:
        super().__init__()
        self.etcd: dict[bytes, Record] = {}
        self.revision = 10
        self.records = RecordStore(KEYS, cluster_id=1, revision=10)
        self.held: dict[tuple[HostId, IPv4Network], IPv4Address] = {}

    @initialize(flannel=st.booleans())
    def begin(self, flannel: bool) -> None:
        self.write({KEYS.of(CONFIG): encode_config(replace(MESH, flannel=flannel))})

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """One transaction."""
        self.revision += 1
        events = []
        for key, value in changes.items():
            before = self.etcd.pop(key, None)
            if value is not None:
                created = before.create_revision if before else self.revision
                self.etcd[key] = Record(key, value, created, self.revision)
            events.append(Event(key, self.etcd.get(key), self.revision))
        self.records.apply(events)

    def read(self) -> RecordStore:
        fresh = RecordStore(KEYS, cluster_id=1, revision=self.revision)
        fresh.load(self.etcd.values())
        return fresh

    def own_keys(self, host: HostId, subnet: IPv4Network) -> tuple[bytes, bytes]:
        return KEYS.of(LEASES, subnet), KEYS.of(OWNERS, (host, subnet))

    # --- honest hosts ---------------------------------------------------------------------

    @rule(host=honest, subnet=subnets, address=addresses)
    def claim(self, host: HostId, subnet: IPv4Network, address: IPv4Address) -> None:
        records = self.read()
        records.view()
        taken = any(each.subnet.overlaps(subnet) for each in records.holders(host))
        unreadable = any(
            OWNERS.key(KEYS.split(key)[1])[1].overlaps(subnet)
            for key in records.unreadable
            if KEYS.split(key)[0] is OWNERS
        )
        mine = sum(owner == host for owner, _ in self.held)
        if taken or unreadable or mine > 1 or not MESH.holds(subnet):
            return
        value = value_of(host, subnet, address)
        self.write(dict.fromkeys(self.own_keys(host, subnet), value))
        self.held[host, subnet] = address

    @rule(number=st.integers(0, 5), address=addresses)
    def renew(self, number: int, address: IPv4Address) -> None:
        if self.held:
            host, subnet = sorted(self.held)[number % len(self.held)]
            value = value_of(host, subnet, address)
            self.write(dict.fromkeys(self.own_keys(host, subnet), value))
            self.held[host, subnet] = address

    @rule(number=st.integers(0, 5))
    def release(self, number: int) -> None:
        if self.held:
            host, subnet = sorted(self.held)[number % len(self.held)]
            del self.held[host, subnet]
            self.write(dict.fromkeys(self.own_keys(host, subnet)))

    # --- the attacker ---------------------------------------------------------------------

    @rule(subnet=subnets, value=values | st.none())
    def write_under_subnets(self, subnet: IPv4Network, value: bytes | None) -> None:
        self.write({KEYS.of(LEASES, subnet): value})

    @rule(subnet=subnets, value=values | st.none())
    def write_below_own_id(self, subnet: IPv4Network, value: bytes | None) -> None:
        self.write({KEYS.of(OWNERS, (ATTACKER, subnet)): value})

    @rule(kept=st.lists(subnets, max_size=4, unique=True), address=addresses)
    def claim_everything(self, kept: list[IPv4Network], address: IPv4Address) -> None:
        for subnet in SUBNETS:
            value = value_of(ATTACKER, subnet, address) if subnet in kept else None
            self.write({KEYS.of(OWNERS, (ATTACKER, subnet)): value})

    # --- what others get ------------------------------------------------------------------

    @invariant()
    def honest_hosts_have_what_they_claimed(self) -> None:
        view = self.records.view()
        found = {
            (each.host_id, each.subnet): each.node_address
            for each in view.leases
            if each.host_id in HONEST
        }
        assert found == self.held
        assert len(view.leases_of(ATTACKER)) <= 2

    @invariant()
    def following_is_reading_anew(self) -> None:
        assert self.seen(self.records.view()) == self.seen(self.read().view())

    @staticmethod
    def seen(view: View) -> tuple[object, ...]:
        aside = [each.key for each in view.set_aside]
        return tuple(view.leases), aside, dict(view.owners)

    @invariant()
    def a_wrong_key_is_known_to_its_owner(self) -> None:
        view = self.records.view()
        for host, subnet in self.held:
            one, other = (self.etcd.get(key) for key in self.own_keys(host, subnet))
            same = one is not None and other is not None and one.value == other.value
            assert same or subnet in view.overwritten or subnet in view.kept


TestMesh = pytest.mark.property(Mesh.TestCase)
Mesh.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
