"""Keeps the host's own copy of the mesh fresh, for a boot while etcd is away."""

from __future__ import annotations

from dataclasses import replace

from agent.daemon.conditions import ConditionRegistry
from agent.daemon.known import Known
from agent.daemon.timers import Timers, jittered
from agent.errors import HostmeshError
from agent.leases.copy import CopyFile
from agent.model import Condition

__all__ = ["Copying"]

_RETRY_S = 30.0


class Copying:
    """Saves what is believed; a full disk is a condition, and tried again.

    Args:
        timers: The loop's own; the name "copy" is used here.
    """

    def __init__(self, file: CopyFile, conditions: ConditionRegistry, timers: Timers) -> None:
        self._file = file
        self._conditions = conditions
        self._timers = timers

    def save(self, known: Known) -> None:
        """Save the believed view and the own lease; nothing while there is nothing of etcd's."""
        if known.believed is None or known.believed.cached or known.left:
            return
        try:
            view = replace(known.believed, config=known.config)  # the last usable one
            self._file.save(view=view, lease=known.own)
        except HostmeshError as error:
            self._conditions.replace("copy", (_not_written(error),))
            self._timers.set("copy", jittered(_RETRY_S))
        else:
            self._conditions.replace("copy", ())


def _not_written(error: HostmeshError) -> Condition:
    return Condition(
        name="copy-not-written",
        cause=error.message,
        hint=error.hint or "without it this host cannot boot while etcd is away",
    )
