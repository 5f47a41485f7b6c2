"""Names of mesh networks, and which hosts take part in one."""

from __future__ import annotations

import pytest

from agent.model import HostId
from agent.model.network import MeshNetwork, parse_network_name

pytestmark = pytest.mark.unit

ONE, TWO = HostId("1" * 32), HostId("2" * 32)


@pytest.mark.parametrize("name", ["a", "web", "web-1", "0", "a" * 63])
def test_a_label_of_a_domain_names_a_network(name: str) -> None:
    assert parse_network_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Web", "-a", "a-", "a.b", "a_b", "a" * 64, "bridge", "host", "none", "wéb", "a\n"]
)
def test_no_other_text_does(name: str) -> None:
    with pytest.raises(ValueError, match=r"lower-case|reserves"):
        parse_network_name(name)


@pytest.mark.parametrize(
    ("hosts", "takes_part"),
    [
        ((), True),
        ((ONE,), True),
        ((TWO,), False),
        (("web-*",), True),
        (("db-*",), False),
        (("db-*", "*-1"), True),
        (("WEB-*",), False),
    ],
)
def test_a_host_takes_part_by_its_id_or_a_pattern_of_its_name(
    hosts: tuple[str, ...], takes_part: bool
) -> None:
    assert MeshNetwork(name="shop", hosts=hosts).has(ONE, "web-1") is takes_part


def test_promise_8_a_host_that_calls_itself_by_anothers_id_does_not_take_part() -> None:
    assert not MeshNetwork(name="shop", hosts=(ONE,)).has(TWO, ONE)
