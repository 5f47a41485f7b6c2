"""Verbs about agentctl itself."""

from __future__ import annotations

from agent.ctl.verbtable.row import Argument, Verb

__all__ = ["PROGRAM"]

PROGRAM = (
    Verb(
        "help",
        "list the verbs, or explain one",
        "about.help",
        (Argument("[TOPIC]", "the verb, such as leases or config set", "VERB…"),),
        examples=("agentctl help", "agentctl help leases", "agentctl help config set"),
    ),
    Verb(
        "version",
        "show the versions of agentctl and of the agent",
        "about.version",
        examples=("agentctl version",),
    ),
    Verb(
        "completion",
        "print a completion script for a shell",
        "about.completion",
        (Argument("SHELL", "the shell", "bash|zsh|fish"),),
        examples=("agentctl completion bash",),
    ),
    Verb("complete-hosts", "print the names of hosts", "about.completion:hosts", hidden=True),
)
