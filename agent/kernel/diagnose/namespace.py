"""Call a function in a container's network namespace, without a program or a child process.

setns(2) moves one thread. A socket belongs to the namespace it was opened in for good, so the
thread is only needed to open it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from agent.errors import KernelError, NotRoot

__all__ = ["in_network_of"]

_CLONE_NEWNET: Final = 0x40000000
T = TypeVar("T")


def in_network_of(pid: int, function: Callable[[], T]) -> T:
    """Call ``function`` in a thread within the network namespace of process ``pid``.

    Raises:
        NotRoot: This user may not enter it.
        KernelError: The process has ended, or the kernel refuses; and what ``function`` raises.
    """
    with ThreadPoolExecutor(1) as pool:  # the thread ends with it
        return pool.submit(_inside, pid, function).result()


def _inside(pid: int, function: Callable[[], T]) -> T:
    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise NotRoot(
            "only root may enter a container's network namespace", hint="run it with sudo"
        ) from error
    except OSError as error:
        raise KernelError(f"the container's process {pid} has ended") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            words = os.strerror(ctypes.get_errno())
            raise KernelError(f"cannot enter the network namespace of process {pid}: {words}")
    finally:
        os.close(descriptor)
    return function()
