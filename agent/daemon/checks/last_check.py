"""The last check of this host: a file in the agent's run folder, which a reboot empties."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent.disk import replace_file
from agent.errors import StateError
from agent.mesh.check.document import check_document

__all__ = ["LastCheck"]

_NAME: Final = "check.json"
_MOST_BYTES: Final = 64 << 20


class LastCheck:
    """The file of the last check.

    Args:
        folder: ``agent.run_dir``.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    def write(self, document: bytes) -> None:
        """Keep a document in place of the last one.

        Raises:
            StateError: It cannot be written.
        """
        try:
            replace_file(self._path, [document], 0o600)
        except OSError as error:
            raise StateError(
                f"{self._path} cannot be written: {error.strerror}",
                hint=f"df {self._path.parent}",
            ) from error

    def document(self) -> Mapping[str, Any]:
        """Return the last check's document, of its age now; without one that of no check.

        Raises:
            StateError: It cannot be read.
        """
        now_s = time.time()
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_MOST_BYTES))
            ago_s = max(0.0, now_s - float(found["checked_at"]))
        except FileNotFoundError:
            return check_document(None, now_s)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"{self._path} cannot be read: {error}", hint="agentctl check writes it anew"
            ) from error
        return {**found, "checked_s_ago": round(ago_s, 1)}
