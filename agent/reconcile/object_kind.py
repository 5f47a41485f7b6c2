"""Facts about one kind of object, for the generic parts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic

from agent.reconcile.interfaces import V

__all__ = ["ANY_LINK", "Kind"]

ANY_LINK: Final = ""
"""Any link: the object goes with an address of any link."""


def _own_key(value: V) -> Hashable:
    return value.key


def _no_links(_value: object) -> tuple[str, ...]:
    return ()


def _nothing(_value: object) -> int:
    return 0


def _another_program(_value: object) -> str:
    return "another program"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[V]):
    """One kind of kernel object.

    Attributes:
        name: "route", "link", …; conditions are named after it: ``route-conflict``.
        is_own: Whether an object bears the agent's owner mark.
        contests: The key under which the agent would desire an object where this one is. A foreign
            object is in the way of the agent's if both have the same.
        links: Names of the links without which the kernel takes the object, often silently.
        subject: What conditions about it are about.
        writer: The name of the program that wrote an object, as far as the object says.
        removal: The command that removes a foreign object and nothing else.
        watch: The command that shows which program writes objects of this kind.
        order: Deletions run in ascending order of this.
        opens: Adding one lets traffic in: added last, deleted first.
        makes: The name of the link that writing an object makes or changes; None for a kind that
            changes no link, nor its addresses.
    """

    name: str
    is_own: Callable[[V], bool]
    contests: Callable[[V], Hashable] = _own_key
    links: Callable[[V], tuple[str, ...]] = _no_links
    subject: Callable[[V], str] = str
    writer: Callable[[V], str] = _another_program
    removal: Callable[[V], str] = str
    watch: str = "ip monitor"
    order: Callable[[V], int] = _nothing
    opens: bool = False
    makes: Callable[[V], str] | None = None
