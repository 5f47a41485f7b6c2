"""Look at the hosts, and carry out playbooks on them, for every verb."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.deploy import packages as debs
from agent.deploy.checks import Finding, judge, propose_cidr
from agent.deploy.engine import Engine, Event, share
from agent.deploy.facts import HostFacts, read_facts
from agent.deploy.folder import DeployFolder, Host, Mesh
from agent.deploy.inventory import Change, endpoints, inventory, speaker_of
from agent.deploy.progress import Progress, reason
from agent.errors import HostmeshError, Refused

__all__ = ["Deployment", "Look", "completed"]

_FACTS_TASK = "Collect facts"
_YES = ("y", "yes")
_APT_CACHE = Path("/var/cache/apt/archives")


@dataclass(frozen=True)
class Look:
    """Facts and findings before anything is changed.

    Attributes:
        mesh: With everything that had been left open: members' addresses, the CIDR.
        facts: Of each host that was reached.
        findings: What prevents a deployment, and what must be known.
        packages: A file for each host that needs one.
    """

    mesh: Mesh
    facts: Mapping[str, HostFacts]
    findings: tuple[Finding, ...] = ()
    packages: Mapping[str, debs.Package] = field(default_factory=dict)

    def require_good(self) -> None:
        """Raise an error if something must be put right first.

        Raises:
            Refused: It names how much.
        """
        bad = [finding for finding in self.findings if finding.stops]
        if bad:
            raise Refused(
                f"nothing was changed: {len(bad)} {'problem' if len(bad) == 1 else 'problems'}"
                " must be solved first",
                hint="solve them, then run the same command again",
            )


class Deployment:
    """One run on one folder.

    Args:
        folder: Of the mesh; its lock is held.
        mesh: What is known of it; decides how ssh connects.
        log: Gets everything that Ansible says.
    """

    def __init__(self, folder: DeployFolder, mesh: Mesh, log: Path) -> None:
        self.folder = folder
        self.log = log
        self._share = share()
        self.engine = Engine(folder, mesh.ssh_key, accept_host_keys=mesh.accept_host_keys)

    # -- before anything is changed

    def look(self, mesh: Mesh, targets: Collection[str]) -> Look:
        """Ask every host, and judge what is asked for.

        Args:
            mesh: As the operator wants it.
            targets: Names of the hosts that are to change, and need a package.
        """
        ansible = self.engine.version()
        facts, lost = self.facts(mesh)
        mesh = completed(mesh, facts)
        findings = list(lost)
        findings += judge(mesh, facts, ansible=ansible, endpoints=endpoints(mesh))
        if not mesh.cidr and facts:
            findings.append(Finding("", "every usual range for a mesh is in use", "--cidr CIDR"))
        chosen = {} if mesh.apt else self._packages(mesh, facts, targets, findings)
        return Look(mesh, facts, tuple(findings), chosen)

    def facts(self, mesh: Mesh) -> tuple[dict[str, HostFacts], list[Finding]]:
        """Return the facts of each host that is reached, and why the others are not."""
        self._write_inventory(Look(mesh, {}), Change())
        print(f"checking {len(mesh.hosts)} {_hosts(len(mesh.hosts))} (a few seconds) …", flush=True)
        facts: dict[str, HostFacts] = {}
        lost: list[Finding] = []

        def handle(event: Event) -> None:
            if event.kind != "result" or event.task != _FACTS_TASK:
                return
            if event.status in ("ok", "changed"):
                facts[event.host] = read_facts(event.text, event.at)
            else:
                lost.append(_unreachable(mesh.host(event.host), reason(event)))

        self.engine.run("check.yml", handle, log=self.log)
        silent = {host.name for host in mesh.hosts} - set(facts) - {each.host for each in lost}
        if silent:
            raise HostmeshError(
                f"Ansible said nothing of {', '.join(sorted(silent))}", hint=f"see {self.log}"
            )
        return {host.name: facts[host.name] for host in mesh.hosts if host.name in facts}, lost

    def _packages(
        self,
        mesh: Mesh,
        facts: Mapping[str, HostFacts],
        targets: Collection[str],
        findings: list[Finding],
    ) -> dict[str, debs.Package]:
        places = (Path(), Path("dist"), self._share.parent / "dist", _APT_CACHE)
        known = debs.given(mesh.packages) if mesh.packages else debs.find(places)
        found = {}
        for name in targets:
            if name not in facts:
                continue
            package = debs.choose(known, facts[name])
            if package is not None:
                found[name] = package
                continue
            release = f"{facts[name].codename} {facts[name].architecture}".strip()
            cause = f"there is no package for {release} here"
            hint = "--package FILE, --apt LINE, or in a clone: make deb"
            findings.append(Finding(name, cause, hint))
        return found

    # -- the change

    def confirm(self, *, yes: bool) -> None:
        """Ask the operator, unless that is not wanted.

        Raises:
            Refused: The answer is not yes, or there is no terminal to ask on.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise Refused("nothing was changed: there is no terminal to ask on", hint="add --yes")
        if input("Continue? [y/N] ").strip().lower() not in _YES:
            raise Refused("nothing was changed")

    def apply(self, playbook: str, look: Look, change: Change) -> Progress:
        """Run a playbook, and say on the terminal what it does.

        Raises:
            HostmeshError: Ansible itself failed.
        """
        self._write_inventory(look, change)
        progress = Progress([host.name for host in look.mesh.hosts], sys.stdout)
        status = self.run(playbook, look.mesh, change, progress.handle)
        if status and not progress.failures:
            raise HostmeshError(
                f"Ansible ended with status {status}", hint=f"the end of {self.log} says why"
            )
        return progress

    def ask(self, playbook: str, mesh: Mesh, handle: Callable[[Event], None]) -> None:
        """Run a playbook that changes nothing."""
        self._write_inventory(Look(mesh, {}), Change())
        self.run(playbook, mesh, Change(), handle)

    def run(
        self, playbook: str, mesh: Mesh, change: Change, handle: Callable[[Event], None]
    ) -> int:
        """Run a playbook on the inventory that is there; Ansible's exit status."""
        return self.engine.run(
            playbook, handle, log=self.log,
            extra=self._relay(speaker_of(mesh, change)),
        )  # fmt: skip

    def _relay(self, host: Host) -> dict[str, str]:
        """Return the environment by which scripts on this machine use a host to speak to etcd."""
        port = f" -p {host.port}" if host.port else ""
        sockets = self.engine.sockets
        return {
            "HOSTMESH_SSH": f"ssh {self.engine.ssh_options} -o ControlPath={sockets}/%C{port}"
            f" {host.destination}",
            "HOSTMESH_SUDO": "" if host.user in ("", "root") else "sudo -n",
            "HOSTMESH_CA": str(self.folder.pki / "ca.crt"),
        }

    def _write_inventory(self, look: Look, change: Change) -> None:
        text = inventory(
            look.mesh, self.folder, self._share,
            facts=look.facts, packages=look.packages, change=change,
        )  # fmt: skip
        self.folder.write("inventory.json", text)


def completed(mesh: Mesh, facts: Mapping[str, HostFacts]) -> Mesh:
    """Return the mesh with what only the hosts could say.

    A member whose facts do not say its address keeps "-", which :func:`judge` refuses.
    """
    hosts = tuple(
        replace(host, member_address=facts[host.name].source or "-")
        if host.member_address == "-" and host.name in facts
        else host
        for host in mesh.hosts
    )
    return replace(mesh, hosts=hosts, cidr=mesh.cidr or propose_cidr(facts.values()))


def _unreachable(host: Host, why: str) -> Finding:
    if "Host key verification failed" in why:
        return Finding(host.name, "ssh does not know its host key, or it has changed",
                       f"ssh {host.destination} once, or add --accept-host-keys")  # fmt: skip
    if "Permission denied" in why:
        return Finding(host.name, f"ssh refuses {host.destination}: no key is accepted",
                       f"ssh-copy-id {host.destination}")  # fmt: skip
    if "password is required" in why:
        return Finding(host.name, f"{host.destination} is not root and sudo asks for a password",
                       f"--hosts root@{host.address}, or sudo without a password")  # fmt: skip
    return Finding(host.name, f"ssh does not reach it: {why}", f"ssh {host.destination} true")


def _hosts(number: int) -> str:
    return "host" if number == 1 else "hosts"
