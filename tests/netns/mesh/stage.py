"""A mesh of real agents and a real etcd on a LAN of namespaces, asked with the real agentctl.

Without Docker: each agent holds a lease and keeps routes. A host's machine-id and /run are those of
a mount namespace of its own, so that several agents live on one machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self

from tests.etcd.support import etcdlab
from tests.netns.netlab import Host, Lan
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
ETCD = "192.0.2.100"
_URL = f"http://{ETCD}:2379"


_OPEN = """
mount --rbind {shut} {kept}
mount -t tmpfs -o mode=755 open {shut}
cd {kept}
for each in * .[!.]*; do
    if [ -d "$each" ] && ! [ -L "$each" ]; then
        mkdir {shut}/"$each"
        mount --rbind "$each" {shut}/"$each"
    fi
done
"""


class Node:
    """One host with an agent that can be started, ended and asked."""

    def __init__(
        self, host: Host, number: int, folder: Path, extra: str = "", etcd: str = ETCD
    ) -> None:
        self.host = host
        self.name = f"node{number}"
        self.address = f"192.0.2.{number}"
        self.folder = folder / self.name
        self.folder.mkdir(mode=0o755)
        (self.folder / "machine-id").write_text(f"{number:032x}\n")
        self.resolv_conf = self.folder / "resolv.conf"
        self.resolv_conf.write_text("nameserver 127.0.0.53\n")
        self.settings = self.folder / "agent.toml"
        self.settings.write_text(
            f'[etcd]\nendpoints = ["http://{etcd}:2379"]\ncall_timeout_s = 1\n'
            f'[host]\nname = "{self.name}"\n'
            f'[agent]\nstate_dir = "{self.folder}/state"\nrun_dir = "{self.folder}/run"\n'
            '[docker]\nmanage = false\nsocket = "/run/no-docker-here/docker.sock"\n'
            f"[routes]\nsweep_grace_s = 0\n{extra}"
        )
        self.settings.chmod(0o644)
        self.log = self.folder / "log"
        self.binds = {
            str(self.folder / "machine-id"): "/etc/machine-id",
            str(self.resolv_conf): "/etc/resolv.conf",
        }
        """Bind mounts in the host's mount namespace: source to target."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "agent.sock"

    def inside(self, command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - subprocess.run's
        """Run it on this host, with its machine-id."""

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*self._mounts(), *command],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
                **how,
            )

        return self.host.call(run)

    def _mounts(self) -> list[str]:
        binds = [f"mount --bind {source} {at}" for source, at in self.binds.items()]
        script = " && ".join([*binds, 'exec "$@"'])
        return ["unshare", "--mount", "sh", "-c", script, "sh"]

    def _for_everyone(self) -> list[str]:
        """Others find the clone although it lies in a folder, such as /root, that is shut to them.

        In the command's own mount namespace an open folder lies over each that is shut, with the
        same folders in it.
        """
        shut = [str(each) for each in ROOT.parents if not each.stat().st_mode & stat.S_IXOTH]
        kept = self.folder / "kept"
        kept.mkdir(exist_ok=True)
        steps = [_OPEN.format(shut=each, kept=kept) for each in reversed(shut)]
        return ["sh", "-ec", "\n".join([*steps, f"cd {ROOT}", 'exec "$@"']), "sh"]

    def start(self, sabotage: str = "") -> None:
        """Start the agent; ``sabotage`` is Python that runs in it first."""
        self.spawn(sabotage)
        eventually(self.socket.exists, 20)

    def spawn(self, sabotage: str = "") -> None:
        """The same, and wait for nothing."""
        program = f"import os, sys\n{sabotage}\nfrom agent.main import main\nsys.exit(main())"

        def popen() -> subprocess.Popen[bytes]:
            with self.log.open("ab") as log:
                command = [sys.executable, "-c", program, "--settings", str(self.settings)]
                return subprocess.Popen(
                    [*self._mounts(), *command], stderr=log, stdout=log, cwd=ROOT
                )

        self.socket.unlink(missing_ok=True)  # left by a killed agent, no answers
        self._process = self.host.call(popen)

    @property
    def agent_pid(self) -> int:
        """The agent itself: the shells before it replaced themselves by it."""
        assert self._process is not None
        return self._process.pid

    def wait_ended(self) -> int:
        """Return the agent's exit status, once it has ended without a call of ``stop``."""
        assert self._process is not None
        status = self._process.wait(20)
        self._process = None
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def ctl(
        self, *words: str, environ: Mapping[str, str] | None = None, user: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """``agentctl WORDS`` on this host."""
        command = self.ctl_command(*words)
        if user:
            who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
            command = [*self._for_everyone(), *who, *command]
        return self.inside(command, cwd=ROOT, env={**os.environ, **(environ or {})})

    def agent(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``hostmesh-agent WORDS`` on this host, to its end."""
        command = [sys.executable, "-m", "agent", "--settings", str(self.settings), *words]
        return self.inside(command, cwd=ROOT)

    def ctl_command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent.ctl", "--settings", str(self.settings), *words]

    def document(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        done = self.ctl(*words, "-o", "json")
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        if words == ("status",):  # the stage's etcd is in the clear
            conditions = [each for each in found["conditions"] if each["name"] != "etcd-open"]
            found["conditions"] = conditions
        return found

    def subnet(self) -> str:
        return str(self.document("status").get("subnet") or "")


class Stage:
    """A LAN, an etcd, and nodes."""

    def __init__(
        self, nodes: int, extra: str = "", etcd_behind_gateway: str = "", etcd_flags: str = ""
    ) -> None:
        self._etcd_flags = etcd_flags
        self.folder = Path(tempfile.mkdtemp(prefix="hm-ctl-", dir="/dev/shm"))
        self.folder.chmod(0o755)
        self.lan = Lan()
        self._etcd_host = self.lan.add(f"{ETCD}/24")
        self._etcd_at = etcd_behind_gateway or ETCD
        if etcd_behind_gateway:
            self._etcd_host.ip(f"address add {etcd_behind_gateway}/32 dev lo")
        self._etcd: subprocess.Popen[bytes] | None = None
        self.start_etcd()
        self.nodes = [
            Node(self.lan.add(f"192.0.2.{number}/24"), number, self.folder, extra, self._etcd_at)
            for number in range(1, nodes + 1)
        ]
        for node in self.nodes if etcd_behind_gateway else ():
            node.host.ip(f"route add default via {ETCD}")

    def start_etcd(self) -> None:
        command = [str(etcdlab.binaries() / "etcd"), "--data-dir", str(self.folder / "etcd")]
        urls = ",".join(f"http://{each}:2379" for each in sorted({ETCD, self._etcd_at}))
        command += ["--listen-client-urls", urls, "--advertise-client-urls", urls]
        command += ["--log-level", "error", "--logger", "zap", *self._etcd_flags.split()]

        def popen() -> subprocess.Popen[bytes]:
            with (self.folder / "etcd.log").open("ab") as log:
                return subprocess.Popen(command, stdout=log, stderr=log)

        self._etcd = self._etcd_host.call(popen)
        eventually(lambda: self.etcdctl("endpoint", "health").returncode == 0, 20)

    def stop_etcd(self) -> None:
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait(10)
            self._etcd = None

    def etcdctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run_etcdctl([*words], "")

    def run_etcdctl(self, words: list[str], text: str) -> subprocess.CompletedProcess[str]:
        """``etcdctl WORDS`` with ``text`` on its standard input."""
        return self.on_etcd_host(["etcdctl", *words], text)

    def on_etcd_host(self, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        """Run it on etcd's host, with etcdctl in PATH and the endpoint in its environment."""
        path = f"{etcdlab.binaries()}:{os.environ['PATH']}"
        return self._etcd_host.call(
            subprocess.run,
            command,
            env={**os.environ, "PATH": path, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": _URL},
            input=text,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def create_mesh(self, backend: str = "host-gw", **options: object) -> None:
        """Write the config, or change it."""
        config = {
            "Network": "10.64.0.0/10",
            "SubnetLen": 24,
            "Backend": {"Type": backend, **options},
        }
        assert self.etcdctl("put", "/hostmesh/config", json.dumps(config)).returncode == 0

    def start(self, backend: str = "host-gw", **options: object) -> None:
        """The mesh, and every agent until it holds a subnet and routes to all others."""
        self.create_mesh(backend, **options)
        for node in self.nodes:
            node.start()
        self.wait_joined()

    def wait_joined(self) -> None:
        """Wait until every agent holds a subnet and routes to all others."""
        eventually(lambda: all(self._joined(node) for node in self.nodes), 30)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Start it, and remove everything of it afterwards."""
        try:
            self.start()
            yield self
        finally:
            self.close()

    def _joined(self, node: Node) -> bool:
        status = node.document("status")
        routes = status["routes"]
        return (
            bool(status["subnet"])
            and len(status["peers"]) == len(self.nodes) - 1
            and routes["installed"] == routes["desired"] == len(self.nodes)
        )

    def close(self) -> None:
        for node in self.nodes:
            node.stop(signal.SIGKILL)
        self.stop_etcd()
        self.lan.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def container_of(node: Node) -> None:
    """A bridge with an address in the node's subnet, as docker0 has it."""
    subnet = IPv4Network(node.subnet())
    node.host.ip("link add docker0 type bridge")
    node.host.ip(f"addr add {subnet[1]}/24 dev docker0")
    node.host.ip("link set docker0 up")


def inner(node: Node) -> str:
    """An address in the node's subnet that answers, as a container does."""
    return str(IPv4Network(node.subnet())[1])


def reaches(node: Node, other: Node, address: str = "") -> bool:
    """Ask the other's inner address, or one that it is known by while its agent is down."""
    words = ["ping", "-c1", "-W1", "-I", inner(node), address or inner(other)]
    return node.inside(words).returncode == 0


def all_reached(stage: Stage) -> bool:
    pairs = [(one, two) for one in stage.nodes for two in stage.nodes if one is not two]
    return all(reaches(*pair) for pair in pairs)
