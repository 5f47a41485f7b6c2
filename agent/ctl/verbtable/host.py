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
    ),
    Verb("join", "join again after a leave", "actions:join"),
    Verb(
        "leave",
        "release this host's subnet and stay out until join",
        "actions:leave",
        (Argument("--force", "even if Docker must restart while containers run"),),
        RESTART_S,
    ),
    Verb(
        "cleanup",
        "remove Hostmesh's routes, rules and Docker settings here; keep the subnet",
        "actions:cleanup",
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
    ),
    Verb("reload", "make the agent read its settings again", "actions:reload"),
)
