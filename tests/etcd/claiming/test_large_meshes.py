"""Claims where the mesh is as large, and its subnets as long or short, as they may be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.errors import NoFreeSubnet
from agent.etcd import kv
from agent.mesh.ranges import MAX_SUBNETS, count_subnets, subnet_at
from agent.model import Lease, MeshConfig
from agent.model.family import within
from agent.registry.records import LEASES, encode_lease
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, config, host, registry, request

pytestmark = pytest.mark.etcd

_LARGEST = config("10.0.0.0/8", 24)


def _distinct(leases: list[Lease], mesh: MeshConfig) -> None:
    """Each a subnet of the mesh, none twice: of one length, that is no overlap."""
    subnets = {lease.subnet for lease in leases}
    assert len(subnets) == len(leases)
    assert all(within(each, mesh.cidr) for each in subnets)
    assert {each.prefixlen for each in subnets} == {mesh.subnet_len}


def _fill(mesh: Registry, numbers: list[int]) -> None:
    """Give all these subnets to others, as fast as etcd takes it."""
    lease = Lease(
        subnet=_LARGEST.cidr, node_address=request(1).node_address, backend="host-gw", host_id=None
    )
    for first in range(0, len(numbers), kv.MAX_OPERATIONS):
        some = [subnet_at(_LARGEST, each) for each in numbers[first : first + kv.MAX_OPERATIONS]]
        puts = [
            kv.put(
                mesh.keys.of(LEASES, subnet),
                encode_lease(replace(lease, subnet=subnet, host_id=host(100_000 + index))),
            )
            for index, subnet in enumerate(some, first)
        ]
        mesh.client.txn("fill", [], puts)


@pytest.mark.parametrize(
    ("cidr", "length"), [("10.0.0.0/8", 24), ("10.0.0.0/8", 12), ("10.0.0.0/14", 30)]
)
def test_promise_1_hosts_claim_in_the_largest_meshes(
    shared_etcd: Etcd, prefix: str, cidr: str, length: int
) -> None:
    """65,536 /24s, the shortest subnets that there are, and 65,536 of the longest."""
    wished = config(cidr, length)
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(wished)
        hosts = min(count_subnets(wished), 24)
        leases = [mesh.claim(request(number)) for number in range(hosts)]
        _distinct(leases, wished)
        assert [mesh.claim(request(number)).subnet for number in range(2)] == [
            lease.subnet for lease in leases[:2]
        ]
        if hosts == count_subnets(wished):
            with pytest.raises(NoFreeSubnet):
                mesh.claim(request(hosts))


@pytest.mark.full
def test_promise_1_the_last_of_65_536_subnets_are_found_and_then_there_are_no_more(
    etcd: Etcd,
) -> None:
    free = {7, 30_001, 65_535}
    assert count_subnets(_LARGEST) == MAX_SUBNETS
    with registry(etcd) as mesh:
        mesh.create_config(_LARGEST)
        _fill(mesh, [number for number in range(MAX_SUBNETS) if number not in free])
        leases = [mesh.claim(request(number)) for number in range(len(free))]
        assert {lease.subnet for lease in leases} == {subnet_at(_LARGEST, each) for each in free}
        with pytest.raises(NoFreeSubnet, match="65536 are held"):
            mesh.claim(request(9))
        mesh.release(host(1))
        assert mesh.claim(request(9)).subnet == leases[1].subnet != IPv4Network("10.0.0.0/24")
