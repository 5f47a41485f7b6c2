"""The paths of the page: on the control socket, and on TCP where ``ui.listen`` says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.daemon.api.connection import Paths, Text
from agent.daemon.ui.feed import Feed
from agent.daemon.ui.page import load_page
from agent.model import Condition, Severity
from agent.settings import UiSettings

__all__ = ["open_to_network", "page_answer", "page_paths"]

Document = Mapping[str, Any]
_EVENTS: Final = 200
"""The page shows that many of the newest."""


def page_paths(documents: Paths, events: Callable[[Mapping[str, str]], Document]) -> Paths:
    """Return the page and its stream. They change nothing.

    Args:
        documents: Those that the stream is made of, as far as they are there.
        events: Returns ``GET /v1/events``, of which the newest are sent.
    """

    def newest() -> Document:
        found = events({})
        return {**found, "events": found["events"][-_EVENTS:]}

    feed = Feed({**documents.read, "/v1/events": newest})
    return Paths(read={"/ui": page_answer, "/ui/stream": feed.stream})


def open_to_network(ui: UiSettings) -> Condition:
    """Report that other machines can read the page."""
    return Condition(
        name="page-open-to-network",
        severity=Severity.INFO,
        cause=f"the web page is served on {ui.listen}: every machine that reaches this address can"
        " read names, addresses and problems of the mesh",
        hint="to close it, remove ui.listen from agent.toml and use agentctl ui; then: systemctl"
        " restart hostmesh-agent",
    )


def page_answer() -> Text:
    """Return the page as an answer."""
    page = load_page()
    return Text(page.html, "text/html; charset=utf-8", page.headers)
