"""Values that all packages share. Frozen, comparable, free of I/O and of clocks.

Words are those of docs/architecture.md ("Words"): a *subnet* is the part of the mesh's
CIDR that one host's containers live in, a *lease* is the record in etcd that one host
owns one subnet, a *heartbeat* is the short-lived key that says the agent is alive.

Other packages import from here; modules are named for the subject of their values.
"""

from __future__ import annotations

from agent.model.backend import BACKENDS, DEFAULT_BACKEND, BackendChoice, BackendData
from agent.model.bounds import PRIVATE_RANGES, Bounds, Problem, Unusable, forbidden_range
from agent.model.condition import (
    CONDITIONS_SHOWN,
    Condition,
    Severity,
    and_more,
    first_few,
    summarise,
)
from agent.model.docker import (
    OWN_BRIDGE,
    Attachment,
    Binding,
    Container,
    DockerFacts,
    DockerNetwork,
    DockerState,
)
from agent.model.family import (
    FAMILIES,
    IPV4,
    IPV6,
    Address,
    Family,
    Interface,
    Network,
    family_of,
    network_order,
    span,
    subnets_of,
    within,
)
from agent.model.host import (
    HostFacts,
    Link,
    Need,
    Needed,
    Place,
    Route,
    RouteKey,
    RouteKind,
    Uplink,
)
from agent.model.mesh import (
    LEVEL,
    LEVEL_OF_0_1,
    MAX_LEVEL,
    NETWORKS_LEVEL,
    OWNERS_LEVEL,
    Access,
    Heartbeat,
    HostId,
    Lease,
    MeshConfig,
    OwnerRecords,
    Published,
    SetAside,
    is_leasable,
)
from agent.model.objects import (
    FdbEntry,
    LinkAddress,
    LinkSpec,
    Neighbour,
    SetMember,
    VxlanOptions,
)
from agent.model.view import Leases, View

__all__ = [
    "BACKENDS",
    "CONDITIONS_SHOWN",
    "DEFAULT_BACKEND",
    "FAMILIES",
    "IPV4",
    "IPV6",
    "LEVEL",
    "LEVEL_OF_0_1",
    "MAX_LEVEL",
    "NETWORKS_LEVEL",
    "OWNERS_LEVEL",
    "OWN_BRIDGE",
    "PRIVATE_RANGES",
    "Access",
    "Address",
    "Attachment",
    "BackendChoice",
    "BackendData",
    "Binding",
    "Bounds",
    "Condition",
    "Container",
    "DockerFacts",
    "DockerNetwork",
    "DockerState",
    "Family",
    "FdbEntry",
    "Heartbeat",
    "HostFacts",
    "HostId",
    "Interface",
    "Lease",
    "Leases",
    "Link",
    "LinkAddress",
    "LinkSpec",
    "MeshConfig",
    "Need",
    "Needed",
    "Neighbour",
    "Network",
    "OwnerRecords",
    "Place",
    "Problem",
    "Published",
    "Route",
    "RouteKey",
    "RouteKind",
    "SetAside",
    "SetMember",
    "Severity",
    "Unusable",
    "Uplink",
    "View",
    "VxlanOptions",
    "and_more",
    "family_of",
    "first_few",
    "forbidden_range",
    "is_leasable",
    "network_order",
    "span",
    "subnets_of",
    "summarise",
    "within",
]
