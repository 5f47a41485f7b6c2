"""Follow a mesh in this process, and print how much memory that takes.

It imports no more of the bench than it needs: all of it counts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.control_path.large_mesh import Agent, new_address, prepare


def resident_mb(field: str = "VmRSS") -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith(field))
    return int(line.split()[1]) / 1024


def measure(peers: int) -> None:
    """Print the resident MB: loaded, working, after a full pass and the copy, at most."""
    loaded_mb = resident_mb()
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(Path(folder), peers)
        for shift in range(1, 4):
            agent.follow(new_address(1 + shift, shift))
        working_mb = resident_mb()
        agent.compare_all()
        report = agent.scheduler.report
        assert report.complete, report
        assert (report.desired or 0) > peers, report
    print(f"{loaded_mb} {working_mb} {resident_mb()} {resident_mb('VmHWM')}")


if __name__ == "__main__":
    measure(int(sys.argv[1]))
