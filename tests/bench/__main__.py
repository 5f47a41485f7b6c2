"""Measure: run bench programs one after the other, as root.

    .venv/bin/python -m tests.bench                 # the quick programs: `make bench`
    .venv/bin/python -m tests.bench --full          # every program, in full: `make bench-full`
    .venv/bin/python -m tests.bench --only NAME...  # these
    .venv/bin/python -m tests.bench --check         # compared with docs/figures: `make bench-check`
    .venv/bin/python -m tests.bench --write         # publish build/bench on docs/figures.md
    .venv/bin/python -m tests.bench --redraw        # make its tables and plots anew

Each program writes its JSON to build/bench. Exit statuses: 0 every program measured (the summary
names goals that are missed and figures that are refused), 3 one measured nothing. With --check: 0
no figure is worse, 1 one is, 2 a figure or program could not be compared.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.program import NOT_MEASURED, unwind_when_ended
from tests.bench.programs import PROGRAMS
from tests.bench.report.check import check
from tests.bench.report.write import Places, publish, redraw
from tests.bench.runner import choose, run, run_all


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help="every program, in full")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these programs")
    parser.add_argument("--check", action="store_true", help="compare with docs/figures")
    parser.add_argument("--write", action="store_true", help="publish what was measured last")
    parser.add_argument("--redraw", action="store_true", help="make docs/figures.md anew")
    parser.add_argument("--rounds", type=int, help="of each figure, to try the programs")
    options = parser.parse_args()
    unwind_when_ended()
    try:
        programs = choose(options.only, full=options.full)
    except ValueError as error:
        parser.error(str(error))
    if options.write:
        every = programs if options.only else PROGRAMS
        print("\n".join(publish(every)))
        return 0
    if options.redraw:
        redraw(Places())
        return 0
    if options.check:
        return check(
            programs, lambda each: run(each, full=options.full, rounds=options.rounds).document
        )
    ran = run_all(programs, full=options.full, rounds=options.rounds)
    return 0 if all(each.document for each in ran) else NOT_MEASURED


if __name__ == "__main__":
    sys.exit(main())
