"""Do something to several machines at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_parallel(
    act: Callable[[Any], Any], things: Sequence[Any], abort: Callable[[], None] = lambda: None
) -> None:
    """Do something to several machines at once.

    On the first error, or Ctrl-C, `abort` ends what the others wait for, so that none is still at
    work when the error goes on.
    """
    pool = ThreadPoolExecutor(max_workers=max(1, min(8, len(things))))
    try:
        for future in [pool.submit(act, thing) for thing in things]:
            future.result()
    except BaseException:
        abort()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
