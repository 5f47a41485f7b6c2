"""Documents against the schemas that the package ships: a field more or less fails here first.

A field that is new goes into agent/ctl/schemas/ and docs/control-socket.md.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.api.leases import leases_document
from agent.daemon.api.status import status_document
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.counters import Counters
from agent.model import Condition, HostId, Lease, MeshConfig, SetAside, Uplink, View

ROOT = Path(__file__).parents[4]
sys.path.insert(0, str(ROOT))

from tests.unit.ctl.schemas import FOLDER, check  # noqa: E402 # the line above makes it importable

pytestmark = pytest.mark.unit

OWN = HostId("1" * 32)
LEASE = Lease(
    subnet=IPv4Network("10.64.0.0/16"),
    node_address=IPv4Address("192.0.2.1"),
    backend="host-gw",
    host_id=OWN,
    ttl_s=86_400,
    renewed_s=1.0,
    claimed_s=1.0,
)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
VIEW = View(
    cluster_id=1,
    revision=2,
    config=CONFIG,
    leases=(LEASE,),
    set_aside=(SetAside("/hostmesh/subnets/x", "is not a subnet"),),
)
FULL = MeshState(
    host_id=OWN,
    believed=VIEW,
    config=CONFIG,
    own=LEASE,
    uplink=Uplink(
        index=2,
        name="eth0",
        mtu=1500,
        node_address=IPv4Address("192.0.2.1"),
        on_link=IPv4Network("192.0.2.0/24"),
    ),
)


@pytest.mark.parametrize("mesh", [MeshState(host_id=OWN), FULL], ids=["empty", "full"])
def test_status_follows_its_schema(mesh: MeshState) -> None:
    active = (ActiveCondition(Condition(name="x-y", cause="c", hint="h"), 0.0),)
    document = status_document(
        AgentState(mesh=mesh),
        active,
        host_name="one",
        etcd_source={"endpoints": [], "source": None, "told_by": None},
        last_contact_s=0.0,
        now_s=1.0,
        wall_s=1.0,
    )
    check("status", document)


def test_promise_9_status_says_which_peer_is_dead_and_how_long_the_agent_runs() -> None:
    peers = [
        replace(LEASE, subnet=IPv4Network(f"10.6{n}.0.0/16"), host_id=HostId(f"{n}" * 32),
                node_address=IPv4Address(f"192.0.2.{n}"))
        for n in (5, 6)
    ]  # fmt: skip
    mesh = replace(
        FULL,
        believed=replace(VIEW, leases=(LEASE, *peers)),
        silent=frozenset({peers[1].node_address}),
    )
    counters = Counters(started_s=100.0)
    for given, reachable, up_s in ((counters, [True, False], 60), (None, [None, None], None)):
        document = status_document(
            AgentState(mesh=mesh),
            (),
            host_name="one",
            etcd_source={"endpoints": [], "source": None, "told_by": None},
            last_contact_s=0.0,
            now_s=1.0,
            wall_s=160.0,
            counters=given,
        )
        check("status", document)
        assert [each["reachable"] for each in document["peers"]] == reachable
        assert (document["up_s"], document["mesh"]["subnets"]) == (up_s, 64)


def test_leases_follow_their_schema() -> None:
    check("leases", leases_document(VIEW, OWN, 10.0, last_heartbeat_s={OWN: 5.0}))


def test_every_path_of_the_socket_is_documented() -> None:
    page = (ROOT / "docs" / "control-socket.md").read_text()
    for answers in (ROOT / "agent" / "daemon" / "api").glob("*_handlers.py"):
        paths = re.findall(r'"(/[a-z0-9/]+)": self\.', answers.read_text())
        assert paths
        assert not [path for path in paths if path not in page]
    assert {each.stem for each in FOLDER.glob("*.json")} >= {"status", "leases", "diff", "done"}
