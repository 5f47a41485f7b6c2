"""The choice of a subnet: free, inside, and found whenever there is one."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.docker.networks.free_subnet import free_subnet
from tests.property.docker.test_document_property import relaxed

pytestmark = pytest.mark.property

BASE = IPv4Network("10.64.128.0/24")
TAKEN = st.builds(
    lambda at, length: IPv4Network((int(BASE.network_address) + at - 64, length), strict=False),
    st.integers(0, 400),
    st.integers(20, 32),
)


@relaxed()
@given(taken=st.lists(TAKEN, max_size=12), length=st.integers(24, 30))
def test_the_last_free_subnet_is_found(taken: list[IPv4Network], length: int) -> None:
    free = [
        each
        for each in BASE.subnets(new_prefix=length)
        if not any(each.overlaps(other) for other in taken)
    ]
    assert free_subnet([BASE], length, taken) == (free[-1] if free else None)
