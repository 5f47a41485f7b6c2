"""flannel's wire format in both directions, and what others write is not believed (promise 8)."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.etcd.kv import Record
from agent.model import (
    LEVEL,
    Access,
    BackendChoice,
    BackendData,
    DockerState,
    Heartbeat,
    HostId,
    HostSummary,
    Lease,
    MeshConfig,
    Unusable,
)
from agent.model.untrusted import clean_name, quote
from agent.registry.records import (
    CONFIG,
    HEARTBEATS,
    LEASES,
    MEMORY,
    RESERVATIONS,
    Keys,
    RecordKind,
    check_lease,
    decode_config,
    encode_config,
    encode_heartbeat,
    encode_lease,
    encode_memory,
    encode_reservation,
)

pytestmark = pytest.mark.unit

_HOST = HostId("0123456789abcdef0123456789abcdef")


def _record(value: str | bytes, lease_id: int = 7) -> Record:
    raw = value if isinstance(value, bytes) else value.encode()
    return Record(b"key", raw, create_revision=3, mod_revision=9, lease_id=lease_id)


def _lease(name: str, value: str | bytes) -> Lease:
    return LEASES.read(LEASES.key(name.encode()), _record(value))


# --- golden records: what flannel 0.28 writes, byte for byte --------------------------------


@pytest.mark.parametrize(
    ("name", "value", "subnet", "address", "backend", "data"),
    [
        (
            "10.5.52.0-24",
            '{"PublicIP":"192.168.10.37","PublicIPv6":null,"BackendType":"host-gw"}',
            "10.5.52.0/24",
            "192.168.10.37",
            "host-gw",
            None,
        ),
        (
            "10.5.34.0-24",
            (
                '{"PublicIP":"10.0.0.4","PublicIPv6":null,"BackendType":"vxlan",'
                '"BackendData":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"}}'
            ),
            "10.5.34.0/24",
            "10.0.0.4",
            "vxlan",
            {"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"},
        ),
        ("10.5.1.0-24", '{"PublicIP":"10.0.0.9"}', "10.5.1.0/24", "10.0.0.9", "alloc", None),
        (
            "10.5.2.0-24&fc00:0:0:2::-64",
            (
                '{"PublicIP":"10.0.0.9","PublicIPv6":"2001:db8::9","BackendType":"vxlan",'
                '"BackendV6Data":{"VNI":1}}'
            ),
            "10.5.2.0/24",
            "10.0.0.9",
            "vxlan",
            None,
        ),
    ],
)
def test_leases_that_flannel_wrote_are_read(
    name: str,
    value: str,
    subnet: str,
    address: str,
    backend: str,
    data: dict[str, object] | None,
) -> None:
    lease = _lease(name, value)
    assert lease == Lease(
        subnet=IPv4Network(subnet),
        node_address=IPv4Address(address),
        backend=backend,
        backend_data=None if data is None else BackendData.of(data),
        etcd_lease_id=7,
        create_revision=3,
        mod_revision=9,
    )


def test_our_lease_is_flannels_record_with_ours_behind_it() -> None:
    lease = Lease(
        subnet=IPv4Network("10.64.0.0/16"),
        node_address=IPv4Address("192.0.2.1"),
        backend="host-gw",
        host_id=_HOST,
        host_name="host1",
        claimed_s=1_700_000_000.5,
        renewed_s=1_700_000_001.0,
        ttl_s=86_400,
        etcd_lease_id=7,
        create_revision=3,
        mod_revision=9,
    )
    value = encode_lease(lease)
    assert value == (
        b'{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw","Hostmesh":'
        b'{"HostID":"0123456789abcdef0123456789abcdef","HostName":"host1",'
        b'"Claimed":1700000000.5,"Renewed":1700000001.0,"TTL":86400}}'
    )
    assert _lease("10.64.0.0-16", value) == lease


def test_what_a_backend_publishes_is_flannels_backend_data() -> None:
    lease = Lease(
        subnet=IPv4Network("10.64.0.0/16"),
        node_address=IPv4Address("192.0.2.1"),
        backend="vxlan",
        host_id=_HOST,
        host_name="host1",
        backend_data=BackendData.of({"VtepMAC": "82:4b:b6:2f:54:4e", "VNI": 1}),
        link="rack-7",
        mtu=9000,
        etcd_lease_id=7,
        create_revision=3,
        mod_revision=9,
    )
    value = encode_lease(lease)
    assert value.startswith(
        b'{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan",'
        b'"BackendData":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"},"Hostmesh":{'
    )
    assert b'"Link":"rack-7","MTU":9000' in value
    assert _lease("10.64.0.0-16", value) == lease


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "{}",
        "[1]",
        '"text"',
        "7",
        '{"A":"%s"}' % ("x" * 1024),
        '{"A":%s}' % ("[" * 900 + "]" * 900),
    ],
    ids=["null", "empty", "list", "text", "number", "large", "deep"],
)
def test_promise_10_data_that_no_backend_can_use_costs_the_data_only(data: str) -> None:
    lease = _lease("10.5.1.0-24", f'{{"PublicIP":"10.0.0.9","BackendData":{data}}}')
    assert lease.node_address == IPv4Address("10.0.0.9")
    assert lease.backend_data is None


def test_no_field_of_ours_could_be_taken_by_go_for_one_of_flannels() -> None:
    """Go matches names without regard to case; ours at the top is one that flannel lacks."""
    lease = Lease(
        subnet=IPv4Network("10.64.0.0/16"), node_address=IPv4Address("192.0.2.1"), backend="x"
    )
    flannels = {"publicip", "publicipv6", "backendtype", "backenddata", "backendv6data"}
    top = json.loads(encode_lease(lease))
    assert {name.lower() for name in top} - flannels == {"hostmesh"}


def test_a_backends_options_are_kept_as_they_are_written() -> None:
    value = b'{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7,"Port":4789}}'
    config = decode_config(value)
    assert config.backend_options == BackendData.of({"VNI": 7, "Port": 4789})
    assert decode_config(encode_config(config)) == config
    assert json.loads(encode_config(config, value))["Backend"] == json.loads(value)["Backend"]
    plain = decode_config(b'{"Network":"10.5.0.0/16","Backend":{"type":"host-gw"}}')
    assert plain.backend_options is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            '{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}',
            ("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "host-gw"),
        ),
        ('{"Network":"10.5.0.0/24"}', ("10.5.0.0/24", 26, "10.5.0.64", "10.5.0.192", "udp")),
        (
            (
                '{"network":"10.1.2.3/8","subnetLen":20,"SubnetMin":"10.10.0.0",'
                '"SubnetMax":"10.99.0.0","Backend":{"Type":"vxlan","Port":8472},"Other":[1]}'
            ),
            ("10.0.0.0/8", 20, "10.10.0.0", "10.99.0.0", "vxlan"),
        ),
        (
            (
                '{"Network":"10.64.0.0/10","SubnetLen":16,"SubnetMin":"10.64.0.0",'
                '"SubnetMax":"10.127.0.0","Backend":{"Type":"host-gw"}}'
            ),
            ("10.64.0.0/10", 16, "10.64.0.0", "10.127.0.0", "host-gw"),
        ),
    ],
)
def test_configs_are_read_with_flannels_defaults(value: str, expected: tuple[Any, ...]) -> None:
    config = decode_config(value.encode(), 5)
    found = (config.cidr, config.subnet_len, config.subnet_min, config.subnet_max, config.backend)
    assert tuple(str(each) for each in found) == tuple(str(each) for each in expected)
    assert config.mod_revision == 5
    assert config.access is Access.PUBLISHED


def test_our_config_states_everything_and_keeps_what_it_does_not_know() -> None:
    config = MeshConfig(
        cidr=IPv4Network("10.64.0.0/10"),
        subnet_len=16,
        subnet_min=IPv4Address("10.64.0.0"),
        subnet_max=IPv4Address("10.127.0.0"),
    )
    assert encode_config(config) == (
        b'{"Network":"10.64.0.0/10","SubnetLen":16,"SubnetMin":"10.64.0.0",'
        b'"SubnetMax":"10.127.0.0","Backend":{"Type":"host-gw"}}'
    )
    before = (
        b'{"EnableIPv6":false,"network":"10.0.0.0/8","Backend":{"Type":"host-gw","Port":1},"X":9}'
    )
    after = json.loads(encode_config(config, before))
    assert (after["EnableIPv6"], after["X"], "network" in after) == (False, 9, False)
    assert after["Backend"] == {"Type": "host-gw", "Port": 1}
    kept = replace(config, backend_options=BackendData.of({"Port": 1}))
    assert decode_config(encode_config(config, before)) == kept
    other = json.loads(encode_config(replace(config, backend="vxlan"), before))
    assert other["Backend"] == {"Type": "vxlan"}, "options of another backend are not kept"


def test_a_config_names_the_backend_that_is_accepted_beside_the_one_in_use() -> None:
    text = b'{"Network":"10.0.0.0/8","Backend":{"Type":"host-gw"},"Hostmesh":{"accept":%s,"New":1}}'
    config = decode_config(text % b'{"Type":"vxlan","VNI":7}')
    assert config.accepted == BackendChoice("vxlan", BackendData.of({"VNI": 7}))
    written = json.loads(encode_config(config, text % b'{"Type":"vxlan","VNI":7}'))
    assert written["Hostmesh"] == {
        "New": 1,
        "Accept": {"VNI": 7, "Type": "vxlan"},
        "Access": "published",
    }
    done = encode_config(replace(config, accepted=None), text % b"{}")
    assert "Accept" not in json.loads(done)["Hostmesh"]
    assert decode_config(text % b'{"Type":"host-gw"}').accepted is None, "it is in use"


def test_a_lease_names_the_other_backend_by_which_its_host_can_be_reached() -> None:
    lease = Lease(
        subnet=IPv4Network("10.64.0.0/16"),
        node_address=IPv4Address("192.0.2.1"),
        backend="host-gw",
        host_id=_HOST,
        host_name="host1",
        accepted=BackendChoice("vxlan", BackendData.of({"VNI": 1})),
        etcd_lease_id=7,
        create_revision=3,
        mod_revision=9,
    )
    value = encode_lease(lease)
    assert b'"Accepts":{"Type":"vxlan","Data":{"VNI":1}}}' in value
    assert _lease("10.64.0.0-16", value) == lease
    bare = replace(lease, accepted=BackendChoice("host-gw"))
    assert _lease("10.64.0.0-16", encode_lease(bare)) == bare


def test_cidrs_that_the_mesh_moves_away_from_stand_under_our_name() -> None:
    text = b'{"Network":"10.32.0.0/12","Hostmesh":{"previous":["10.64.0.0/10","10.33.0.0/16"]}}'
    config = decode_config(text)
    assert config.previous == (IPv4Network("10.64.0.0/10"),), "what Network covers says nothing"
    after = json.loads(encode_config(config, text))
    assert after["Hostmesh"]["Previous"] == ["10.64.0.0/10"]
    assert decode_config(encode_config(config, text)) == config
    done = encode_config(replace(config, previous=()), text)
    assert "Previous" not in json.loads(done).get("Hostmesh", {})
    assert config.holds(IPv4Network("10.64.0.0/16"))
    assert config.holds(IPv4Network("10.33.0.0/16"))
    assert not config.holds(IPv4Network("10.64.0.0/10"))
    assert not config.holds(IPv4Network("10.200.0.0/16"))
    assert [config.must_move(IPv4Network(each)) for each in ("10.64.0.0/16", "10.33.0.0/16")] == [
        True,
        False,
    ]


def test_promise_12_a_level_is_written_where_it_says_something() -> None:
    config = decode_config(b'{"Network":"10.0.0.0/8","Hostmesh":{"level":2,"New":[1]}}')
    assert config.level == 2
    before = b'{"Network":"10.0.0.0/8","Hostmesh":{"level":1,"New":[1]}}'
    assert json.loads(encode_config(config, before))["Hostmesh"] == {
        "New": [1],
        "Level": 2,
        "Access": "published",
    }
    assert "Level" not in json.loads(encode_config(replace(config, level=1), before))["Hostmesh"]
    assert decode_config(b'{"Network":"10.0.0.0/8"}').level == 1


@pytest.mark.parametrize(
    ("ours", "owners", "flannel"),
    [
        ({"Level": 2}, False, True),
        ({"Level": 2, "Owners": True}, True, False),
        ({"Level": 2, "Owners": True, "Flannel": True}, True, True),
        ({"Level": 2, "Flannel": False}, False, False),
        ({"Level": 2, "Owners": False, "Flannel": True}, False, True),
    ],
)
def test_owners_and_flannel_are_read_and_written_where_they_say_something(
    ours: dict[str, Any], owners: bool, flannel: bool
) -> None:
    text = json.dumps({"Network": "10.0.0.0/8", "Hostmesh": ours}).encode()
    config = decode_config(text)
    assert (config.owners, config.flannel) == (owners, flannel)
    written = encode_config(config, text)
    assert decode_config(written) == config
    stated = json.loads(written)["Hostmesh"]
    assert ("Owners" in stated, "Flannel" in stated) == (owners, flannel is owners)


def test_promise_12_a_level_that_this_version_does_not_read_comes_before_all_else() -> None:
    text = f'{{"Network":"from 0.9 on","Hostmesh":{{"Level":{LEVEL + 1}}}}}'
    with pytest.raises(Unusable, match=f"Level is {LEVEL + 1} and this version reads up to") as got:
        decode_config(text.encode())
    assert "install a newer hostmesh" in got.value.problem.hint


@pytest.mark.parametrize(
    ("text", "level"),
    [("{}", 1), ('{"Level":7}', 7), ('{"level":0}', 1), ('{"Level":"2"}', 1), ('{"Level":1e9}', 1)],
)
def test_a_heartbeats_level_that_cannot_be_read_is_the_lowest(text: str, level: int) -> None:
    assert HEARTBEATS.read(_HOST, _record(text)).level == level


@pytest.mark.parametrize(
    "previous",
    [
        '"10.64.0.0/10"',
        '["10.64.0.1/10"]',
        '["127.0.0.0/8"]',
        "[1]",
        '["10.0.0.0/30"]',
        '["0.0.0.0/0"]',
        '["10.64.0.0/12","10.80.0.0/12","10.96.0.0/12","10.112.0.0/12","10.0.0.0/12"]',
    ],
)
def test_promise_8_a_previous_cidr_is_checked_as_network_is(previous: str) -> None:
    text = f'{{"Network":"10.32.0.0/12","Hostmesh":{{"Previous":{previous}}}}}'
    with pytest.raises(ValueError, match="Previous"):
        decode_config(text.encode())


def test_how_open_networks_are_stands_under_our_name_beside_what_others_put_there() -> None:
    config = decode_config(b'{"Network":"10.0.0.0/8","hostmesh":{"access":"closed"}}')
    assert config.access is Access.CLOSED
    before = b'{"hostmesh":{"access":"open","New":1}}'
    after = json.loads(encode_config(config, before))
    assert after["Hostmesh"] == {"New": 1, "Access": "closed"}
    assert "hostmesh" not in after
    assert decode_config(encode_config(config)).access is Access.CLOSED


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 10_000, "not JSON"),
        ('{"Network":"10.0.0.0/8","x":NaN}', "not JSON"),
        ('{"Network":"10.0.0.0/8"' + " " * 20_000 + "}", "more than 16384"),
        ("{}", "Network is missing"),
        ('{"Network":7}', "not an IPv4 network"),
        ('{"Network":"10.0.0.0/255.0.0.0"}', "not an IPv4 network"),
        ('{"Network":"fc00::/8"}', "not an IPv4 network"),
        ('{"Network":"0.0.0.0/0"}', "not a /8 to /28"),
        ('{"Network":"127.0.0.0/8"}', "not a range for hosts"),
        ('{"Network":"224.0.0.0/8"}', "not a range for hosts"),
        ('{"Network":"10.0.0.0/8","SubnetLen":9}', "not from 12 to 30"),
        ('{"Network":"10.0.0.0/8","SubnetLen":31}', "not from 12 to 30"),
        ('{"Network":"10.0.0.0/8","SubnetLen":"16"}', "not an integer"),
        ('{"Network":"10.0.0.0/8","SubnetLen":true}', "not an integer"),
        ('{"Network":"10.0.0.0/15","SubnetLen":16}', "does not hold four"),
        ('{"Network":"10.0.0.0/8","SubnetLen":30}', "more than 65536"),
        ('{"Network":"10.0.0.0/8","SubnetLen":16,"SubnetMin":"11.0.0.0"}', "not inside"),
        ('{"Network":"10.0.0.0/8","SubnetLen":16,"SubnetMin":"10.0.1.0"}', "does not start"),
        (
            '{"Network":"10.0.0.0/8","SubnetLen":16,"SubnetMin":"10.9.0.0","SubnetMax":"10.8.0.0"}',
            "behind",
        ),
        ('{"Network":"10.0.0.0/8","Backend":"vxlan"}', "Backend is not an object"),
        ('{"Network":"10.0.0.0/8","Backend":{"Type":"\\u001b[31m"}}', "Type is not a name"),
        ('{"Network":"10.0.0.0/8","EnableIPv4":false}', "routes IPv4"),
        ('{"Network":"10.0.0.0/8","Hostmesh":[]}', "Hostmesh is not an object"),
        ('{"Network":"10.0.0.0/8","Hostmesh":{"Access":1}}', "Access is not a name"),
        ('{"Network":"10.0.0.0/8","Hostmesh":{"Owners":"yes"}}', "Owners is not true or false"),
        ('{"Network":"10.0.0.0/8","Hostmesh":{"Owners":true}}', "Owners needs Hostmesh.Level 2"),
        (
            '{"Network":"10.0.0.0/8","Hostmesh":{"Access":"wide"}}',
            "none of open, published",
        ),
    ],
)
def test_a_config_that_describes_no_mesh_is_refused_with_the_reason(
    value: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        CONFIG.read(None, _record(value))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("10.64.0.0-16", "nonsense", "not JSON"),
        ("10.64.0.0-16", b"\xff\xfe", "not UTF-8"),
        ("10.64.0.0-16", "{}", "PublicIP is missing"),
        ("10.64.0.0-16", '{"PublicIP":"x"}', "not an IPv4 address"),
        ("10.64.0.0-16", '{"PublicIP":"127.0.0.1"}', "not the address of a host"),
        ("10.64.0.0-16", '{"PublicIP":"0.0.0.0"}', "not the address of a host"),
        ("10.64.0.0-16", '{"PublicIP":"224.0.0.9"}', "not the address of a host"),
        ("10.64.0.0-16", '{"PublicIP":"255.255.255.255"}', "not the address of a host"),
        ("10.64.0.1-16", '{"PublicIP":"10.0.0.1"}', "without host bits"),
        ("10.64.0.0/16", '{"PublicIP":"10.0.0.1"}', "not <address>-<length>"),
        ("010.64.0.0-16", '{"PublicIP":"10.0.0.1"}', "network"),
        ("10.64.0.0-016", '{"PublicIP":"10.0.0.1"}', "not <address>-<length>"),
        ("10.64.0.0-99", '{"PublicIP":"10.0.0.1"}', "network"),
        ("0.0.0.0-0", '{"PublicIP":"10.0.0.1"}', "not a subnet of a mesh"),
        ("10.0.0.0-8", '{"PublicIP":"10.0.0.1"}', "not a subnet of a mesh"),
        ("10.64.0.0-32", '{"PublicIP":"10.0.0.1"}', "not a subnet of a mesh"),
        ("10.64.0.0-16", '{"PublicIP":"10.0.0.1","BackendType":"a\\nb"}', "BackendType"),
        ("10.64.0.0-16", '{"PublicIP":"10.0.0.1","Hostmesh":7}', "Hostmesh is not an object"),
        ("10.64.0.0-16", '{"PublicIP":"10.0.0.1","Hostmesh":{"HostID":"me"}}', "host id"),
        (
            "10.64.0.0-16",
            '{"PublicIP":"10.0.0.1","Hostmesh":{"HostID":"%s","HostName":"\\u001b]0;x\\u0007"}}'.replace(
                "%s", _HOST
            ),
            "HostName is not a name",
        ),
        (
            "10.64.0.0-16",
            '{"PublicIP":"10.0.0.1","Hostmesh":{"HostID":"%s","TTL":1e400}}'.replace("%s", _HOST),
            "TTL is not an integer",
        ),
        (
            "10.64.0.0-16",
            '{"PublicIP":"10.0.0.1","Hostmesh":{"HostID":"%s","Claimed":-1}}'.replace("%s", _HOST),
            "Claimed is not a time",
        ),
    ],
)
def test_promise_8_a_malformed_lease_is_refused_with_the_reason(
    name: str, value: str | bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        _lease(name, value)


@pytest.mark.parametrize(
    ("subnet", "address", "fine"),
    [
        ("10.64.0.0/16", "192.0.2.1", True),
        ("10.64.0.0/16", "10.64.0.1", False),  # a next hop inside the mesh
        ("10.64.0.0/16", "10.99.0.1", False),
        ("10.128.0.0/16", "192.0.2.1", False),  # outside
        ("192.0.2.0/24", "192.0.2.1", False),  # the underlay
        ("10.64.0.0/10", "192.0.2.1", False),  # all of it
    ],
)
def test_promise_8_a_lease_cannot_route_anything_but_a_part_of_the_mesh(
    subnet: str, address: str, fine: bool
) -> None:
    config = decode_config(b'{"Network":"10.64.0.0/10","SubnetLen":16}')
    lease = Lease(subnet=IPv4Network(subnet), node_address=IPv4Address(address), backend="host-gw")
    assert (check_lease(lease, config) == "") is fine


def test_a_heartbeat_comes_back_as_it_was_written() -> None:
    beat = Heartbeat(
        host_id=_HOST,
        host_name="host1",
        node_address=IPv4Address("192.0.2.1"),
        subnet=IPv4Network("10.64.0.0/16"),
        docker=DockerState.PENDING,
        agent_version="0.1.0",
        boot_id="b" * 32,
        started_s=1_700_000_000.0,
        container=IPv4Address("10.64.0.2"),
    )
    assert HEARTBEATS.read(_HOST, _record(encode_heartbeat(beat))) == beat
    assert HEARTBEATS.read(_HOST, _record("{}")).docker is DockerState.ABSENT
    assert HEARTBEATS.read(_HOST, _record('{"Docker":"new"}')).docker is DockerState.PENDING


_BEAT = Heartbeat(
    host_id=_HOST,
    host_name="host1",
    node_address=IPv4Address("192.0.2.1"),
    subnet=IPv4Network("10.64.0.0/16"),
    docker=DockerState.READY,
    agent_version="0.1.1",
    boot_id="b",
    started_s=1.5,
    level=4,
)
_GOLDEN_BEAT = (
    b'{"HostName":"host1","NodeAddress":"192.0.2.1","Subnet":"10.64.0.0/16","Docker":"ready",'
    b'"AgentVersion":"0.1.1","BootID":"b","Started":1.5,"Container":null,"Needs":null,"Level":4'
)
_SUMMARY = HostSummary(conditions=("docker-swarm", "rp-filter-strict"), containers=0)


@pytest.mark.parametrize(
    ("summary", "added"),
    [
        (HostSummary(), b',"Conditions":null,"Containers":null}'),
        (_SUMMARY, b',"Conditions":["docker-swarm","rp-filter-strict"],"Containers":0}'),
    ],
)
def test_promise_12_a_summary_only_adds_fields_to_a_heartbeat(
    summary: HostSummary, added: bytes
) -> None:
    """An agent of 0.1.1 reads the fields before them, and passes over these."""
    beat = replace(_BEAT, summary=summary)
    assert encode_heartbeat(beat) == _GOLDEN_BEAT + added
    assert HEARTBEATS.read(_HOST, _record(_GOLDEN_BEAT + added)) == beat
    assert HEARTBEATS.read(_HOST, _record(_GOLDEN_BEAT + b"}")) == _BEAT  # of an older agent


@pytest.mark.parametrize(
    "conditions",
    [
        '"docker-swarm"',
        "{}",
        "[7]",
        '[["a"]]',
        '[""]',
        '["Docker"]',
        '["a b"]',
        '["a--b"]',
        '["-a"]',
        '["<script>"]',
        r'["a\u001b[2J"]',
        json.dumps(["a" * 41]),
        json.dumps(["a"] * 9),
    ],
)
def test_promise_8_a_list_that_has_no_names_of_conditions_costs_nothing_else(
    conditions: str,
) -> None:
    found = HEARTBEATS.read(_HOST, _record(f'{{"Docker":"ready","Conditions":{conditions}}}'))
    assert (found.summary.conditions, found.docker) == ((), DockerState.READY)


@pytest.mark.parametrize("count", ["-1", "1000001", "1e9", "1.5", '"3"', "true", "[]"])
def test_promise_8_a_count_of_containers_that_is_none_costs_nothing_else(count: str) -> None:
    found = HEARTBEATS.read(_HOST, _record(f'{{"Docker":"ready","Containers":{count}}}'))
    assert (found.summary.containers, found.docker) == (None, DockerState.READY)


@pytest.mark.parametrize("container", ['"10.65.0.2"', '"8.8.8.8"', '"x"', "7", "[]", "null"])
def test_promise_8_a_container_outside_the_subnet_is_none_and_costs_nothing_else(
    container: str,
) -> None:
    text = f'{{"Subnet":"10.64.0.0/16","Docker":"ready","Container":{container}}}'
    found = HEARTBEATS.read(_HOST, _record(text))
    assert (found.container, found.docker) == (None, DockerState.READY)


def test_memory_and_reservations_come_back_as_they_were_written() -> None:
    subnet = IPv4Network("10.64.0.0/16")
    assert MEMORY.read(_HOST, _record(encode_memory(subnet))) == subnet
    assert RESERVATIONS.read(subnet, _record(encode_reservation(_HOST))) == _HOST


def test_a_host_name_that_others_would_refuse_is_cleaned_before_it_is_written() -> None:
    assert clean_name("höst 1\x1b") == "h-st-1-"
    assert clean_name("") == "unnamed"
    assert len(clean_name("x" * 999)) == 253


def test_what_is_shown_of_unknown_text_is_printable_and_short() -> None:
    assert quote(b"a\x1b[31m\xff") == "a\\x1b[31m\\xff"
    assert len(quote("x" * 5000)) <= 81


@pytest.mark.parametrize("length", [8, 11, 31, 32])
def test_promise_8_no_record_gives_a_host_a_subnet_that_none_can_hold(length: int) -> None:
    subnet = f"10.0.0.0/{length}"
    value = f'{{"Subnet":"{subnet}"}}'.encode()
    own = b'{"HostID":"' + _HOST.encode() + b'"}'
    keys = Keys("/hostmesh")
    records: tuple[tuple[RecordKind[Any, Any], str, bytes], ...] = (
        (MEMORY, f"memory/{_HOST}", value),
        (HEARTBEATS, f"hosts/{_HOST}", value),
        (RESERVATIONS, f"reservations/10.0.0.0-{length}", own),
        (LEASES, f"subnets/10.0.0.0-{length}", b"{}"),
    )
    for kind, key, text in records:
        with pytest.raises(ValueError, match=f"a /{length} is not a subnet of a mesh"):
            keys.read(kind, Record(f"/hostmesh/{key}".encode(), text))
