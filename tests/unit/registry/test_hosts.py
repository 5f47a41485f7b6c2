"""Which host an operator means, and which was probably meant."""

from __future__ import annotations

import pytest

from agent.errors import Refused
from agent.model import View
from agent.registry.operations.hosts import find_host, hosts_of, meant
from tests.unit.small_mesh import lease

pytestmark = pytest.mark.unit

VIEW = View(cluster_id=1, revision=2, leases=tuple(lease(number) for number in (1, 2, 30)))


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("hots2", "host2"),
        ("Host30", "host30"),
        ("192.0.2.33", "192.0.2.3"),
        ("10.65.0.0/61", "10.65.0.0/16"),
        ("198.51.100.7", ""),
        ("zzz", ""),
        ("\x1b[2J", ""),
    ],
)
def test_a_wrong_host_gets_the_nearest_name_and_an_address_only_a_twin(
    word: str, near: str
) -> None:
    with pytest.raises(Refused) as caught:
        find_host(VIEW, word)
    assert caught.value.message.isprintable()
    assert ("did you mean" in caught.value.hint) is bool(near)
    assert f"did you mean {near}?" in caught.value.hint or not near
    assert "agentctl leases" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("host1", [1]), ("10.66.0.0/16", [2]), ("192.0.2.31", [30]), ("10.64.3.9", []),
        ("10.65.3.9", [1]), (f"{2:032x}", [2]), ("0000000000", [1, 2, 30]), ("00", []), ("x", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_host_is_found_by_what_an_operator_has_of_it(word: str, found: list[int]) -> None:
    hosts = meant(hosts_of(VIEW), word, lambda each: each)
    assert [each.host_name for each in hosts] == [f"host{number}" for number in found]
