"""Print what Ansible does as lines of JSON, for `hostmesh-deploy`, which says it in plain words.

Ansible itself replaces the result of a task with `no_log` before any callback sees it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from ansible.plugins.callback import CallbackBase  # type: ignore[import-not-found]

DOCUMENTATION = """
    name: hostmesh_events
    type: stdout
    short_description: lines of JSON for hostmesh-deploy
    description: One line for each task and for each result of a host.
"""

_KEPT = ("msg", "stdout", "stderr", "rc", "censored", "module_stderr", "module_stdout")
_READER_IS_GONE = 3


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Prints events; ends the run when no program reads them any more."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "hostmesh_events"

    def _print(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON
        try:
            print(json.dumps({"event": event, "at": time.time(), **fields}, default=str))
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(_READER_IS_GONE)

    def _result(self, status: str, result: Any) -> None:  # noqa: ANN401 - Ansible's
        task, values = result._task, result._result  # noqa: SLF001 - as in Ansible's own plugins
        failed = [each for each in values.get("results", []) if each.get("failed")]
        shown = failed[0] if failed else values
        self._print(
            "result",
            host=result._host.get_name(),  # noqa: SLF001
            task=_name(task),
            status="changed" if status == "ok" and values.get("changed") else status,
            says=(task.vars or {}).get("says", ""),
            **{name: shown[name] for name in _KEPT if shown.get(name) not in (None, "")},
        )

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ANN401, ARG002, FBT001
        """Say which task begins."""
        self._print("task", task=_name(task), does=(task.vars or {}).get("does", ""))

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Say that a host has done a task."""
        self._result("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Say that a task failed."""
        self._result("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401
        """Say that a host is not reached."""
        self._result("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:  # noqa: ANN401
        """Say that a host has no need of a task."""
        self._result("skipped", result)


def _name(task: Any) -> str:  # noqa: ANN401
    """Return a task's name without its role's."""
    return str(task.get_name()).rpartition(" : ")[2]
