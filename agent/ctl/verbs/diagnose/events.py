"""``agentctl events``: the events of this host; ``--follow`` prints new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.ctl import direct
from agent.ctl.client import AgentClient, Document
from agent.ctl.context import Context
from agent.ctl.output import clean, flow, sentence
from agent.ctl.polling import rounds
from agent.errors import AgentUnavailable

__all__ = ["lines", "run"]

_TARGET = "/v1/events"
_EVERY_S = 1.0
_TEXT_AT = 21  # below the kind: beside it 80 columns have too little space
_ONE_REQUEST_S = 10.0


def run(context: Context) -> int:
    """Print the events, oldest first."""
    follow = context.args.follow
    document = context.client.get(_TARGET) if follow else direct.ask(context, _TARGET)
    last, from_s = _newest(document), context.args.since
    if from_s is not None:
        document["events"] = [each for each in document["events"] if each.get("at", 0) >= from_s]
    if not follow:
        found = document["events"]
        context.show(document, lambda: _laid_out(context, found) if found else ("no events",))
        return 0
    _print(context, document)
    _follow(context, last)
    return 0


def _follow(context: Context, last: int) -> None:
    """Print events after the number ``last`` every second; wait for an agent that goes away."""
    client = AgentClient(context.client.path, _ONE_REQUEST_S)
    ticks = rounds(_EVERY_S, context.follow_until_s())
    next(ticks)
    for _ in ticks:
        try:
            found = client.get(f"{_TARGET}?after={last}")
        except AgentUnavailable:
            continue
        _print(context, found)
        last = max(last, _newest(found))


def _newest(document: Document) -> int:
    return max((int(each["id"]) for each in document["events"]), default=0)


def _print(context: Context, document: Document) -> None:
    """Print events as they come."""
    for each in document["events"]:
        if context.is_document:
            context.say_one_of_many(each)
        else:
            context.say("\n".join(lines(each, context.width)))
    context.stdout.flush()


def _laid_out(context: Context, events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in events:
        yield from lines(each, context.width)


def lines(event: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Lay out one event: time, kind, text."""
    at = event.get("at")
    when = datetime.fromtimestamp(at).astimezone() if isinstance(at, int | float) else None
    shown = when.strftime("%Y-%m-%d %H:%M:%S") if when else "-"
    first = f"{shown:<19}  {clean(event.get('kind')):<18} "
    return flow(sentence(event.get("text")), width, first=first, rest=_TEXT_AT)
