"""The common form of a bench program: its arguments, namespaces, lock, deadline and exit status.

    def measure(bench: Bench, options: Options) -> None: ...

    if __name__ == "__main__":
        main(measure)

A program is run as ``python -m MODULE [--quick] [--rounds N]`` by root, and needs nothing else by
hand. Exit statuses: 0 all good, 1 a goal missed, 2 a figure refused, 3 nothing measured.
"""

from __future__ import annotations

import argparse
import inspect
import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from hostmesh_lab import paths, state

from tests.bench.harness import Bench
from tests.bench.programs import PROGRAMS, Program
from tests.etcd.support import etcdlab

NOT_MEASURED = 3
_INSIDE = "HOSTMESH_BENCH_INSIDE"
"""Set in a run within a run, which has its own namespaces."""
_LOCK_WITHIN_S = 1200
Options = argparse.Namespace
"""``quick``, ``rounds``, and the program's own."""


class _Parser(argparse.ArgumentParser):
    """argparse's own status for a wrong argument is that of a refused figure."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(NOT_MEASURED, f"{self.prog}: {message}\n")


def parse(
    program: Program,
    argv: list[str],
    about: str = "",
    add: Callable[[argparse.ArgumentParser], object] | None = None,
) -> Options:
    """Return the common options and those that ``add`` adds."""
    parser = _Parser(
        prog=f"python -m {program.module}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help="of each figure")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, as `make bench`")
    parser.add_argument(
        "--quiet-within",
        type=float,
        default=0.0,
        metavar="S",
        help="wait so long for other processes to end",
    )
    if add is not None:
        add(parser)
    options = parser.parse_args(argv)
    if options.rounds is None:
        quick = options.quick and program.quick_rounds
        options.rounds = program.quick_rounds if quick else program.rounds
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def main(
    measure: Callable[[Bench, Options], object],
    add: Callable[[argparse.ArgumentParser], object] | None = None,
) -> NoReturn:
    """Run the program that was started with ``python -m``, and exit with its status."""
    program = _started()
    options = parse(program, sys.argv[1:], inspect.getdoc(sys.modules["__main__"]) or "", add)
    if os.geteuid() != 0:
        _give_up("run it as root: it makes namespaces")
    if missing := [each for each in program.needs if shutil.which(each) is None]:
        _give_up(f"not installed: {' '.join(missing)}; run tests/prepare.sh bench")
    if program.isolated and _INSIDE not in os.environ:
        _enter_namespaces(program)
    unwind_when_ended()
    signal.alarm(_LOCK_WITHIN_S)
    lock = paths.cache_root() / "lab.lock"
    with state.reserved(f"waiting for {lock}: another measurement or test runs"):
        signal.alarm(program.deadline_s(quick=options.quick))
        bench = Bench(program.name, quiet_within_s=options.quiet_within, quick=options.quick)
        measure(bench, options)
        signal.alarm(0)
        sys.exit(bench.finish())


def _started() -> Program:
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else ""
    found = next((each for each in PROGRAMS if each.module == module), None)
    return found or _give_up(f"{module or sys.argv[0]} is not in tests/bench/programs.py")


def _give_up(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(NOT_MEASURED)


def _enter_namespaces(program: Program) -> NoReturn:
    """Become the same program in network and PID namespaces that end with it."""
    etcdlab.binaries()  # out here, where there is a network
    unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inner = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable]
    command = [*unshare, *inner, "-m", program.module, *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: "1"})  # noqa: S606 - no shell


def unwind_when_ended() -> None:
    """Have SIGTERM and the deadline's signal end this program by an exception."""
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGALRM, _on_signal)


def _on_signal(number: int, frame: object) -> NoReturn:
    """Unwind, so that every namespace, process and lab is removed."""
    del frame
    why = "its deadline has passed" if number == signal.SIGALRM else "it was ended"
    signal.alarm(0)
    _give_up(f"nothing measured: {why}")
