"""Decide which names containers and hosts of the mesh have. Pure.

Names of one host come from that host's verified data only: its leases, and endpoints whose
addresses lie in them. So a change of one host's containers costs that host's names.
"""

from agent.mesh.names.labels import label_of
from agent.mesh.names.local import local_names
from agent.mesh.names.mesh_names import MeshNames, NamesInput, mesh_names

__all__ = ["MeshNames", "NamesInput", "label_of", "local_names", "mesh_names"]
