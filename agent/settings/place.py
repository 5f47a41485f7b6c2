"""Where the settings file is. Imports next to nothing."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_PATH"]

DEFAULT_PATH = Path("/etc/hostmesh/agent.toml")
