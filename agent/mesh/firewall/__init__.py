"""Decide what a host's firewall lets pass: addresses, devices and access, not yet rules. Pure.

:mod:`agent.kernel.firewall` renders a :class:`DesiredFirewall` as chains and sets.
"""

from agent.mesh.firewall.access import ACCESS_LABEL, is_closed
from agent.mesh.firewall.values import (
    DesiredFirewall,
    Ingress,
    LocalBridge,
    PublishedPort,
    Sender,
    WantedNetwork,
    set_name,
    slice_member,
    slices_set,
    source_member,
)

__all__ = [
    "ACCESS_LABEL",
    "DesiredFirewall",
    "Ingress",
    "LocalBridge",
    "PublishedPort",
    "Sender",
    "WantedNetwork",
    "is_closed",
    "set_name",
    "slice_member",
    "slices_set",
    "source_member",
]
