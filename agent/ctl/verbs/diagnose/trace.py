"""``agentctl trace SRC DST``: follow a packet by the rules; with --capture a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import clean, flow, sentence, step_lines
from agent.errors import UsageError
from agent.settings.text import shown, whole_number

if TYPE_CHECKING:
    from agent.ctl.path.tracing import Tracer
    from agent.kernel.diagnose.capture import Capture
    from agent.kernel.diagnose.frames import Frame
    from agent.kernel.diagnose.ping import Pinger

__all__ = ["lines", "run"]

_ECHOES = 3
_MOST_PORT = 65_535
_AFTER_S = 0.2  # every frame of an answered ping is in the sockets by then
_MOST_FRAMES = 32


def run(context: Context) -> int:
    """Check every step of the path, with --capture of a real packet; return 1 when one fails."""
    if context.args.capture:
        if context.args.tcp is not None:
            raise UsageError("--capture sends a ping", hint="leave --tcp or --capture out")
        context.need_root("capture packets")
    port = _port(context.args.tcp)
    from agent.ctl.path.ends import LocalHost, find_end  # noqa: PLC0415 - costs 0.3 s
    from agent.ctl.path.tracing import Tracer  # noqa: PLC0415 - the same

    direct.log_to_stderr()
    place = LocalHost(context)
    if place.problem:
        context.remark(f"{place.problem}: containers are not known")
    destination = find_end(context, place, context.args.dst)
    source = find_end(context, place, context.args.src, destination.address)
    tracer = Tracer(
        context=context,
        place=place,
        source=source,
        destination=destination,
        leases=lambda: direct.ask(context, "/v1/leases").get("leases", []),
        containers=lambda: direct.ask(context, "/v1/containers"),
        tcp_port=port,
    )
    # First: afterwards the kernel knows the neighbour.
    capture = _capture(context, tracer) if context.args.capture else None
    with context.progress.waiting_for("the steps of the path", context.timeout_s):
        steps = [step._asdict() for step in tracer.steps()]
    failed = any(step["result"] == "failed" for step in steps)
    if capture is not None and not capture["frames"]:
        failed = True
    if capture is not None and capture["sent"] and not capture["answered"]:
        failed = True
    document = {
        "version": 1,
        "source": source.document(),
        "destination": destination.document(),
        "passes": not failed,
        "steps": steps,
        "capture": capture,
    }
    context.show(document, lambda: lines(document, context.palette.paint, context.width))
    return 1 if failed else 0


def _port(text: str | None) -> int:
    """Read the port of --tcp; 0 without it. Raises UsageError."""
    if text is None:
        return 0
    port = whole_number(text, digits=5)
    if not port or port > _MOST_PORT:
        raise UsageError(f"--tcp {shown(text)}: not a port from 1 to {_MOST_PORT}")
    return port


def lines(
    document: Mapping[str, Any],
    paint: Callable[[str, str], str] = lambda _style, text: text,
    width: int | None = None,
) -> list[str]:
    """Lay out the document; where ``width`` is small a packet takes two lines."""
    found = flow(f"{_end(document['source'])} > {_end(document['destination'])}", width)
    found += step_lines(document["steps"], width, paint)
    capture = document["capture"]
    if capture is not None:
        found += _captured(capture, width)
    return found


def _end(end: Mapping[str, Any]) -> str:
    name = f"{clean(end['container'])} " if end["container"] else ""
    return f"{name}{clean(end['address'])}"


def _captured(capture: Mapping[str, Any], width: int | None) -> list[str]:
    links = ", ".join(clean(each) for each in capture["links"])
    if capture["sent"]:
        head = f"captured on {links}; {capture['answered']} of {capture['sent']} pings answered"
    else:
        head = f"captured on {links}"
    found = flow(head, width, rest=2)
    if capture["problem"]:
        found += flow(sentence(capture["problem"]), width, first="  ", rest=2)
    frames = capture["frames"]
    if not frames:
        return [*found, "  no packet passed"]
    column = max(len(clean(each["link"])) for each in frames)
    start_s = frames[0]["at_s"]
    for each in frames:
        ends = f"{clean(each['source'])} > {clean(each['destination'])}"
        macs = [f"{clean(each['source_mac'])} > {clean(each['destination_mac'])}"]
        after_ms = (each["at_s"] - start_s) * 1000
        way = f"  {after_ms:8.3f} ms  {clean(each['link']):<{column}}  ttl {each['ttl']:<3}  {ends}"
        more = "  ".join([*(macs if each["source_mac"] else []), clean(each["what"])])
        fits = width is None or len(way) + 2 + len(more) <= width
        found += [f"{way}  {more}"] if fits else [way, f"{'':15}{more}"]
    return found


def _capture(context: Context, tracer: Tracer) -> dict[str, Any]:
    """Send pings from a source on this host; else wait for packets."""
    from agent.errors import KernelError  # noqa: PLC0415 - as below
    from agent.kernel.diagnose.capture import Capture, Outer  # noqa: PLC0415 - only for that
    from agent.kernel.lookup import decide  # noqa: PLC0415 - the same

    links = tracer.links()
    source, destination = tracer.source.address, tracer.destination.address
    tunnel, outer = tracer.tunnel(), None
    if tunnel is not None and tunnel.far is not None:
        outer = Outer(tunnel.port, tunnel.far if tunnel.encrypted else None)
        underlay = decide(tunnel.far).link
        links += [underlay] if underlay is not None else []
    if not links:
        raise KernelError(f"no link of this host is on the way from {source} to {destination}")
    capturing = Capture(
        links,
        source,
        destination,
        passed_on=tracer.bridged,
        outer=outer,
    )
    with capturing as capture:
        reach = _sender(tracer)
        if reach is not None:
            sent, answered, problem, frames = _ping(reach, capture)
        else:
            context.remark(
                f"{source} is not on this host: waiting {context.timeout_s:g} s for packets"
                f" between it and {destination}"
            )
            sent, answered, problem = 0, 0, ""
            frames = capture.collect(most=_MOST_FRAMES, timeout_s=context.timeout_s)
    return {
        "links": links,
        "sent": sent,
        "answered": answered,
        "problem": problem,
        "frames": [_frame(each) for each in frames],
    }


def _sender(tracer: Tracer) -> Pinger | None:
    """Return a sender with the source's address; None when the source is on another host."""
    from agent.kernel.diagnose.namespace import in_network_of  # noqa: PLC0415 - only for --capture
    from agent.kernel.diagnose.ping import Pinger  # noqa: PLC0415 - the same

    source, to = tracer.source, tracer.destination.address
    if source.container is not None:
        pid = tracer.place.engine.process_of(source.container.id)
        return in_network_of(pid, lambda: Pinger(to, source=source.address))
    return Pinger(to, source=source.address) if source.is_host else None


def _ping(reach: Pinger, capture: Capture) -> tuple[int, int, str, tuple[Frame, ...]]:
    sent = 0
    try:
        for _ in range(_ECHOES):
            echo = reach.echo(1)
            sent += 1
            if echo.rtt_s or echo.problem:
                break
    finally:
        reach.close()
    frames = capture.collect(most=_MOST_FRAMES, timeout_s=_AFTER_S, identifier=reach.identifier)
    return sent, len(echo.rtt_s), echo.problem, frames


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "link": frame.link,
        "at_s": round(frame.at_s, 6),
        "ttl": frame.ttl,
        "source": str(frame.source),
        "destination": str(frame.destination),
        "source_mac": frame.source_mac,
        "destination_mac": frame.destination_mac,
        "what": _what(frame),
        "tunnel": _tunnel(frame),
    }


def _what(frame: Frame) -> str:
    carried = frame.carried
    if carried is None:
        return frame.what
    inner = carried.inner
    if inner is None:
        return f"{carried.tunnel} {carried.message}, {frame.size} bytes"
    ends = f"{inner.source} > {inner.destination}"
    return f"{carried.tunnel} with {inner.what} {ends} ttl {inner.ttl}"


def _tunnel(frame: Frame) -> dict[str, Any] | None:
    """Return the outer header's ports, and the inner header where it can be read."""
    carried = frame.carried
    if carried is None:
        return None
    inner = carried.inner
    return {
        "name": carried.tunnel,
        "source_port": frame.source_port,
        "port": frame.port,
        "vni": carried.vni,
        "inner": None
        if inner is None
        else {
            "ttl": inner.ttl,
            "source": str(inner.source),
            "destination": str(inner.destination),
            "what": inner.what,
        },
    }
