"""A host as far as leases go, in a process of its own: it can be stopped, cut off and measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.etcd.support.etcdlab import Etcd


class Member:
    """A host in a process of its own (member.py), so that it can be stopped and measured.

    Args:
        etcds: Where it meets the others.
        number: Which host it is.
        ttl_s: Of its lease.
        beat_s: Of its heartbeat.
        under: The start of the command line that it runs under.
        env: More of its environment.
    """

    def __init__(
        self,
        *etcds: Etcd,
        prefix: str = "/hostmesh",
        number: int = 1,
        ttl_s: int = 60,
        beat_s: int = 5,
        under: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="member-"))
        self._said, self._logged = folder / "said", folder / "log"
        endpoints = ",".join(each.endpoint for each in etcds)
        words = (endpoints, prefix, number, ttl_s, beat_s)
        program = Path(__file__).parent / "member.py"
        with self._said.open("w") as said, self._logged.open("w") as logged:
            self.process = subprocess.Popen(
                [*under, sys.executable, str(program), *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=logged,
                env={**os.environ, **(env or {})},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self._said.parent, ignore_errors=True)

    def said(self, key: str) -> list[dict[str, Any]]:
        """Return everything that it reported about ``key``, in order."""
        lines = self._said.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [each for each in found if key in each]

    def lease(self) -> dict[str, Any]:
        """Return its last report of its lease."""
        return next(reversed(self.said("lease")), {})

    def log_lines(self) -> list[str]:
        return self._logged.read_text().splitlines()

    def cpu_s(self) -> float:
        """Seconds of CPU that it used, of all its threads, in user and kernel mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
