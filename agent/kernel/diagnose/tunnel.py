"""Whether a tunnel carries packets to a peer, and how large ones.

The peer's own device is asked: no container is needed, and no rule of FORWARD decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import KernelError
from agent.kernel.diagnose.ping import Echo, Pinger
from agent.kernel.lookup import decide
from agent.kernel.tables.links import LinkTable
from agent.model import LinkSpec
from agent.model.family import Network

__all__ = ["Trial", "try_tunnel", "tunnel_to"]


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of trying a tunnel.

    Attributes:
        link: The device of this host.
        largest: Bytes of the largest packet that passes whole, None without an answer.
    """

    link: LinkSpec
    echo: Echo
    largest: int | None

    @property
    def works(self) -> bool:
        """Whether packets pass that are as large as the device says."""
        return self.largest == self.link.mtu

    @property
    def found(self) -> str:
        """Return the result in words."""
        name, echo = self.link.name, self.echo
        if not echo.rtt_s:
            port = f", UDP port {self.link.options.port}" if self.link.options else ""
            return f"nothing comes back through {name}{port}" + (
                f": {echo.problem}" if echo.problem else ""
            )
        if self.works:
            return f"{name} passes {self.link.mtu} bytes whole"
        return f"of {self.link.mtu} bytes {name} passes {self.largest or 'less than 576'} only"


def tunnel_to(subnet: Network) -> LinkSpec | None:
    """Return the agent's device by which packets to a peer's subnet leave, None for no tunnel.

    Raises:
        KernelError: The kernel does not say.
    """
    name = decide(subnet.network_address).link
    return next((each for each in LinkTable().list_all().own if each.name == name), None)


def try_tunnel(subnet: Network, echoes: int) -> Trial | None:
    """Ask a peer's own device through the tunnel; None where no tunnel leads there.

    Raises:
        NotRoot: This user may not send ICMP.
        KernelError: The kernel does not say, or there is no socket.
    """
    link = tunnel_to(subnet)
    if link is None:
        return None
    pinger = Pinger(subnet.network_address)
    try:
        echo = pinger.echo(echoes)
        return Trial(link, echo, pinger.largest(link.mtu) if echo.rtt_s else None)
    except OSError as error:
        raise KernelError(f"cannot ping through {link.name}: {error.strerror}") from error
    finally:
        pinger.close()
