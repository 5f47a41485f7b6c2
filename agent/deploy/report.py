"""Print what was found, what will be done and how it ended."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from agent.deploy.deployment import Look
from agent.deploy.folder import Host, Mesh
from agent.deploy.inventory import Change, endpoints
from agent.deploy.progress import Progress
from agent.deploy.status import Status

__all__ = ["checks", "end", "plan", "removal_plan", "status", "upgrade_plan"]

_PARTLY = 1
_MEMBERS_FOR_A_LOSS = 3


def checks(look: Look) -> None:
    """Print each host with what matters of it, then what must be solved or known."""
    width = _width(look.mesh)
    for host in look.mesh.hosts:
        facts = look.facts.get(host.name)
        if facts is None:
            continue
        own = f", hostmesh {facts.installed}" if facts.installed else ""
        print(
            f"  {host.name:<{width}}  Debian {facts.release} {facts.architecture},"
            f" Docker {facts.docker}, {facts.free_mb // 1024} GB free{own}"
        )
    for finding in look.findings:
        kind = "problem" if finding.stops else "note"
        print(f"  {finding.host or 'mesh':<{width}}  {kind}: {finding.cause}")
        if finding.hint:
            print(f"  {'':<{width}}  hint: {finding.hint}")


def plan(look: Look, change: Change) -> None:
    """Print what will be done."""
    mesh = look.mesh
    width = _width(mesh)
    print("to do:")
    if mesh.own_etcd:
        members = ", ".join(host.name for host in mesh.members)
        print(f"  {'etcd':<{width}}  TLS and an account for each host; members: {members}")
        if len(mesh.members) < _MEMBERS_FOR_A_LOSS:
            print(f"  {'':<{width}}  note: with fewer than 3 members the loss of one stops etcd")
    else:
        print(f"  {'etcd':<{width}}  {', '.join(endpoints(mesh))}")
    print(f"  {'mesh':<{width}}  {mesh.cidr}, backend {mesh.backend}")
    for name in change.targets:
        facts = look.facts[name]
        steps = []
        if facts.docker == "missing":
            steps.append("install Docker")
        package = look.packages.get(name)
        steps.append(f"package {package.path.name}" if package else "package from apt")
        steps.append("certificate and settings" if mesh.own_etcd else "settings")
        if facts.needs_restart and facts.docker != "missing":
            steps.append(_docker_step(facts.containers, restart_docker=change.restart_docker))
        print(f"  {name:<{width}}  {', '.join(steps)}")


def _docker_step(containers: int, *, restart_docker: bool) -> str:
    if not containers:
        return "Docker restarts once (no container runs)"
    running = f"{containers} {'container runs' if containers == 1 else 'containers run'}"
    if restart_docker:
        return f"Docker restarts while {running}"
    return f"Docker keeps its networks until it restarts ({running}; --restart-docker does it now)"


def upgrade_plan(look: Look) -> None:
    """Print which version each host has and gets."""
    width = _width(look.mesh)
    print("to do, one host after the other, while all are healthy:")
    for name, facts in look.facts.items():
        package = look.packages.get(name)
        new = package.path.name if package else "the newest of apt"
        print(f"  {name:<{width}}  {facts.installed or 'not installed'} -> {new}")


def removal_plan(host: Host, *, gone: bool) -> None:
    """Print what becomes of a host that is removed."""
    if gone:
        print(f"to do: delete the account, subnet and history of {host.name}; it is not asked")
    else:
        print(f"to do: {host.name} leaves the mesh and loses package, settings and account")


def end(progress: Progress, mesh: Mesh, targets: Collection[str], *, log: Path) -> int:
    """Print how it ended; the exit status."""
    failed = {failure.host for failure in progress.failures}
    good = [name for name in targets if name not in failed]
    for failure in progress.failures:
        print(f"left to do: {failure.host}: {failure.task}")
    if failed:
        print(f"{len(good)} hosts are done, {len(failed)} are not; log: {log}")
        print("hint: solve it and run the same command again; it goes on where it ended")
        return _PARTLY
    members = "1 host is a member" if len(good) == 1 else f"{len(good)} hosts are members"
    changed = "" if progress.changed & set(good) else "; nothing had to change"
    print(f"done in {progress.seconds:.0f} s: {members}, every host reaches every other{changed}")
    if progress.untested:
        print("note: no container runs on some host, so the path between containers is not tested")
        print("hint: when containers run: agentctl check")
    print(f"see it: ssh {mesh.hosts[0].destination} agentctl status")
    return 0


def status(found: Status) -> str:
    """Return the state of the mesh as lines."""
    width = max(4, *(len(each.name) for each in found.hosts))
    lines = [f"{'HOST':<{width}}  {'STATE':<12}  {'SUBNET':<18}  {'VERSION':<12}  PROBLEMS"]
    for each in found.hosts:
        problems = ", ".join(each.conditions) or each.error or "none"
        lines.append(
            f"{each.name:<{width}}  {each.state:<12}  {each.subnet or '-':<18}"
            f"  {each.version or '-':<12}  {problems}"
        )
    for member, healthy in found.etcd.items():
        lines.append(f"etcd {member}: {'healthy' if healthy else 'NOT HEALTHY'}")
    if found.etcd_error:
        lines.append(f"etcd: {found.etcd_error}")
    return "\n".join(lines)


def _width(mesh: Mesh) -> int:
    return max(4, *(len(host.name) for host in mesh.hosts))
