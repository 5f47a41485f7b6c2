"""Walk over a lab: do step after step under pings, compare after each round, and judge the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hostmesh_lab.demo.run import keep_logs
from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.underlay import wireguard
from hostmesh_lab.wait import wait_until

from tests.soak.actions import GRACE_S, RECOVER_S, Actions
from tests.soak.compare import cost_of, kept, wait_right
from tests.soak.losses import Losses
from tests.soak.plan import Plan, Step
from tests.soak.traffic import EVERY_S, End, Traffic

__all__ = ["Limit", "options", "walk"]

_READY_S = 300.0
_SHOWN = 20


@dataclass(frozen=True)
class Limit:
    """When a walk begins to end: after a time, or with `steps` after so many steps."""

    seconds: float = 0.0
    steps: int | None = None

    def reached(self, began_s: float, steps: int) -> bool:
        """Return whether the walk has come to its end."""
        if self.steps is not None:
            return steps >= self.steps
        return time.monotonic() - began_s >= self.seconds


def options(hosts: int) -> LabOptions:
    """Return the lab of a walk: hosts on one link, so that every backend carries their packets."""
    return LabOptions(
        name=f"soak-{os.getpid()}",
        hosts=hosts,
        etcd_members=3,
        packages=wireguard.PACKAGES,
        host=HostOptions(
            settings={
                "lease": {"empty_cluster_grace_s": GRACE_S},
                "docker": {"restart_timeout_s": RECOVER_S},
            }
        ),
    )


def walk(lab: Lab, seed: int, limit: Limit) -> None:
    """Walk over a lab that was made with :func:`options`.

    Raises:
        LabError: A ping was lost that no step explains, a host is not as the leases say, did not
            recover in time, or something grew. The lab's logs are kept.
    """
    print(f"seed {seed}: {len(lab.hosts)} hosts, a ping of every pair every {EVERY_S:g} s")
    run = _Run(lab, seed)
    try:
        run.prepare()
        run.go(limit)
    except LabError:
        print(f"repeat it: python -m tests.soak --seed {seed} --steps {run.steps}")
        print(f"logs: {keep_logs(lab.name)}", flush=True)
        raise
    finally:
        run.traffic.close()
        run.report()


class _Run:
    """One walk."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.losses = Losses()
        self.traffic = Traffic(lab, self.losses)
        self.actions = Actions(lab, self.traffic, self.losses)
        self.plan = Plan(seed, list(lab.hosts), list(lab.etcd))
        self.steps = 0
        self.began_s = time.monotonic()

    def prepare(self) -> None:
        """Start a container on each host, and note what is to be so again at the end."""
        for host in self.lab.hosts.values():
            wait_until(host.ready, _READY_S, f"{host.name} to be ready", every_s=0.5)
        first = next(iter(self.lab.hosts.values()))
        first.agentctl("config", "set", "--level", "3")
        for host in self.lab.hosts.values():
            host.start_container("web", options=["--restart=always"])
        names = list(self.lab.hosts)
        for name in names:
            # Before the first answer a ping proves nothing.
            self.losses.open("start", [name], time.monotonic())
            self.traffic.follow(End(name))
        for name in names:
            self.traffic.wait_answers(name, [x for x in names if x != name], _READY_S)
        for window in self.losses.windows:
            window.end_s = time.monotonic()
        wait_right(self.lab, self.actions)
        self._costs = {name: cost_of(host) for name, host in self.lab.hosts.items()}
        self._kept = kept(self.lab, self.actions)
        self.began_s = time.monotonic()

    def go(self, limit: Limit) -> None:
        """Do the steps, then those that end everything; fail at the first unexplained loss."""
        for step in self._steps(limit):
            self.steps = step.number
            print(f"[{time.monotonic() - self.began_s:7.1f} s] {step}", flush=True)
            if step.act == "compare":
                self._compare()
            else:
                self.actions.do(step)
                self.traffic.alarm.wait(step.dwell_s)
            self.judge_losses()
        self._compare_with_start()
        self.traffic.close()
        self.judge_losses()

    def _steps(self, limit: Limit) -> Iterator[Step]:
        while not limit.reached(self.began_s, self.steps):
            yield self.plan.next()
        yield from self.plan.closing()

    def _compare(self) -> None:
        began_s = time.monotonic()
        wait_right(self.lab, self.actions)
        took_s = time.monotonic() - began_s
        minutes = (time.monotonic() - self.began_s) / 60
        grown = [
            f"{name}: {line}"
            for name, first in self._costs.items()
            for line in cost_of(self.lab.hosts[name]).grown(first, minutes)
        ]
        if grown:
            raise LabError("grown: " + "; ".join(grown))
        sent, answered = self.traffic.counted()
        explained = sum(self.losses.explained.values())
        print(
            f"    as the leases say after {took_s:.1f} s; {sent} pings, {answered} answered,"
            f" {explained} lost and explained",
            flush=True,
        )

    def _compare_with_start(self) -> None:
        """Hold rules, sets, routes, interfaces and keys against those of the start."""

        def differences() -> list[str]:
            now = kept(self.lab, self.actions)
            return [
                f"{name}: {sign} {line}"
                for name, before in self._kept.items()
                for sign, lines in (
                    ("gone", set(before) - set(now[name])),
                    ("new", set(now[name]) - set(before)),
                )
                for line in sorted(lines)
            ]

        try:
            wait_until(lambda: not differences(), _READY_S, "everything as it was", every_s=1.0)
        except LabError:
            lines = "\n  ".join(differences()[:_SHOWN])
            raise LabError(f"not as at the start:\n  {lines}") from None

    def judge_losses(self) -> None:
        """Fail if a ping was lost that no step explains."""
        lost = self.traffic.unexplained
        if not lost:
            return
        lines = [
            f"{each.source} to {each.target}: number {each.number},"
            f" {each.sent_s - self.began_s:.1f} s"
            for each in lost[:_SHOWN]
        ]
        raise LabError(f"{len(lost)} lost pings that no step explains:\n  " + "\n  ".join(lines))

    def report(self) -> None:
        """Print what the walk cost."""
        sent, answered = self.traffic.counted()
        minutes = (time.monotonic() - self.began_s) / 60
        print(f"{self.steps} steps in {minutes:.1f} min; {sent} pings, {answered} answered")
        for why, number in self.losses.explained.items():
            print(f"    {number:6} lost: {why}")
        for what, seconds in sorted(self.actions.longest_s.items()):
            print(f"    {what}: reached again after at most {seconds:.1f} s")
