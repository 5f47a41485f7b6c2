"""Routes of others that stand where some of ours should. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

from agent.model import Place, Route, RouteKey
from agent.model.family import Network

__all__ = ["Rivals"]


class Rivals:
    """What is known of foreign routes: the last list, and what was heard since.

    Args:
        wanted: Whether a route of ours is desired at a place now.
    """

    def __init__(self, wanted: Callable[[Place], bool]) -> None:
        self._wanted = wanted
        self._at: dict[Place, tuple[Route, ...]] = {}
        self._listed: tuple[Route, ...] | None = None
        self._contested: dict[Network, None] = {}

    @property
    def contested(self) -> Collection[Network]:
        """Destinations that we desire, and somebody else has.

        One that stays so keeps its place among them: of very many only the first are told each,
        and those should not be others at every change.
        """
        return self._contested.keys()

    @property
    def links(self) -> frozenset[str]:
        """Names of the links by which these routes lead."""
        found = (route.link for routes in self._at.values() for route in routes)
        return frozenset(name for name in found if name is not None)

    @property
    def have_sources(self) -> bool:
        """Whether one of these routes has a source address: it goes when that address does."""
        return any(each.prefsrc is not None for routes in self._at.values() for each in routes)

    def of(self, key: RouteKey) -> tuple[Route, ...]:
        """All at the place of ``key``, of any metric."""
        return self._at.get(key.place, ())

    def under(self, key: RouteKey) -> int:
        """How many stand under this very key."""
        return sum(each.key == key for each in self.of(key))

    def listed(self, foreign: tuple[Route, ...]) -> None:
        """A complete list replaces all; the very list of last time costs nothing."""
        if foreign is self._listed:
            return
        self._listed = foreign
        self._at = {}
        for route in foreign:
            place = route.place
            self._at[place] = (*self._at.get(place, ()), route)
        self.settle_all()

    def appeared(self, route: Route) -> None:
        """One was written."""
        others = (each for each in self.of(route.key) if each != route)
        self._put(route.key, (*others, route))

    def went(self, route: Route) -> None:
        """One was deleted."""
        key = route.key
        self._put(key, tuple(each for each in self.of(key) if each != route))

    def replaced(self, key: RouteKey) -> None:
        """What stood under this key is there no more."""
        self._put(key, tuple(each for each in self.of(key) if each.key != key))

    def _put(self, key: RouteKey, routes: tuple[Route, ...]) -> None:
        if routes != self.of(key):
            self._listed = None
        place = key.place
        if routes:
            self._at[place] = routes
        else:
            self._at.pop(place, None)
        self.settle(place)

    def settle(self, place: Place) -> None:
        """Follow that a route of ours is desired at this place, or is not."""
        if place in self._at and self._wanted(place):
            self._contested[place[1]] = None
        else:
            self._contested.pop(place[1], None)

    def settle_all(self) -> None:
        """The same for every place."""
        now = [place[1] for place in self._at if self._wanted(place)]
        kept = self._contested.keys() & set(now)
        self._contested = dict.fromkeys((*(each for each in self._contested if each in kept), *now))
