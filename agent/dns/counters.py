"""Counters of a server process, for the agent's metrics."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Counted since the process started.

    Attributes:
        queries: All that came, by UDP and TCP.
        answered: From the mesh's names.
        forwarded: Sent on to the host's upstreams.
        unanswered: Forwarded, and answered with SERVFAIL because no upstream had a reply.
        refused: From strangers.
        malformed: No queries.
        over_limit: More at one time than one asker, or all together, may have.
        upstream_failures: Tries without a usable reply.
        false_replies: Replies whose id or question was not the one that was sent.
    """

    queries: int = 0
    answered: int = 0
    forwarded: int = 0
    unanswered: int = 0
    refused: int = 0
    malformed: int = 0
    over_limit: int = 0
    upstream_failures: int = 0
    false_replies: int = 0
