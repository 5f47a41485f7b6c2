"""Verbs for networks that span hosts."""

from __future__ import annotations

from agent.ctl.verbtable.row import DRY_RUN, Argument, Verb

__all__ = ["NETWORKS"]

NETWORKS = (
    Verb("network ls", "list the networks that span hosts", "network.show:ls"),
    Verb(
        "network inspect",
        "show a network, and each host's part of it",
        "network.show:inspect",
        (Argument("NAME", "the network"),),
    ),
    Verb(
        "network create",
        "create a network that spans hosts, and wait until they have it",
        "network.change:create",
        (
            Argument("NAME", "lower-case letters, digits and hyphens"),
            Argument(
                "--access",
                "how much of it other networks reach; else as the config says",
                "open|published|closed",
            ),
            Argument(
                "--host",
                "a host, or a pattern of names with * and ?, that has it (all); may be repeated",
                "HOST…",
            ),
            Argument("--size", "prefix length of each host's part (/24)", "LENGTH"),
            DRY_RUN,
        ),
    ),
    Verb(
        "network rm",
        "remove a network from every host where no container is attached",
        "network.change:rm",
        (Argument("NAME", "the network"), DRY_RUN),
    ),
)
