"""When routes may be deleted (promises 3 and 4)."""

from __future__ import annotations

import pytest

from agent.daemon.state.deletion_grace import DeletionGrace

pytestmark = pytest.mark.unit

NOW, LATER = 1000.0, 1060.0


def test_first_contact_after_a_start_holds_nothing() -> None:
    """A host that leaves while another's agent is a few seconds old is gone there, too."""
    assert DeletionGrace().contact_lost(followed=False).contact_made(LATER).calm(NOW)


def test_promise_4_after_an_outage_holders_have_time_to_come_back() -> None:
    lost = (
        DeletionGrace().contact_made(LATER).contact_lost(followed=True).contact_lost(followed=True)
    )
    made = lost.contact_made(LATER)
    assert not made.calm(NOW)
    assert made.calm(LATER)
    assert made.contact_made(LATER + 60).calm(LATER), "the outage is over"
    assert lost.contact_lost(followed=False).contact_made(LATER) == made


def test_an_accept_ends_the_grace() -> None:
    assert DeletionGrace().hold(LATER).end().calm(NOW)


def test_promise_3_routes_of_an_earlier_life_wait_for_the_first_complete_view() -> None:
    assert not DeletionGrace().sweep(NOW)
    seen = DeletionGrace().complete(LATER).complete(LATER + 60)
    assert not seen.sweep(NOW)
    assert seen.sweep(LATER)
