"""What every test in namespaces shares: hosts to work on; the machine itself is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.netns.netlab import Host, Lan


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")


@pytest.fixture
def host() -> Iterator[Host]:
    """One namespace with nothing in it but lo."""
    made = Host()
    yield made
    made.close()


@pytest.fixture
def lan() -> Iterator[Lan]:
    """An empty LAN; add hosts to it."""
    made = Lan()
    yield made
    made.close()


def _machine() -> dict[str, set[str]]:
    """The machine's own network state, without what counts time."""

    def lines(*command: str) -> set[str]:
        done = subprocess.run(["ip", *command], check=True, capture_output=True, text=True)
        return {
            line
            for line in done.stdout.splitlines()
            if "linkdown" not in line and "dead" not in line
        }

    sysctls = set()
    for name in ("ip_forward", "conf/all/rp_filter", "conf/default/rp_filter"):
        sysctls.add(f"{name}={Path('/proc/sys/net/ipv4', name).read_text().strip()}")
    return {
        "routes": lines("-o", "route", "show", "table", "all"),
        "rules": lines("-o", "rule", "show"),
        "addresses": {line.split("valid_lft")[0] for line in lines("-o", "-4", "addr", "show")},
        "sysctls": sysctls,
    }


@pytest.fixture(scope="session", autouse=True)
def machine_untouched() -> Iterator[None]:
    """The machine's own routes, rules, addresses and sysctls survive every test here.

    Other work may add to them meanwhile, so what must hold is: nothing that was there is gone,
    and nothing that is new bears a mark of ours.
    """
    before = _machine()
    yield
    after = _machine()
    for part, lines in before.items():
        assert lines <= after[part], f"{part} of the machine changed: {lines - after[part]}"
    new_routes = after["routes"] - before["routes"]
    assert not [line for line in new_routes if "proto 140" in line]
