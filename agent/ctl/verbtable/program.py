"""Verbs about agentctl itself."""

from __future__ import annotations

from agent.ctl.verbtable.row import Argument, Verb

__all__ = ["PROGRAM"]

PROGRAM = (
    Verb("version", "show the versions of agentctl and of the agent", "version"),
    Verb(
        "completion",
        "print a completion script for a shell",
        "completion",
        (Argument("SHELL", "the shell", "bash|zsh|fish"),),
    ),
    Verb("complete-hosts", "print the names of hosts", "completion:hosts", hidden=True),
)
