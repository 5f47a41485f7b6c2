"""Verbs that show what is: this host, the mesh, containers, names."""

from __future__ import annotations

from agent.ctl.verbtable.row import TABLE, WATCH, Argument, Verb

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
        (WATCH, *TABLE),
        examples=(
            "agentctl hosts",
            "agentctl hosts -o wide --sort containers",
            "agentctl hosts --watch",
        ),
    ),
    Verb(
        "leases",
        "list every host's subnet, and whether the host is alive",
        "leases",
        (WATCH, *TABLE),
        examples=("agentctl leases -o wide", "agentctl leases --sort age --watch"),
    ),
    Verb(
        "containers",
        "list the running containers of every host",
        "containers",
        (
            Argument("[PATTERN]", "only containers or services of this name; with * and ?"),
            Argument("--host", "only this host's, by its name or id", "HOST"),
            *TABLE,
        ),
        examples=(
            "agentctl containers -o wide",
            "agentctl containers 'web*' --host host2",
            "agentctl containers --sort container --no-headers",
        ),
    ),
    Verb(
        "names",
        "list names of containers and hosts, and which are shadowed",
        "names",
        (
            Argument("[PATTERN]", "a name with * and ?, with or without the domain; or a host"),
            *TABLE,
        ),
        examples=("agentctl names", "agentctl names 'api.*'", "agentctl names host2"),
    ),
    Verb(
        "map",
        "draw this host, its links and its peers",
        "diagnose.map",
        (WATCH,),
        examples=(
            "agentctl map",
            "agentctl map -o wide",
            "agentctl map --watch",
            "agentctl map -o html",
        ),
        forms=("html", "svg", "dot"),
    ),
    Verb(
        "ui",
        "show the mesh in a browser, until Ctrl-C",
        "ui",
        (
            Argument("--port", "the port of 127.0.0.1; without it a free one", "PORT"),
            Argument("--open", "start this user's browser, too"),
        ),
        examples=("agentctl ui", "agentctl ui --port 9561"),
        note="It prints a link that opens once. docs/ui.md: from a laptop, and who can read it.",
    ),
    Verb(
        "routes",
        "list mesh routes on this host: expected and installed",
        "routes",
        TABLE,
        examples=("agentctl routes -o wide", "agentctl routes --sort host"),
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
            Argument(
                "--since",
                "only those since then: 1h or 7d ago, 10:30 today, 2026-11-27, 2026-11-27T10:30",
                "WHEN",
            ),
        ),
        examples=(
            "agentctl events --since 7d",
            "agentctl events --since 2026-11-27T10:30",
            "agentctl events --follow",
        ),
    ),
)
