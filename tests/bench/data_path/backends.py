"""Containers of two hosts by each backend, beside bare hosts, routes by hand and Swarm's overlay.

    .venv/bin/python -m tests.bench.data_path.backends [--quick] [--engines forky-nft,trixie-legacy]

All labs of an engine are up at once, and each round measures each way in turn. The quick run has
one engine and the loads that need no second look; the full run has four engines, one after the
other.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from agent.model import BACKENDS
from tests.bench.data_path.load import CONGESTION_CONTROL, LOADS, PACKAGES, Measure, serve
from tests.bench.data_path.ways import BARE, BY_HAND, ENGINES, HOST_GW, SWARM, Engine, open_ways
from tests.bench.harness import Bench, interleave
from tests.bench.program import Options, main
from tests.bench.statistic import Goal

SAME = 0.05
"""host-gw is as fast as routes by hand if it is within this part of them."""
Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""The figures of each round, by way."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the program takes beside the common options."""
    parser.add_argument("--engines", help="of: " + ", ".join(_key(each) for each in ENGINES))
    parser.add_argument("--backends", default=",".join(BACKENDS))


def measure(bench: Bench, options: Options) -> None:
    """Measure every way on each engine."""
    default = ENGINES[:1] if options.quick else ENGINES
    chosen = (options.engines or ",".join(map(_key, default))).split(",")
    loads = [each for each in LOADS if each.quick or not options.quick]
    bench.fact("congestion control of TCP streams", CONGESTION_CONTROL)
    for engine in (each for each in ENGINES if _key(each) in chosen):
        with ExitStack() as stack:
            ways = open_ways(engine, options.backends.split(","), PACKAGES, stack)
            for way in ways.values():
                serve(way, stack)
            bench.settle()
            for load in loads:
                runs = [partial(load.run, way) for way in ways.values()]
                found = dict(zip(ways, interleave(runs, options.rounds), strict=True))
                for number, each in enumerate(load.measures):
                    report(bench, engine, each, found, has_goals=number == 0)


def report(bench: Bench, engine: Engine, each: Measure, rounds: Rounds, *, has_goals: bool) -> None:
    """Keep a measure of every way, as ratios to the limit and to the peers."""
    values = {way: [one[each.name] for one in found] for way, found in rounds.items()}

    def ratio(way: str, other: str, goal: Goal | None = None) -> None:
        bench.ratio(
            f"{engine.name}: {each.name}: {way}",
            values[way],
            other,
            values[other],
            unit=each.unit,
            goal=goal,
            more_is_better=each.more_is_better,
        )

    for way in (name for name in values if name != BARE):
        ratio(way, BARE)
    if not has_goals:
        return
    for way in (name for name in values if name not in (BARE, BY_HAND, SWARM)):
        ratio(way, BY_HAND, Goal(1, equal_within=SAME) if way == HOST_GW else None)
    if HOST_GW in values:
        ratio(HOST_GW, SWARM, Goal(1, at_most=not each.more_is_better))


def _key(engine: Engine) -> str:
    return f"{engine.suite}-{engine.iptables}"


if __name__ == "__main__":
    main(measure, arguments)
