"""`make demo`: the main job on a lab of its own, every claim checked by looking."""

import contextlib
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hostmesh_lab import machine_state, paths, state
from hostmesh_lab.demo import changes, mesh, names, networks, packets
from hostmesh_lab.demo.stage import Stage
from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.processes import die_on_sigterm, require_root
from hostmesh_lab.underlay.topology import BACKENDS, NAMED, ONE_LAN, Topology

_KEPT_FAILURES = 3
_BOLD, _GREEN, _RED, _DIM, _PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"

STEPS: list[tuple[str, Callable[[Stage], None]]] = [
    ("three hosts join: each gets a /16, each Docker has it", mesh.hosts_join),
    ("a host reaches a container on another host", mesh.host_to_remote_container),
    ("containers on every pair of hosts ping and fetch from each other", mesh.every_pair),
    ("containers of every host fetch pages from each other by name", names.by_name),
    ("one packet's walk: TTL 64 63 63 62, addresses unchanged, and back", packets.walk),
    (
        "Docker's isolation and the operator's REJECT are in place, nothing is flushed",
        mesh.isolation,
    ),
    (
        "one network spans the hosts, on every port, and stays closed to others",
        networks.one_network,
    ),
    ("a fourth host joins under traffic", changes.fourth_host),
    ("a host leaves: gone everywhere within a second", changes.host_leaves),
    ("a host is killed and comes back with its subnet", changes.power_cut),
    ("the leases", mesh.table),
]


class Screen:
    """The demo's output: one line when a step begins and ends, its findings between."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._color = sys.stdout.isatty()

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._color else text

    def line(self, text: str, mark: str = "") -> None:
        """A line with the seconds since the demo began."""
        seconds = self._paint(_DIM, f"[{time.monotonic() - self._began:6.1f} s]")
        print(f"{seconds} {mark}{text}", flush=True)

    def note(self, text: str) -> None:
        """A finding of the step that runs."""
        for line in text.splitlines():
            self.line("    " + line)

    @contextlib.contextmanager
    def step(self, number: str, title: str) -> Iterator[None]:
        """A step; its result is printed when it ends."""
        self.line(self._paint(_BOLD, title), f"{number:>3}  ")
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                self.line(
                    self._paint(
                        _RED, f"FAILED after {time.monotonic() - began:.1f} s: {_why(error)}"
                    ),
                    "     ",
                )
            raise
        self.line(self._paint(_GREEN, "ok") + f" ({time.monotonic() - began:.1f} s)", "     ")


def _why(error: BaseException) -> str:
    if isinstance(error, LabError):
        return error.line()
    return "".join(traceback.format_exception_only(error)).strip()


@dataclass
class _Outcome:
    failed_step: str = ""
    kept_logs: Path | None = None
    interrupted: bool = False
    changed: list[str] = field(default_factory=list)


def run(
    name: str,
    suite: str,
    topology: Topology = ONE_LAN,
    backend: str = BACKENDS[0],
    *,
    keep: bool,
) -> int:
    """Run the demo; 0 only if every step was verified and the machine is as it was."""
    require_root()
    _check(name, topology, backend)
    die_on_sigterm()
    screen, outcome = Screen(), _Outcome()
    host = HostOptions(reject_forward=True)
    options = LabOptions(
        name, 3, suite, host=host, cidr=None, topology=topology, backend={"Type": backend}
    )
    before = machine_state.look(lab=name)
    try:
        _perform(options, screen, outcome)
    except KeyboardInterrupt:
        outcome.interrupted = True
    kept = keep and not outcome.interrupted
    if kept:
        state.disown(name)
    else:
        _end_lab(name, before, screen, outcome)
    return _verdict(name, screen, outcome, kept)


def _check(name: str, topology: Topology, backend: str) -> None:
    """Refuse a demo that cannot run."""
    paths.checked_name(name)
    obstacle = topology.obstacle(backend)
    if obstacle:
        usable = [each.name for each in NAMED.values() if not each.obstacle(backend)]
        raise LabError(
            f"the demo's backend is {backend}, which does not support topology {topology.name}:"
            f" {obstacle}",
            "choose one of " + ", ".join(usable),
        )
    record = state.load(name)
    if record is not None and record.alive() and not record.orphaned():
        raise LabError(
            f"lab {name!r} is up already", f"hostmesh-lab down --name {name}, or --name OTHER"
        )


def _perform(options: LabOptions, screen: Screen, outcome: _Outcome) -> None:
    title = "three machines boot, each with its own kernel namespaces, dockerd and agent; one etcd"
    number = 0
    try:
        with screen.step(str(number), title):
            lab = Lab.up(options, screen.note)
        stage = Stage(lab, screen.note, options.backend["Type"])
        for number, (title, step) in enumerate(STEPS, 1):
            with screen.step(str(number), title):
                step(stage)
    except Exception as error:  # noqa: BLE001 - whatever fails, the demo says where and cleans up
        if not isinstance(error, LabError):
            traceback.print_exc()
        outcome.failed_step = f"{number}: {title}"
        if state.made_by_this_process(options.name):
            outcome.kept_logs = keep_logs(options.name)


def _end_lab(
    name: str, before: machine_state.MachineState, screen: Screen, outcome: _Outcome
) -> None:
    """Take the lab down whatever happens: a second Ctrl-C must not leave half of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    title = "the lab ends; this machine's addresses, routes, rules, sysctls, mounts are compared"
    with contextlib.suppress(LabError), screen.step("end", title):
        if state.made_by_this_process(name):
            with state.locked(name):
                state.clear(name)
        outcome.changed = ["unknown"]
        outcome.changed = machine_state.lasting_differences(before, lab=name)
        for line in outcome.changed[:20]:
            screen.note(line)
        if outcome.changed:
            raise LabError(f"{len(outcome.changed)} things on this machine are not as before")


def _verdict(name: str, screen: Screen, outcome: _Outcome, kept: bool) -> int:
    if kept:
        screen.line("the lab is left running")
        program = paths.program()
        screen.line(f"  look around:  {program} exec --name {name} host1 -- agentctl status")
        screen.line(f"  its machines: {program} status --name {name}")
        screen.line(f"  end it:       {program} down --name {name}")
    if outcome.interrupted:
        screen.line("interrupted; nothing is left but caches")
        return 130
    if outcome.failed_step:
        where = f"; logs: {outcome.kept_logs}" if outcome.kept_logs else ""
        screen.line(f"the demo FAILED at step {outcome.failed_step}{where}")
        return 1
    if outcome.changed:
        screen.line("the demo FAILED: it did not leave this machine as it was")
        return 1
    screen.line("every step was verified")
    return 0


def keep_logs(name: str) -> Path:
    """Copy the logs and what the kernels hold to where the lab's end does not remove them."""
    target = paths.disk_root() / f"failed-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    older = sorted(paths.disk_root().glob(f"failed-{name}-*"))
    for folder in older[: max(0, len(older) - _KEPT_FAILURES + 1)]:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(LabError, OSError):
        Lab.open(name).copy_logs(target)
    return target
