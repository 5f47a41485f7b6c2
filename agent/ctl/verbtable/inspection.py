"""Verbs that show what is: this host, the mesh, containers, names."""

from __future__ import annotations

from agent.ctl.verbtable.row import WATCH, Argument, Verb

__all__ = ["INSPECTION"]

INSPECTION = (
    Verb(
        "status",
        "show this host on one screen, with every problem",
        "status",
        (WATCH,),
        reads_settings=True,
        examples=("agentctl status", "agentctl status -o wide", "agentctl status --watch"),
    ),
    Verb(
        "hosts",
        "list every host: state, version, containers, conditions",
        "hosts",
        (WATCH,),
        examples=("agentctl hosts", "agentctl hosts -o wide", "agentctl hosts --watch"),
    ),
    Verb(
        "leases",
        "list every host's subnet, and whether the host is alive",
        "leases",
        (WATCH,),
        examples=("agentctl leases", "agentctl leases -o wide", "agentctl leases --watch"),
    ),
    Verb(
        "containers",
        "list the running containers of every host",
        "containers",
        (
            Argument("[PATTERN]", "only containers or services of this name; with * and ?"),
            Argument("--host", "only this host's, by its name or id", "HOST"),
        ),
        examples=(
            "agentctl containers",
            "agentctl containers 'web*' --host host2",
            "agentctl containers -o wide",
        ),
    ),
    Verb(
        "names",
        "list names of containers and hosts, and which are shadowed",
        "names",
        (Argument("[PATTERN]", "a name with * and ?, with or without the domain; or a host"),),
        examples=("agentctl names", "agentctl names 'api.*'", "agentctl names host2"),
    ),
    Verb(
        "map",
        "draw this host, its links and its peers",
        "diagnose.map",
        (WATCH,),
        examples=("agentctl map", "agentctl map -o wide", "agentctl map --watch"),
    ),
    Verb(
        "routes",
        "list mesh routes on this host: expected and installed",
        "routes",
        examples=("agentctl routes", "agentctl routes -o wide"),
    ),
    Verb(
        "firewall show",
        "show Hostmesh's firewall rules as installed",
        "firewall:show",
        (
            Argument(
                "--dry-run",
                "show what the agent would give to iptables-restore; nothing if all is right",
            ),
        ),
        examples=("agentctl firewall show", "agentctl firewall show --dry-run"),
    ),
    Verb(
        "events",
        "list what happened on this host",
        "diagnose.events",
        (
            Argument("--follow", "print new ones until Ctrl-C or --timeout"),
            Argument("--since", "only those of the last TIME, such as 1h", "TIME"),
        ),
        examples=("agentctl events", "agentctl events --since 1h", "agentctl events --follow"),
    ),
)
