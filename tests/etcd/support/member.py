"""A host as far as leases go, in a process of its own: the daemon's threads for etcd.

    python member.py ENDPOINTS PREFIX NUMBER LEASE_TTL_S HEARTBEAT_TTL_S

Each thing that happens is one line of JSON on stdout: ``lease`` with what it holds and the
names of its conditions, ``problem`` with how contact is. Its log, limited as the daemon's is,
goes to stderr. It ends with its stdin.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent import log
from agent.errors import EtcdError
from agent.etcd.client import EtcdClient
from agent.etcd.endpoint_check import EndpointCheck
from agent.model import Condition, DockerState, Lease
from agent.registry.directory import Directory
from agent.registry.own.keeper import Keeper, Registration
from agent.registry.registry import Registry
from agent.settings import EtcdSettings, LeaseSettings, LogSettings
from tests.etcd.support import etcdlab

_print_lock = threading.Lock()


def tell(**what: object) -> None:
    with _print_lock:
        print(json.dumps(what), flush=True)


def main() -> None:
    endpoints, prefix, number, ttl_s, beat_s = sys.argv[1:]
    log.configure(LogSettings(), stream=sys.stderr, is_tty=False)
    wanted = etcdlab.request(int(number))
    client = EtcdClient(EtcdSettings(endpoints=tuple(endpoints.split(","))))
    registry = Registry(client, prefix)
    registration = Registration(
        node_address=wanted.node_address,
        host_name=wanted.host_name,
        docker_state=DockerState.READY,
    )

    def on_lease(
        lease: Lease | None, conditions: tuple[Condition, ...], _former: Lease | None
    ) -> None:
        tell(
            lease=str(lease.subnet) if lease else None,
            etcd_lease=lease.etcd_lease_id if lease else 0,
            conditions=[each.name for each in conditions],
        )
        if lease is not None:  # Docker runs on it from now on
            keeper.update(
                replace(registration, wanted_subnet=lease.subnet, may_change_subnet=False)
            )

    def on_problem(problem: EtcdError | None, _last_contact_s: float) -> None:
        tell(problem=problem.message if problem else None)

    keeper = Keeper(
        registry,
        host_id=wanted.host_id,
        boot_id=wanted.boot_id,
        agent_version="0.1.0",
        settings=LeaseSettings(ttl_s=int(ttl_s), heartbeat_ttl_s=int(beat_s), memory_ttl_s=3600),
        on_lease=on_lease,
    )
    directory = Directory(registry, keeper.notice, on_problem)
    survey = EndpointCheck(client, lambda found: tell(endpoints=[each.subject for each in found]))
    for each in (keeper, directory, survey):
        each.start()
    keeper.update(registration)
    sys.stdin.read()


if __name__ == "__main__":
    main()
