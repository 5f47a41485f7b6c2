"""Labs for the tests on real dockerds. One at a time: the machine has two cores.

A module that wants a lab says which in a constant ``LAB`` and uses the fixture ``mesh``.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hostmesh_lab import machinestate, paths
from hostmesh_lab.lab import Lab, LabOptions


@contextmanager
def running_lab(options: LabOptions) -> Iterator[Lab]:
    """A lab whose agents are ready; afterwards the machine must be as it was (promise 5)."""
    lock_path = Path(paths.cache_root()) / "lab.lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = machinestate.look(lab=options.name)
        with Lab.up(options) as lab:
            if options.host.agent and options.cidr is not None:
                lab.wait_ready(90)
            yield lab
        assert machinestate.lasting_differences(before, lab=options.name) == []


@pytest.fixture(scope="session")
def make_lab() -> Callable[[LabOptions], AbstractContextManager[Lab]]:
    """For modules that need several labs, one after the other."""
    return running_lab


@pytest.fixture(scope="module")
def mesh(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab that the module asks for, its agents ready."""
    with running_lab(request.module.LAB) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _show_logs_of_a_failed_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the end of every agent's log when a test of a lab failed."""
    failed_before = request.session.testsfailed
    yield
    lab = request.node.funcargs.get("mesh")
    if request.session.testsfailed == failed_before or not isinstance(lab, Lab):
        return
    for name, host in lab.hosts.items():
        print(f"--- {name}: end of the agent's log")
        print("\n".join(host.agent_log().splitlines()[-25:]))
