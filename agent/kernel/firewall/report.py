"""The state of the firewall as a look finds it, with what differs and conditions. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.kernel.firewall.advice.conditions import (
    conditions_of,
    misplaced,
    other_variant,
    switched_variant,
    unlisted_chains,
    unreadable_variant,
)
from agent.kernel.firewall.advice.nft_conditions import nft_chains
from agent.kernel.firewall.edits import removal_edits, table_edits
from agent.kernel.firewall.variant.choice import Reading
from agent.mesh.firewall import DesiredFirewall
from agent.model import Condition

__all__ = ["FirewallReport", "report_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallReport:
    """The state of the firewall after a call, and what the call changed.

    Attributes:
        variant: "nft" or "legacy": where the agent's rules are.
        differs: Whether something was not as wanted when this call looked.
        edits: The differences, as text for people; done, after ``apply``.
        freed_flows: Flows deleted because they had been masqueraded.
        repairs: How often this object has undone another program's changes.
        held_back: No rule was written: another program undoes every repair at once.
        failed: Some member of a set is missing; the conditions say why.
    """

    variant: str
    differs: bool
    edits: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    freed_flows: int = 0
    repairs: int = 0
    held_back: bool = False
    failed: bool = False


def report_of(reading: Reading, wants: DesiredFirewall, sets: tuple[str, ...]) -> FirewallReport:
    """Compare a reading with what is wanted.

    Args:
        sets: How the sets differ, a line each.
    """
    variant, other = reading.variant, reading.other
    odd = misplaced(reading.ruleset, other.ruleset, variant) if reading.fixed else ()
    edits = (
        *(line for each in table_edits(reading.ruleset, wants) for line in each.described()),
        *sets,
        *(
            f"{variant.other}: {line}"
            for each in removal_edits(other.ruleset)
            for line in each.described()
        ),
    )
    return FirewallReport(
        variant=variant,
        differs=bool(edits),
        edits=edits,
        conditions=(
            *conditions_of(reading.ruleset, wants, odd),
            *nft_chains(reading.chains, wants),
            *unlisted_chains(reading.unseen),
            *(() if odd else other_variant(other.ruleset, variant.other, wants)),
            *unreadable_variant(other.error, variant.other),
            *switched_variant(reading.ruleset, variant, reading.dockers),
        ),
    )
