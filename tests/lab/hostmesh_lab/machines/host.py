"""A Docker host of the lab, as tests use it."""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hostmesh_lab import shell
from hostmesh_lab.errors import CommandFailed, LabError
from hostmesh_lab.machines import kinds
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.wait import wait_until

_AGENT_CALL_S = 30.0


class Host(Machine):
    """A machine with dockerd and, unless the lab has none, the agent."""

    # -- Docker

    def docker(self, *args: str, timeout_s: float = 60.0, check: bool = True) -> shell.Completed:
        """Run the docker command on this host."""
        return self.run(["docker", *args], timeout_s=timeout_s, check=check)

    def start_container(
        self,
        name: str,
        *,
        network: str | None = None,
        publish: Sequence[str] = (),
        command: Sequence[str] = (),
        options: Sequence[str] = (),
        image: str = "lab",
    ) -> str:
        """Start a container, by default of `lab` and serving pages; return its address."""
        argv = ["run", "--detach", "--name", name, *options]
        if network is not None:
            argv += ["--network", network]
        for item in publish:
            argv += ["--publish", item]
        self.docker(*argv, image, *command)
        return "" if network in ("none", "host") else str(self.container_address(name))

    def container_address(self, name: str, network: str | None = None) -> IPv4Address | IPv6Address:
        """Return a container's address, in the network named or in its first."""
        found = self.inspect(name)["NetworkSettings"]["Networks"]
        for label, item in found.items():
            if item["IPAddress"] and network in (None, label):
                return ip_address(item["IPAddress"])
        raise LabError(
            f"{self.name}: container {name} has no address in {network or 'any network'}"
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """Return Docker's inspection of a container, network or image."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", name).stdout)
        return found[0]

    def remove_container(self, name: str) -> None:
        """Kill and remove a container."""
        self.docker("rm", "--force", name)

    def ping(
        self, target: object, *, container: str | None = None, count: int = 1, wait_s: int = 2
    ) -> bool:
        """Return whether an address answers a ping from this host, or from a container on it."""
        argv = ["ping", "-n", "-c", str(count), "-W", str(wait_s), str(target)]
        inside = ["docker", "exec", container] if container else []
        return (
            self.run([*inside, *argv], timeout_s=10 + count * (wait_s + 1), check=False).returncode
            == 0
        )

    def fetch(self, url: str, *, container: str | None = None, timeout_s: int = 3) -> str | None:
        """A page by HTTP from this host or from a container on it; None if it cannot be had."""
        if container:
            # Not wget's own -T: Debian 12's static busybox crashes on it.
            inside = ["timeout", str(timeout_s), "wget", "-q", "-O", "-", url]
            argv = ["docker", "exec", container, *inside]
        else:
            argv = ["curl", "-sf", "--max-time", str(timeout_s), url]
        done = self.run(argv, timeout_s=timeout_s + 15, check=False)
        return done.stdout if done.returncode == 0 else None

    # -- the agent

    def agentctl(
        self, *args: str, check: bool = True, timeout_s: float = _AGENT_CALL_S
    ) -> shell.Completed:
        """Run agentctl on this host."""
        return self.run(["agentctl", *args], timeout_s=timeout_s, check=check)

    def status(self) -> dict[str, Any]:
        """Return the agent's status, an empty one if it cannot be asked."""
        done = self.agentctl("status", "-o", "json", check=False)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return {}
        return answer

    def ready(self) -> bool:
        """Return whether the agent says that lease, Docker, routes and rules are right."""
        return self.status().get("state") == "ready"

    def conditions(self, *, open_etcd: bool = False) -> dict[str, dict[str, Any]]:
        """Return this host's conditions by name.

        Args:
            open_etcd: With `etcd-open`, which a lab has whose etcd is in the clear.
        """
        found = {each["name"]: each for each in self.status().get("conditions", [])}
        if not open_etcd:
            found.pop("etcd-open", None)
        return found

    def wait_condition(self, name: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait for a condition and return it."""
        return (
            wait_until(
                lambda: self.conditions(open_etcd=True).get(name),
                timeout_s,
                f"condition {name} on {self.name}",
            )
            or {}
        )

    def leases(self) -> list[dict[str, Any]]:
        """Return the leases as agentctl on this host lists them."""
        answer = self.agentctl("leases", "-o", "json")
        try:
            found: list[dict[str, Any]] = json.loads(answer.stdout)["leases"]
        except (ValueError, KeyError) as error:
            raise CommandFailed(
                f"{self.name}: agentctl leases printed no list: {answer.stdout[:200]!r}"
            ) from error
        return found

    def lease(self) -> str | None:
        """Return this host's own subnet as the list of leases has it."""
        return next(
            (item["subnet"] for item in self.leases() if item["node_address"] == self.address), None
        )

    def agent_log(self) -> str:
        """Return all that the agent logged since the host's disk was made."""
        return self.log("agent")

    def docker_log(self) -> str:
        """Return all that dockerd logged since the host's disk was made."""
        return self.log("docker")

    def start_agent(self) -> None:
        """Start the agent; returns when its process lives."""
        self.service("start", "agent")

    def stop_agent(self) -> None:
        """End the agent in order; it stays ended."""
        self.service("stop", "agent")

    def restart_agent(self) -> None:
        """End the agent in order and start it again."""
        self.service("restart", "agent")

    def kill_agent(self, *, stay_down: bool = False) -> None:
        """kill -9 the agent. Unless it is to stay down, PID 1 starts it again a second later."""
        if stay_down:
            self.service("kill", "agent")
        else:
            self.service("signal", "agent", number=int(signal.SIGKILL))

    def pause_agent(self) -> None:
        """Freeze the agent, without ending it."""
        self.service("signal", "agent", number=int(signal.SIGSTOP))

    def resume_agent(self) -> None:
        """Let a paused agent go on."""
        self.service("signal", "agent", number=int(signal.SIGCONT))

    def write_settings(self, options: kinds.HostOptions, endpoints: Sequence[str]) -> None:
        """Write the agent's settings file anew; the agent reads it when it starts."""
        self.write_file(kinds.SETTINGS, kinds.settings_text(options, endpoints))

    def set_autostart(self, *, agent: bool) -> None:
        """Whether the agent starts at the host's next boots."""
        services = [
            replace(item, autostart=agent) if item.name == "agent" else item
            for item in self.config.services
        ]
        self.config = replace(self.config, services=services)
        self.save()

    # -- the kernel

    def routes(self, *selector: str) -> list[dict[str, Any]]:
        """Routes of the main table, or of `ip route show SELECTOR`."""
        return self._ip_json("route", "show", *selector)

    def mesh_routes(self) -> list[dict[str, Any]]:
        """Return the agent's own routes: those with its protocol number."""
        return self._ip_json("route", "show", "table", "all", "proto", "140")

    def addresses(self, interface: str) -> list[str]:
        """Return the IPv4 addresses of an interface, with their prefix lengths."""
        shown = self._ip_json("-4", "address", "show", "dev", interface)
        return [
            f"{item['local']}/{item['prefixlen']}"
            for link in shown
            for item in link.get("addr_info", [])
        ]

    def _ip_json(self, *args: str) -> list[dict[str, Any]]:
        text = self.run(["ip", "-j", *args]).stdout.strip()
        found: list[dict[str, Any]] = json.loads(text) if text else []
        return found

    def iptables(self, table: str = "filter", *, variant: str = "") -> list[str]:
        """A table as `iptables-save` prints it; `variant` legacy or nft, or the host's choice."""
        command = f"iptables-{variant}-save" if variant else "iptables-save"
        return self.run([command, "-t", table]).stdout.splitlines()

    def extra_settings(
        self, tables: Mapping[str, Mapping[str, Any]], endpoints: Sequence[str]
    ) -> None:
        """Write the settings file with these tables merged over the lab's own."""
        self.write_settings(kinds.HostOptions(settings=tables), endpoints)
