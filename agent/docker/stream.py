"""The engine's event stream as an object that any thread can end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import docker
    import requests

__all__ = ["EventStream"]


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
                event = json.loads(line)
                actor = event.get("Actor") or {}
                name = (actor.get("Attributes") or {}).get("name") or actor.get("ID") or ""
                yield str(event.get("Type")), str(event.get("Action")), str(name)
        except (requests.exceptions.RequestException, OSError, ValueError, AttributeError):
            return

    def close(self) -> None:
        """End the stream; the thread that reads it comes back at once."""
        with contextlib.suppress(OSError, AttributeError):
            self._cancel.close()
        self._client.close()
