"""What an operator does to the mesh: reserve, remove a host, change the config.

Every verb is idempotent, works by transactions that compare first, and needs no agent.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

from agent.errors import ClaimConflict, EtcdError, MeshConfigError, Refused
from agent.leases import kv, wire
from agent.leases.keys import without_key
from agent.leases.registry import Registry
from agent.leases.untrusted import parse_object
from agent.model import HostId, Lease, MeshConfig, View

__all__ = ["Operator"]

_TRIES = 5


class Operator:
    """The operator's verbs.

    Args:
        registry: Of the mesh.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._client = registry.client
        self._keys = registry.keys

    def find_host(self, text: str) -> HostId:
        """Find a host by its id, the start of it, its name, its node address or its subnet.

        Raises:
            Refused: No host, or more than one, is meant.
        """
        view = self._registry.snapshot()
        known: dict[HostId, set[str]] = {}
        for lease in view.leases:
            if lease.host_id:
                names = {lease.host_name, str(lease.node_address), str(lease.subnet)}
                known.setdefault(lease.host_id, set()).update(names)
        for beat in view.heartbeats.values():
            names = {beat.host_name, str(beat.node_address)}
            known.setdefault(beat.host_id, set()).update(names)
        for host_id in (*view.memory, *view.reservations.values()):
            known.setdefault(host_id, set())
        found = [
            host_id
            for host_id, names in known.items()
            if text in names or (len(text) >= 4 and host_id.startswith(text))  # noqa: PLR2004
        ]
        if len(found) != 1:
            raise Refused(
                f"{len(found) or 'no'} hosts are known as {text!r}",
                hint="agentctl leases -o wide shows ids, names and addresses",
            )
        return found[0]

    def reserve(self, host_id: HostId, subnet: IPv4Network) -> None:
        """Keep a subnet for a host, without a time limit. Repeating it is fine.

        Raises:
            MeshConfigError: There is no config, or ``subnet`` is not a subnet of the mesh.
            ClaimConflict: Another host holds or has reserved something that overlaps.
        """
        key = self._keys.reservation(subnet)
        for _ in range(_TRIES):
            view = self._registry.snapshot()
            config = _config(view)
            if not subnet.subnet_of(config.cidr) or subnet == config.cidr:
                raise MeshConfigError(f"{subnet} is not a part of the mesh's CIDR {config.cidr}")
            self._refuse_overlap(view, host_id, subnet)
            held = view.lease_of(host_id)
            compares = [kv.unchanged(self._keys.config, config.mod_revision)]
            if view.reservations.get(subnet) == host_id:
                return
            compares += [
                kv.none_in(each.start, each.end)
                for each in self._keys.reservations_overlapping(subnet)
            ]
            compares += self._leases_unchanged(subnet, held)
            put = kv.put(key, wire.encode_reservation(host_id))
            if self._client.txn(f"reserve {subnet}", compares, [put]).succeeded:
                return
        raise EtcdError("the mesh changes faster than a subnet can be reserved")

    def unreserve(self, subnet: IPv4Network) -> bool:
        """End a reservation; the host keeps what it holds. False: there was none."""
        key = self._keys.reservation(subnet)
        exists = kv.unchanged(key, 0)
        gone = self._client.txn(f"unreserve {subnet}", [exists], [], [kv.delete(key)])
        return not gone.succeeded

    def remove_host(self, host_id: HostId, *, force: bool = False) -> tuple[IPv4Network, ...]:
        """Retire another host before its TTLs do: lease, heartbeat and memory. Idempotent.

        Returns:
            The subnets that it held, () when none.

        Raises:
            Refused: Its agent is alive and ``force`` is not given.
        """
        for _ in range(_TRIES):
            records = self._registry.records()
            view = records.view()
            beat = view.heartbeats.get(host_id)
            if beat is not None and not force:
                raise Refused(
                    f"host {beat.host_name or host_id} at {beat.node_address} is alive",
                    hint="run agentctl leave there; --force takes its subnet away all the same",
                )
            owned = [each for each in records.leases() if each.host_id == host_id]
            heartbeat = self._keys.heartbeat(host_id)
            compares = [
                kv.unchanged(self._keys.subnet(each.subnet), each.mod_revision) for each in owned
            ]
            if not force:
                compares.append(kv.absent(heartbeat))
            deletes = [kv.delete(self._keys.subnet(each.subnet)) for each in owned]
            deletes += [kv.delete(heartbeat), kv.delete(self._keys.memory(host_id))]
            if self._client.txn(f"remove host {host_id}", compares, deletes).succeeded:
                return tuple(each.subnet for each in owned)
        raise EtcdError(f"host {host_id} writes its lease faster than it can be removed")

    def config_show(self) -> tuple[MeshConfig | None, str]:
        """Return the config (None: none that is usable) and its text as it is in etcd."""
        record = self._registry.records().get(self._keys.config)
        if record is None:
            return None, ""
        text = record.value.decode("utf-8", "backslashreplace")
        try:
            return wire.decode_config(record.value, record.mod_revision), text
        except ValueError:
            return None, text

    def config_set(self, wished: MeshConfig) -> MeshConfig:
        """Change the config; what is in use stays inside, unknown fields stay as they are.

        A larger CIDR and another SubnetLen for new leases work while the mesh runs.

        Raises:
            Refused: A lease or a reservation would be outside, or a node address inside.
            MeshConfigError: ``wished`` describes no possible mesh.
        """
        try:
            wire.decode_config(wire.encode_config(wished))
        except ValueError as error:
            raise MeshConfigError(f"this config describes no possible mesh: {error}") from error
        key = self._keys.config
        for _ in range(_TRIES):
            records = self._registry.records()
            record = records.get(key)
            self._refuse_misfits(wished, records.leases(), records.view())
            value = wire.encode_config(wished, _object_or_none(record))
            if record is not None and value == record.value:
                return replace(wished, mod_revision=record.mod_revision)
            compares = [kv.unchanged(key, record.mod_revision if record else 0)]
            result = self._client.txn("change the config", compares, [kv.put(key, value)])
            if result.succeeded:
                return replace(wished, mod_revision=result.revision)
        raise EtcdError("the config changes faster than it can be set")

    def _refuse_overlap(self, view: View, host_id: HostId, subnet: IPv4Network) -> None:
        for lease in view.leases:
            if lease.subnet.overlaps(subnet) and lease.host_id != host_id:
                raise ClaimConflict(
                    f"{subnet} overlaps {lease.subnet}, held by"
                    f" {lease.host_name or lease.host_id or 'a flannel host'}",
                    hint="agentctl leases shows what is free",
                )
        for reserved, owner in view.reservations.items():
            if reserved.overlaps(subnet) and (reserved, owner) != (subnet, host_id):
                raise ClaimConflict(f"{subnet} overlaps {reserved}, reserved for host {owner}")

    def _leases_unchanged(self, subnet: IPv4Network, own: Lease | None) -> list[kv.Compare]:
        """Nobody but ``own`` has a lease there, and that one is as it was seen."""
        ranges = self._keys.leases_overlapping(subnet)
        found: list[kv.Compare] = []
        if own is not None and own.subnet.overlaps(subnet):
            key = self._keys.subnet(own.subnet)
            found.append(kv.unchanged(key, own.mod_revision))
            ranges = without_key(ranges, key)
        return [*found, *(kv.none_in(each.start, each.end) for each in ranges)]

    def _refuse_misfits(self, wished: MeshConfig, leases: tuple[Lease, ...], view: View) -> None:
        problems = [
            problem for lease in leases for problem in (wire.check_lease(lease, wished),) if problem
        ]
        problems += [
            f"reservation {subnet} is not a part of {wished.cidr}"
            for subnet in view.reservations
            if not subnet.subnet_of(wished.cidr)
        ]
        if problems:
            raise Refused(
                f"the config would not fit what is in use: {'; '.join(problems[:3])}"
                + (f" and {len(problems) - 3} more" if len(problems) > 3 else ""),  # noqa: PLR2004
                hint="retire those hosts first (agentctl leave, agentctl remove), or choose a"
                " range that holds them",
            )


def _config(view: View) -> MeshConfig:
    if view.config is None:
        raise MeshConfigError(
            view.config_problem or "there is no config in etcd yet",
            hint="create it with agentctl config init --cidr …",
        )
    return view.config


def _object_or_none(record: kv.Record | None) -> bytes | None:
    """Return a config's text if unknown fields can be kept from it."""
    if record is None:
        return None
    try:
        parse_object(record.value)
    except ValueError:
        return None
    return record.value
