"""The first step inside a machine's new namespaces: builds its file tree and becomes its PID 1.

Run by file name, not imported: it must need nothing but the standard library and start fast.
It talks to the process that started it over two pipes: prints its pid as the machine sees
it, then `ready` when the tree is mounted, and waits for a line on its standard input (the network
is plugged in meanwhile) before it becomes PID 1.
"""

import ctypes
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWCGROUP = 0x02000000
_libc = ctypes.CDLL(None, use_errno=True)
_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "kmsg": (1, 11),
    "net/tun": (10, 200),
}


def _checked(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")


def mount(
    source: str, target: Path | str, kind: str = "", flags: int = 0, options: str = ""
) -> None:
    """mount(2)."""
    _checked(
        _libc.mount(
            source.encode(),
            str(target).encode(),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        f"mount {kind or 'bind'} {source} on {target}",
    )


def bind(source: str, target: Path, *, read_only: bool = False) -> None:
    """Show a file or folder at another place too, which is made if it is not there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir() if os.path.isdir(source) else target.touch()
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def enter_cgroup(group: Path) -> None:
    """Become the root of a cgroup namespace, with PID 1 in a leaf as cgroup2 wants it."""
    (group / "exec").mkdir(parents=True, exist_ok=True)
    leaf = group / "init"
    leaf.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text("0")
    _checked(_libc.unshare(CLONE_NEWCGROUP), "unshare cgroup")
    (leaf / "cgroup.procs").write_text("0")


def mount_disk(spec: dict[str, Any]) -> Path:
    """Mount the machine's own layer over the shared ones and return where."""
    root = Path(spec["root"])
    layers = ":".join(spec["layers"])
    options = f"lowerdir={layers},upperdir={spec['upper']},workdir={spec['work']}"
    mount("overlay", root, "overlay", options=options)
    return root


def build_tree(spec: dict[str, Any]) -> Path:
    """Mount the machine's whole file tree and return its path."""
    root = mount_disk(spec)
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("cgroup2", root / "sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in ("run", "tmp"):
        mount(
            "tmpfs",
            root / name,
            "tmpfs",
            MS_NOSUID | MS_NODEV,
            "mode=1777" if name == "tmp" else "mode=755",
        )
    make_devices(root / "dev")
    for item in spec["binds"]:
        bind(item["source"], root / item["target"].lstrip("/"), read_only=item["read_only"])
    bind(spec["boot_id_file"], root / "proc/sys/kernel/random/boot_id", read_only=True)
    return root


def make_devices(dev: Path) -> None:
    """The few devices that Docker and the agent use; none of the machine's disks."""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name in ("net", "pts", "shm", "mqueue"):
        (dev / name).mkdir()
    for name, (major, minor) in _DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(dev / name, 0o666)
    mount(
        "devpts",
        dev / "pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV)
    mount("mqueue", dev / "mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        (dev / name).symlink_to(target)


def change_root(root: Path) -> None:
    """Make `root` the namespace's root and let go of every mount of the machine's."""
    os.chdir(root)
    _checked(_libc.pivot_root(b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount old root")
    os.chdir("/")


def main() -> None:
    """Boot the machine that the spec file describes."""
    # The machine's /proc is still mounted here: it says which pid we have out there.
    print(os.readlink("/proc/self"), flush=True)
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    enter_cgroup(Path(spec["cgroup"]))
    change_root(build_tree(spec))
    name: str = spec["hostname"]
    _checked(_libc.sethostname(name.encode(), len(name)), "sethostname")
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the lab went away while this machine booted")
    log = os.open("/var/log/init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "container": "hostmesh-lab",
    }
    os.execve(
        "/usr/bin/python3",
        ["/usr/bin/python3", "-I", "-B", "/run/lab/init.py", "/run/lab/spec.json"],
        environment,
    )


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(f"error: {error.strerror or error}", flush=True)
        sys.exit(1)
