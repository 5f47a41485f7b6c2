"""Which lost pings of a walk are explained."""

from __future__ import annotations

import pytest

from tests.soak.losses import Loss, Losses

pytestmark = pytest.mark.unit


def lost(source: str, target: str, sent_s: float) -> Loss:
    return Loss(source, target, 1, sent_s)


def test_a_window_explains_the_pairs_of_its_hosts_while_it_is_open() -> None:
    losses = Losses()
    window = losses.open("host2 off", ["host2"], 10.0)
    assert losses.explain(lost("host1", "host2", 10.0))
    assert losses.explain(lost("host2/walk1", "host1/walk1", 99.0))
    assert losses.explain(lost("host1", "host2", 9.9)), "it was on its way"
    assert not losses.explain(lost("host1", "host2", 9.7))
    assert not losses.explain(lost("host1", "host3", 11.0))
    window.end_s = 20.0
    assert losses.explain(lost("host1", "host2", 20.0))
    assert not losses.explain(lost("host1", "host2", 20.1))
    assert losses.explained == {"host2 off": 4}


def test_a_window_of_one_container_explains_no_other_of_its_host() -> None:
    losses = Losses()
    losses.open("network", ["host2/walk1"], 0.0)
    assert losses.explain(lost("host1/walk1", "host2/walk1", 1.0))
    assert not losses.explain(lost("host1", "host2", 1.0))


def test_a_window_of_two_hosts_explains_no_pair_of_one_of_them_with_a_third() -> None:
    losses = Losses()
    losses.open("host3 moved, agent-down host2", ["host2"], 0.0, others=["host3"])
    assert losses.explain(lost("host3", "host2", 1.0))
    assert losses.explain(lost("host2", "host3", 1.0))
    assert not losses.explain(lost("host2", "host1", 1.0))
    assert not losses.explain(lost("host3", "host1", 1.0))


def test_a_bounded_window_explains_so_many_of_each_ordered_pair() -> None:
    losses = Losses()
    losses.open("switch", ["host1", "host2", "host3"], 0.0, at_most=1)
    assert losses.explain(lost("host1", "host2", 1.0))
    assert losses.explain(lost("host2", "host1", 1.0))
    assert not losses.explain(lost("host1", "host2", 1.1))
    losses.open("host2 off", ["host2"], 0.0)
    assert losses.explain(lost("host2", "host3", 1.2)), "by the host that is off"
    assert losses.explain(lost("host2", "host3", 1.3))
    assert losses.explained == {"switch": 2, "host2 off": 2}
