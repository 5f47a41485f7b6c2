"""deploy/etcd/hosts.sh as an operator runs it, and the members that it makes certificates for."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.settings import EtcdSettings, load_settings
from tests.etcd.support.etcdlab import binaries

FOLDER = Path(__file__).parents[3] / "deploy/etcd"


class Kit:
    """One folder of credentials. etcdctl and openssl write down how they were called.

    Args:
        folder: Gets the credentials, and what the programs were called with.
        endpoints: etcd's; () for those of the members that the kit made.
    """

    def __init__(self, folder: Path, endpoints: Sequence[str] = ()) -> None:
        self.folder = folder / "pki"
        self._programs = folder / "programs"
        self._calls = folder / "calls"
        self._programs.mkdir(parents=True)
        self._environ = {**os.environ, "PATH": f"{self._programs}:{os.environ['PATH']}"}
        if endpoints:
            self._environ["ETCDCTL_ENDPOINTS"] = ",".join(endpoints)
        for name, path in (("etcdctl", binaries() / "etcdctl"), ("openssl", "/usr/bin/openssl")):
            program = self._programs / name
            program.write_text(
                f'#!/bin/sh\nprintf "%s\\n" "$0 $*" >>"{self._calls}"\nexec "{path}" "$@"\n'
            )
            program.chmod(0o755)

    def run(self, *words: str, fails: bool = False, **environ: str) -> str:
        """Run hosts.sh; returns what it said, on stderr too."""
        done = self.try_to(*words, **environ)
        assert bool(done.returncode) == fails, done.stdout
        return done.stdout

    def try_to(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run hosts.sh, whatever comes of it."""
        return subprocess.run(
            [FOLDER / "hosts.sh", "--folder", self.folder, *words],
            env={**self._environ, **environ},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
        )  # fmt: skip

    def calls(self) -> str:
        """Every program with its arguments, as other users of the machine could see them."""
        return self._calls.read_text()

    def member(self, name: str, data: Path) -> subprocess.Popen[bytes]:
        """Start a member as the unit does, on its first address only: all share one machine."""
        environ = self._unit(self.folder / name)
        clients = environ["ETCD_LISTEN_CLIENT_URLS"].partition(",")[0]
        return subprocess.Popen(
            [binaries() / "etcd", "--log-level", "error", "--logger", "zap"],
            env={**environ, "ETCD_DATA_DIR": str(data), "ETCD_LISTEN_CLIENT_URLS": clients},
            stderr=(data.parent / f"log-{name}").open("w"),
        )

    def _unit(self, folder: Path) -> dict[str, str]:
        """Read the environment that the unit gives etcd, with its folder moved."""
        found: dict[str, str] = {}
        for line in (FOLDER / "hostmesh-etcd.service").read_text().splitlines():
            if line.startswith("Environment="):
                found |= dict(each.split("=", 1) for each in shlex.split(line.partition("=")[2]))
            elif line.startswith("EnvironmentFile="):
                lines = (folder / Path(line.partition("=")[2]).name).read_text().splitlines()
                found |= dict(each.split("=", 1) for each in lines)
        return {
            name: text.replace("/etc/hostmesh-etcd", str(folder)) for name, text in found.items()
        }

    def etcdctl(self, *words: str, who: str = "") -> subprocess.CompletedProcess[str]:
        """Run etcdctl with one of the folder's certificates: "admin", "hosts/web7"."""
        flags = ["--cacert", str(self.folder / "ca.crt")]
        flags += ["--endpoints", (self.folder / "endpoints").read_text().strip()]
        if who:
            own = self.folder / who
            flags += ["--cert", str(own / "etcd.crt"), "--key", str(own / "etcd.key")]
        return subprocess.run(
            [binaries() / "etcdctl", "--command-timeout", "5s", *flags, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip

    def settings(self, account: str) -> EtcdSettings:
        """Load an account's settings: "operator", "admin", or a host's as if in /etc/hostmesh."""
        if account == "operator":
            return load_settings(self._calls.with_name("none"), operator=self.operator).etcd
        if account == "admin":
            own = self.folder / "admin"
            return replace(
                self.settings("operator"), cert_file=own / "etcd.crt", key_file=own / "etcd.key"
            )
        return load_settings(self.agent_toml(account)).etcd

    @property
    def operator(self) -> Path:
        """The file for agentctl --as-operator."""
        return self.folder / "operator/operator.toml"

    def agent_toml(self, account: str) -> Path:
        """Return a host's agent.toml, with its files where the kit made them."""
        own = self.folder / account
        moved = self._calls.with_name(f"{own.name}.toml")
        moved.write_text((own / "agent.toml").read_text().replace("/etc/hostmesh", str(own)))
        return moved
