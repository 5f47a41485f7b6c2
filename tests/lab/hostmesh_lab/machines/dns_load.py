"""Ask for a name from a container a hundred times a second, and count what is lost."""

import json
import subprocess
from pathlib import Path
from types import TracebackType

from hostmesh_lab.errors import LabError
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import NAME_SERVERS

_PROGRAM = Path(__file__).parents[1] / "guest/dns_load.py"
_END_S = 30.0


class DnsLoad:
    """Asks while its block runs; `asked`, `lost` and `longest_s` are there behind it."""

    def __init__(self, host: Host, container: str, name: str) -> None:
        self._host, self._container, self._name = host, container, name
        self.asked, self.lost, self.longest_s = 0, 0, 0.0
        self._ends: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "DnsLoad":
        self._host.write_file("/run/lab/dns_load.py", _PROGRAM.read_text())
        pid = str(self._host.inspect(self._container)["State"]["Pid"])
        program = ["python3", "-I", "/run/lab/dns_load.py", self._name, *NAME_SERVERS]
        argv = self._host.enter(["nsenter", "-n", "-t", pid, *program])
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._line().strip() != b"asking":
            raise LabError(f"{self._host.name}: the load on the name servers does not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        said, _ = self._process.communicate(timeout=_END_S)  # closes its standard input
        found = json.loads(said.splitlines()[-1])
        self.asked, self.lost, self.longest_s = found["asked"], found["lost"], found["longest_s"]
        self._ends = found["ends"]

    def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def __repr__(self) -> str:
        lost = f"{self.lost} ({' to '.join(self._ends)})" if self.lost else "0"
        return f"asked {self.asked}, lost {lost}, the longest took {self.longest_s} s"
