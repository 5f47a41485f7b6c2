"""The web shop of docs/networks.md on three hosts, by Debian's docker-compose.

The Compose files are those of the page. The lab has its own images only, so a second file names
them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from pathlib import Path

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

from tests.waiting import remarks

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PAGE = (Path(__file__).parents[3] / "docs" / "networks.md").read_text()
SHOP = re.search(r"```yaml\n(# shop\.yaml.*?)```", PAGE, re.DOTALL)
LABELLED = re.search(r"(?m)^    # compose\.yaml\n((?:    .*\n)+)", PAGE)
PLACES = {"front": "host1", "app": "host2", "db": "host3"}
PORTS = {"front": 80, "app": 80, "db": 6379}
ON_LAB_IMAGES = """
services:
  front: {image: lab, stop_grace_period: 0s}
  app: {image: lab, stop_grace_period: 0s}
  db: {image: lab, stop_grace_period: 0s, command: [httpd, -f, -p, "6379", -h, /www]}
"""
OUTSIDE = "outside"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("bookworm", marks=pytest.mark.full),
        pytest.param("trixie", marks=pytest.mark.full),
        "forky",
    ],
)
def mesh(
    request: pytest.FixtureRequest,
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]],
) -> Iterator[Lab]:
    """Three hosts of a suite, each with a container on docker0."""
    with make_lab(LabOptions(name="nets", suite=request.param, packages=["docker-compose"])) as lab:
        lab.hosts["host1"].agentctl("config", "set", "--level", "3")
        for host in lab.hosts.values():
            options = ["--restart", "unless-stopped", "--stop-timeout", "0"]
            host.start_container(OUTSIDE, options=options)
        yield lab


def compose(host: Host, *words: str, files: str = "-f shop.yaml -f lab.yaml") -> str:
    command = f"cd /root/shop && docker-compose {files} {shlex.join(words)}"
    return host.run(["sh", "-c", command], timeout_s=120).stdout


@dataclass(frozen=True)
class Service:
    """A running service of the shop."""

    name: str
    host: Host
    container: str
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}:{PORTS[self.name]}/cgi-bin/whoami"


def service(lab: Lab, name: str) -> Service:
    host = lab.hosts[PLACES[name]]
    container = compose(host, "ps", "-q", name).strip()
    return Service(name, host, container, str(host.container_address(container)))


@pytest.fixture(scope="module")
def shop(mesh: Lab) -> dict[str, Service]:
    """The shop runs as the page says."""
    assert SHOP is not None
    for host in mesh.hosts.values():
        host.run(["mkdir", "-p", "/root/shop"])
        host.write_file("/root/shop/shop.yaml", SHOP[1])
        host.write_file("/root/shop/lab.yaml", ON_LAB_IMAGES)
    made = mesh.hosts["host1"].agentctl("network", "create", "shop", "--access", "closed")
    assert made.stdout.splitlines()[0] == "created network shop"
    for name, place in PLACES.items():
        compose(mesh.hosts[place], "up", "-d", name)
    return {name: service(mesh, name) for name in PLACES}


def attempts(*calls: Callable[[], object]) -> list[object]:
    """Run probes side by side; those that must fail wait for their time-out."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda call: call(), calls))


def wait_open(shop: dict[str, Service]) -> None:
    """Wait until every service reaches every other on its port, with its true address."""

    def reaches(source: Service, target: Service) -> None:
        def answered() -> bool:
            found = source.host.fetch(target.url, container=source.container, timeout_s=2)
            return source.address in (found or "")

        wait_until(answered, 60, f"{source.name} to reach {target.name}")

    attempts(*(partial(reaches, *pair) for pair in permutations(shop.values(), 2)))


def require_closed(lab: Lab, shop: dict[str, Service]) -> None:
    """Nothing else of the mesh reaches the shop on another host; itself it sends as its host."""
    hosts = lab.hosts.values()
    outside = {host.name: str(host.container_address(OUTSIDE)) for host in hosts}

    def reaches(host: Host, other: Host) -> None:
        url = f"http://{outside[other.name]}/"
        what = f"docker0 of {host.name} to reach that of {other.name}"
        wait_until(lambda: host.fetch(url, container=OUTSIDE), 30, what)

    # The same probe passes where it should.
    attempts(*(partial(reaches, *pair) for pair in permutations(hosts, 2)))
    probes: dict[str, Callable[[], object]] = {}
    for host, target in product(hosts, shop.values()):
        if target.host is host:
            continue
        for inside in (OUTSIDE, None):
            probes[f"{inside or 'itself'} of {host.name} to {target.name}"] = partial(
                host.fetch, target.url, container=inside, timeout_s=1
            )
        probes[f"ping from {host.name} to {target.name}"] = partial(
            host.ping, target.address, container=OUTSIDE
        )
    found = dict(zip(probes, attempts(*probes.values()), strict=True))
    assert not {name: answer for name, answer in found.items() if answer}
    app = shop["app"]
    url = f"http://{outside['host1']}/cgi-bin/whoami"
    assert app.host.address in (app.host.fetch(url, container=app.container) or "")


def test_the_shop_is_one_network_and_closed_to_all_else(
    mesh: Lab, shop: dict[str, Service]
) -> None:
    wait_open(shop)
    require_closed(mesh, shop)
    stranger = mesh.stranger
    assert stranger is not None
    front = f"http://{mesh.hosts['host1'].address}:8080/"
    assert stranger.run(["curl", "-sf", "--max-time", "3", front], check=False).returncode == 0


def test_agentctl_shows_the_network_and_its_containers(mesh: Lab, shop: dict[str, Service]) -> None:
    host = mesh.hosts["host2"]

    def parts() -> list[tuple[str, str, int]]:
        (network,) = json.loads(host.agentctl("network", "inspect", "shop", "-o", "json").stdout)[
            "networks"
        ]
        return [(each["host_name"], each["state"], each["containers"]) for each in network["parts"]]

    wanted = [(name, "ready", 1) for name in ("host1", "host2", "host3")]
    wait_until(lambda: parts() == wanted, 20, "every part to be shown")
    listed = json.loads(host.agentctl("containers", "-o", "json").stdout)["containers"]
    addresses = {
        each["service"]: each["addresses"][0]["address"] for each in listed if each["service"]
    }
    assert addresses == {name: each.address for name, each in shop.items()}
    app = shop["app"]
    steps = asked(host, "trace", app.container[:12], "db", "--tcp", "6379")
    assert "within one network of several hosts" in steps["here rules"]["text"]
    assert steps["next network"]["result"] == "ok"
    steps = asked(host, "trace", OUTSIDE, "db", "--tcp", "6379", status=1)
    assert steps["next network"]["result"] == "failed"
    assert "HOSTMESH-INBOUND, closed network" in steps["next network"]["text"]
    assert asked(host, "ping", "db")["container"]["result"] == "ok"
    there = asked(shop["db"].host, "trace", app.address, shop["db"].address, "--tcp", "6379")
    assert "accepts it: -A HOSTMESH-NETWORKS" in there["here rules"]["text"]
    there = asked(shop["db"].host, "trace", str(host.address), shop["db"].address, status=1)
    assert "closed network" in there["here rules"]["text"]


def asked(host: Host, *words: str, status: int = 0) -> dict[str, dict[str, str]]:
    """The steps of ping or trace, by host where they have one, and name."""
    done = host.agentctl(*words, "-o", "json", check=False)
    assert done.returncode == status, done.stdout + done.stderr
    steps = json.loads(done.stdout)["steps"]
    return {f"{each.get('host', '')} {each['step']}".strip(): each for each in steps}


def restart_agent(lab: Lab) -> None:
    lab.hosts["host1"].kill_agent()


def restart_docker(lab: Lab) -> None:
    lab.hosts["host2"].run(["lab-service", "restart", "docker"], timeout_s=120)


def restart_etcd(lab: Lab) -> None:
    etcd = lab.etcd["etcd1"]
    etcd.stop()
    etcd.start()


def cut_power(lab: Lab) -> None:
    host = lab.hosts["host3"]
    host.kill()
    host.boot()


def restarts(lab: Lab) -> None:
    """An agent is killed on one host, dockerd restarts on another, etcd restarts."""
    restart_etcd(lab)
    restart_agent(lab)
    restart_docker(lab)


def all_at_once(lab: Lab) -> None:
    """Cut the power of a host, and restart all else while etcd is away."""
    lab.etcd["etcd1"].stop()
    restart_agent(lab)
    lab.hosts["host3"].kill()
    restart_docker(lab)
    lab.etcd["etcd1"].start()
    lab.hosts["host3"].boot()


@pytest.mark.parametrize(
    "disturb",
    [
        restarts,
        *(
            pytest.param(each, marks=pytest.mark.full)
            for each in (all_at_once, restart_agent, restart_docker, restart_etcd, cut_power)
        ),
    ],
)
def test_the_shop_goes_on_after(
    mesh: Lab, shop: dict[str, Service], disturb: Callable[[Lab], None]
) -> None:
    disturb(mesh)
    mesh.wait_ready(90)
    now = {name: service(mesh, name) for name in PLACES}
    wait_open(now)
    require_closed(mesh, now)
    shop.update(now)


def test_a_network_that_is_in_use_stays_and_goes_when_it_is_not(
    mesh: Lab, shop: dict[str, Service]
) -> None:
    host = mesh.hosts["host1"]
    removing = host.agentctl("network", "rm", "shop")
    assert "in use by 1 container" in removing.stderr
    wait_open(shop)
    for name, place in PLACES.items():
        compose(mesh.hosts[place], "rm", "-sf", name)
    removed = host.agentctl("network", "rm", "shop", check=False)
    assert removed.returncode == 0, removed.stdout + removed.stderr
    for each in mesh.hosts.values():
        names = each.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
        assert "shop" not in names
    assert host.agentctl("network", "ls").stdout == "there is no mesh network\n"
    shop.clear()


@pytest.mark.full
def test_a_host_that_is_off_follows_when_it_returns(mesh: Lab) -> None:
    """It makes a network that was created meanwhile, and removes one that was removed."""
    host, off = mesh.hosts["host1"], mesh.hosts["host3"]

    def networks() -> list[str]:
        return off.docker("network", "ls", "--format", "{{.Name}}").stdout.split()

    def is_known() -> bool:
        return "to be made" not in host.agentctl("network", "ls").stdout

    cut_off(host, off)
    assert "host3: to be made (host off)" in host.agentctl("network", "create", "later").stderr
    off.boot()
    wait_until(lambda: "later" in networks(), 60, "the network on the host that was off")
    wait_until(is_known, 20, "the others to know that it has it")
    cut_off(host, off)
    removed = host.agentctl("network", "rm", "later")
    assert remarks(removed.stderr) == "host3: to be removed (host off)\n"
    assert "to be removed: host3 (host off)" in host.agentctl("network", "ls").stdout
    off.boot()
    wait_until(lambda: "later" not in networks(), 60, "the network to go from the host")
    wait_until(
        lambda: re.search(r"later .* removed\n", host.agentctl("network", "ls").stdout),
        20,
        "no host to have it",
    )
    assert host.agentctl("network", "rm", "later").stdout == "removed network later\n"
    assert "later" not in host.agentctl("network", "ls").stdout
    mesh.wait_ready(60)


def cut_off(host: Host, off: Host) -> None:
    """Cut the power of a host, and wait until the others know."""
    off.kill()

    def gone() -> bool:
        return any(each["host_name"] == off.name and not each["alive"] for each in host.leases())

    wait_until(gone, 60, f"the heartbeat of {off.name} to lapse")


def test_one_label_in_a_compose_file_is_enough(mesh: Lab) -> None:
    """The page's file makes the default networks of two projects one network."""
    assert LABELLED is not None
    label = "\n".join(line[4:] for line in LABELLED[1].splitlines())
    front, app = mesh.hosts["host1"], mesh.hosts["host2"]
    containers = {}
    for host in (front, app):
        host.run(["mkdir", "-p", "/root/shop"])
        host.write_file(
            "/root/shop/web.yaml",
            f"services: {{web: {{image: lab, stop_grace_period: 0s}}}}\n{label}\n",
        )
        compose(host, "up", "-d", files="-f web.yaml")
        containers[host] = compose(host, "ps", "-q", files="-f web.yaml").strip()
    address = app.container_address(containers[app])
    url = f"http://{address}/"
    wait_until(lambda: front.fetch(url, container=containers[front]), 20, "the other host's web")
    assert front.fetch(url, container=OUTSIDE, timeout_s=1) is None
    for host in (front, app):
        compose(host, "down", files="-f web.yaml")
