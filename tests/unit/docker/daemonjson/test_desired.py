"""A lease becomes bip, pools and MTU, and keys of daemon.json."""

from ipaddress import IPv4Interface, IPv4Network

import pytest

from agent.docker.daemonjson.desired import (
    BIP,
    MTU,
    NETWORK_MTU,
    POOLS,
    desired_docker,
    differences,
    keys_for,
    parse_version,
)
from agent.docker.engine.reading import EngineKind, EngineReading
from agent.mesh.lease_split import split_lease
from agent.model import DockerFacts, DockerNetwork
from agent.model.family import Network
from agent.settings import Docker0Share

pytestmark = pytest.mark.unit

LEASE = IPv4Network("10.64.0.0/16")


@pytest.mark.parametrize(
    ("subnet", "bip", "pool"),
    [
        ("10.64.0.0/12", "10.64.0.1/13", "10.72.0.0/13"),
        ("10.64.0.0/16", "10.64.0.1/17", "10.64.128.0/17"),
        ("10.64.16.0/20", "10.64.16.1/21", "10.64.24.0/21"),
        ("10.64.2.0/23", "10.64.2.1/24", "10.64.3.0/24"),
        ("10.64.2.0/24", "10.64.2.1/24", None),
        ("10.64.2.64/26", "10.64.2.65/26", None),
        ("10.64.2.64/30", "10.64.2.65/30", None),
    ],
)
def test_a_lease_is_split_between_docker0_and_pools(
    subnet: str, bip: str, pool: str | None
) -> None:
    split = split_lease(IPv4Network(subnet))
    assert split.bip == IPv4Interface(bip)
    assert split.docker0 == split.bip.network
    assert split.pools == (((IPv4Network(pool), 24),) if pool else ())
    assert all(base.subnet_of(IPv4Network(subnet)) for base, _ in split.pools)


@pytest.mark.parametrize("subnet", ["10.64.0.0/31", "10.64.0.0/32"])
def test_a_lease_without_room_is_refused(subnet: str) -> None:
    with pytest.raises(ValueError, match="too small"):
        split_lease(IPv4Network(subnet))


def test_networks_of_another_size() -> None:
    assert split_lease(LEASE, network_len=26).pools == ((IPv4Network("10.64.128.0/17"), 26),)
    assert split_lease(IPv4Network("10.0.0.0/26"), network_len=26).pools == ()
    with pytest.raises(ValueError, match="/31"):
        split_lease(LEASE, network_len=31)


@pytest.mark.parametrize(
    ("subnet", "share", "docker0", "pools"),
    [
        ("10.64.0.0/16", "all", "10.64.0.0/16", []),
        ("10.64.0.0/16", "half", "10.64.0.0/17", ["10.64.128.0/17"]),
        ("10.64.0.0/16", "quarter", "10.64.0.0/18", ["10.64.64.0/18", "10.64.128.0/17"]),
        (
            "10.64.0.0/16",
            "sixteenth",
            "10.64.0.0/20",
            ["10.64.16.0/20", "10.64.32.0/19", "10.64.64.0/18", "10.64.128.0/17"],
        ),
        ("10.64.2.0/23", "sixteenth", "10.64.2.0/24", ["10.64.3.0/24"]),
        ("10.64.2.0/24", "sixteenth", "10.64.2.0/24", []),
    ],
)
def test_docker0s_share_of_a_lease(
    subnet: str, share: Docker0Share, docker0: str, pools: list[str]
) -> None:
    desired = desired_docker(IPv4Network(subnet), None, share=share)
    assert desired.bip.network == IPv4Network(docker0)
    assert desired.pools == tuple((IPv4Network(base), 24) for base in pools)


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("20.10.24+dfsg1", {BIP, POOLS, MTU}),
        ("23.0.6", {BIP, POOLS, MTU}),
        ("24.0.0", {BIP, POOLS, MTU, NETWORK_MTU}),
        ("28.5.2", {BIP, POOLS, MTU, NETWORK_MTU}),
        ("", {BIP, POOLS, MTU}),
        ("master-dockerproject", {BIP, POOLS, MTU}),
    ],
)
def test_a_key_the_engine_does_not_know_is_not_written(
    version: str, keys: set[tuple[str, ...]]
) -> None:
    assert set(keys_for(desired_docker(LEASE, 1450), version)) == keys


def test_dockers_own_mtu_is_not_written() -> None:
    assert set(keys_for(desired_docker(LEASE, 1500), "28.5.2")) == {BIP, POOLS}
    assert set(keys_for(desired_docker(LEASE, None), "28.5.2")) == {BIP, POOLS}


@pytest.mark.parametrize(
    ("text", "version"),
    [("28.5.2+dfsg2", (28, 5)), ("20.10.24", (20, 10)), ("", None), ("dev", None), ("7", None)],
)
def test_versions(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


def engine(
    bip: str, pools: tuple[tuple[Network, int], ...] | None, mtu: int | None
) -> EngineReading:
    address = IPv4Interface(bip)
    docker0 = DockerNetwork(
        id="b", name="bridge", bridge="docker0", subnet=address.network, address=address, mtu=mtu
    )
    facts = DockerFacts(reachable=True, bridge=docker0, networks=(docker0,))
    return EngineReading(kind=EngineKind.DOCKER, facts=facts, pools=pools)


def test_differences_name_what_is_the_case() -> None:
    desired = desired_docker(LEASE, 1450)
    found = differences(desired, engine("172.17.0.1/16", (), 1500))
    assert found[BIP] == "docker0 is 172.17.0.1/16, wanted 10.64.0.1/17"
    assert found[POOLS] == "pools are Docker's own, wanted 10.64.128.0/17 in /24"
    assert found[MTU] == "docker0's MTU is 1500, wanted 1450"
    assert differences(desired, engine(str(desired.bip), desired.pools, 1450)) == {}
    assert differences(desired, engine(str(desired.bip), None, None)) == {}
    none = EngineReading(kind=EngineKind.DOCKER, facts=DockerFacts(reachable=True))
    assert "absent" in differences(desired, none)[BIP]
