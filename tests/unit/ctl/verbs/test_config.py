"""``agentctl config``: refuses what overlaps before anything is written, proposes what does not."""

from __future__ import annotations

import io
import json
import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
import structlog

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.main import main
from agent.kernel import facts as kernel_facts
from agent.model import Bounds, HostFacts, Link, MeshConfig, Problem, Route, View

pytestmark = pytest.mark.unit


def link(index: int, name: str, kind: str, *addresses: str) -> Link:
    return Link(
        index=index,
        name=name,
        kind=kind,
        up=True,
        mtu=1500,
        mac="",
        addresses=tuple(IPv4Interface(each) for each in addresses),
    )


FACTS = HostFacts(
    links=(
        link(1, "lo", "", "127.0.0.1/8"),
        link(2, "eth0", "", "10.8.0.5/24"),
        link(3, "docker0", "bridge", "10.96.0.1/16"),
    ),
    foreign_routes=(
        Route(destination=IPv4Network("0.0.0.0/0"), gateway=IPv4Address("10.8.0.1"), link="eth0"),
        Route(destination=IPv4Network("10.8.0.0/24"), link="eth0", protocol=2),
        Route(destination=IPv4Network("10.96.0.0/16"), link="docker0", protocol=2),
        Route(
            destination=IPv4Network("10.70.0.0/16"), gateway=IPv4Address("10.8.0.9"), link="eth0"
        ),
    ),
)


class FakeRegistry:
    def __init__(self) -> None:
        self.config: MeshConfig | None = None
        self.problem = ""
        self.bounds = Bounds()
        self.endpoints = ()

    def create_config(self, config: MeshConfig) -> MeshConfig:
        """As the real one: what is there wins and is returned."""
        if self.config is None:
            self.config = replace(config, mod_revision=7)
        return self.config

    def snapshot(self) -> View:
        return View(
            cluster_id=1,
            revision=1,
            config=self.config,
            config_problem=Problem(self.problem) if self.problem else None,
        )


@pytest.fixture(name="registry")
def registry_fixture(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    fake = FakeRegistry()

    @contextmanager
    def registry(_context: Context) -> Iterator[FakeRegistry]:
        yield fake

    monkeypatch.setattr(direct, "registry", registry)
    monkeypatch.setattr(kernel_facts, "read_host_facts", lambda _protocol: FACTS)
    return fake


def run(*words: str) -> int:
    return main(["config", *words, "--settings", "/dev/null"])


def test_init_creates_what_is_asked_for(
    registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--cidr", "10.128.0.0/12", "--subnet-len", "20") == 0
    assert registry.config is not None
    assert str(registry.config.cidr) == "10.128.0.0/12"
    assert str(registry.config.subnet_max) == "10.143.240.0"
    assert capsys.readouterr().out == (
        "/hostmesh/config is in etcd: 10.128.0.0/12, a /20 for each of up to 256 hosts, host-gw,"
        " names under hostmesh.internal\n"
    )


@pytest.mark.parametrize(
    ("cidr", "named"),
    [("10.8.0.0/13", "10.8.0.5/24"), ("10.64.0.0/10", "10.70.0.0/16"), ("10.0.0.0/8", "eth0")],
)
def test_init_refuses_an_overlap_naming_both_and_writes_nothing(
    registry: FakeRegistry, cidr: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--cidr", cidr) == 18
    err = capsys.readouterr().err
    assert cidr in err
    assert named in err
    assert "nothing was written" in err
    assert registry.config is None


def test_docker0_that_is_about_to_be_renumbered_is_no_overlap(registry: FakeRegistry) -> None:
    assert run("init", "--cidr", "10.96.0.0/12") == 0
    assert registry.config is not None


def test_init_without_a_cidr_proposes_and_writes_nothing(
    registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "-o", "json") == 0
    proposal = IPv4Network(json.loads(capsys.readouterr().out)["cidr"])
    assert registry.config is None
    for route in FACTS.foreign_routes[1:2] + FACTS.foreign_routes[3:]:
        assert not proposal.overlaps(route.destination)
    assert run("init") == 0
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert registry.config is None
    assert command[:2] == ["agentctl", "config"]
    assert run(*command[2:]) == 0, "the command that it proposes works"


def test_init_creates_its_own_proposal_only_with_the_operators_word(
    registry: FakeRegistry,
) -> None:
    assert run("init", "--yes") == 0
    assert registry.config is not None


def test_another_init_is_refused_and_the_same_is_welcome(
    registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--cidr", "10.128.0.0/12") == 0
    assert run("init", "--cidr", "10.128.0.0/12") == 0
    assert run("init", "--cidr", "10.144.0.0/12") == 16
    assert "is in etcd already and differs: 10.128.0.0/12" in capsys.readouterr().err
    assert registry.config is not None
    assert str(registry.config.cidr) == "10.128.0.0/12"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cidr", "10.64.0.0/15"], "flag: mesh.subnet_len: must be 17 or more"),
        (["--cidr", "10.64.0.1/10"], "flag: mesh.cidr: has host bits set"),
        (["--cidr", "10.64.0.0/10", "--backend", "hostgw"], "flag: mesh.backend: must be one of"),
        (["--cidr", "10.64.0.0/10", "--subnet-len", "x"], "flag: mesh.subnet_len: must be a whole"),
    ],
)
def test_an_impossible_mesh_is_refused(
    registry: FakeRegistry, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", *words) == 10
    assert capsys.readouterr().err.startswith(f"agentctl: {expected}")
    assert registry.config is None


def test_init_takes_the_mesh_of_the_settings(registry: FakeRegistry, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[mesh]\ncidr = "10.128.0.0/12"\nsubnet_len = 24\n')
    assert main(["config", "init", "--settings", str(path)]) == 0
    assert registry.config is not None
    assert registry.config.subnet_len == 24


def test_show(registry: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show") == 16
    registry.problem = "Network is \x1b[31mred"
    assert run("show") == 16
    err = capsys.readouterr().err
    assert "there is no /hostmesh/config in etcd" in err
    assert "\x1b" not in err
    run("init", "--cidr", "10.128.0.0/12")
    capsys.readouterr()
    assert run("show", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["subnet_len"] == 16


def test_the_rooms_log_never_mixes_with_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    try:
        args = Namespace(settings=Path("/dev/null"), set=[], as_operator=None)
        with direct.registry(Context(args, {}, io.StringIO(), io.StringIO())):
            structlog.get_logger().info("mesh-config-created")
            structlog.get_logger().warning("slow")
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(capture=False)
        logging.getLogger().handlers[:] = before
    out, err = capsys.readouterr()
    assert out == ""
    assert "slow" in err
    assert "mesh-config-created" not in err
