"""A process to be killed: reconciles towards ever changing leases as fast as it can.

SIGKILL waits for a system call to be over, and one writes up to 500 routes: with so many a kill
would never fall into the middle of a plan of 200. Here one writes one.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.kernel.facts import read_host_facts
from agent.kernel.tables import table as tables
from agent.kernel.tables.routes import RouteTable
from agent.kernel.uplink import choose_uplink
from agent.mesh.world import World, peers_by_subnet
from tests.netns.routes.scene import CONFIG, OWN, lease, one_pass


def main() -> None:
    tables._BATCH = 1  # type: ignore[misc]  # see above
    choose = random.Random(int(sys.argv[1]))  # noqa: S311 # not for secrets
    facts = read_host_facts()
    table = RouteTable()
    started = False
    while True:
        gateway = f"192.0.2.{choose.randrange(11, 200)}"  # one for all: what is mixed was cut
        peers = [
            lease(f"10.64.{number}.0/24", gateway)
            for number in choose.sample(range(1, 200), choose.randrange(1, 199))
        ]
        world = World(
            config=CONFIG,
            own=OWN,
            peers=peers_by_subnet(peers, OWN),
            uplink=choose_uplink(facts, "eth0"),
            host=facts,
            complete=True,
        )
        if not started:
            started = True
            print("started", flush=True)
        one_pass(world, table)


main()
