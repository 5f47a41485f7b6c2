"""``agentctl doctor``: check whether this host can join. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import flow, sentence

__all__ = ["lines", "run"]

_STYLES = {"ok": "good", "warn": "warn", "fail": "bad", "unknown": "warn"}
_LABEL_CELLS = 18
_STATE_CELLS = 9


def run(context: Context) -> int:
    """Print every check; return 0 when none fails, else 1."""
    direct.log_to_stderr()
    from agent.standalone.doctor.run import examine  # noqa: PLC0415 - imports every package

    with context.progress.waiting_for("the checks of this host", context.timeout_s) as now_for:
        document = examine(context.settings, probe=context.args.probe, now_for=now_for).document()
    context.show(document, lambda: lines(document, context))
    return 0 if document["can_join"] else 1


def lines(document: Mapping[str, Any], context: Context) -> list[str]:
    """Lay out the document: each check with its hint, then what the agent would do."""
    found: list[str] = []
    width, text_at = context.width, _STATE_CELLS + _LABEL_CELLS
    for check in document["checks"]:
        state = check["state"]
        painted = context.palette.paint(_STYLES[state], f"{state:<{_STATE_CELLS}}")
        first = f"{painted}{check['check']:<{_LABEL_CELLS}}"
        found += flow(sentence(check["found"]), width, first=first, rest=text_at)
        if check["hint"]:
            hint = f"hint: {sentence(check['hint'])}"
            found += flow(hint, width, first=" " * text_at, rest=text_at)
    found.append("")
    found += flow(_verdict(document), width, rest=2)
    if document["would"]:
        found.append("the agent has yet to:" if document.get("member") else "joining would:")
        for each in document["would"]:
            found += flow(sentence(each), width, first="  - ", rest=4)
    return found


def _verdict(document: Mapping[str, Any]) -> str:
    """Summarize the checks, and name the parts that were not tested."""
    checks = document["checks"]
    failed = sum(check["state"] == "fail" for check in checks)
    untested = dict.fromkeys(c["check"] for c in checks if c["state"] == "unknown")
    failing = f"{failed} of {len(checks)} checks fail"
    if document.get("member"):
        verdict = f"this host is a member; {failing if failed else 'no check fails'}"
    else:
        verdict = f"this host cannot join yet: {failing}" if failed else "this host can join"
    return verdict + (f"; not tested: {', '.join(untested)}" if untested else "")
