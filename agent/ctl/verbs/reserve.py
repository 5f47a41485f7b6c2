"""``agentctl reserve`` and ``agentctl remove``: keep a subnet for a host; delete a host."""

from __future__ import annotations

from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Table
from agent.errors import UsageError
from agent.model.family import Network, network_order, read_network
from agent.settings.text import shown

__all__ = ["remove", "run", "table"]

_COLUMNS = (
    Column(title="SUBNET"),
    Column(title="HOST", shrink_to=8),
    Column(title="HOLDS IT"),
    Column(title="HOST ID", shrink_to=8, drop=1),
)


def run(context: Context) -> int:
    """Reserve a subnet for a host, end a reservation, or list them.

    Raises:
        UsageError: The command line is wrong.
        Refused: No host, or more than one, is meant.
        MeshConfigError, ClaimConflict: The subnet is not the mesh's, or another host's.
    """
    args = context.args
    if args.delete is not None:
        if args.host is not None:
            raise UsageError("--delete takes the subnet alone", hint="agentctl reserve --help")
        return _end(context, _subnet(args.delete))
    if args.host is None:
        return _list(context)
    if args.subnet is None:
        raise UsageError("no subnet is named", hint="agentctl reserve HOST SUBNET")
    return _reserve(context, args.host, _subnet(args.subnet))


def _reserve(context: Context, text: str, subnet: Network) -> int:
    with direct.registry(context) as registry:
        from agent.registry.operations.hosts import find_host  # noqa: PLC0415 - costs 0.2 s
        from agent.registry.operations.reservations import reserve  # noqa: PLC0415 - costs 0.2 s

        view = registry.snapshot()
        host = find_host(view, text, unknown=True)
        if host.host_id is None:
            raise UsageError(
                f"{host} has no identity to reserve a subnet for",
                hint="flannel's own reservations are leases without a TTL",
            )
        changed = reserve(registry, host.host_id, subnet, dry=context.args.dry_run)
    held = [each.subnet for each in view.leases if each.host_id == host.host_id]
    done = [f"{context.did('reserved', 'reserve')} {subnet} for {host}"] if changed else []
    if held and subnet not in held:
        context.remark(
            f"{host} holds {held[0]} now. To move it to {subnet}, run there: agentctl leave,"
            " agentctl join"
        )
    return context.report_change(changed, done, subnet=str(subnet), host_id=host.host_id)


def _end(context: Context, subnet: Network) -> int:
    with direct.registry(context) as registry:
        from agent.registry.operations.reservations import unreserve  # noqa: PLC0415 - costs 0.2 s

        changed = unreserve(registry, subnet, dry=context.args.dry_run)
    done = [f"{context.did('ended', 'end')} the reservation of {subnet}"] if changed else []
    return context.report_change(changed, done, subnet=str(subnet))


def _list(context: Context) -> int:
    with direct.registry(context) as registry:
        view = registry.snapshot()
    names = {each.host_id: each.host_name for each in view.leases}
    names |= {each.host_id: each.host_name for each in view.heartbeats.values()}
    found = [
        {
            "subnet": str(subnet),
            "host_id": host_id,
            "host_name": names.get(host_id, ""),
            "held": any(each.subnet == subnet and each.host_id == host_id for each in view.leases),
        }
        for subnet, host_id in sorted(
            view.reservations.items(), key=lambda item: network_order(item[0])
        )
    ]
    context.show_table({"version": 1, "reservations": found}, lambda: table(found))
    return 0


def table(reserved: list[dict[str, Any]]) -> Table:
    """Return the reservations as a table."""
    rows = [
        [each["subnet"], each["host_name"], "yes" if each["held"] else "no", each["host_id"]]
        for each in reserved
    ]
    return Table(_COLUMNS, rows, empty="no subnet is reserved")


def remove(context: Context) -> int:
    """Delete another host's leases, heartbeat and memory.

    Raises:
        Refused: It is alive and --force is not given; or no host, or more than one, is meant.
    """
    args = context.args
    with direct.registry(context) as registry:
        from agent.registry.operations.host_removal import remove_host  # noqa: PLC0415 - costs 0.2 s
        from agent.registry.operations.hosts import find_host  # noqa: PLC0415 - costs 0.2 s

        view = registry.snapshot()
        host = find_host(view, args.host, unknown=True)
        known = host.host_id in view.heartbeats or host.host_id in view.memory
        subnets = remove_host(registry, host, force=args.force, dry=args.dry_run)
    changed = known or bool(subnets)
    done = [f"{context.did('took', 'take')} {subnet} away from {host}" for subnet in subnets]
    if changed:
        done.append(f"{context.did('forgot', 'forget')} {host}")
    reserved = [str(subnet) for subnet, owner in view.reservations.items() if owner == host.host_id]
    if reserved:
        context.remark(
            f"{', '.join(reserved)} stays reserved for it: agentctl reserve --delete {reserved[0]}"
        )
    return context.report_change(
        changed,
        done,
        host_id=host.host_id,
        host_name=host.host_name,
        subnets=[str(each) for each in subnets],
    )


def _subnet(text: str) -> Network:
    """Read a subnet as the operator wrote it.

    Raises:
        UsageError: It is no subnet; the hint has the nearest one.
    """
    try:
        return read_network(text)
    except ValueError:
        pass
    try:
        near = f"did you mean {read_network(text, strict=False)}?"
    except ValueError:
        near = "such as 10.70.0.0/16"
    raise UsageError(f"{shown(text)} is not a subnet", hint=near)
