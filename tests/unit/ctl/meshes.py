"""Documents of meshes of any size, for tests of what agentctl prints of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl.output import Palette
from tests.unit.ctl.schemas import check

PLAIN = Palette(colours=False)
COLOURED = Palette(colours=True)
AS_OF_S = 1_700_000_000.0
STALE: dict[str, Any] = {"cached": False, "stale": True, "as_of": AS_OF_S, "as_of_s_ago": 53.0}
CURRENT = {"cached": False, "stale": False, "as_of": None, "as_of_s_ago": None}
SILENT = {"alive": False, "heartbeat": "none", "silent_s": 29.0, "last_seen_s": 29.0}
SILENT |= dict.fromkeys(("level", "docker", "agent_version", "outdated", "containers"))
SILENT |= {"conditions": None, "container": None}
DOWN = {**SILENT, "reachable": False}
UNKNOWN = {"alive": None, "heartbeat": "unknown", "last_seen_s": 53.0}
UNKNOWN |= dict.fromkeys(("docker", "containers", "conditions"))


def host(number: int, **more: object) -> dict[str, Any]:
    """Return a lease of GET /v1/leases; also a peer of GET /v1/status."""
    return {
        "subnet": f"10.{64 + number // 250}.{number % 250}.0/24",
        "host_id": f"{number:032x}",
        "host_name": f"host{number}",
        "node_address": f"192.168.{number // 250}.{number % 250 + 1}",
        "backend": "vxlan",
        "backend_data": None,
        "accepted_backend": None,
        "age_s": 86_400.0,
        "ttl_left_s": 80_000.0,
        "alive": True,
        "heartbeat": "alive",
        "silent_s": None,
        "last_seen_s": 2.0,
        "docker": "ready",
        "level": 4,
        "container": None,
        "own": number == 1,
        "moving": False,
        "reachable": True,
        "agent_version": "0.2.0",
        "outdated": False,
        "containers": 3,
        "conditions": [],
        **more,
    }


def leases_of(*found: dict[str, Any], **more: object) -> dict[str, Any]:
    document = {
        "version": 1,
        **CURRENT,
        "previous": [],
        "leases": list(found),
        "without_lease": [],
        "newest_version": "0.2.0" if found else None,
        "set_aside": [],
        **more,
    }
    check("leases", document)
    return document


def status_of(*peers: dict[str, Any], **more: object) -> dict[str, Any]:
    names = ("host_name", "host_id", "subnet", "node_address", "backend", "accepted_backend",
             "container", "reachable", "alive", "heartbeat", "last_seen_s", "level",
             "agent_version", "outdated", "containers", "conditions")  # fmt: skip
    document = {
        "version": 1,
        "source": "agent",
        "agent_version": "0.2.0",
        "level": 4,
        "up_s": 259_500,
        "state": "ready",
        **CURRENT,
        "host": {
            "id": "1" * 32,
            "name": "host1",
            "node_address": "192.168.0.1",
            "uplink": "eth0",
        },
        "subnet": "10.64.1.0/24",
        "container": None,
        "former_subnet": None,
        "docker": {"state": "ready", "config": "written", "version": "26.1.5",
                   "bridge": "10.64.1.0/25", "network": None},
        "etcd": {"connected": True, "problem": None, "last_contact_s_ago": 2.0,
                 "cluster_id": "1", "revision": 9, "cached": False,
                 "endpoints": ["https://192.168.0.9:2379"], "source": "settings", "told_by": None},
        "mesh": {"cidr": "10.64.0.0/10", "previous": [], "subnet_len": 24, "subnets": 16384,
                 "backend": "vxlan", "accepted_backend": None, "device": "hm-vxlan",
                 "device_mtu": 1450, "container_mtu": 1450, "level": 4},
        "routes": {"desired": len(peers), "installed": len(peers), "drift": 0},
        "repairs": {"count": 0, "last": None, "last_s_ago": None},
        "peers": [{key: each[key] for key in names} for each in peers],
        "conditions": [],
        **more,
    }  # fmt: skip
    check("status", document)
    return document


def row(peer: Mapping[str, Any], **more: object) -> dict[str, Any]:
    return {
        "destination": peer["subnet"],
        "kind": "unicast",
        "state": "installed",
        "link": "hm-vxlan",
        "gateway": None,
        **more,
    }
