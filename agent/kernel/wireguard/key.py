"""Keep the WireGuard key of this host: a file in the state directory that only root can read."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import structlog

from agent.disk import replace_file
from agent.model.wireguard import is_public_key
from agent.programs import ProgramRunner

__all__ = ["WireGuardKey"]

_log = structlog.get_logger(__name__)

_NAME = "wireguard.key"
_DEADLINE_S = 5.0
_AGAIN_S = 60.0
"""Pause after wg(8) did not end: the loop waits for it."""


class WireGuardKey:
    """The private key and what follows from it. Used by one thread at a time.

    Args:
        state_dir: Where the key is kept over restarts and reboots.
    """

    def __init__(self, state_dir: Path, runner: ProgramRunner | None = None) -> None:
        self.path = state_dir / _NAME
        self._runner = runner or ProgramRunner()
        self._read: tuple[str, str] = ("", "")
        self._again_s = 0.0

    def public_key(self, *, create: bool = False) -> str:
        """Return the public key; "" where there is none, or where wg(8) cannot tell it.

        Args:
            create: Make a private key if there is none.
        """
        private = self._private_key()
        if private is None:
            return self._read[1]
        if not private and create:
            private = self._create()
        if not private:
            return ""
        if self._read[0] != private:
            derived = self._derived(private)
            if derived is None:
                return ""  # until it can be said
            self._read = (private, derived)
        return self._read[1]

    def _private_key(self) -> str | None:
        """Return the private key, "" where there is none, None where it cannot be read."""
        try:
            return self.path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return ""
        except PermissionError:  # an operator who is not root
            return None
        except OSError as error:
            _log.warning("wireguard-key-not-read", path=str(self.path), error=str(error))
            return None

    def _create(self) -> str:
        raw = bytearray(os.urandom(32))
        raw[0] &= 248  # as RFC 7748 clamps it
        raw[31] = raw[31] & 127 | 64
        private = base64.b64encode(bytes(raw)).decode()
        try:
            replace_file(self.path, (f"{private}\n".encode(),), 0o600)
        except OSError as error:
            _log.warning("wireguard-key-not-written", path=str(self.path), error=str(error))
            return ""
        _log.info("wireguard-key-created", path=str(self.path))
        return private

    def _derived(self, private: str) -> str | None:
        """Return the public key, "" for what is no key, None while wg(8) cannot be asked."""
        if time.monotonic() < self._again_s or self._runner.find("wg") is None:
            return None
        done = self._runner.run(("wg", "pubkey"), _DEADLINE_S, stdin=f"{private}\n")
        found = done.output.strip()
        if done.status == 0 and is_public_key(found):
            return found
        _log.warning("wireguard-key-unusable", path=str(self.path), error=done.errors.strip())
        if done.status is None:
            self._again_s = time.monotonic() + _AGAIN_S
            return None
        return ""
