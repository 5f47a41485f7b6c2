"""The metrics, read back with the official parser."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.daemon.api.connection import Paths, Text
from agent.daemon.api.metrics import Reading, render
from agent.daemon.api.server import TcpServer
from agent.daemon.names.servers import ServerSeen
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.counters import Counters
from agent.errors import StateError
from agent.etcd.certificates import Certificate
from agent.mesh.check.result import CheckState, CheckSummary
from agent.model import Condition, DockerState, Heartbeat, HostId, Lease, Severity, View
from agent.reconcile.reconciler import Report

pytestmark = pytest.mark.unit

OWN = HostId("1" * 32)
PLANTED = "hunter2-never-shown"


def lease(number: int, host: HostId | None) -> Lease:
    return Lease(
        subnet=IPv4Network(f"10.{number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{number}"),
        backend="host-gw",
        host_id=host,
        host_name=f'evil"{{}}\n{number}',
        renewed_s=1000.0,
        ttl_s=86_400,
    )


def reading() -> Reading:
    alive, silent = HostId("2" * 32), HostId("3" * 32)
    beat = Heartbeat(
        host_id=alive,
        host_name="two",
        node_address=None,
        subnet=None,
        docker=DockerState.READY,
        agent_version="1",
        boot_id="",
        started_s=0,
    )
    leases = (lease(1, OWN), lease(2, alive), lease(3, silent), lease(4, None))
    view = View(cluster_id=1, revision=2, leases=leases, heartbeats=MappingProxyType({alive: beat}))
    mesh = MeshState(
        host_id=OWN,
        believed=view,
        own=leases[0],
        docker_state=DockerState.READY,
        silent=frozenset({leases[2].node_address}),
        sends_by="vxlan",
        own_endpoints=(),
    )
    counters = Counters()
    counters.pass_s["routes"].observe(0.002)
    counters.pass_s["routes"].observe(50)
    counters.plan_size.observe(3)
    counters.repairs["route-missing"] += 2
    counters.repairs["fdb-entry-missing"] += 1
    counters.objects["fdb-entry"] = 4, 3
    counters.objects["link"] = 1, None
    counters.events["peer-joined"] += 1
    return _reading(mesh, counters)


def _reading(mesh: MeshState, counters: Counters) -> Reading:
    condition = Condition(
        name="route-conflict", subject=PLANTED, cause=PLANTED, hint="", severity=Severity.WARNING
    )
    return Reading(
        state=AgentState(
            mesh=mesh,
            report=Report(desired=3, installed=2, differing=1),
            contact_problem="",
            passed=True,
        ),
        active=(ActiveCondition(condition, 0.0),),
        counters=counters,
        watch_age_s=1.5,
        stale=False,
        now_s=1400.0,
        certificates=(Certificate("/etc/etcd.crt", "client", 1500.0),),
        check=CheckSummary(
            host_id=OWN, began_s=1300.0, counts={CheckState.OK: 2, CheckState.DOWN: 1}
        ),
        servers=(
            ServerSeen(
                address=IPv4Address("169.254.20.53"),
                runs=True,
                names=7,
                upstreams=(("192.0.2.53", False), ("192.0.2.54", True), ("192.0.2.55", True)),
                counters={"forwarded": 5},
            ),
        ),
    )


def samples() -> dict[str, float]:
    """Sample name with its labels to value."""
    text = render(reading())[0].decode()
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_value_comes_from_the_agents_state() -> None:
    found = samples()
    assert found["hostmesh_ready"] == 1
    assert found["hostmesh_state state=degraded"] == 0
    assert found["hostmesh_watch_age_seconds"] == 1.5
    expiry = "hostmesh_etcd_certificate_expiration_timestamp_seconds name=/etc/etcd.crt role=client"
    assert found[expiry] == 1500.0
    assert found["hostmesh_lease_left_seconds"] == 86_000
    peers = {
        state: found[f"hostmesh_peers state={state}"] for state in ("alive", "silent", "unknown")
    }
    assert peers == {"alive": 1, "silent": 1, "unknown": 1}
    assert found["hostmesh_conditions condition=route-conflict severity=warning"] == 1
    routes = [found[f"hostmesh_routes state={each}"] for each in ("desired", "installed", "drift")]
    assert routes == [3, 2, 1]
    assert found["hostmesh_reconcile_seconds_count part=routes"] == 2
    assert found["hostmesh_reconcile_seconds_bucket le=0.003 part=routes"] == 1
    assert found["hostmesh_reconcile_seconds_sum part=routes"] == pytest.approx(50.002)
    assert found["hostmesh_plan_operations_bucket le=10.0"] == 1
    assert found["hostmesh_drift_repairs_total kind=route-missing"] == 2
    assert found["hostmesh_drift_repairs_total kind=fdb-entry-missing"] == 1
    assert found["hostmesh_docker_restarts_total"] == 0
    assert found["hostmesh_peers_unreachable"] == 1
    assert found["hostmesh_backend_info backend=vxlan"] == 1
    assert found["hostmesh_objects kind=fdb-entry state=desired"] == 4
    assert found["hostmesh_objects kind=fdb-entry state=installed"] == 3
    assert "hostmesh_objects kind=link state=installed" not in found
    assert found["hostmesh_containers"] == found["hostmesh_mesh_networks"] == 0
    assert found["hostmesh_check_timestamp_seconds"] == 1300
    assert found["hostmesh_check_peers state=ok"] == 2
    assert found["hostmesh_check_peers state=failed"] == 0
    assert found["hostmesh_check_own_failed"] == 0
    dns = "server=169.254.20.53"
    assert found[f"hostmesh_dns_up {dns}"] == 1
    assert found[f"hostmesh_dns_upstreams {dns} state=fail"] == 2
    assert found[f"hostmesh_dns_total {dns} what=forwarded"] == 5
    assert any(name.startswith("hostmesh_build_info ") for name in found)


def test_promise_9_routes_that_could_not_be_listed_have_no_number() -> None:
    read = reading()
    seen = replace(read.state, report=Report(desired=3, failed=1), passed=False)
    text = render(replace(read, state=seen))[0].decode()
    assert 'hostmesh_routes{state="desired"} 3.0' in text
    assert 'hostmesh_routes{state="installed"}' not in text
    assert 'hostmesh_routes{state="drift"}' not in text
    assert seen.readiness[1].startswith("which routes are in place is not known")
    assert "not known which are in place" in seen.summary


def test_a_lease_that_is_not_held_has_no_time_left() -> None:
    read = reading()
    mesh = replace(read.state.mesh, unheld="host9 owns it")
    text = render(replace(read, state=replace(read.state, mesh=mesh)))[0].decode()
    assert "hostmesh_lease_left_seconds 0.0" in text
    assert "hostmesh_ready 0.0" in text
    assert 'hostmesh_state{state="degraded"} 1.0' in text


def test_a_host_that_left_counts_no_objects_and_no_unknown_backend_becomes_a_label() -> None:
    read = reading()
    state = replace(
        read.state,
        report=Report(desired=0, installed=0),
        mesh=replace(read.state.mesh, sends_by=PLANTED, own_endpoints=None),
    )
    text = render(replace(read, state=state))[0].decode()
    assert "hostmesh_objects{" not in text
    assert "hostmesh_containers " not in text.replace("# HELP hostmesh_containers ", "").replace(
        "# TYPE hostmesh_containers ", ""
    )
    assert 'hostmesh_backend_info{backend="other"} 1.0' in text
    assert PLANTED not in text


def test_no_name_of_a_host_and_no_cause_becomes_a_label() -> None:
    """Promise 10: a mesh of thousands is not thousands of series; and no secret is exported."""
    text = render(reading())[0].decode()
    assert "evil" not in text
    assert PLANTED not in text


def test_the_library_is_loaded_when_first_asked() -> None:
    code = (
        "import sys, agent.daemon.app\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "import agent.daemon.api.metrics\n"
        "assert 'prometheus_client' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metrics_over_tcp_cannot_change_anything() -> None:
    routes = Paths({"/metrics": lambda: Text(b"x 1\n", "text/plain")}, {})
    server = TcpServer("metrics", ("127.0.0.1", 0), routes)
    server.start()

    def ask(method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert ask("GET", "/metrics") == (200, b"x 1\n")
    assert ask("GET", "/v1/status")[0] == 404
    assert ask("POST", "/v1/leave")[0] == 404
    with pytest.raises(StateError) as caught:
        TcpServer("metrics", ("127.0.0.1", server.port), routes)
    assert "metrics.listen" in caught.value.hint
    server.stop()


def test_counting_and_reading_at_once_never_fails() -> None:
    one = reading()
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            one.counters.events[f"kind-{number % 50}"] += 1
            one.counters.pass_s["rules"].observe(0.01)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(200):
            render(one)
    finally:
        stop.set()
        thread.join()
