"""Verbs that change this host, or wait for it."""

from __future__ import annotations

from agent.ctl.verbtable.row import RESTART_S, Argument, Verb

__all__ = ["THIS_HOST"]

THIS_HOST = (
    Verb(
        "wait",
        "wait until this host is ready",
        "wait",
        (
            Argument("--ready", "until containers are on the mesh (the default)"),
            Argument(
                "--docker-config",
                "until a Docker that starts now gets the subnet, or cannot get it",
            ),
        ),
        RESTART_S,
        examples=("agentctl wait --ready --timeout 60s", "agentctl wait --docker-config"),
    ),
    Verb(
        "join",
        "join again after a leave",
        "actions:join",
        examples=("agentctl join",),
    ),
    Verb(
        "leave",
        "return this host's subnet, undo Hostmesh's changes here",
        "actions:leave",
        (Argument("--force", "even if Docker must restart while containers run"),),
        RESTART_S,
        note="The host stays out until join. To undo the changes and keep the subnet: cleanup. For"
        " another host that is gone: remove HOST.",
        examples=("agentctl leave", "agentctl leave --force"),
    ),
    Verb(
        "cleanup",
        "undo Hostmesh's changes here, keep the subnet",
        "actions:cleanup",
        note="Removes routes, firewall rules and Docker settings. Stop the agent first: systemctl"
        " stop hostmesh-agent. To return the subnet, too: leave. For another host that is gone:"
        " remove HOST.",
        examples=("agentctl cleanup",),
    ),
    Verb(
        "docker restart",
        "restart Docker if it needs a restart",
        "actions:restart",
        (
            Argument("--now", "restart even while containers run; without it nothing is done"),
            Argument("--yes", "do not ask, even if containers will stop"),
            Argument("--replace", "replace a bip or pools that you set; leave restores them"),
        ),
        RESTART_S,
        examples=("agentctl docker restart --now", "agentctl docker restart --now --yes"),
    ),
    Verb(
        "reload",
        "make the agent read its settings again",
        "actions:reload",
        examples=("agentctl reload",),
    ),
)
