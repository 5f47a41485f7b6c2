"""All hosts of the bench, in several processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["AGENTS", "WATCHERS", "Cost", "Hosts", "Times"]

AGENTS = "agents"
WATCHERS = "watchers"
_PER_PROCESS = 20
_END_S = 300
_SHOWN = 3


@dataclass(frozen=True)
class Cost:
    """Of all hosts together."""

    cpu_s: float
    resident_mb: float
    threads: int


@dataclass(frozen=True)
class Times:
    """Of one host, in monotonic seconds; 0 for not yet."""

    started_s: float
    leased_s: float
    met_s: float


class _Process:
    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--mount"),
                    *(sys.executable, "-m", "tests.bench.scale.host_process", *arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def answer(self) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a process of hosts ended:\n{self._log.read_text()[-4000:]}")
        return json.loads(line)

    def ask(self, method: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.wait(_END_S)


class Hosts:
    """So many hosts, each with an agent, a network namespace and connections of its own.

    Args:
        count: Of hosts.
        etcd: Endpoints.
        folder: Where their state is, from boot to boot.
        patience: See :class:`LightAgent`.
        kind: AGENTS or WATCHERS; see :class:`LightAgent` and :class:`LightWatcher`.
    """

    def __init__(
        self, count: int, etcd: tuple[str, ...], folder: Path, patience: int, kind: str
    ) -> None:
        self.count = count
        self._kind = kind
        self._etcd = etcd
        self._folder = folder
        self._patience = patience
        self._boots = 0
        self._processes: list[_Process] = []
        self._pool = ThreadPoolExecutor(64)

    @contextmanager
    def booted(self) -> Iterator[None]:
        """Boot all of them; no agent runs yet."""
        self._boot()
        try:
            yield
        finally:
            self._kill()

    def reboot(self) -> None:
        """End all of them without a goodbye and boot them again."""
        self._kill()
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        firsts = range(0, self.count, _PER_PROCESS)
        self._processes = [
            _Process(
                [
                    *(self._kind, str(self._folder), str(self._boots), str(self._patience)),
                    *(str(first), str(min(_PER_PROCESS, self.count - first)), *self._etcd),
                ],
                self._folder / "log",
            )
            for first in firsts
        ]
        list(self._pool.map(_Process.answer, self._processes))

    def _kill(self) -> None:
        for each in self._processes:
            each.kill()
        for each in self._processes:
            each.wait()
        self._processes = []

    def all(self, method: str, **arguments: object) -> list[Any]:
        """Call a method of every process."""
        return list(self._pool.map(lambda each: each.ask(method, **arguments), self._processes))

    def start(self, over_s: float) -> float:
        """Start all agents over a time; return when the first one starts."""
        gap_s = over_s / len(self._processes)
        for index, each in enumerate(self._processes):
            each.ask("start", over_s=gap_s, wait_s=index * gap_s)
        return time.monotonic()

    def change(self, number: int, **arguments: object) -> float:
        """Change a container of one host; return when."""
        found: float = self._processes[number // _PER_PROCESS].ask(
            "change", number=number, **arguments
        )
        return found

    def times(self) -> list[Times]:
        """Return how far each host is."""
        return [Times(*each) for part in self.all("times") for each in part]

    def cost(self) -> Cost:
        """Return what they have used so far in this boot."""
        found = self.all("cost")
        return Cost(
            sum(each["cpu_s"] for each in found),
            sum(each["resident_mb"] for each in found),
            sum(each["threads"] for each in found),
        )

    def await_all(self, timeout_s: float, say: Callable[[str], None]) -> list[Times]:
        """Wait until every host has arrived at the goal; return how far each is then."""
        until_s = time.monotonic() + timeout_s
        said_s = time.monotonic()
        while True:
            found = self.times()
            missing = sum(not each.met_s for each in found)
            if not missing:
                return found
            if time.monotonic() > until_s:
                excuses = [each for part in self.all("missing") for each in part]
                say("\n".join([f"{missing} hosts did not arrive, such as", *excuses[:_SHOWN]]))
                return found
            if time.monotonic() - said_s > 15:
                said_s = time.monotonic()
                say(f"  {missing} of {len(found)} hosts are on the way")
            time.sleep(1.0)
