"""Figures of agentctl, each as a ratio to something measured in the same run.

    .venv/bin/python -m tests.bench.host.agentctl [--quick]

`agentctl leases` by the control socket with 10 and 5,000 leases, against `etcdctl get --prefix`
and against `python -c pass`; with the agent down, from etcd; the cost of one scrape
of the metrics, and what they add to the agent's memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.bench.harness import Bench, interleave, resident_mb, timed
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.etcd.support import etcdlab
from tests.netns.mesh.stage import ROOT, Stage
from tests.waiting import eventually

_GOAL_OF_ETCDCTL = 4
_PROGRAM = "import sys; from agent.ctl.main import main; sys.exit(main())"
URL = "http://192.0.2.100:2379"


def put_leases(stage: Stage, count: int) -> None:
    """Leases of other hosts, as agents write them, in transactions of 100."""
    now_s = time.time()
    lines = []
    for number in range(1, count + 1):
        value = {
            "PublicIP": f"192.0.2.{number % 90 + 2}",
            "BackendType": "host-gw",
            "Hostmesh": {
                "HostID": f"{number + 1000:032x}",
                "HostName": f"host{number}.rack{number % 40}.example.net",
                "Claimed": now_s,
                "Renewed": now_s,
                "TTL": 86400,
            },
        }
        key = f"/hostmesh/subnets/10.{100 + number // 256}.{number % 256}.0-24"
        lines.append(f"put {key} {json.dumps(json.dumps(value))}")
    for start in range(0, count, 100):
        text = "\n" + "\n".join(lines[start : start + 100]) + "\n\n\n"
        done = stage.run_etcdctl(["txn"], text)
        assert done.returncode == 0, done.stderr


def run(*command: str, environ: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environ)


def installed(folder: Path) -> str:
    """A Python as the packages bring it: without the hooks of an editable installation."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
        site = next((folder / "venv" / "lib").glob("*/site-packages"))
        (site / "hostmesh.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return str(python)


def figures(bench: Bench, stage: Stage, count: int, rounds: int) -> None:
    """The figures with ``count`` leases beside the node's own."""
    node = stage.nodes[0]
    path = str(node.socket)
    program = [installed(stage.folder), "-I", "-c", _PROGRAM]
    get = (str(etcdlab.binaries() / "etcdctl"), "--endpoints", URL, "get", "--prefix")
    environ = {**os.environ, "ETCDCTL_API": "3"}

    def ours() -> None:
        run(*program, "leases", "--socket", path)

    def theirs() -> None:
        node.host.call(lambda: run(*get, "/hostmesh/subnets/", environ=environ))

    def bare() -> None:
        run(program[0], "-I", "-c", "pass")

    def scrape() -> None:
        run("curl", "-s", "--unix-socket", path, "http://localhost/metrics")

    def by_settings() -> None:
        run(*program, "leases", "--settings", str(node.settings))

    before_mib = resident_mb(node.agent_pid)
    scrape()
    first_mib = resident_mb(node.agent_pid) - before_mib
    runs = [timed(each) for each in (ours, theirs, bare, by_settings, scrape)]
    mine, etcdctl, python, settings, metrics = interleave(runs, rounds)
    goal = Goal(_GOAL_OF_ETCDCTL)
    bench.ratio(f"{count} leases: agentctl", mine, "etcdctl", etcdctl, goal=goal)
    bench.ratio(f"{count} leases: agentctl", mine, "python -c pass", python)
    what = f"{count} leases: agentctl that reads agent.toml first"
    bench.ratio(what, settings, "etcdctl", etcdctl)
    bench.value(f"{count} leases: a scrape", metrics)
    bench.fact(f"{count} leases: the first scrape adds, MiB", round(first_mib, 1))


def measure(bench: Bench, options: Options) -> None:
    """Make every figure."""
    with Stage(1).running() as stage:
        node = stage.nodes[0]
        for count in (10, 5000):
            put_leases(stage, count)
            want = count
            eventually(lambda want=want: len(node.document("leases")["leases"]) >= want, 60)  # type: ignore[misc] # a default binds it
            figures(bench, stage, count, options.rounds)
        node.stop()
        (offline,) = interleave((timed(lambda: node.ctl("leases")),), options.rounds)
        bench.value("5000 leases with the agent down, from etcd", offline)


if __name__ == "__main__":
    main(measure)
