"""Say what the snapshot of the name servers depends on, from the agent's state. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.conditions import ConditionSource
from agent.mesh.names import NamesInput
from agent.model import Access

__all__ = ["NamesWanted", "wanted_names"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamesWanted:
    """The input of a snapshot; to compare two costs more than to follow one.

    Attributes:
        input: None: the mesh has no names, or the host has left it.
        limit: No network of this host is opened wider than this.
        own_known: Docker has said in this run of the agent which containers and networks are here.
            Without the networks a container that asks is in none, and finds no name.
        others_known: Every host's endpoints were read from etcd in this run of the agent.
        current: etcd is being followed, its endpoints too: a name that is not there does not exist.
    """

    input: NamesInput | None = None
    limit: Access = Access.OPEN
    own_known: bool = False
    others_known: bool = False
    current: bool = False


_WITHOUT_NAMES: Final = NamesWanted()
"""Always the same: while a mesh has no names, a change of it is none of theirs."""


def wanted_names(state: AgentState) -> tuple[NamesWanted] | None:
    """Return the input of the snapshot; None while too little is known to change one."""
    mesh = state.mesh
    if mesh.left or (mesh.config is not None and not mesh.config.has_names):
        return (_WITHOUT_NAMES,)
    world = state.world()
    if world is None:
        return None
    others = mesh.peer_endpoints
    return (
        NamesWanted(
            input=NamesInput(
                world=world,
                endpoints=others.endpoints,
                own=mesh.own_endpoints or (),
            ),
            limit=state.settings.firewall.access,
            own_known=mesh.own_endpoints is not None and mesh.docker_seen,
            others_known=others.complete and world.complete,
            current=not (state.contact_problem or state.conditions.get(ConditionSource.FOLLOWING)),
        ),
    )
