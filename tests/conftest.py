"""Prepare for every test, and check that no test changed the machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hostmesh_lab import machine_state
from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import LabOptions, prepare

_BEFORE = pytest.StashKey[machine_state.MachineState]()
_INSIDE = "ETCD_TESTS_INSIDE"
"""Set in a run within a run (tests/etcd), which has a network of its own."""
_SHOWN = 20


def pytest_configure(config: pytest.Config) -> None:
    """Remember how the machine was, and let Ctrl-C reach what the tests start.

    A shell without job control starts background commands with SIGINT ignored, and that is
    inherited (POSIX.1-2017, Shell Command Language, 2.11): a program under test would not end.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0 and _INSIDE not in os.environ and not config.option.collectonly:
        config.stash[_BEFORE] = machine_state.look_at_network()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make what labs mount before the first test: no test's time-out covers a build.

    A lab is known where its options are the module's LAB, or a parameter of the test.
    """
    if session.config.stash.get(_BEFORE, None) is None:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    for options in _labs_named(session.items):
        try:
            prepare(options, reporter.write_line)
        except LabError as error:  # the lab says it again, in the tests that need it
            reporter.write_line(f"lab {options.name}: {error.line()}", red=True)


def _labs_named(items: list[pytest.Item]) -> Iterator[LabOptions]:
    seen: set[int] = set()
    for item in items:
        named = [getattr(getattr(item, "module", None), "LAB", None)]
        call = getattr(item, "callspec", None)
        named += call.params.values() if call else ()
        for options in named:
            if isinstance(options, LabOptions) and id(options) not in seen:
                seen.add(id(options))
                yield options


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Promise 5 for the tests themselves: the machine is as it was, around all of them.

    Interfaces, addresses, routes of every table, rules, sysctls, the firewall in both variants,
    sets, and the files that an agent would make. A run that changed any has failed.
    """
    yield  # every fixture ends in here
    before = session.config.stash.get(_BEFORE, None)
    if before is None:
        return
    found = machine_state.lasting_differences(before, again=machine_state.look_at_network)
    if not found:
        return
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("FAILED: the tests did not leave this machine as it was:", red=True)
        for line in found[:_SHOWN]:
            reporter.write_line(f"  {line}")
