"""Find the ends of a path: a container here, an address of this host, or neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.path.mesh_containers import MeshAddress, find_address
from agent.docker.engine.engine import Engine
from agent.docker.manager import DockerManager
from agent.errors import DockerError, HostmeshError, UsageError
from agent.kernel.diagnose.namespace import in_network_of
from agent.kernel.facts import read_host_facts
from agent.kernel.lookup import path_to
from agent.model import Attachment, Container, DockerNetwork, Link
from agent.model.family import Address, read_address
from agent.settings.text import nearest, shown

__all__ = ["End", "LocalHost", "find_end"]

_LEAST_ID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a path.

    Attributes:
        container: None when the address is not a container's on this host.
        network: The container's network that holds the address.
        link: The network's bridge, or the link of this host that has the address; None for other
            addresses.
        mac: The container's, "" when not known.
        remote: The container of another host that the operator named.
    """

    address: Address
    container: Container | None = None
    network: DockerNetwork | None = None
    link: Link | None = None
    mac: str = ""
    remote: MeshAddress | None = None

    @property
    def is_host(self) -> bool:
        """The address is one of this host's own."""
        return self.link is not None and self.container is None

    def document(self) -> dict[str, Any]:
        """Return the end for a document."""
        named = self.container or self.remote
        network = self.remote.network if self.remote else None
        return {
            "address": str(self.address),
            "container": named.name if named else None,
            "network": self.network.name if self.network else network,
            "link": self.link.name if self.link else None,
        }


def find_end(context: Context, place: LocalHost, word: str, toward: Address | None = None) -> End:
    """Return the end that the operator named: on this host, else on any host of the mesh.

    Args:
        place: This host, whose containers come first.
        word: An address, a container of this host, or one of the mesh as
            :func:`agent.ctl.path.mesh_containers.find_address` has it.
        toward: As in :meth:`LocalHost.end`.

    Raises:
        UsageError: No container is meant, or several.
    """
    if place.knows(word):
        return place.end(word, toward)
    try:
        document = direct.ask(context, "/v1/containers")
    except HostmeshError as error:
        context.remark(f"containers of other hosts are not known: {error.message}")
        return place.end(word, toward)
    found = find_address(document, word)
    if found.container["own"]:
        return place.end(str(found.address))
    return End(address=found.address, remote=found)


class LocalHost:
    """The host that agentctl runs on: its links, and its containers where Docker answers.

    Raises:
        KernelError: The links could not be listed.
    """

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self.engine: Engine = DockerManager(settings.docker, settings.agent.state_dir).engine
        self.links = read_host_facts(settings.routes.protocol).links
        self.containers: tuple[Container, ...] = ()
        self.networks: tuple[DockerNetwork, ...] = ()
        self.problem = ""
        try:
            self.containers = self.engine.containers()
            self.networks = self.engine.facts().networks
        except DockerError as error:
            self.problem = error.message

    def link(self, name: str | None) -> Link | None:
        """Return the link of this name."""
        return next((each for each in self.links if each.name == name), None)

    def knows(self, word: str) -> bool:
        """Return whether ``word`` is an address, or means a container here."""
        try:
            read_address(word)
        except ValueError:
            return bool(self._meant(word))
        return True

    def end(self, word: str, toward: Address | None = None) -> End:
        """Return the end that the operator named.

        Args:
            word: An address, or a container's name, or the start of its id.
            toward: The address that a container with several addresses sends to.

        Raises:
            UsageError: This host has no such container.
        """
        try:
            return self._of_address(read_address(word))
        except ValueError:
            pass
        container = self._container(word)
        chosen = self._attachment(container, toward)
        if chosen is None:
            raise UsageError(
                f"container {shown(container.name)} has no address on a bridge network",
                hint="a container in the host's network has the host's address: give that",
            )
        return self._attached(container, chosen)

    def _of_address(self, address: Address) -> End:
        for container in self.containers:
            for each in container.attachments:
                if each.address == address:
                    return self._attached(container, each)
        holds: Callable[[Link], bool] = lambda link: any(e.ip == address for e in link.addresses)  # noqa: E731
        return End(address=address, link=next(filter(holds, self.links), None))

    def _container(self, word: str) -> Container:
        found = self._meant(word)
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{shown(word)} means {len(found)} containers", hint="give its name")
        near = nearest(word, (each.name for each in self.containers))
        hint = "for a container on another host give its address"
        if near:
            hint = f"did you mean {near}?"
        elif self.problem:
            hint = f"give an address: Docker does not answer ({self.problem})"
        raise UsageError(f"no container {shown(word)} runs on this host", hint=hint)

    def _meant(self, word: str) -> list[Container]:
        found = [each for each in self.containers if each.name == word]
        if not found and len(word) >= _LEAST_ID:
            found = [each for each in self.containers if each.id.startswith(word)]
        return found

    def _attachment(self, container: Container, toward: Address | None) -> Attachment | None:
        """Return the attachment that the kernel sends from."""
        places = container.attachments
        if len(places) > 1 and toward is not None:
            try:
                pid = self.engine.process_of(container.id)
                source = in_network_of(pid, lambda: path_to(toward).source)
            except HostmeshError:
                source = None
            return next((each for each in places if each.address == source), places[0])
        return places[0] if places else None

    def _attached(self, container: Container, place: Attachment) -> End:
        network = next((each for each in self.networks if each.id == place.network), None)
        return End(
            address=place.address,
            container=container,
            network=network,
            link=self.link(name=network.bridge) if network else None,
            mac=place.mac,
        )
