"""A process with many hosts, which the bench commands by lines of JSON.

    python -m tests.bench.scale.host_process KIND FOLDER BOOT PATIENCE FIRST COUNT ENDPOINT…

KIND is agents or watchers: of a watcher only the registry is there. BOOT counts the boots of these
hosts: their boot id follows from it, as a rebooted machine has another one. PATIENCE multiplies the
hosts' time limits. Each line on standard input is [METHOD, {arguments}], each on standard output
its result.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import log
from agent.etcd import connections
from agent.kernel.netlink.socket import NetlinkSocket
from agent.registry import follower
from agent.settings import LogSettings
from tests.bench.scale.hosts import AGENTS
from tests.bench.scale.light_agent import Goal, LightAgent, cables
from tests.bench.scale.light_watcher import LightWatcher

_LOOK_S = 0.1
_NICE = 19
"""etcd shares the processors with its clients here and nowhere else: it comes first."""
_SWITCH_S = 0.1
"""Each thread that waits for the interpreter wakes up so often. With twenty busy agents in one
process, Python's 5 ms cost more processor time than the agents' work."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostProcess:
    """The hosts of this process."""

    def __init__(self, agents: Sequence[LightAgent], watchers: Sequence[LightWatcher] = ()) -> None:
        self._agents = agents
        self._hosts: Sequence[LightAgent | LightWatcher] = (*agents, *watchers)
        self._goal = Goal()
        self._looks = threading.Thread(target=self._look, daemon=True)
        self._looks.start()

    def start(self, over_s: float = 0.0, wait_s: float = 0.0) -> None:
        """Start all hosts at equal distances over a time, the first one after a wait."""

        def run() -> None:
            began_s = time.monotonic() + wait_s
            for index, each in enumerate(self._hosts):
                time.sleep(max(0.0, began_s + over_s * index / len(self._hosts) - time.monotonic()))
                each.start()

        threading.Thread(target=run, daemon=True).start()

    def expect(self, **goal: int) -> None:
        """Note from now on when a host arrives at this goal."""
        self._goal = Goal(**goal)
        for each in self._hosts:
            each.met_s = 0.0

    def times(self) -> list[tuple[float, float, float]]:
        """Return for each host when it started, got its lease, and arrived; 0 for not yet."""
        return [(each.started_s, each.leased_s, each.met_s) for each in self._hosts]

    def cost(self) -> dict[str, float]:
        """Return what this process has used so far."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {
            "cpu_s": time.process_time(),
            "resident_mb": pages * resource.getpagesize() / 1e6,
            "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        }

    def missing(self) -> list[str]:
        """Return what hosts that have not arrived say of themselves."""
        return [f"host{each.number}: {each.excuse}" for each in self._hosts if not each.met_s]

    def containers(self, each: int) -> None:
        """Run so many containers on every host."""
        for agent in self._agents:
            agent.run_containers(each)

    def change(self, number: int, count: int, changed: int, healthy: bool) -> float:
        """Change one container's health; return when."""
        agent = next(each for each in self._agents if each.number == number)
        agent.run_containers(count, changed, healthy)
        return time.monotonic()

    def _look(self) -> None:
        while True:
            for each in self._hosts:
                each.look(self._goal)
            time.sleep(_LOOK_S)


def plugged(agents: Sequence[LightAgent], boot: int) -> Sequence[LightAgent]:
    """Connect the agents' hosts to the router."""
    commands = "\n".join(cables(agents, boot)) + "\n"
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
    for each in agents:
        each.plug()
    return agents


def main() -> None:
    kind, folder, boot, patience, first, count, *etcd = sys.argv[1:]
    os.nice(_NICE)
    # A thread that wakes up takes no processor from one that works: a quarter less work in all.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    sys.setswitchinterval(_SWITCH_S)
    log.configure(LogSettings(level="error"), stream=sys.stderr, is_tty=False)
    # Channels of one process share a connection to a server by default. Hosts do not.
    own = ("grpc.use_local_subchannel_pool", 1)
    connections.CHANNEL_OPTIONS = (*connections.CHANNEL_OPTIONS, own)
    _wait_longer(int(patience))
    boot_id = Path(folder) / f"boot-{boot}-{first}"
    boot_id.write_text(f"{uuid.uuid5(uuid.NAMESPACE_OID, boot)}\n")
    subprocess.run(["mount", "--bind", boot_id, _BOOT_ID], check=True)
    numbers, at = range(int(first), int(first) + int(count)), tuple(etcd)
    if kind == AGENTS:
        agents = [LightAgent(each, Path(folder), at, int(patience)) for each in numbers]
        hosts = HostProcess(plugged(agents, int(boot)))
    else:
        hosts = HostProcess((), [LightWatcher(each, at, int(patience)) for each in numbers])
    print("null", flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        answer: Any = getattr(hosts, method)(**arguments)
        print(json.dumps(answer), flush=True)


def _wait_longer(factor: int) -> None:
    """Make the agents' time limits that are no settings so many times as long."""
    connections.CHANNEL_OPTIONS = tuple(
        (name, value * factor if name.endswith("timeout_ms") else value)
        for name, value in connections.CHANNEL_OPTIONS
    )
    follower.SILENCE_S *= factor
    plain = NetlinkSocket.__init__

    def patient(self: NetlinkSocket, **arguments: Any) -> None:  # noqa: ANN401 - its own
        plain(self, **arguments)
        self._timeout_s *= factor

    NetlinkSocket.__init__ = patient  # type: ignore[method-assign] # imported by name everywhere


if __name__ == "__main__":
    main()
