"""The first step of a machine that boots with systemd: mounts its disk and becomes systemd-nspawn.

Run by file name, not imported, like boot.py, whose words to the process that started it are the
same: its pid, `ready`, then a line on standard input (the network is plugged in meanwhile).
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

_spec = importlib.util.spec_from_file_location("boot", Path(__file__).with_name("boot.py"))
assert _spec is not None
assert _spec.loader is not None
boot = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(boot)


def prepare(spec: dict[str, Any]) -> None:
    """Mount what systemd-nspawn looks at, in this mount namespace only, and the disk."""
    boot.mount("proc", "/proc", "proc", boot.MS_NOSUID | boot.MS_NODEV | boot.MS_NOEXEC)
    boot.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    # It keeps notes under /run/systemd: they end with this namespace.
    boot.mount("tmpfs", "/run", "tmpfs", boot.MS_NOSUID | boot.MS_NODEV, "mode=755")
    boot.mount_disk(spec)


def set_sysctls(spec: dict[str, Any]) -> None:
    """Those of the network namespace: inside, systemd-sysctl finds /proc/sys read-only."""
    for name, value in spec["sysctls"].items():
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists():
            path.write_text(value)


def command_line(spec: dict[str, Any]) -> list[str]:
    """systemd-nspawn in a network namespace that is there, under no machine manager."""
    binds = []
    for item in spec["binds"]:
        kind = "--bind-ro" if item["read_only"] else "--bind"
        binds.append(f"{kind}={item['source']}:{item['target']}")
    if Path("/dev/net/tun").exists():
        binds.append("--bind=/dev/net/tun")
    return [
        "systemd-nspawn",
        "--quiet",
        "--settings=no",
        "--register=no",
        "--keep-unit",
        f"--directory={spec['root']}",
        f"--machine={spec['hostname']}",
        "--network-namespace-path=/proc/self/ns/net",
        "--capability=all",
        # System calls of Docker and systemd's sandboxes that a container does not get by default.
        "--system-call-filter=bpf keyctl add_key",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--kill-signal=SIGRTMIN+4",
        "--console=pipe",
        *binds,
        "--boot",
    ]


def main() -> None:
    """Boot the machine that the spec file describes."""
    print(os.readlink("/proc/self"), flush=True)
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    boot.enter_cgroup(Path(spec["cgroup"]))
    log = os.open(spec["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    prepare(spec)
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the lab went away while this machine booted")
    set_sysctls(spec)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"
    os.execvp("systemd-nspawn", command_line(spec))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(f"error: {error.strerror or error}", flush=True)
        sys.exit(1)
