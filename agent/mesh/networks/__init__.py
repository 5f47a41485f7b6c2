"""Decide which Docker networks of which hosts make up a mesh network. Pure.

A label and a slice record are claims. They count as far as the mesh's config, the operator's record
of the network and this host's own settings allow.
"""

from agent.mesh.networks.accepted import AcceptedSlices, SliceChanges, accepted_slices
from agent.mesh.networks.claims import digest
from agent.mesh.networks.members import SliceMember, SliceMembers
from agent.mesh.networks.own import OwnSlice, OwnSlices, own_slices, published_slices
from agent.mesh.networks.wanted import DesiredNetwork, wanted_networks

__all__ = [
    "AcceptedSlices",
    "DesiredNetwork",
    "OwnSlice",
    "OwnSlices",
    "SliceChanges",
    "SliceMember",
    "SliceMembers",
    "accepted_slices",
    "digest",
    "own_slices",
    "published_slices",
    "wanted_networks",
]
