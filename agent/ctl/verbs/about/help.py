"""``agentctl help [VERB]``: what --help prints, for people who look for a verb."""

from __future__ import annotations

from agent.ctl.context import Context
from agent.ctl.parser import parser_of

__all__ = ["run"]


def run(context: Context) -> int:
    """Print the help of a verb, of a group such as config, or of agentctl.

    Raises:
        UsageError: There is no such verb.
    """
    context.say(parser_of(context.args.topic).format_help().rstrip())
    return 0
