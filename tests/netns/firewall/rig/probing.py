"""Asks probers (prober.py) in several network namespaces who reaches whom, all at once."""

import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DEADLINE_S = 20.0
_ROOT = Path(__file__).parents[4]


class Probe(NamedTuple):
    """From a namespace (and maybe a source address) to an address, by "icmp", "tcp80", "udp81"."""

    by: str
    to: str
    how: str
    source: str = ""


class Process:
    """A child that answers JSON lines with JSON lines."""

    def __init__(self, argv: Sequence[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        line = self._lines.get(timeout=DEADLINE_S)
        assert line, f"{self.process.args!r} ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=5)
        self.process.stdout.close()


class Prober(Process):
    """One prober.py, wherever it runs."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(argv)
        self._ids = itertools.count(1)

    def wait(self) -> None:
        assert self.receive()["result"] == "ready"

    def ask(self, op: str, **values: object) -> int:
        number = next(self._ids)
        self.send({"id": number, "op": op, **values})
        return number

    def answers(self, count: int) -> dict[int, Any]:
        said = (self.receive() for _ in range(count))
        return {answer["id"]: answer["result"] for answer in said}

    def seen(self, how: str) -> set[str]:
        """Sources of what arrived since the last call."""
        number = self.ask("seen")
        return {source for kind, source in self.answers(1)[number] if kind == how}


def reach(at: Mapping[str, Prober], probes: Sequence[Probe], timeout_s: float) -> list[str | None]:
    """Return the answer to each probe, all sent at once: the source address seen by the other side
    ("yes" for ICMP), None when nothing came back."""
    asked: dict[str, list[tuple[int, int]]] = {}
    for index, probe in enumerate(probes):
        op, port = (probe.how, 0) if probe.how == "icmp" else (probe.how[:3], int(probe.how[3:]))
        number = at[probe.by].ask(
            op, to=probe.to, port=port, source=probe.source, timeout_s=timeout_s
        )
        asked.setdefault(probe.by, []).append((index, number))
    results: list[str | None] = [None] * len(probes)
    for by, numbers in asked.items():
        answers = at[by].answers(len(numbers))
        for index, number in numbers:
            results[index] = answers[number]
    return results
