"""Verbs for networks that span hosts."""

from __future__ import annotations

from agent.ctl.verbtable.row import DRY_RUN, TABLE, Argument, Verb

__all__ = ["NETWORKS"]

NETWORKS = (
    Verb(
        "network ls",
        "list the networks that span hosts",
        "network.show:ls",
        TABLE,
        examples=("agentctl network ls", "agentctl network ls --sort containers"),
    ),
    Verb(
        "network inspect",
        "show a network, and each host's part of it",
        "network.show:inspect",
        (Argument("NAME", "the network"), *TABLE),
        examples=("agentctl network inspect shop", "agentctl network inspect shop -o yaml"),
    ),
    Verb(
        "network create",
        "create a network that spans hosts; wait until they have it",
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
        examples=(
            "agentctl network create shop",
            "agentctl network create shop --access closed --host 'web*' --dry-run",
        ),
    ),
    Verb(
        "network rm",
        "remove a network where no container is attached",
        "network.change:rm",
        (Argument("NAME", "the network"), DRY_RUN),
        examples=("agentctl network rm shop --dry-run", "agentctl network rm shop"),
    ),
)
