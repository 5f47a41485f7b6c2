"""Verbs that look for faults."""

from __future__ import annotations

from agent.ctl.verbtable.row import CONTAINER, HOST, LOOK_S, TABLE, Argument, Verb

__all__ = ["DIAGNOSIS"]

DIAGNOSIS = (
    Verb(
        "doctor",
        "check whether this host can join, and what joining would do",
        "diagnose.doctor",
        (
            Argument(
                "--probe",
                "also ask a peer from a container's address; a host that is no member claims a"
                " subnet for that and releases it",
            ),
        ),
        LOOK_S,
        note="Without --probe it changes nothing.",
        examples=("agentctl doctor", "agentctl doctor --probe"),
    ),
    Verb(
        "diff",
        "list what the agent would change on this host now",
        "diff",
        note="The exit status is 0 for nothing, 1 for a difference, 3 if that is not known.",
        examples=("agentctl diff", "agentctl diff -o json"),
    ),
    Verb(
        "ping",
        "check the path to another host or a container there",
        "diagnose.ping",
        (Argument("PEER", f"{HOST}, or a container: NAME, NAME.NETWORK or NAME@HOST"),),
        examples=("agentctl ping host2", "agentctl ping db.shop", "agentctl ping db@host2"),
    ),
    Verb(
        "check",
        "check the path to every other host at once",
        "diagnose.check",
        (
            Argument("--last", "show the last check of this host, and check nothing"),
            Argument("--all", "show the last check that each host published, and check nothing"),
            *TABLE,
        ),
        note="It takes ten seconds at most. The exit status is 1 if a test failed or a host is"
        " down.",
        examples=(
            "agentctl check",
            "agentctl check --last -o wide",
            "agentctl check --all --sort failed",
        ),
    ),
    Verb(
        "trace",
        "show how a packet gets from SRC to DST",
        "diagnose.trace",
        (
            Argument("SRC", CONTAINER),
            Argument("DST", "the same"),
            Argument("--tcp", "trace a connection to this port in place of a ping", "PORT"),
            Argument(
                "--capture",
                "send a ping from SRC and show it on every link; if SRC is not on this host, wait"
                " for packets (root)",
            ),
        ),
        examples=(
            "agentctl trace web db",
            "agentctl trace web db@host2 --tcp 5432",
            "agentctl trace web 10.65.0.2 --capture",
        ),
    ),
    Verb(
        "resolve",
        "ask this host's name servers for a name; explain the answer",
        "resolve",
        (
            Argument("NAME", "such as api.web; a short name gets the mesh's domain"),
            Argument("--from", "ask as this container of this host", "CONTAINER"),
        ),
        examples=("agentctl resolve api.shop", "agentctl resolve db --from web"),
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
        examples=("agentctl bugreport", "agentctl bugreport /root/report.tar.gz"),
    ),
)
