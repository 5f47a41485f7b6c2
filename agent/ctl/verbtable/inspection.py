"""Verbs that show what is: this host, the mesh, containers, names."""

from __future__ import annotations

from agent.ctl.verbtable.row import WATCH, Argument, Verb

__all__ = ["INSPECTION"]

INSPECTION = (
    Verb(
        "status",
        "show this host on one screen, with every condition",
        "status",
        (WATCH,),
        reads_settings=True,
    ),
    Verb("leases", "list every host's subnet, and whether the host is alive", "leases", (WATCH,)),
    Verb(
        "containers",
        "list the running containers of every host",
        "containers",
        (
            Argument("[PATTERN]", "of names of containers or services, with * and ?"),
            Argument("--host", "only this host's, by its name or id", "HOST"),
        ),
    ),
    Verb(
        "names",
        "list names of containers and hosts, and which are shadowed",
        "names",
        (Argument("[PATTERN]", "a name with * and ?, with or without the domain; or a host"),),
    ),
    Verb("map", "draw this host, its links and its peers", "diagnose.map"),
    Verb("routes", "list mesh routes on this host: expected and installed", "routes"),
    Verb(
        "firewall show",
        "show Hostmesh's firewall rules as installed",
        "firewall:show",
        (Argument("--dry-run", "show the input of iptables-restore; nothing when all is right"),),
    ),
    Verb(
        "events",
        "list what happened on this host",
        "diagnose.events",
        (
            Argument("--follow", "print new ones until Ctrl-C or --timeout"),
            Argument("--since", "only those of the last TIME, such as 1h", "TIME"),
        ),
    ),
)
