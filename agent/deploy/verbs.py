"""The verbs of hostmesh-deploy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agent.deploy import report
from agent.deploy.deployment import Deployment, Look
from agent.deploy.engine import require
from agent.deploy.folder import DeployFolder, Host, Mesh
from agent.deploy.inventory import Change
from agent.deploy.parser import as_members, parse_cidr, parse_hosts
from agent.deploy.status import read_status
from agent.errors import Refused, UsageError

__all__ = ["VERBS", "run"]

_UNHEALTHY = 1
_MEMBERS_HINT = "docs/install.md says how to change the members of an etcd"


def run(args: argparse.Namespace) -> int:
    """Do what the command line says; the exit status."""
    require("ssh", "openssl", "tar")
    folder = DeployFolder(args.folder.absolute())
    if not folder.path.is_dir():
        if args.verb != "up":
            raise UsageError(
                f"there is no mesh in {args.folder}", hint="hostmesh-deploy up, or --folder FOLDER"
            )
        _asked(args, None)  # a mistake in the command line leaves no folder behind
    folder.create()
    with folder.locked():
        mesh = _asked(args, folder.load())
        deployment = Deployment(folder, mesh, folder.new_log(args.verb))
        return VERBS[args.verb](args, deployment, mesh)


def _asked(args: argparse.Namespace, known: Mesh | None) -> Mesh:
    """Return the mesh as this command line wants it, over what is known of it.

    Raises:
        UsageError: Something is missing, or would change what cannot change.
    """
    given: dict[str, Any] = {}
    for name in ("ssh_key", "settings", "etcd_ca", "etcd_password_file", "apt_key"):
        if path := getattr(args, name, ""):
            if not Path(path).is_file():
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"there is no file {path}", hint=f"{option} FILE")
            given[name] = str(Path(path).absolute())
    for name in ("etcd_user", "backend", "apt"):
        if text := getattr(args, name, ""):
            given[name] = text
    mesh = replace(known or Mesh(), **given)
    if args.accept_host_keys:
        mesh = replace(mesh, accept_host_keys=True)
    if files := getattr(args, "package", []):
        mesh = replace(mesh, packages=tuple(str(Path(file).absolute()) for file in files), apt="")
    if args.verb == "up":
        return _asked_of_up(args, mesh, known)
    if known is None:
        raise UsageError(f"there is no mesh in {args.folder}", hint="hostmesh-deploy up")
    return mesh


def _asked_of_up(args: argparse.Namespace, mesh: Mesh, known: Mesh | None) -> Mesh:
    if args.hosts:
        hosts = parse_hosts([text for text in args.hosts.split(",") if text])
        old = {host.name: host for host in mesh.hosts}
        missing = [name for name in old if name not in {host.name for host in hosts}]
        if missing:
            raise UsageError(f"--hosts lacks {missing[0]}, which is a host of this mesh",
                             hint=f"hostmesh-deploy remove {missing[0]}")  # fmt: skip
        hosts = tuple(
            replace(host, member_address=old[host.name].member_address)
            if host.name in old else host for host in hosts
        )  # fmt: skip
        mesh = replace(mesh, hosts=hosts)
    if not mesh.hosts:
        raise UsageError("no host is named", hint="--hosts root@web1,root@web2,root@web3")
    if args.cidr:
        mesh = replace(mesh, cidr=_same(known, "cidr", parse_cidr(args.cidr), "--cidr"))
    if args.with_etcd and args.etcd:
        raise UsageError("--with-etcd and --etcd exclude each other", hint="give one of them")
    if args.with_etcd:
        hosts = as_members(mesh.hosts, args.with_etcd)
        if known is not None and known.members:
            hosts = _same_members(known, hosts)
        mesh = replace(mesh, hosts=hosts, own_etcd=True, etcd=())
    if args.etcd:
        mesh = replace(mesh, etcd=_urls(args.etcd), own_etcd=False)
    if not mesh.own_etcd and not mesh.etcd:
        names = ",".join(host.name for host in mesh.hosts[:3])
        raise UsageError("the mesh needs an etcd", hint=f"--with-etcd {names}, or --etcd URL")
    return replace(mesh, backend=mesh.backend or "host-gw")


def _same(known: Mesh | None, name: str, value: str, option: str) -> str:
    before = getattr(known, name) if known is not None else ""
    if before and before != value:
        raise UsageError(f"{option} {value}: this mesh has {before}",
                         hint="agentctl config set changes it, on a host")  # fmt: skip
    return value


def _same_members(known: Mesh, hosts: Sequence[Host]) -> tuple[Host, ...]:
    before = {host.name: host.member_address for host in known.members}
    now = {host.name: host.member_address for host in hosts if host.member_address}
    if set(before) != set(now) or any(now[n] not in ("-", before[n]) for n in before):
        raise UsageError(f"--with-etcd: the members of this mesh's etcd are {', '.join(before)}",
                         hint=_MEMBERS_HINT)  # fmt: skip
    return tuple(replace(host, member_address=before.get(host.name, "")) for host in hosts)


def _urls(texts: Sequence[str]) -> tuple[str, ...]:
    urls = tuple(url for text in texts for url in text.split(",") if url)
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url} is no URL of etcd", hint="--etcd http://10.0.0.5:2379")
    return urls


# -- verbs


def _up(args: argparse.Namespace, deployment: Deployment, mesh: Mesh) -> int:
    return _bring_in(args, deployment, mesh, [host.name for host in mesh.hosts])


def _add(args: argparse.Namespace, deployment: Deployment, mesh: Mesh) -> int:
    hosts = parse_hosts([text for part in args.hosts for text in part.split(",") if text])
    known = {host.name for host in mesh.hosts}
    names = [host.name for host in hosts]
    mesh = replace(mesh, hosts=(*mesh.hosts, *(h for h in hosts if h.name not in known)))
    return _bring_in(args, deployment, mesh, names)


def _bring_in(
    args: argparse.Namespace, deployment: Deployment, mesh: Mesh, targets: Sequence[str]
) -> int:
    change = Change(targets, restart_docker=getattr(args, "restart_docker", False))
    look = _looked(deployment, mesh, targets)
    report.plan(look, change)
    if not _agreed(args, deployment):
        return 0
    deployment.folder.save(look.mesh)
    progress = deployment.apply("up.yml", look, change)
    return report.end(progress, look.mesh, targets, log=deployment.log)


def _looked(deployment: Deployment, mesh: Mesh, targets: Sequence[str]) -> Look:
    look = deployment.look(mesh, targets)
    report.checks(look)
    look.require_good()
    return look


def _agreed(args: argparse.Namespace, deployment: Deployment) -> bool:
    """Ask; False for a run that only says what it would do."""
    if args.dry_run:
        print("dry run: nothing was changed")
        return False
    deployment.confirm(yes=args.yes)
    return True


def _upgrade(args: argparse.Namespace, deployment: Deployment, mesh: Mesh) -> int:
    targets = [host.name for host in mesh.hosts]
    look = _looked(deployment, mesh, targets)
    report.upgrade_plan(look)
    if not _agreed(args, deployment):
        return 0
    deployment.folder.save(look.mesh)
    progress = deployment.apply("upgrade.yml", look, Change(targets, renew=True))
    return report.end(progress, look.mesh, targets, log=deployment.log)


def _remove(args: argparse.Namespace, deployment: Deployment, mesh: Mesh) -> int:
    host = mesh.host(args.host)
    rest = mesh.without(host)
    if host.member_address:
        raise Refused(f"{host.name} is a member of the mesh's etcd", hint=_MEMBERS_HINT)
    if not rest.hosts:
        hint = f"ssh {host.destination} agentctl leave"
        raise Refused(f"{host.name} is the last host", hint=hint)
    report.removal_plan(host, gone=args.gone)
    if not _agreed(args, deployment):
        return 0
    change = Change(
        [] if args.gone else [host.name],
        restart_docker=args.restart_docker,
        speaker=next(iter((*rest.members, *rest.hosts))).name,
        leaving=host.name,
    )
    progress = deployment.apply("remove.yml", Look(mesh, {}), change)
    if progress.failures:
        return report.end(progress, mesh, [host.name], log=deployment.log)
    deployment.folder.save(rest)
    print(f"{host.name} is no host of this mesh any more")
    return 0


def _status(args: argparse.Namespace, deployment: Deployment, mesh: Mesh) -> int:
    found = read_status(deployment, mesh)
    print(json.dumps(asdict(found), indent=2) if args.output == "json" else report.status(found))
    return 0 if found.healthy else _UNHEALTHY


VERBS: Mapping[str, Callable[[argparse.Namespace, Deployment, Mesh], int]] = {
    "up": _up,
    "add": _add,
    "remove": _remove,
    "upgrade": _upgrade,
    "status": _status,
}
