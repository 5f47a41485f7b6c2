"""The engine's event stream as an object that any thread can end."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import docker
    import requests

__all__ = ["EventStream", "ended_containers"]


def ended_containers(client: docker.APIClient, since_s: float) -> tuple[str, ...]:
    """Name the containers that ended since a moment (Unix time), from the events of the past.

    Raises what the docker package raises. Its own ``events`` knows no deadline.
    """
    response = client.get(
        f"{client.base_url}/v{client.api_version}/events",
        params={
            "since": f"{since_s:.9f}",
            "until": f"{time.time():.9f}",
            "filters": json.dumps({"type": ["container"], "event": ["die"]}),
        },
        timeout=client.timeout,
    )
    response.raise_for_status()
    return tuple(sorted({_said(line)[2] for line in response.iter_lines() if line}))


def _said(line: bytes) -> tuple[str, str, str]:
    """Type, action and name of an event."""
    event = json.loads(line)
    actor = event.get("Actor") or {}
    name = (actor.get("Attributes") or {}).get("name") or actor.get("ID") or ""
    return str(event.get("Type")), str(event.get("Action")), str(name)


class EventStream:
    """Events of networks and containers as they come; :meth:`close` from any thread ends it.

    Args:
        client: Owned by the stream from now on.
        idle_s: How long it may be silent before it ends by itself.
    """

    def __init__(self, client: docker.APIClient, idle_s: float) -> None:
        from docker.types import CancellableStream  # noqa: PLC0415

        self._client = client
        filters = {
            "type": ["network", "container", "daemon"],
            "event": ["create", "destroy", "connect", "disconnect", "start", "die", "reload"],
        }
        self._response: requests.Response = client.get(
            f"{client.base_url}/v{client.api_version}/events",
            params={"filters": json.dumps(filters)},
            stream=True,
            timeout=(client.timeout, idle_s),
        )
        self._response.raise_for_status()
        lines = self._response.iter_lines(chunk_size=None)
        self._cancel = CancellableStream(lines, self._response)

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Yield (type, action, name) until the stream is silent for too long, cut or closed."""
        import requests.exceptions  # noqa: PLC0415

        try:
            for line in self._response.iter_lines(chunk_size=None):
                yield _said(line)
        except (requests.exceptions.RequestException, OSError, ValueError, AttributeError):
            return

    def close(self) -> None:
        """End the stream; the thread that reads it comes back at once."""
        with contextlib.suppress(OSError, AttributeError):
            self._cancel.close()
        self._client.close()
