"""Records of a large mesh: what they say is kept, not how they said it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.leases import wire
from agent.leases.fold import Records
from agent.leases.keys import Keys
from agent.leases.kv import Event, Record
from agent.model import HostId, Lease, MeshConfig

pytestmark = pytest.mark.unit

KEYS = Keys("/hostmesh")
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
LEASE = Lease(
    subnet=IPv4Network("10.64.0.0/16"),
    node_address=IPv4Address("192.0.2.1"),
    backend="host-gw",
    host_id=HostId("0" * 32),
    ttl_s=60,
)


def loaded() -> Records:
    records = Records(KEYS, cluster_id=1, revision=5)
    records.load(
        [
            Record(KEYS.config, wire.encode_config(CONFIG), 1, 1),
            Record(KEYS.subnet(LEASE.subnet), wire.encode_lease(LEASE), 2, 2),
            Record(b"/hostmesh/subnets/garbage", b"x" * 1000, 3, 3),
        ]
    )
    return records


def test_the_raw_value_of_a_decoded_record_is_not_kept() -> None:
    records = loaded()
    for key in (KEYS.subnet(LEASE.subnet), b"/hostmesh/subnets/garbage"):
        record = records.get(key)
        assert record is not None
        assert record.value == b""
        assert record.mod_revision in (2, 3)


def test_later_views_still_have_config_and_leases() -> None:
    records = loaded()
    before = records.view()
    records.apply([Event(b"/hostmesh/subnets/garbage", None)], 9)
    after = records.view()
    assert after.config == before.config
    assert after.config is not None
    assert after.config.cidr == CONFIG.cidr
    assert after.leases == before.leases
    assert [lease.subnet for lease in after.leases] == [LEASE.subnet]
    assert [aside.key for aside in before.set_aside] != []
    assert after.set_aside == ()
