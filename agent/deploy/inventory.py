"""Write what the playbooks read: the hosts and their variables."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.deploy.facts import HostFacts
from agent.deploy.folder import DeployFolder, Host, Mesh
from agent.deploy.packages import Package

__all__ = ["Change", "endpoints", "inventory", "speaker_of"]

_CLIENT_PORT = 2379


@dataclass(frozen=True)
class Change:
    """Choices of one run.

    Attributes:
        targets: Names of the hosts that are changed; the others are only asked.
        restart_docker: Docker may restart while containers run.
        renew: Give every account what this version's hosts write.
        speaker: Name of the host that speaks to etcd; "" for the first member, or the first host.
        leaving: Name of the host that is removed.
    """

    targets: Collection[str] = ()
    restart_docker: bool = False
    renew: bool = False
    speaker: str = ""
    leaving: str = ""


def endpoints(mesh: Mesh) -> tuple[str, ...]:
    """Return the URLs of the mesh's etcd."""
    if not mesh.own_etcd:
        return mesh.etcd
    return tuple(f"https://{host.member_address}:{_CLIENT_PORT}" for host in mesh.members)


def inventory(
    mesh: Mesh,
    folder: DeployFolder,
    share: Path,
    *,
    facts: Mapping[str, HostFacts],
    packages: Mapping[str, Package],
    change: Change,
) -> str:
    """Return an inventory for Ansible, in JSON, which is YAML.

    Args:
        mesh: The hosts and what they are to be.
        folder: Has the PKI.
        share: Has ansible/ and etcd/.
        facts: Of the hosts that were reached.
        packages: A file for each host that gets one.
        change: What is to happen.
    """
    hosts = {host.name: _host(host) for host in mesh.hosts}
    for name, values in hosts.items():
        values["hostmesh_package"] = str(packages[name].path) if name in packages else ""
        values["hostmesh_account"] = str(folder.pki / "hosts" / name) if mesh.own_etcd else ""
        values["hostmesh_busy"] = _busy(facts.get(name))
    variables = _variables(mesh, folder.pki, share, change)
    everything: dict[str, Any] = {"vars": variables, "hosts": hosts}
    groups = {"targets": sorted(change.targets), "speaker": [speaker_of(mesh, change).name]}
    if mesh.own_etcd:
        groups["etcd_members"] = [host.name for host in mesh.members]
    everything["children"] = {
        name: {"hosts": {host: {} for host in members}} for name, members in groups.items()
    }
    return json.dumps({"all": everything}, indent=1) + "\n"


def _variables(mesh: Mesh, pki: Path, share: Path, change: Change) -> dict[str, Any]:
    return {
        "hostmesh_pki": str(pki),
        "hostmesh_hosts_sh": str(share / "etcd/hosts.sh"),
        "hostmesh_members": [f"{host.name}={host.member_address}" for host in mesh.members],
        "hostmesh_etcd_endpoints": list(mesh.etcd),
        "hostmesh_etcd_ca": mesh.etcd_ca,
        "hostmesh_etcd_username": mesh.etcd_user,
        # Read on demand: the inventory has no secret.
        "hostmesh_etcd_password": _file_lookup(mesh.etcd_password_file),
        "hostmesh_cidr": mesh.cidr,
        "hostmesh_backend": mesh.backend,
        "hostmesh_settings": _file_lookup(mesh.settings),
        "hostmesh_apt": mesh.apt,
        "hostmesh_apt_key": mesh.apt_key,
        "hostmesh_restart_docker": change.restart_docker,
        "hostmesh_renew": change.renew,
        "hostmesh_leaving": change.leaving,
    }


def speaker_of(mesh: Mesh, change: Change) -> Host:
    """Return the host through which this machine speaks to etcd."""
    named = [host for host in mesh.hosts if host.name == change.speaker]
    return next(iter((*named, *mesh.members, *mesh.hosts)))


def _host(host: Host) -> dict[str, Any]:
    values: dict[str, Any] = {
        "ansible_host": host.address,
        "ansible_python_interpreter": "/usr/bin/python3",
        "hostmesh_become": host.user not in ("", "root"),
    }
    if host.user:
        values["ansible_user"] = host.user
    if host.port:
        values["ansible_port"] = host.port
    return values


def _busy(facts: HostFacts | None) -> bool:
    """Return whether containers run on a host whose Docker must restart."""
    return facts is not None and facts.containers > 0 and facts.needs_restart


def _file_lookup(path: str) -> str:
    if not path:
        return ""
    quoted = path.replace("\\", "\\\\").replace("'", "\\'")
    return "{{ lookup('ansible.builtin.file', '" + quoted + "') }}"
