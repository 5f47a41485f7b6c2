"""What every test needs, whoever started the run."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, wherever the run itself was started from.

    A shell without job control starts background commands with SIGINT ignored, and that is
    inherited (POSIX.1-2017, Shell Command Language, 2.11): a program under test would not end.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
