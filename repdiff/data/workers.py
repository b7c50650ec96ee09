"""Jobs over processes, in order, with few results in flight, so that memory does not grow."""

import collections
import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from repdiff.errors import UserError

_AHEAD = 3  # jobs under way or waiting for each process
_FEW = 4  # jobs that are sooner done than a process is started

_context: Any = None


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _enter(context: Any) -> None:
    global _context
    _context = context


def _call(do: Callable[[Any, Any], Any], job: Any) -> Any:
    return do(job, _context)


def run(do: Callable[[Any, Any], Any], jobs: Sequence[Any], context: Any, processes: int) \
        -> Iterator[tuple[Any, Any]]:
    """Yields (job, do(job, context)) in the order of `jobs`.

    Args:
      do: a function of a module, so that other processes find it.
      context: sent once to every process.
      processes: how many; with 1, or few jobs, all is done in this one.
    """
    if processes < 2 or len(jobs) <= _FEW:
        for job in jobs:
            yield job, do(job, context)
        return
    # Fresh interpreters: a fork would copy the locks of JAX's threads.
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context('spawn'), initializer=_enter,
        initargs=(context,))
    waiting: collections.deque = collections.deque()
    try:
        for job in jobs:
            if len(waiting) >= processes * _AHEAD:
                yield _result(*waiting.popleft())
            waiting.append((job, pool.submit(_call, do, job)))
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(job: Any, future: concurrent.futures.Future) -> tuple[Any, Any]:
    try:
        return job, future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError('a process that reads the source was killed, perhaps for want of memory; '
                        'run the same command again with more memory or fewer processes.') from None
