"""The alerts, evaluated by Prometheus' own tool on what real agents export in real faults."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.unit.monitoring.promtool import Scrape, expect
from tests.waiting import eventually

pytestmark = pytest.mark.netns

NO_DOCKER = ("HostmeshNotReady", "")
"""No host of the stage has Docker. An alert that says more takes this one's place."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(3)
    with made.running():
        yield made


def scrape(node: Node) -> Scrape:
    """Return the text of /metrics of a host that is scraped, "" where none answers."""
    command = ["curl", "-s", "--unix-socket", str(node.socket), "http://localhost/metrics"]
    return {node.name: subprocess.run(command, check=False, capture_output=True, text=True).stdout}


def scraped(stage: Stage) -> Scrape:
    return {name: text for node in stage.nodes for name, text in scrape(node).items()}


def conditions(node: Node) -> set[str]:
    return {each["name"] for each in node.document("status")["conditions"]}


def test_promise_9_each_fault_of_a_real_mesh_is_one_alert(stage: Stage, tmp_path: Path) -> None:
    one, two, three = stage.nodes
    healthy = scraped(stage)
    expect(tmp_path, healthy, healthy, NO_DOCKER)

    foreign = ["ip", "route", "prepend", two.subnet(), "via", three.address]
    assert one.inside(foreign).returncode == 0
    eventually(lambda: "route-conflict" in conditions(one), 30)
    expect(tmp_path, scraped(stage), healthy, NO_DOCKER, ("HostmeshRoutesMissing", ""))
    assert one.inside(["ip", "route", "del", *foreign[3:]]).returncode == 0

    stage.etcdctl("put", "/hostmesh/config", '{"Network": 7}')
    eventually(lambda: all("mesh-config-unusable" in conditions(each) for each in stage.nodes), 30)
    expect(tmp_path, scraped(stage), healthy, ("HostmeshErrorOnHosts", "mesh-config-unusable"))
    stage.create_mesh()
    eventually(lambda: not any(conditions(each) - {"docker-absent"} for each in stage.nodes), 30)

    before = scraped(stage)
    three.stop()
    three.socket.unlink(missing_ok=True)
    eventually(lambda: 'hostmesh_peers{state="silent"} 1.0' in scrape(one)[one.name], 60)
    expect(tmp_path, scraped(stage), before, NO_DOCKER, ("HostmeshAgentDown", ""))
    three.start()
    stage.wait_joined()

    stage.stop_etcd()
    eventually(lambda: all("hostmesh_etcd_connected 0.0" in t for t in scraped(stage).values()), 60)
    expect(tmp_path, scraped(stage), healthy, ("HostmeshEtcdUnreachable", ""))
