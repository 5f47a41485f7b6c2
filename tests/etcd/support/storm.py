"""Many hosts that claim at once: light processes of one fork server, a barrier after connecting."""

# ruff: noqa: ANN401  # multiprocessing's own types

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from agent.errors import EtcdError, NoFreeSubnet
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, config, registry, request
from tests.waiting import eventually

SUBNETS = 256
_WAIT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """The result of one host: a subnet, or why none; and after how many transactions."""

    subnet: str
    refusal: str
    transactions: int


def _counted(mesh: Registry) -> Callable[[], int]:
    """Count the claiming transactions of a registry's client from now on."""
    calls: list[str] = []
    real = mesh.client.txn

    def txn(action: str, *arguments: Any) -> Any:
        calls.append(action)
        return real(action, *arguments)

    mesh.client.txn = txn  # type: ignore[method-assign,assignment]
    return lambda: len([each for each in calls if each.startswith("claim")])


def claim_once(mesh: Registry, number: int) -> Answer:
    """Claim as the keeper does: when the bounded tries are over it comes again."""
    count = _counted(mesh)
    while True:
        try:
            return Answer(str(mesh.claim(request(number)).subnet), "", count())
        except NoFreeSubnet as error:
            return Answer("", str(error), count())
        except EtcdError:
            time.sleep(0.05)


def check(answers: list[Answer], subnets: int) -> float:
    """No two overlap and as many as there are were given; transactions per claim."""
    given = [IPv4Network(each.subnet) for each in answers if each.subnet]
    assert len(given) == min(subnets, len(answers))
    assert len(set(given)) == len(given)
    assert not any(a != b and a.overlaps(b) for a in given for b in given)
    return sum(each.transactions for each in answers if each.subnet) / len(given)


def _process(endpoint: str, prefix: str, number: int, barrier: Any, answers: Any) -> None:
    from agent.etcd.client import EtcdClient  # noqa: PLC0415  # after the fork, before the race
    from agent.settings import EtcdSettings  # noqa: PLC0415

    client = EtcdClient(EtcdSettings(endpoints=(endpoint,), call_timeout_s=20.0))
    mesh = Registry(client, prefix)
    eventually(lambda: _connects(mesh), timeout_s=_WAIT_S * 0.8, every_s=0.5)
    barrier.wait(_WAIT_S)
    answers.put(claim_once(mesh, number))
    client.close()


def _connects(mesh: Registry) -> bool:
    """Hundreds that connect at once on few cores do not all get through at the first try."""
    try:
        mesh.has_config()
    except EtcdError:
        return False
    return True


def storm(etcd: Etcd, prefix: str, hosts: int) -> list[Answer]:
    """Have that many processes claim one of 256 subnets at the same moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agent.etcd.client", "tests.etcd.support.storm"])
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
        barrier.wait(_WAIT_S)
        answers = [queue.get(timeout=_WAIT_S) for _ in processes]
        for each in processes:
            each.join(20)
        assert len(mesh.snapshot().leases) == min(SUBNETS, hosts)
    return answers
