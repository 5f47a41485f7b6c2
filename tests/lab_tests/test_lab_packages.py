"""Debian packages above the lab's images: made before tests, and without a service of theirs."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images, package_layer
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

pytestmark = pytest.mark.engine
LONGEST_BUILD_S = 60.0
STATUS = "var/lib/dpkg/status"


COMPOSE = """
services:
  web:
    image: lab
    network_mode: none
"""
PROGRAMS = {
    "wireguard-go": """
        wireguard-go wg0
        wg set wg0 listen-port 51820
        wg show wg0 listen-port | grep -q 51820
        ip link delete wg0""",
    "wireguard-tools": "wg genkey | wg pubkey | grep -q =",
    "openvswitch-switch": """
        mkdir -p /var/log/openvswitch
        control=/usr/share/openvswitch/scripts/ovs-ctl
        $control --no-mlockall --system-id=random start
        ovs-vsctl --timeout=10 add-br br0 -- set bridge br0 datapath_type=netdev
        ip link show br0
        ovs-vsctl --timeout=10 del-br br0
        $control stop""",
    "docker-compose": """
        compose="docker compose"; $compose version || compose=docker-compose
        $compose --file /root/compose.yaml --project-name it up --detach
        docker ps | grep -q web
        $compose --file /root/compose.yaml --project-name it down --timeout 0""",
    "openssh-client openssh-server": """
        ssh-keygen -A; mkdir -p /run/sshd; /usr/sbin/sshd
        mkdir -p -m 700 /root/.ssh
        ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
        cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
        ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new 127.0.0.1 true
        kill $(cat /run/sshd.pid)""",
    "firewalld": """
        mkdir -p /run/dbus; dbus-daemon --system --fork --print-pid >/run/bus.pid
        firewalld
        until firewall-cmd --state; do sleep 0.1; done
        nft list table inet firewalld | grep -q filter_FORWARD
        firewall-cmd --zone=trusted --add-source=10.64.0.0/10
        daemon=$(cat /run/firewalld.pid); kill $daemon
        while [ -e /proc/$daemon ]; do sleep 0.1; done
        kill $(cat /run/bus.pid)""",
    "ufw": """
        ufw --force enable
        iptables -S ufw-user-input
        ufw disable""",
    "iperf3": """
        iperf3 --server --one-off --daemon
        until ss -Htln sport = 5201 | grep -q .; do sleep 0.1; done
        iperf3 --client 127.0.0.1 --bytes 1M | grep receiver""",
    "qperf": """
        qperf & server=$!
        until ss -Htln sport = 19765 | grep -q .; do sleep 0.1; done
        qperf --time 1 127.0.0.1 tcp_lat | grep latency
        kill $server""",
    "sockperf": """
        sockperf server -i 127.0.0.1 & server=$!
        until ss -Huln sport = 11111 | grep -q .; do sleep 0.1; done
        sockperf ping-pong -i 127.0.0.1 --time 1 | grep 'Summary: Latency'
        kill $server""",
    "bind9-dnsutils": "dig -v; nslookup -version; nsupdate -V",
}


TWO_FIREWALLS = ("firewalld", "ufw")


def lab_of(suite: str) -> LabOptions:
    packages = " ".join(PROGRAMS).split()
    return LabOptions(
        name=f"labpkg-{suite}",
        hosts=1,
        suite=suite,
        etcd_members=0,
        host=HostOptions(agent=False),
        packages=packages,
    )


def run_program(host: Host, package: str) -> str:
    """Return the error of a package's programs, "" for none."""
    done = host.run(["sh", "-exc", PROGRAMS[package]], check=False, timeout_s=30)
    return "" if done.returncode == 0 else f"{package}: {done.stdout[-400:]} {done.stderr[-400:]}"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(lab_of("trixie"), id="trixie"),
        pytest.param(lab_of("bookworm"), id="bookworm", marks=pytest.mark.full),
        pytest.param(lab_of("forky"), id="forky", marks=pytest.mark.full),
    ],
)
def test_each_packages_programs_run_on_a_host(options: LabOptions) -> None:
    with Lab.up(options) as lab:
        host = lab.hosts["host1"]
        host.write_file("/root/compose.yaml", COMPOSE)
        with ThreadPoolExecutor() as pool:
            said = list(
                pool.map(lambda name: run_program(host, name), PROGRAMS.keys() - TWO_FIREWALLS)
            )
        said += [run_program(host, name) for name in TWO_FIREWALLS]
        assert [each for each in said if each] == []


def test_a_layer_that_is_not_cached_takes_less_than_a_minute_and_changes_nothing_below(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = images.ensure("trixie", print)
    monkeypatch.setenv("HOSTMESH_LAB_CACHE", str(tmp_path))
    started = time.monotonic()
    layer = package_layer.ensure(image, ["firewalld", "iperf3", "docker-compose"], print)[0]
    assert time.monotonic() - started < LONGEST_BUILD_S
    above, below = (versions(root / STATUS) for root in (layer, image.rootfs))
    assert {name: above.get(name) for name in below} == below
    assert {"firewalld", "iperf3", "docker-compose"} <= above.keys() - below.keys()
    assert not [path for path in (layer / "etc/systemd/system").rglob("*") if path.is_symlink()]
    assert not (layer / "etc/resolv.conf").exists()


def versions(status: Path) -> dict[str, str]:
    """Return dpkg's state and version of each package."""
    found = {}
    for stanza in status.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
        if "Package" in fields:
            found[fields["Package"]] = f"{fields['Status']} {fields.get('Version', '')}"
    return found


def test_a_package_that_debian_has_not_is_an_error_with_apts_reason() -> None:
    with pytest.raises(LabError, match="Unable to locate package hostmesh-no-such") as caught:
        package_layer.ensure(images.ensure("trixie", print), ["hostmesh-no-such"], print)
    assert "apt-cache search" in caught.value.line()
    with pytest.raises(LabError, match="is no name of a Debian package"):
        package_layer.ensure(images.ensure("trixie", print), ["a;b"], print)
