"""Walk over a lab of real hosts for hours: `python -m tests.soak --seed N --hours H`."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab
from hostmesh_lab.processes import die_on_sigterm

from tests.soak.walk import Limit, options, walk

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Walk, and return 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, help="choose the steps by it (default: a new one)")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--steps", type=int, help="this many steps instead of a time")
    parser.add_argument("--hosts", type=int, default=4, help="at least 4 (default)")
    chosen = parser.parse_args(argv)
    if chosen.hosts < 4:
        parser.error("--hosts: at least 4")
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    limit = Limit(seconds=chosen.hours * 3600, steps=chosen.steps)
    die_on_sigterm()
    try:
        with Lab.up(options(chosen.hosts)) as lab:
            walk(lab, seed, limit)
    except LabError as error:
        print(f"the walk FAILED: {error.line()}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the lab is gone", flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
