"""``agentctl network create`` and ``rm``: write records, and wait for the hosts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.polling import rounds
from agent.daemon.api.containers import counts_by_network
from agent.errors import UsageError
from agent.model import Access, first_few
from agent.model.network import (
    LONGEST_SLICE,
    SHORTEST_SLICE,
    MeshNetwork,
    parse_network_name,
)
from agent.registry.endpoints.reading import read_endpoints
from agent.registry.operations.network_hosts import HostPart, PartState, Slices, parts_of
from agent.registry.operations.networks import (
    create_network,
    member_pattern,
    remove_network,
    usual_length,
)
from agent.registry.operations.reservations import config_of
from agent.registry.records.networks import MAX_HOST_PATTERNS, parse_host_pattern
from agent.registry.registry import Registry
from agent.settings.text import shown, whole_number

__all__ = ["create", "rm"]

_PAUSE_S = 0.5
_SHOWN = 3


def create(context: Context) -> int:
    """Create a mesh network, and wait until the hosts that can make it now have made it.

    Raises:
        UsageError: The name or the size cannot be one.
        Refused: The mesh's level is too low, a host is not known, or a network of that name
            differs.
    """
    args = context.args
    name, length = _name(args.name), _length(args.size)
    with direct.registry(context) as registry:
        view = registry.snapshot()
        wish = MeshNetwork(
            name=name,
            access=Access(args.access) if args.access else None,
            hosts=tuple(dict.fromkeys(member_pattern(view, each) for each in _patterns(args.host))),
            length=usual_length(config_of(view)) if length is None else length,
        )
        change = create_network(registry, wish, dry=args.dry_run)
        parts = _waited(context, registry, name, PartState.MISSING)
    done = []
    if change.kept:
        done.append(f"{context.did('kept', 'keep')} network {name}: its removal was pending")
    elif change.changed:
        done.append(f"{context.did('created', 'create')} network {name}")
    if done:
        done += [
            f"{each.host_name or each.host_id} has {each.slice.subnet}"
            for each in parts
            if each.slice
        ]
    return _report(context, change.changed, done, parts, PartState.MISSING)


def rm(context: Context) -> int:
    """Remove a mesh network: hosts remove their part where no container is attached.

    Raises:
        Refused: Hosts have the network by a label alone.
    """
    name = _name(context.args.name)
    dry = context.args.dry_run
    with direct.registry(context) as registry:
        change = remove_network(registry, name, dry=dry)
        parts = _waited(context, registry, name, PartState.LEAVING)
        if not (dry or parts or change.deleted):
            remove_network(registry, name)
    done = []
    if change.changed and parts and not dry:
        done.append(f"hosts remove network {name} where no container is attached")
    elif change.changed:
        done.append(f"{context.did('removed', 'remove')} network {name}")
    return _report(context, change.changed, done, parts, PartState.LEAVING)


def _report(
    context: Context,
    changed: bool,  # noqa: FBT001 - a helper of two callers
    done: Sequence[str],
    parts: Sequence[HostPart],
    waiting: PartState,
) -> int:
    """Print the result; hosts that are off or have no Docker are no failure of the command."""
    todo = []
    for each in parts:
        if each.state is waiting and not each.waits_for:
            todo.append(str(each))
        elif each.state is waiting:
            context.remark(str(each))
    return context.report_change(changed, done, todo, network=context.args.name)


def _waited(
    context: Context, registry: Registry, name: str, waiting: PartState
) -> tuple[HostPart, ...]:
    """Wait until no host that could be done at once is in a state; return each host's part."""
    until_s = time.monotonic() + (0 if context.args.dry_run else context.timeout_s)
    with context.progress.waiting_for(f"the hosts of network {name}", context.timeout_s) as now_for:
        for _ in rounds(_PAUSE_S, until_s):
            view = registry.snapshot()
            counts = counts_by_network(view, read_endpoints(registry.client, registry.keys))
            parts = parts_of(view, name, Slices(view), counts)
            late = [each for each in parts if each.state is waiting and not each.waits_for]
            if not late:
                break
            now_for(f"network {name} on {first_few([_host(each) for each in late], _SHOWN)}")
    return parts


def _host(part: HostPart) -> str:
    return part.host_name or part.host_id


def _name(text: str) -> str:
    try:
        return parse_network_name(text)
    except ValueError as error:
        raise UsageError(f"{shown(text)} cannot be a network: {error}") from None


def _patterns(given: Sequence[str] | None) -> Sequence[str]:
    """Check the patterns of --host. Raises UsageError."""
    for each in given or ():
        try:
            parse_host_pattern(each)
        except ValueError as error:
            raise UsageError(f"--host {shown(each)}: {error}") from None
    if len(given or ()) > MAX_HOST_PATTERNS:
        raise UsageError(f"--host: more than {MAX_HOST_PATTERNS} hosts", hint="use a pattern")
    return given or ()


def _length(text: str | None) -> int | None:
    """Read the size of slices: /24, or 24. Raises UsageError."""
    if text is None:
        return None
    length = whole_number(text.removeprefix("/"), digits=2)
    if length is None or not SHORTEST_SLICE <= length <= LONGEST_SLICE:
        raise UsageError(
            f"--size {shown(text)}: not a prefix length from /{SHORTEST_SLICE} to /{LONGEST_SLICE}"
        )
    return length
