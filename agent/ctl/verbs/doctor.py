"""``agentctl doctor``: whether this host can join. Needs no agent, changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import sentence

__all__ = ["lines", "run"]

_STYLES = {"ok": "good", "warn": "warn", "fail": "bad", "unknown": "warn"}
_LABEL_CELLS = 18
_STATE_CELLS = 9
_MIN_WRAP = 30


def run(context: Context) -> int:
    """Print every check; 0 when the host can join, else 1."""
    direct.log_to_stderr()
    from agent.daemon.doctor.run import examine  # noqa: PLC0415 - pulls in every room

    document = examine(context.settings, probe=context.args.probe).document()
    if context.form == "json":
        context.say_json(document)
    else:
        for line in lines(document, context):
            context.say(line)
    return 0 if document["can_join"] else 1


def lines(document: Mapping[str, Any], context: Context) -> list[str]:
    """Lay the document out: a line for each check, its hint below, then what would be done."""
    found: list[str] = []
    indent = " " * (_STATE_CELLS + _LABEL_CELLS)
    for check in document["checks"]:
        state = check["state"]
        painted = context.palette.paint(_STYLES[state], f"{state:<{_STATE_CELLS}}")
        body = _wrapped(sentence(check["found"]), context.width, len(indent))
        found.append(f"{painted}{check['check']:<{_LABEL_CELLS}}{body[0]}")
        found += [indent + each for each in body[1:]]
        if check["hint"]:
            hint = _wrapped(f"hint: {sentence(check['hint'])}", context.width, len(indent))
            found += [indent + each for each in hint]
    failed = sum(check["state"] == "fail" for check in document["checks"])
    found.append("")
    if failed:
        found.append(
            f"this host cannot join yet: {failed} of {len(document['checks'])} checks fail"
        )
    else:
        found.append("this host can join")
    if document["would"]:
        found.append("joining would:")
        for each in document["would"]:
            body = _wrapped(sentence(each), context.width, 4)
            found += [f"  - {body[0]}", *(f"    {line}" for line in body[1:])]
    return found


def _wrapped(text: str, width: int | None, taken: int) -> list[str]:
    if width is None:
        return [text]
    return wrap(text, max(_MIN_WRAP, width - taken)) or [""]
