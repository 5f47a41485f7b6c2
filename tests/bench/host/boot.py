"""How long a fresh machine takes to join, and what the agent costs a boot.

    .venv/bin/python -m tests.bench.host.boot [--rounds N] [--suite trixie]

Machines of the lab that boot with systemd, one after the other. For each round one more
machine: `dpkg --install` to the first reply from a container of a member to a container of its
own; then boots with the units enabled and disabled, as `systemd-analyze` has them.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.wait import wait_until

from deploy.deb.build import build
from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.engine.boot.scenes import FRESH, settings

_UNITS = ("hostmesh-agent.service", "hostmesh-docker-gate.service")


def measure(bench: Bench, options: Options) -> None:
    """Measure with one machine more for each round."""
    with tempfile.TemporaryDirectory() as folder:
        package = build(options.suite, Path(folder), say=lambda _: None)
        lab_options = LabOptions(
            name="bench-boot", hosts=1, suite=options.suite, host=FRESH, cidr=None
        )
        with Lab.up(lab_options) as lab:
            bench.settle()
            found = [_round(lab, package) for _ in range(options.rounds)]
    bench.fact("suite", options.suite)
    with_it, without = "boot with the agent (userspace)", "boot without the agent (userspace)"
    for name in (each for each in found[0] if each not in (with_it, without)):
        bench.value(name, [each[name] for each in found])
    bench.difference(
        with_it, [each[with_it] for each in found], without, [each[without] for each in found]
    )


def _round(lab: Lab, package: Path) -> Mapping[str, float]:
    member = lab.hosts["host1"]
    assert isinstance(member, BootedHost)
    if not member.ready():
        _install(lab, member, package)
        member.start_container("web")
    fresh = lab.join(FRESH)
    assert isinstance(fresh, BootedHost)
    measured = dict(_install(lab, fresh, package))
    since_s = time.monotonic()
    address = fresh.start_container("web", options=["--restart=always"])
    wait_until(lambda: member.ping(address, container="web"), 20, "a reply", every_s=0.02)
    ready_s = measured["dpkg --install to host ready"]
    measured["dpkg --install to first cross-host reply"] = ready_s + time.monotonic() - since_s
    measured |= _boots(lab, fresh)
    fresh.kill()
    return measured


def _install(lab: Lab, host: BootedHost, package: Path) -> Mapping[str, float]:
    host.write_file("/etc/hostmesh/agent.toml", settings(lab), mode=0o600)
    since_s = time.monotonic()
    host.install(package)
    installed_s = time.monotonic() - since_s
    wait_until(host.ready, 60, "ready", every_s=0.05)
    return {
        "dpkg --install": installed_s,
        "dpkg --install to host ready": time.monotonic() - since_s,
    }


def _boots(lab: Lab, host: BootedHost) -> Mapping[str, float]:
    host.reboot()
    lab.wait_ready(30, [host.name])
    found = {"boot with the agent (userspace)": _userspace_s(host)}
    for name, unit in zip(("agent, start to READY", "gate"), _UNITS, strict=True):
        found[f"  of it: {name}"] = _took_s(host, unit)
    host.systemctl("disable", *_UNITS)
    host.reboot()
    found["boot without the agent (userspace)"] = _userspace_s(host)
    host.systemctl("enable", *_UNITS)
    return found


def _userspace_s(host: BootedHost) -> float:
    said = host.run(["systemd-analyze", "time"]).stdout
    match = re.search(r"(?:([0-9.]+)min )?([0-9.]+)(ms|s) \(userspace\)", said)
    assert match is not None, said
    unit_s = 0.001 if match[3] == "ms" else 1.0
    return float(match[1] or 0) * 60 + float(match[2]) * unit_s


def _took_s(host: BootedHost, unit: str) -> float:
    names = ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    shown = host.unit(unit, *names)
    return (int(shown[names[1]]) - int(shown[names[0]])) / 1e6


if __name__ == "__main__":
    main(measure, lambda parser: parser.add_argument("--suite", default="trixie"))
