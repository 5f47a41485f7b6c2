"""Hand a check over to the agent: the whole of it as a file, the summary for other hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.ctl.client import NO_ANSWER
from agent.ctl.context import Context
from agent.daemon.checks.last_check import LastCheck
from agent.errors import HostmeshError
from agent.mesh.check.result import HostCheck
from agent.registry.records.checks import check_fields

__all__ = ["hand_over"]

_TARGET: Final = "/v1/check"


def hand_over(context: Context, found: HostCheck, document: Mapping[str, Any]) -> None:
    """Keep the check for ``GET /v1/check``, and have the agent publish its summary.

    The answer to the operator does not depend on it: what fails is said on stderr.
    """
    folder = context.client.path.parent
    try:
        LastCheck(folder).write(json.dumps(document).encode())
        context.client.post(_TARGET, check_fields(found.summary()))
    except NO_ANSWER:
        return  # it was said when the agent was asked for the leases
    except HostmeshError as error:
        context.remark(f"this check is not kept: {error.message}")
