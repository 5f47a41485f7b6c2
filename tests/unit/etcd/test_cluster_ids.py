"""Which endpoint is left out because it is of another cluster, and when none is (promise 4)."""

from __future__ import annotations

import pytest

from agent.etcd.cluster_ids import ClusterIds

pytestmark = pytest.mark.unit

_OURS, _OTHER = 0xA, 0xB


def _clusters(*said: int | None, pinned: int = _OURS) -> ClusterIds:
    """Endpoints e0, e1, … that said these clusters; None: not tried; -1: did not answer."""
    found = ClusterIds([f"e{number}" for number in range(len(said))])
    found.pin(pinned)
    for number, cluster_id in enumerate(said):
        if cluster_id == -1:
            found.failed(f"e{number}")
        elif cluster_id is not None:
            found.saw(f"e{number}", cluster_id)
    return found


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ((_OURS, _OURS, _OURS), []),
        ((_OURS, _OTHER), ["e1"]),
        ((_OURS, _OTHER, _OURS), ["e1"]),
        ((_OURS, _OURS, _OTHER), ["e2"]),
        ((None, _OTHER), ["e1"]),  # e0 has not been asked yet
        ((-1, _OTHER, None), ["e1"]),
        ((_OTHER,), []),  # the only one: what it says is for the alarm to judge
        ((_OTHER, _OTHER), []),  # the cluster was replaced
        ((_OURS, _OTHER, _OTHER), []),  # it is being replaced; e0 has not been heard since
        ((-1, _OTHER), []),  # no endpoint of the mesh's own is there
    ],
)
def test_a_stray_endpoint_is_left_out_and_a_replaced_cluster_is_not(
    said: tuple[int | None, ...], left_out: list[str]
) -> None:
    found = _clusters(*said)
    assert [endpoint for endpoint, _ in found.foreign] == left_out
    for number in range(len(said)):
        assert found.refuses(f"e{number}") == (f"e{number}" in left_out)


def test_the_first_answer_says_which_cluster_is_the_meshs_until_told() -> None:
    found = ClusterIds(["e0", "e1"])
    found.saw("e0", _OTHER)
    found.saw("e1", _OURS)
    assert found.pinned == _OTHER
    assert found.refuses("e1")
    found.pin(_OURS)  # by the host's copy, or by the operator
    assert found.refuses("e0")
    assert not found.refuses("e1")


def test_an_endpoint_that_failed_is_asked_again_before_it_is_used() -> None:
    found = _clusters(_OURS, _OURS)
    assert found.known("e0")
    found.failed("e0")
    assert not found.known("e0")
    found.saw("e0", _OTHER)
    assert found.refuses("e0")
