"""Keep firewalld's sources off the loop's thread: firewall-cmd waits for a firewalld that hangs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from agent.errors import HostmeshError
from agent.kernel.firewall.firewalld import Firewalld
from agent.mesh.firewall import DesiredFirewall
from agent.threads import start_thread

__all__ = ["FirewalldJob"]

_PATIENCE_S = 2.0
"""A shorter run ends before the rules are read, so that their conditions are true after it."""


class FirewalldJob:
    """Runs ``firewalld`` on another thread; the loop's waits for a moment only.

    Args:
        on_late: Called on the job's thread when it ends after that: the next pass has its result.
    """

    def __init__(self, firewalld: Firewalld, on_late: Callable[[], None]) -> None:
        self._firewalld = firewalld
        self._on_late = on_late
        self._under_way: Future[tuple[str, ...]] | None = None
        self._asked: tuple[DesiredFirewall, bool] | None = None
        self.manage = firewalld.manage

    def apply(self, wants: DesiredFirewall, *, may_remove: bool = True) -> tuple[str, ...]:
        """Return what was done, or nothing while that is under way.

        Raises:
            HostmeshError: As :meth:`Firewalld.apply`.
        """
        found, asked = self._under_way, (wants, may_remove)
        if found is None:
            self._asked = asked
            found = self._under_way = Future()
            start_thread("firewalld", partial(self._run, found, wants, may_remove=may_remove))
            if wait((found,), _PATIENCE_S).not_done:
                found.add_done_callback(lambda _: self._on_late())
        if not found.done():
            return ()
        self._under_way = None
        if asked != self._asked:  # what is wanted changed meanwhile
            self._on_late()
        return found.result()

    def remove(self) -> tuple[str, ...]:
        """Call :meth:`Firewalld.remove` after a run that is under way."""
        if self._under_way is not None:
            wait((self._under_way,))
        return self._firewalld.remove()

    def _run(
        self, future: Future[tuple[str, ...]], wants: DesiredFirewall, *, may_remove: bool
    ) -> None:
        try:
            future.set_result(self._firewalld.apply(wants, may_remove=may_remove))
        except HostmeshError as error:
            future.set_exception(error)
        finally:
            if not future.done():  # a bug, of which the thread tells
                future.set_result(())
