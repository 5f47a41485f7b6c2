"""Every verb of agentctl: its name, help, arguments, and the function that runs it.

A verb's module is imported when it runs. A new verb is a row in the module of its section, and a
module in agent.ctl.verbs; a new option is an :class:`Argument` of its row.
"""

from __future__ import annotations

from agent.ctl.verbtable.diagnosis import DIAGNOSIS
from agent.ctl.verbtable.host import THIS_HOST
from agent.ctl.verbtable.inspection import INSPECTION
from agent.ctl.verbtable.mesh import BACKEND_OPTIONS, CONFIG_OPTIONS, MESH
from agent.ctl.verbtable.networks import NETWORKS
from agent.ctl.verbtable.program import PROGRAM
from agent.ctl.verbtable.row import Argument, Verb, seconds

__all__ = [
    "BACKEND_OPTIONS",
    "CONFIG_OPTIONS",
    "GROUPS",
    "SECTIONS",
    "VERBS",
    "Argument",
    "Verb",
    "seconds",
]

SECTIONS = (
    ("Inspect", INSPECTION),
    ("Diagnose", DIAGNOSIS),
    ("Networks that span hosts", NETWORKS),
    ("The mesh, for all hosts", MESH),
    ("This host", THIS_HOST),
    ("agentctl", PROGRAM),
)
"""What a person wants to do, as --help groups the verbs."""

VERBS: tuple[Verb, ...] = tuple(verb for _, verbs in SECTIONS for verb in verbs)

GROUPS = {
    "config": "show or change the mesh's config",
    "docker": "restart Docker on this host",
    "etcd": "accept etcd's data after an alarm",
    "firewall": "show the firewall on this host",
    "network": "create, show or remove networks that span hosts",
}
