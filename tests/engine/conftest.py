"""Labs for the tests on real dockerds. One at a time in each of two places: `make test` uses both.

A module that wants a lab says which in a constant ``LAB`` and uses the fixture ``mesh``. Modules
with equal options run one after the other in one lab, so each leaves it as it found it; one that
does not says so by ``LAB_LAST = True``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hostmesh_lab import machine_state, state
from hostmesh_lab.lab import Lab, LabOptions

from tests.engine.sharedlab import SharedLab, in_order, wanted_after

_HERE = Path(__file__).parent


def _engine_items(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if item.path.is_relative_to(_HERE)]


def _modules(items: list[pytest.Item]) -> list[object]:
    """Their modules, each once, in order."""
    return list(dict.fromkeys(item.module for item in items if isinstance(item, pytest.Function)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring modules that can share a lab side by side."""
    ours = _engine_items(items)
    places = [items.index(item) for item in ours]
    order = in_order(_modules(ours))
    ours.sort(key=lambda item: order.index(item.module) if isinstance(item, pytest.Function) else 0)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Wait for the labs of another run before the first test, outside of any test's timeout."""
    if session.config.option.collectonly or not _engine_items(session.items):
        return (yield)
    place = os.environ.get("LAB_PLACE", "1")
    with state.reserved("\nwaiting until another run's labs have ended", place):
        return (yield)


@contextmanager
def running_lab(options: LabOptions) -> Iterator[Lab]:
    """A lab whose agents are ready; afterwards the machine must be as it was (promise 5).

    Its name has this process's id, so that runs beside each other have no lab in common.
    """
    options = replace(options, name=f"{options.name[:12]}-{os.getpid()}")
    before = machine_state.look(lab=options.name)
    with Lab.up(options) as lab:
        if options.host.agent and options.cidr is not None:
            lab.wait_ready(90)
        yield lab
    assert machine_state.lasting_differences(before, lab=options.name) == []


@pytest.fixture(scope="session")
def _shared_lab() -> Iterator[SharedLab]:
    shared = SharedLab(running_lab, lambda text: warnings.warn(text, stacklevel=2))
    yield shared
    shared.end()


@pytest.fixture(scope="session")
def make_lab(_shared_lab: SharedLab) -> Callable[[LabOptions], AbstractContextManager[Lab]]:
    """For modules that need several labs, one after the other."""

    def make(options: LabOptions) -> AbstractContextManager[Lab]:
        _shared_lab.end()
        return running_lab(options)

    return make


@pytest.fixture(scope="module")
def mesh(request: pytest.FixtureRequest, _shared_lab: SharedLab) -> Iterator[Lab]:
    """The lab that the module asks for, its agents ready."""
    yield _shared_lab.get(request.module.LAB)
    modules = _modules(_engine_items(request.session.items))
    _shared_lab.release(wanted_after(modules, request.module))


@pytest.fixture(autouse=True)
def _show_logs_of_a_failed_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the end of every agent's log when a test of a lab failed."""
    failed_before = request.session.testsfailed
    yield
    mesh = (request.node.funcargs or {}).get("mesh")  # none once a run was interrupted
    lab = getattr(mesh, "lab", mesh)
    if request.session.testsfailed == failed_before or not isinstance(lab, Lab):
        return
    for name, host in lab.hosts.items():
        print(f"--- {name}: end of the agent's log")
        print("\n".join(host.agent_log().splitlines()[-25:]))
