"""Every verb of agentctl: its name, help, arguments, and the function that runs it.

To add a verb, write a :class:`Verb` row in the module of its section (SECTIONS) with at least one
example, and a function in agent.ctl.verbs that returns the exit status. To add an option, write an
:class:`Argument` in the verb's row. --help, `agentctl help`, man page and completion follow; tests
ask for an example (tests/house/test_verbs.py) and for a line in docs/exit-status.md. A verb's
module is imported when it runs.
"""

from __future__ import annotations

from agent.ctl.verbtable.diagnosis import DIAGNOSIS
from agent.ctl.verbtable.host import THIS_HOST
from agent.ctl.verbtable.inspection import INSPECTION
from agent.ctl.verbtable.mesh import BACKEND_OPTIONS, CONFIG_OPTIONS, MESH
from agent.ctl.verbtable.networks import NETWORKS
from agent.ctl.verbtable.program import PROGRAM
from agent.ctl.verbtable.row import Argument, Verb, moment, seconds
from agent.ctl.verbtable.tokens import TOKENS

__all__ = [
    "BACKEND_OPTIONS",
    "CONFIG_OPTIONS",
    "GROUPS",
    "SECTIONS",
    "VERBS",
    "Argument",
    "Verb",
    "moment",
    "seconds",
]

SECTIONS = (
    ("Inspect", INSPECTION),
    ("Diagnose", DIAGNOSIS),
    ("Networks that span hosts", NETWORKS),
    ("The mesh, for all hosts", MESH),
    ("New hosts", TOKENS),
    ("This host", THIS_HOST),
    ("agentctl", PROGRAM),
)
"""Verbs by the task of the person who types them; --help has these groups."""

VERBS: tuple[Verb, ...] = tuple(verb for _, verbs in SECTIONS for verb in verbs)

GROUPS = {
    "config": "show or change the mesh's config",
    "docker": "restart Docker on this host",
    "etcd": "accept etcd's data after an alarm",
    "firewall": "show the firewall on this host",
    "network": "create, show or remove networks that span hosts",
    "token": "make, list or revoke files by which new hosts join",
}
