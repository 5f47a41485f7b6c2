"""Promise 5 on each engine and each iptables: who reaches whom, before and after disturbances.

host1 has iptables-nft, host2 iptables-legacy; each is tested as the host whose rules decide. With
``HOSTMESH_WRITE_VERIFIED=1`` what was verified goes to verified.json and into docs/docker.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import permutations

import pytest
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from tests.engine.firewall import verified
from tests.engine.firewall.matrix import CUT_WITHOUT_DOCKER, PAIRS, Scene

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

VARIANTS = {"host1": "nft", "host2": "legacy"}
_HEAL_S = 40.0
"""Docker may start containers late on a busy machine; the repair itself takes at most 5 s."""
_OPERATORS = (
    ("filter", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"),
    ("filter", "-I DOCKER-USER -s 198.51.100.0/24 -j DROP"),
    ("filter", "-A FORWARD -s 198.51.100.9/32 -j REJECT --reject-with icmp-port-unreachable"),
    ("nat", "-A POSTROUTING -s 10.200.0.0/16 -o eth0 -j MASQUERADE"),
    ("raw", "-A PREROUTING -s 198.51.100.7/32 -j DROP"),
    ("mangle", "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"),
)
_JUMP = ("-m", "comment", "--comment", "hostmesh: everything of ours is in this chain", "-j")


def _restart_docker(host: Host) -> None:
    host.run(["lab-service", "restart", "docker"], timeout_s=180)


def _docker_restart(host: Host) -> None:
    _restart_docker(host)


def _network_create(host: Host) -> None:
    host.docker("network", "create", "another")


def _flush_and_reload(host: Host) -> None:
    """As firewalld does: every table replaced at once, then Docker writes its own again."""
    empty = "".join(f"*{table}\nCOMMIT\n" for table in ("filter", "nat", "raw", "mangle"))
    host.run(["iptables-restore", "-w"], stdin=empty)
    _restart_docker(host)


def _insert_above(host: Host) -> None:
    masquerade = ["POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"]
    host.run(["iptables", "-w", "-t", "nat", "-I", *masquerade])
    host.run(["iptables", "-w", "-t", "raw", "-I", "PREROUTING", "-p", "udp", "-i", "eth0"])


def _delete_duplicate_move(host: Host) -> None:
    """The jump in filter goes, the one in nat is doubled, the one in raw moved to the end."""
    forward, post, pre = (
        [*_JUMP, f"HOSTMESH-{name}"] for name in ("FORWARD", "POSTROUTING", "PREROUTING")
    )
    host.run(["iptables", "-w", "-D", "DOCKER-USER", *forward])
    host.run(["iptables", "-w", "-t", "nat", "-A", "POSTROUTING", *post])
    host.run(["iptables", "-w", "-t", "raw", "-D", "PREROUTING", *pre])
    host.run(["iptables", "-w", "-t", "raw", "-A", "PREROUTING", *pre])


def _flush_filter(host: Host) -> None:
    host.run(["iptables", "-w", "-F"])


def _flush_nat(host: Host) -> None:
    host.run(["iptables", "-w", "-t", "nat", "-F"])


DISTURBANCES: dict[str, Callable[[Host], None]] = {
    "another tool inserts above us": _insert_above,
    "our jumps deleted, doubled, moved": _delete_duplicate_move,
    "docker network create": _network_create,
    "Docker restart": _docker_restart,
    "flush and reload, as firewalld does": _flush_and_reload,
    "iptables -t nat -F": _flush_nat,
    "iptables -F": _flush_filter,
}
"""In this order: the last two take Docker's own rules away too, until it is restarted."""
_FEW = ("our jumps deleted, doubled, moved", "iptables -t nat -F")


def _labs() -> Iterator[object]:
    for suite in verified.ENGINES:
        for forwarding in ("by Docker", "before Docker"):
            usual = (suite, forwarding) == ("forky", "before Docker")
            marks = [] if usual else [pytest.mark.full]
            yield pytest.param((suite, forwarding), id=f"{suite}-{forwarding}", marks=marks)


@pytest.fixture(scope="module", params=list(_labs()))
def setting(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(suite, who switches ip_forward on)."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def mesh(
    setting: tuple[str, str], make_lab: Callable[[LabOptions], AbstractContextManager[Lab]]
) -> Iterator[Lab]:
    """Two hosts of the suite, one with each iptables."""
    suite, _forwarding = setting
    try:
        images.ensure(suite, print)
    except LabError as error:
        pytest.skip(f"NOT TESTED: no root filesystem of {suite} could be made here: {error}")
    options = {
        name: HostOptions(
            iptables=variant, sysctls=_sysctls(setting), reject_forward=variant == "nft"
        )
        for name, variant in VARIANTS.items()
    }
    with make_lab(
        LabOptions(name="matrix", hosts=2, suite=suite, host=options["host1"], hosts_differ=options)
    ) as lab:
        lab.hosts["host1"].agentctl("config", "set", "--level", "3")
        yield lab


def _sysctls(setting: tuple[str, str]) -> dict[str, str]:
    return {"net.ipv4.ip_forward": "1" if setting[1] == "before Docker" else "0"}


@pytest.fixture(scope="module")
def scene(mesh: Lab) -> Iterator[Scene]:
    with Scene(mesh, tuple(mesh.hosts.values())) as made:
        yield made


@pytest.fixture
def record(setting: tuple[str, str], scene: Scene) -> Callable[[str], None]:
    """Keep what a phase verified, if the command line asks for it."""

    def keep(phase: str) -> None:
        counts = {
            (VARIANTS[host], pair): count for (host, pair), count in scene.asked.items() if count
        }
        scene.asked.clear()
        if os.environ.get("HOSTMESH_WRITE_VERIFIED"):
            version = next(iter(scene.hosts)).docker("version", "-f", "{{.Server.Version}}").stdout
            verified.add(setting[0], version.strip(), setting[1], phase, counts)

    return keep


def test_each_source_reaches_its_destinations_and_nothing_else(
    scene: Scene, record: Callable[[str], None]
) -> None:
    assert scene.verify(_HEAL_S) == []
    assert {pair for _, pair in scene.asked} == set(PAIRS)
    record("at first")


def test_what_a_container_publishes_is_open_from_its_start_to_its_stop(scene: Scene) -> None:
    for here, there in permutations(scene.hosts):
        address = there.start_container("late", network="blue", publish=["8085:80"])
        try:
            url = f"http://{address}/"
            wait_until(lambda: here.fetch(url, timeout_s=1), 20, f"{url} is open")  # noqa: B023
            assert f"  {address} tcp 80" in _shown(there)
        finally:
            there.remove_container("late")
        wait_until(lambda: f"  {address} " not in _shown(there), 20, "it is gone")  # noqa: B023


def test_a_container_with_two_networks_answers_at_both_addresses(scene: Scene) -> None:
    """A reply leaves by the network that has the default route, not by the one it came in by."""
    for here, there in permutations(scene.hosts):
        there.docker("network", "connect", "green", "shown")
        try:
            address = there.container_address("shown", "green")
            wait_until(lambda: here.ping(address, container="open0"), 20, f"{address} answers")  # noqa: B023
        finally:
            there.docker("network", "disconnect", "green", "shown")


def test_a_host_closes_a_mesh_network_that_it_no_longer_takes_part_in(scene: Scene) -> None:
    """By a reload of agent.toml: to its own slice at once, to the other by what it publishes."""
    here, there = scene.hosts
    ways = [
        (f"member@{one.name}", f"member@{other.name}")
        for one, other in ((here, there), (there, here))
    ]

    def all_are(reached: bool) -> bool:
        return all((scene.answer(*way, "tcp81") is not None) is reached for way in ways)

    assert all_are(True)
    settings = there.path("/etc/hostmesh/agent.toml")
    before = settings.read_text()
    settings.write_text(f'{before}\n[networks]\nallow = ["safe"]\n')
    try:
        there.agentctl("reload")
        wait_until(lambda: all_are(False), 20, "web to be closed in both directions")
        assert scene.answer(f"guarded@{here.name}", f"guarded@{there.name}", "tcp81")
    finally:
        settings.write_text(before)
        there.agentctl("reload")
    wait_until(lambda: all_are(True), 20, "web to be open again")


def _shown(host: Host) -> str:
    return host.agentctl("firewall", "show").stdout


def _every_disturbance() -> Iterator[object]:
    for name in DISTURBANCES:
        yield pytest.param(name, marks=[] if name in _FEW else [pytest.mark.full])


@pytest.mark.parametrize("name", list(_every_disturbance()))
def test_the_same_after_a_disturbance(
    scene: Scene, record: Callable[[str], None], name: str
) -> None:
    without: frozenset[str] = CUT_WITHOUT_DOCKER.get(name, frozenset())
    if not without:
        assert scene.verify(_HEAL_S) == []
        scene.asked.clear()
    for host in scene.hosts:
        DISTURBANCES[name](host)
    for host in scene.hosts:
        wait_until(lambda host=host: healed(host), 60, f"{host.name} to be as wanted")  # type: ignore[misc]
    scene.refresh()
    try:
        assert scene.verify(_HEAL_S, without) == []
        record(name)
        for host in scene.hosts if without else ():
            assert "docker-rules-missing" in host.conditions()
    finally:
        for host in scene.hosts if without else ():
            _restart_docker(host)
        if without:
            scene.refresh()


def healed(host: Host) -> bool:
    """Nothing differs from what the agent wants."""
    return '"state": "equal"' in host.agentctl("diff", "-o", "json", check=False).stdout


def _used_tables(host: Host, variant: str) -> dict[str, list[str]]:
    """Rules, chains and policies as iptables-save prints them: no counters, no empty tables."""
    tables: dict[str, list[str]] = {}
    for table in ("raw", "mangle", "nat", "filter"):
        lines = [
            line.split(" [")[0] if line.startswith(":") else line
            for line in host.iptables(table, variant=variant)
            if line.startswith((":", "-A"))
        ]
        if any(line.startswith("-A") or line.endswith((" -", " DROP")) for line in lines):
            tables[table] = lines
    return tables


@pytest.mark.full
@pytest.mark.parametrize("variant", VARIANTS.values())
def test_promise_5_rules_of_others_are_the_same_before_join_and_after_leave(
    mesh: Lab, setting: tuple[str, str], variant: str
) -> None:
    host = mesh.join(HostOptions(agent=False, iptables=variant, sysctls=_sysctls(setting)))
    # Docker twice: its first start and a restart order its rules differently.
    host.run(["lab-service", "restart", "docker"], timeout_s=120)
    for table, rule in _OPERATORS:
        host.run(["iptables", "-w", "-t", table, *rule.split()])
    before = {each: _used_tables(host, each) for each in ("nft", "legacy")}
    assert not [line for lines in before[variant].values() for line in lines if "HOSTMESH" in line]
    host.start_agent()
    wait_until(host.ready, 60, f"{host.name} to be ready")
    assert any("HOSTMESH" in line for line in host.iptables("filter", variant=variant))
    during = _used_tables(host, variant)
    for table, rule in _OPERATORS:
        assert f"-A {rule[3:]}" in during[table], (
            "an operator's rule stays while the agent's are there"
        )
    host.agentctl("leave", "--force", timeout_s=240)
    assert {each: _used_tables(host, each) for each in ("nft", "legacy")} == before
    assert "hostmesh" not in host.run(["ipset", "list", "-n"]).stdout
    host.shut_down()
