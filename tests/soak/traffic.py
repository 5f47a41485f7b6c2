"""Pings between the containers of all pairs of hosts, for as long as the walk goes on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostmesh_lab import shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab
from hostmesh_lab.wait import wait_until

from tests.soak.losses import Loss, Losses
from tests.soak.pinger import LATE_S

__all__ = ["End", "Traffic"]

EVERY_S = 0.1
_SOURCE = (Path(__file__).parent / "pinger.py").read_text()
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class End:
    """A container that pings and is pinged.

    Attributes:
        network: Pings stay among the containers of one.
    """

    host: str
    container: str = "web"
    network: str = "bridge"

    @property
    def name(self) -> str:
        """Return its name in losses."""
        return self.host if self.network == "bridge" else f"{self.host}/{self.container}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a container is. After a boot of its host it may have the same process id again."""

    pid: int
    address: str
    since: str

    @classmethod
    def of(cls, inspected: dict[str, Any], network: str) -> _Place | None:
        """Read Docker's inspection; None while the container is off."""
        state, networks = inspected["State"], inspected["NetworkSettings"]["Networks"]
        address = networks.get(network, {}).get("IPAddress")
        if not (state["Running"] and state["Pid"] and address):
            return None
        return cls(state["Pid"], address, state["StartedAt"])


class _Source:
    """A pinger that runs in the namespace of one container, as it is now.

    Attributes:
        seen: By target: how many were sent and answered, and when the last answer came.
    """

    def __init__(self, traffic: Traffic, end: End, place: _Place) -> None:
        self.place = place
        self.seen: dict[str, tuple[int, int, float]] = {}
        self._traffic, self._name = traffic, end.name
        inside = ["nsenter", f"--net=/proc/{place.pid}/ns/net", "python3", "-I", "-c", _SOURCE]
        self._process = subprocess.Popen(
            traffic.lab.hosts[end.host].enter([*inside, str(EVERY_S)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stdout:
                said = json.loads(line)
                if "lost" in said:
                    self._traffic.lost(Loss(self._name, *said["lost"]))
                else:
                    self.seen = {name: tuple(counts) for name, counts in said["seen"].items()}

    def aim(self, targets: dict[str, str]) -> None:
        """Ping these addresses from now on; ignored by a pinger that ended with its host."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(targets).encode() + b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Send nothing more; what is lost is still reported."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def ended(self, timeout_s: float = 0.0) -> bool:
        """Return whether everything is reported; its process is gone then."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        shell.kill_session(self._process)
        return True


class Traffic:
    """All pings of a lab, and their losses.

    Attributes:
        unexplained: Losses that no event explains.
        alarm: Set with the first of them.
    """

    def __init__(self, lab: Lab, losses: Losses) -> None:
        self.lab = lab
        self.losses = losses
        self.unexplained: list[Loss] = []
        self.alarm = threading.Event()
        self._lock = threading.Lock()
        self._sources: dict[End, _Source] = {}
        self._ending: list[_Source] = []
        self._before = (0, 0)  # sent and answered by pingers that ended

    def lost(self, loss: Loss) -> None:
        """Take a loss, on a pinger's thread."""
        with self._lock:
            if not self.losses.explain(loss):
                self.unexplained.append(loss)
                self.alarm.set()

    # -- which containers take part

    def follow(self, end: End) -> None:
        """Ping from and to a container, as it is now: another process, maybe another address."""
        host = self.lab.hosts[end.host]
        place = wait_until(
            lambda: _Place.of(host.inspect(end.container), end.network), _START_S, end.name
        )
        there = self._sources.get(end)
        if there is not None and there.place == place:
            return
        self._retire(end)
        self._sources[end] = _Source(self, end, place)
        self._aim()

    def forget(self, end: End) -> None:
        """Ping a container no more, neither from it."""
        self._retire(end)
        self._aim()

    def _retire(self, end: End) -> None:
        source = self._sources.pop(end, None)
        if source is None:
            return
        source.close()
        self._ending.append(source)
        for each in [each for each in self._ending if each.ended()]:
            self._ending.remove(each)
            self._before = _added(self._before, each)

    def _aim(self) -> None:
        for end, source in self._sources.items():
            source.aim(
                {
                    other.name: there.place.address
                    for other, there in self._sources.items()
                    if other.network == end.network and other.host != end.host
                }
            )

    def of_host(self, host: str) -> list[End]:
        """Return the containers of a host that take part."""
        return [end for end in self._sources if end.host == host]

    # -- waiting and counting

    def wait_answers(self, host: str, others: Collection[str], timeout_s: float) -> float:
        """Return when each pair of this host and these others has answered again."""
        began_s = time.monotonic()

        def silent() -> list[str]:
            return [
                f"{source.name} to {target.name}"
                for source, target in self._wanted(host, others)
                if self._sources[source].seen.get(target.name, (0, 0, 0.0))[2] < began_s
            ]

        try:
            wait_until(lambda: not silent(), timeout_s, "answers")
        except LabError:
            still = ", ".join(silent())
            raise LabError(f"no answer within {timeout_s:g} s: {still}") from None
        return time.monotonic() - began_s

    def _wanted(self, host: str, others: Collection[str]) -> list[tuple[End, End]]:
        return [
            (one, other)
            for one in self._sources
            for other in self._sources
            if one.network == other.network
            and (
                (one.host == host and other.host in others)
                or (other.host == host and one.host in others)
            )
        ]

    def counted(self) -> tuple[int, int]:
        """Return how many pings were sent and answered so far."""
        found = self._before
        for each in (*self._ending, *self._sources.values()):
            found = _added(found, each)
        return found

    def close(self) -> None:
        """End all pings and wait for what they still report."""
        for end in list(self._sources):
            self._retire(end)
        for source in self._ending:
            source.ended(LATE_S + 10)


def _added(counts: tuple[int, int], source: _Source) -> tuple[int, int]:
    seen = source.seen.values()
    return counts[0] + sum(each[0] for each in seen), counts[1] + sum(each[1] for each in seen)
