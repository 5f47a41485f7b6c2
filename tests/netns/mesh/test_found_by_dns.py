"""An agent whose settings name no etcd: it finds one in DNS, joins, and names the record."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.netns.mesh.stage import ETCD, Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

NAME = "_etcd-client._tcp.example.test"


class Nameless(Node):
    """Its resolv.conf names the stage's name server."""

    def _mounts(self) -> list[str]:
        (self.folder / "resolv.conf").write_text(f"nameserver {ETCD}\nsearch example.test\n")
        script = (
            f"mount --bind {self.folder}/machine-id /etc/machine-id"
            f' && mount --bind {self.folder}/resolv.conf /etc/resolv.conf && exec "$@"'
        )
        return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.fixture
def node() -> Iterator[Node]:
    stage = Stage(0)
    server: subprocess.Popen[bytes] | None = None
    made: Node | None = None
    try:
        stage.create_mesh()
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
        command += ["--no-resolv", "--no-hosts", "--user=", "--local=/test/", f"-a{ETCD}"]
        command += ["--bind-interfaces", f"--srv-host={NAME},etcd1.example.test,2379"]
        command += [f"--host-record=etcd1.example.test,{ETCD}"]
        etcd_host = stage.lan.hosts[0]
        server = etcd_host.popen(command)
        made = Nameless(stage.lan.add("192.0.2.1/24"), 1, stage.folder)
        text = made.settings.read_text()
        made.settings.write_text(
            "\n".join(
                'domain = "example.test"' if line.startswith("endpoints") else line
                for line in text.splitlines()
            )
        )
        yield made
    finally:
        if made is not None:
            made.stop()
        if server is not None:
            server.kill()
            server.wait(10)
        stage.close()


def test_a_host_with_a_domain_finds_etcd_and_joins(node: Node) -> None:
    node.start()
    eventually(node.subnet, 30)
    found = node.document("status")["etcd"]
    assert found["source"] == "dns"
    assert found["told_by"] == NAME
    assert found["endpoints"] == ["http://etcd1.example.test:2379"]
    # The uplink was chosen by the route to what DNS named: this host has no default route.
    assert node.document("status")["host"]["uplink"] == "eth0"
    assert f"from DNS {NAME}" in node.ctl("status", "-o", "wide", environ={"COLUMNS": "160"}).stdout
    # Without the agent agentctl looks for itself.
    node.stop()
    assert node.subnet() != ""
