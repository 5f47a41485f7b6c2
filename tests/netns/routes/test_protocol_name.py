"""``ip route`` calls our routes by name once the file that the installer brings is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.mesh.world import ROUTE_PROTOCOL
from tests.netns.netlab import Host
from tests.netns.routes.scene import lease, repair, scene, world_of

pytestmark = pytest.mark.netns

DEPLOY = Path(__file__).parents[3] / "deploy"
INSTALLED = "/etc/iproute2/rt_protos.d/hostmesh.conf"
_IN_A_PRIVATE_ETC = """
set -e
mount -t tmpfs none /etc
mkdir -p "$(dirname "$2")"
[ -z "$1" ] || cp "$1" "$2"
ip route show 10.64.1.0/24
ip route show proto {name}
"""


def ip_route(host: Host, file: str, name: str) -> subprocess.CompletedProcess[str]:
    """``ip route`` with ``file`` in place, in a mount namespace with an /etc of its own."""
    script = _IN_A_PRIVATE_ETC.format(name=name)
    command = ["unshare", "--mount", "sh", "-c", script, "sh", file, INSTALLED]
    return host.call(
        subprocess.run, command, check=False, capture_output=True, text=True, timeout=30
    )


@pytest.fixture
def one(host: Host) -> Host:
    scene(host)
    repair(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    return host


def test_routes_are_shown_and_found_by_name(one: Host) -> None:
    done = ip_route(one, str(DEPLOY / "iproute2.conf"), "hostmesh")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == "10.64.1.0/24 via 192.0.2.11 dev eth0 proto hostmesh"
    assert "unreachable 10.64.0.0/10" in lines[1:]


def test_without_the_file_there_is_only_the_number(one: Host) -> None:
    assert f"proto {ROUTE_PROTOCOL}" in ip_route(one, "", "140").stdout
    assert ip_route(one, "", "hostmesh").returncode != 0
