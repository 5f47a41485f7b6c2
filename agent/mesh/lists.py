"""Questions about two complete lists of routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import Route, RouteKey

__all__ = ["in_order", "only_in"]


def only_in(routes: tuple[Route, ...], others: tuple[Route, ...]) -> list[Route]:
    """Those that are not among the others, by identity."""
    known = set(map(id, others))
    return [route for route in routes if id(route) not in known]


def in_order(
    routes: tuple[Route, ...], keys: Iterable[RouteKey]
) -> dict[RouteKey, tuple[Route, ...]]:
    """All routes under each of these keys, in their order."""
    found: dict[RouteKey, tuple[Route, ...]] = dict.fromkeys(keys, ())
    if found:
        for route in routes:
            key = route.key
            if key in found:
                found[key] = (*found[key], route)
    return found
