"""etcd for tests: real servers, in a network and PID namespace that ends with the tests.

The tests of this folder run in one child process inside the namespaces, so that neither
the machine's ports nor an etcd of its own are touched, and nothing can be left behind: the
kernel ends every process of a PID namespace with its first. The child's reports are
replayed here as they come. Inside, ``ETCD_TESTS_INSIDE`` names where reports go.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
INSIDE = "ETCD_TESTS_INSIDE"
_CHILD = pytest.StashKey[Any]()

sys.path.insert(0, str(HERE.parents[1]))

from agent.registry.registry import Registry  # noqa: E402  # the same
from tests.etcd.support import etcdlab  # noqa: E402  # the line above makes it importable


class Child:
    """The pytest inside the namespaces, and the reports it writes."""

    def __init__(self, session: pytest.Session, config: pytest.Config) -> None:
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="hostmesh-etcd-", dir="/dev/shm")
        folder = Path(self._folder.name)
        wanted = [item.nodeid for item in session.items if HERE in item.path.parents]
        (folder / "wanted").write_text("\n".join(wanted), encoding="utf-8")
        read_end, write_end = os.pipe()
        self._reports = os.fdopen(read_end, encoding="utf-8")
        self._output = (folder / "output").open("w+", encoding="utf-8")
        inner = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        inner += ["--rootdir", str(config.rootpath), f"@{folder / 'wanted'}"]
        unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *inner],
            cwd=config.rootpath,
            env={**os.environ, INSIDE: str(write_end), "TMPDIR": str(folder)},
            pass_fds=[write_end],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        os.close(write_end)
        config.add_cleanup(self.close)

    def reports_of(self, nodeid: str) -> Iterator[pytest.TestReport]:
        """Yield the reports of one test as the child writes them."""
        for line in self._reports:
            report = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=json.loads(line)
            )
            if isinstance(report.longrepr, list):  # JSON has no tuples; skips are reported so
                report.longrepr = tuple(report.longrepr)
            if report.nodeid != nodeid:
                pytest.exit(f"expected a report of {nodeid}, got one of {report.nodeid}")
            yield report
            if report.when == "teardown":
                return
        self._output.seek(0)
        pytest.exit(f"the tests inside the namespaces ended early:\n{self._output.read()[-8000:]}")

    def close(self) -> None:
        """End the child and with it everything it started."""
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._reports.close()
        self._output.close()
        self._folder.cleanup()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Replay the child's reports of a test instead of running it out here."""
    if INSIDE in os.environ or os.geteuid() != 0 or HERE not in item.path.parents:
        return None  # pytest asks for every item, wherever it is
    stash = item.config.stash
    if _CHILD not in stash:
        etcdlab.binaries()  # out here, where there is a network
        stash[_CHILD] = Child(item.session, item.config)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in stash[_CHILD].reports_of(item.nodeid):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside: hand a report out."""
    target = os.environ.get(INSIDE)
    if target is None or _CONFIG is None:
        return
    data = _CONFIG.hook.pytest_report_to_serializable(config=_CONFIG, report=report)
    os.write(int(target), (json.dumps(data) + "\n").encode())


_CONFIG: pytest.Config | None = None


@pytest.fixture(scope="session", autouse=True)
def _inside(pytestconfig: pytest.Config) -> None:
    global _CONFIG  # noqa: PLW0603  # hooks of reports are given no config
    _CONFIG = pytestconfig
    if os.geteuid() != 0:
        pytest.skip("needs root for namespaces")


@pytest.fixture(scope="session")
def shared_etcd() -> Iterator[etcdlab.Etcd]:
    """One etcd that tests share; each takes a prefix of its own and must leave it running."""
    with etcdlab.Etcd() as etcd:
        yield etcd


@pytest.fixture
def etcd() -> Iterator[etcdlab.Etcd]:
    """An etcd that a test may stop, pause and compact."""
    with etcdlab.Etcd() as etcd:
        yield etcd


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix that no other test uses."""
    return f"/test/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def mesh(shared_etcd: etcdlab.Etcd, prefix: str) -> Iterator[Registry]:
    """Sixteen /16s."""
    with etcdlab.registry(shared_etcd, prefix=prefix) as found:
        found.create_config(etcdlab.config("10.64.0.0/12"))
        yield found
