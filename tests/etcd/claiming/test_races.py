"""Many hosts claiming at once: promise 1 with nothing but etcd between them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.model import MeshConfig
from agent.registry.operations.config_change import change_config
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, config, registry
from tests.etcd.support.storm import SUBNETS, Answer, check, claim_once, storm

pytestmark = pytest.mark.etcd

_HOSTS, _SUBNETS = 40, 32


def test_promise_1_forty_hosts_race_for_thirty_two_subnets(shared_etcd: Etcd, prefix: str) -> None:
    def host(number: int) -> Answer:
        with registry(shared_etcd, prefix=prefix) as mesh:
            return claim_once(mesh, number)

    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/11"))
        with ThreadPoolExecutor(_HOSTS) as pool:
            answers = list(pool.map(host, range(_HOSTS)))
        assert check(answers, _SUBNETS) < 3
        assert len(mesh.snapshot().leases) == _SUBNETS


def test_promise_1_hosts_with_different_lengths_race(shared_etcd: Etcd, prefix: str) -> None:
    """The operator enlarges the subnets while hosts claim: /20s and /16s never overlap."""

    def host(number: int) -> Answer:
        with registry(shared_etcd, prefix=prefix) as mesh:
            return claim_once(mesh, number)

    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12", 20))
        with ThreadPoolExecutor(13) as pool:
            claims = [pool.submit(host, number) for number in range(12)]
            for length in (16, 20, 18, 16):
                _set_config(mesh, config("10.64.0.0/12", length))
            answers = [each.result() for each in claims]
        check(answers, 256)
        assert mesh.snapshot().set_aside == ()


def _set_config(mesh: Registry, wished: MeshConfig) -> None:
    change_config(mesh, lambda _now: wished)


@pytest.mark.full
@pytest.mark.parametrize("hosts", [256, 300])
def test_promise_1_256_or_300_processes_claim_256_subnets_at_once(etcd: Etcd, hosts: int) -> None:
    answers = storm(etcd, "/hostmesh", hosts)
    per_claim = check(answers, SUBNETS)
    print(
        f"transactions per successful claim, {hosts} hosts for {SUBNETS} subnets: {per_claim:.2f}"
    )
    assert per_claim <= 2.0
    refused = [each.refusal for each in answers if not each.subnet]
    assert len(refused) == hosts - SUBNETS
    for text in refused:  # each says how many are held, by whom the oldest, and what to do
        assert "256 are held" in text
        assert "the oldest is 10." in text
        assert "agentctl remove" in text
