"""Verbs that let new hosts join without ssh, for the machine with the folder of hosts.sh."""

from __future__ import annotations

from agent.ctl.verbtable.row import LOOK_S, TABLE, Argument, Verb

__all__ = ["TOKENS"]

_FOLDER = Argument("--folder", "the folder of deploy/etcd/hosts.sh (hostmesh-pki)", "FOLDER")

TOKENS = (
    Verb(
        "token create",
        "write the file by which a new host joins without ssh",
        "token:create",
        (
            Argument("[FILE]", "where to write it, or - for standard output (NAME.token)"),
            Argument("--host", "how the folder of hosts.sh names the new host", "NAME"),
            _FOLDER,
            Argument("--expires", "how long the host may join with it, at most 24h (24h)", "TIME"),
            Argument("--password", "as of hosts.sh: the account gets a password"),
            Argument("--prefix", "as of hosts.sh: the mesh's in etcd (/hostmesh)", "PREFIX"),
            Argument(
                "--without-account",
                "for an etcd without accounts: endpoints and CA of this host's settings",
            ),
        ),
        LOOK_S,
        examples=(
            "agentctl token create --host web7 --folder hostmesh-pki",
            "agentctl token create --host web7 --without-account",
        ),
        note="The file holds the host's private key. On the host: hostmesh-agent join FILE.",
    ),
    Verb(
        "token ls",
        "list tokens: unused, used or expired",
        "token:ls",
        (_FOLDER, *TABLE),
        examples=("agentctl token ls", "agentctl token ls --folder hostmesh-pki"),
    ),
    Verb(
        "token revoke",
        "delete the account in a token that no host uses",
        "token:revoke",
        (
            Argument("NAME", "the host that the token is for"),
            _FOLDER,
            Argument("--force", "even if a host uses it, which is cut off from etcd"),
        ),
        LOOK_S,
        examples=("agentctl token revoke web7",),
    ),
)
