"""Rigs for the firewall's tests on the real kernel."""

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.netns.firewall.rig.docker_rules import ENGINES, docker_text
from tests.netns.firewall.rig.rig import Rig, rig

Rigs = Callable[[str], Rig]
VARIANTS = ("nft", "legacy")


LATER = (("nft", "26.1"), ("legacy", "26.1"), ("legacy", "28.5"))
"""Run in full only: 26.1's rules are 20.10's as far as they matter here, and each engine and
each variant is in what is left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if (params.get("variant"), params.get("engine")) in LATER:
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session", autouse=True)
def _needed() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [name for name in ("iptables-nft", "iptables-legacy") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install iptables)")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def _rigs() -> Iterator[Rigs]:
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda variant: stack.enter_context(rig(variant)))


@pytest.fixture
def bare(_rigs: Rigs, variant: str) -> Rig:
    """A host without any rule."""
    made = _rigs(variant)
    made.reset()
    return made


@pytest.fixture
def docked(bare: Rig, engine: str) -> Rig:
    """A host with an engine's rules, FORWARD's policy ACCEPT: forwarding was on before Docker."""
    bare.restore(docker_text(engine))
    return bare
