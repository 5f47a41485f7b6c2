"""A process of an unprivileged user that looks like a dockerd: name, command line, PATH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hostmesh_lab import shell
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

FOLDER = "/var/tmp/impostor"  # noqa: S108 - what any user may make
SOCKET = f"{FOLDER}/docker.sock"
_ARGUMENTS = (
    f"-H unix://{SOCKET} --group=nogroup --data-root={FOLDER}/data --exec-root={FOLDER}/exec"
    " --iptables=false --label=filler=FILLER --pidfile"
)
"""A program that takes --validate for a file starts a second dockerd, open to that user."""

_SCRIPT = """
import ctypes, sys, time
words, libc = sys.argv[1].split(), ctypes.CDLL(None)
libc.prctl(15, b"dockerd", 0, 0, 0)
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(stat[45]), int(stat[46])
text = "\\0".join(["dockerd", *words]) + "\\0"
text = text.replace("FILLER", "x" * (end - start - len(text) + len("FILLER")))
ctypes.memmove(start, text.encode(), end - start)
print("ready", flush=True)
time.sleep(3600)
"""


@contextmanager
def running(host: Host) -> Iterator[int]:
    """Run it for the time of a ``with``; yield its process id. Its PATH has another iptables."""
    host.run(["install", "-d", "-o", "65534", "-g", "65534", FOLDER, f"{FOLDER}/bin"])
    for name in ("iptables", "xtables-legacy-multi"):
        host.run(["install", "-m", "755", "/bin/true", f"{FOLDER}/bin/{name}"])
    host.run(["ln", "-sf", "xtables-legacy-multi", f"{FOLDER}/bin/iptables"])
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    path = ["env", f"PATH={FOLDER}/bin"]
    process = host.popen([*user, *path, "/usr/bin/python3", "-c", _SCRIPT, _ARGUMENTS])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        pids = host.run(["pgrep", "-u", "65534", "-x", "dockerd"]).stdout.split()
        assert host.read_file(f"/proc/{pids[0]}/cmdline").endswith("\0--pidfile\0")
        yield int(pids[0])
    finally:
        host.run(["pkill", "-KILL", "-u", "65534", "-x", "dockerd"], check=False)
        shell.kill_session(process)
        wait_until(lambda: not _of_user(host), 10, "the impostor's end")
        host.run(["rm", "-rf", FOLDER])


def _of_user(host: Host) -> list[str]:
    return host.run(["pgrep", "-u", "65534", "-x", "dockerd"], check=False).stdout.split()


def dockerds_of_root(host: Host) -> list[str]:
    """The dockerds that root runs on a host."""
    return host.run(["pgrep", "-u", "0", "-x", "dockerd"]).stdout.split()
