"""Jobs over processes, in order, with few results in flight, so that memory does not grow."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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


class _Pool(concurrent.futures.ProcessPoolExecutor):
    """Fresh interpreters, for a fork would copy the locks of JAX's threads."""

    def __init__(self, processes: int, context: Any):
        super().__init__(processes, mp_context=multiprocessing.get_context('spawn'),
                         initializer=_enter, initargs=(context,))

    def submit(self, *call: Any) -> concurrent.futures.Future:
        """Submits a call; a process may be started for it."""
        with _no_main():
            return super().submit(*call)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Keeps new processes from importing the main module, and JAX with it, or running a script."""
    main = sys.modules['__main__']
    held = {name: vars(main).pop(name) for name in ('__file__', '__spec__') if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(held)


def run(do: Callable[[Any, Any], Any], jobs: Sequence[Any], context: Any, processes: int) \
        -> Iterator[tuple[Any, Any]]:
    """Yields (job, do(job, context)), or (job, None) where the process died over the job.

    Args:
      do: a function of a module, so that other processes find it.
      jobs: done, and yielded, in this order.
      context: sent once to every process.
      processes: how many; with 1, or few jobs, all is done in this one.
    """
    if processes < 2 or len(jobs) <= _FEW:
        for job in jobs:
            yield job, do(job, context)
        return
    todo, waiting = collections.deque(jobs), collections.deque()
    pool = _Pool(processes, context)
    try:
        while todo or waiting:
            broken = not _submit(pool, do, todo, waiting, processes * _AHEAD)
            while waiting and not broken and (len(waiting) == processes * _AHEAD or not todo):
                job, future = waiting[0]
                try:
                    result = future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    broken = True
                else:
                    waiting.popleft()
                    yield job, result
            if broken:
                # Which of the jobs under way did it is unknown: each is tried by itself.
                while waiting:
                    job, _ = waiting.popleft()
                    yield job, _alone(do, job, context)
                pool.shutdown()
                pool = _Pool(processes, context)
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: _Pool, do: Callable[[Any, Any], Any],
            todo: collections.deque, waiting: collections.deque, most: int) -> bool:
    """Sends jobs until `most` wait; False where the pool is broken."""
    while todo and len(waiting) < most:
        try:
            future = pool.submit(_call, do, todo[0])
        except concurrent.futures.process.BrokenProcessPool:
            return False
        waiting.append((todo.popleft(), future))
    return True


def _alone(do: Callable[[Any, Any], Any], job: Any, context: Any) -> Any:
    with _Pool(1, context) as pool:
        try:
            return pool.submit(_call, do, job).result()
        except concurrent.futures.process.BrokenProcessPool:
            return None
