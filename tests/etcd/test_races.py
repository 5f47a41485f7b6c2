"""Many hosts claiming at once: promise 1 with nothing but etcd between them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from typing import Any

import pytest

from agent.errors import EtcdError, NoFreeSubnet
from agent.leases.operator import Operator
from agent.leases.registry import Registry
from agent.model import MeshConfig
from tests.etcd.support.etcdlab import Etcd, config, registry, request

pytestmark = pytest.mark.etcd

_HOSTS, _SUBNETS = 40, 32
_Answer = tuple[str, int]


def _counted(mesh: Registry) -> Callable[[], int]:
    """Count the transactions of a registry's client from now on."""
    calls: list[str] = []
    real = mesh.client.txn

    def txn(action: str, *arguments: Any) -> Any:  # noqa: ANN401  # handed on
        calls.append(action)
        return real(action, *arguments)

    mesh.client.txn = txn  # type: ignore[method-assign,assignment]
    return lambda: len([each for each in calls if each.startswith("claim")])


def _claim_once(mesh: Registry, number: int) -> _Answer:
    count = _counted(mesh)
    while True:
        try:
            return str(mesh.claim(request(number)).subnet), count()
        except NoFreeSubnet:
            return "", count()
        except EtcdError:  # the bounded tries are over: the keeper would come again, too
            time.sleep(0.05)


def _check(answers: list[_Answer], subnets: int) -> float:
    """No two overlap, as many as there are were given; returns transactions per claim."""
    given = [IPv4Network(subnet) for subnet, _ in answers if subnet]
    assert len(given) == min(subnets, len(answers))
    assert len(set(given)) == len(given)
    assert not any(a != b and a.overlaps(b) for a in given for b in given)
    return sum(count for subnet, count in answers if subnet) / len(given)


def test_promise_1_forty_hosts_race_for_thirty_two_subnets(shared_etcd: Etcd, prefix: str) -> None:
    def host(number: int) -> _Answer:
        with registry(shared_etcd, prefix=prefix) as mesh:
            return _claim_once(mesh, number)

    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/11"))
        with ThreadPoolExecutor(_HOSTS) as pool:
            answers = list(pool.map(host, range(_HOSTS)))
        assert _check(answers, _SUBNETS) < 3
        assert len(mesh.snapshot().leases) == _SUBNETS


def test_promise_1_hosts_with_different_lengths_race(shared_etcd: Etcd, prefix: str) -> None:
    """The operator enlarges the subnets while hosts claim: /20s and /16s never overlap."""

    def host(number: int) -> _Answer:
        with registry(shared_etcd, prefix=prefix) as mesh:
            return _claim_once(mesh, number)

    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12", 20))
        with ThreadPoolExecutor(13) as pool:
            claims = [pool.submit(host, number) for number in range(12)]
            for length in (16, 20, 18, 16):
                _set_config(Operator(mesh), config("10.64.0.0/12", length))
            answers = [each.result() for each in claims]
        _check(answers, 256)
        assert mesh.snapshot().set_aside == ()


def _set_config(operator: Operator, wished: MeshConfig) -> None:
    operator.config_set(lambda _now: wished)


def _process(endpoint: str, prefix: str, number: int, barrier: Any, answers: Any) -> None:  # noqa: ANN401
    from agent.leases.client import EtcdClient  # noqa: PLC0415  # after the fork, before the race
    from agent.settings import EtcdSettings  # noqa: PLC0415

    client = EtcdClient(EtcdSettings(endpoints=(endpoint,), call_timeout_s=20.0))
    mesh = Registry(client, prefix)
    mesh.config()  # connects
    barrier.wait(120)
    answers.put(_claim_once(mesh, number))
    client.close()


def _storm(etcd: Etcd, prefix: str, hosts: int) -> float:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agent.leases.client", "tests.etcd.test_races"])
    barrier, queue = context.Barrier(hosts + 1), context.Queue()
    with registry(etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.0.0.0/8"))
        processes = [
            context.Process(
                target=_process, args=(etcd.endpoint, prefix, number, barrier, queue), daemon=True
            )
            for number in range(hosts)
        ]
        for each in processes:
            each.start()
        barrier.wait(120)
        answers = [queue.get(timeout=120) for _ in processes]
        for each in processes:
            each.join(20)
        assert len(mesh.snapshot().leases) == 256
    return _check(answers, 256)


@pytest.mark.full
@pytest.mark.parametrize("hosts", [256, 300])
def test_promise_1_256_or_300_processes_claim_256_subnets_at_once(etcd: Etcd, hosts: int) -> None:
    per_claim = _storm(etcd, "/hostmesh", hosts)
    print(f"transactions per successful claim, {hosts} hosts for 256 subnets: {per_claim:.2f}")
    assert per_claim <= 2.0
