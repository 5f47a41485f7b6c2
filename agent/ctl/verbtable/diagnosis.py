"""Verbs that look for faults."""

from __future__ import annotations

from agent.ctl.verbtable.row import CONTAINER, HOST, LOOK_S, Argument, Verb

__all__ = ["DIAGNOSIS"]

DIAGNOSIS = (
    Verb(
        "doctor",
        "check whether this host can join, and list what joining would do; changes nothing",
        "diagnose.doctor",
        (
            Argument(
                "--probe",
                "also ask a peer from a container's address; a host that is no member claims a"
                " subnet for that and releases it",
            ),
        ),
        LOOK_S,
    ),
    Verb("diff", "list what the agent would change: 0 nothing, 1 something, 3 unknown", "diff"),
    Verb(
        "ping",
        "check the path to another host or a container there",
        "diagnose.ping",
        (Argument("PEER", f"{HOST}, or a container: NAME, NAME.NETWORK or NAME@HOST"),),
    ),
    Verb(
        "trace",
        "show how a packet gets from SRC to DST",
        "diagnose.trace",
        (
            Argument("SRC", CONTAINER),
            Argument("DST", "the same"),
            Argument("--tcp", "of a connection to this port, in place of a ping", "PORT"),
            Argument(
                "--capture",
                "send a ping from SRC and show it on every link; if SRC is not on this host, wait"
                " for packets (root)",
            ),
        ),
    ),
    Verb(
        "resolve",
        "ask this host's name servers for a name, and say why they answer so",
        "resolve",
        (
            Argument("NAME", "such as api.web; a short name gets the mesh's domain"),
            Argument("--from", "ask as this container of this host", "CONTAINER"),
        ),
    ),
    Verb(
        "bugreport",
        "collect everything for a bug report, without secrets",
        "diagnose.bugreport",
        (
            Argument(
                "[FILE]",
                "archive to write, or - for standard output (hostmesh-bugreport-TIME.tar.gz)",
            ),
        ),
        LOOK_S,
    ),
)
