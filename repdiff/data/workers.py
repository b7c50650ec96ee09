"""Jobs over processes: in order, with few results in flight, and a process that hangs replaced."""

import collections
import contextlib
import enum
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

SILENCE = 300.0  # seconds in which a process must give its next item: far above any honest reading
_AHEAD = 3  # jobs under way or waiting for each process
_START = 300.0  # seconds that a process may take to start, on a busy machine
_BEAT = 0.1  # seconds between the signs of life of a process

_Do = Callable[[Any, Any], Iterable]


class Lost(enum.Enum):
    """Why a job gave nothing."""

    DIED = 'ended the process that read it; there may be too little memory.'
    SILENT = f'gave nothing within {SILENCE:.0f} seconds of reading.'


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """Processes that share a context, started when there is work, ended on leaving the `with`.

    Args:
      context: sent once to every process.
      processes: how many; with 1 all is done in this one, where nothing can end a job that hangs.
      silence: seconds after which a process without a next item is taken to hang.
    """

    def __init__(self, context: Any, processes: int, silence: float = SILENCE):
        self._context, self._processes, self._silence = context, processes, silence
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()

    def run(self, do: _Do, jobs: Iterable[Any]) -> Iterator[tuple[Any, list | Lost]]:
        """Yields (job, the items of `do(job, context)`) in the order of the jobs.

        Where a process died or hung over a job, its `Lost` takes the place of the items. Jobs are
        drawn as they are needed, and another `run` may begin before this one has ended.

        Args:
          do: a function of a module, so that other processes find it.
        """
        if self._processes == 1:
            for job in jobs:
                yield job, list(do(job, self._context))
            return
        tasks, waiting = map(_Task, jobs), collections.deque()
        task = next(tasks, None)
        while task or waiting:
            while task and len(waiting) < self._processes * _AHEAD and (worker := self._idle()):
                worker.give(do, task)
                waiting.append(task)
                task = next(tasks, None)
            if waiting and waiting[0].done:
                first = waiting.popleft()
                yield first.job, first.result()
            else:
                self._listen()

    def _idle(self) -> '_Worker | None':
        self._workers = [worker for worker in self._workers if worker.task or worker.alive()]
        for worker in self._workers:
            if worker.task is None:
                return worker
        if len(self._workers) == self._processes:
            return None
        self._workers.append(_Worker(self._context))
        return self._workers[-1]

    def _listen(self) -> None:
        """Waits until a busy process says something, ends, or has been silent for too long."""
        busy = {worker.pipe: worker for worker in self._workers if worker.task}
        left = min(worker.heard for worker in busy.values()) + self._silence - time.monotonic()
        for pipe in multiprocessing.connection.wait(list(busy), max(left, 0)):
            busy[pipe].hear()
        for worker in busy.values():
            if worker.task and time.monotonic() - worker.heard > self._silence:
                worker.lose(Lost.SILENT)


class _Task:
    """A job that was given out."""

    def __init__(self, job: Any):
        self.job, self.done, self._said = job, False, None

    def finish(self, said: Any) -> None:
        self.done, self._said = True, said

    def result(self) -> list | Lost:
        if isinstance(self._said, BaseException):
            raise self._said
        return self._said


class _Worker:
    """A fresh interpreter, for a fork would copy the locks of JAX's threads.

    Attributes:
      task: under way, or None.
      heard: when it last said something, or was given the task; later while it may be starting.
    """

    def __init__(self, context: Any):
        spawn = multiprocessing.get_context('spawn')
        self.pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, context), daemon=True)
        with _no_main():
            self._process.start()
        theirs.close()
        self.task: _Task | None = None
        self.heard = time.monotonic() + _START

    def alive(self) -> bool:
        return self._process.is_alive()

    def give(self, do: _Do, task: _Task) -> None:
        self.task = task
        self.heard = max(self.heard, time.monotonic())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # heard of as its end
            self.pipe.send((do, task.job))

    def hear(self) -> None:
        """Takes what the process says: None is a sign of life."""
        try:
            said = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.lose(Lost.DIED)
            return
        self.heard = time.monotonic()
        if said is not None:
            self.task.finish(said)
            self.task = None

    def lose(self, why: Lost) -> None:
        """Ends the process, and its task with it."""
        self.end()
        self.task.finish(why)
        self.task = None

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: multiprocessing.connection.Connection, context: Any) -> None:
    """The life of a process: jobs in; signs of life and items, or an error, out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process hears it and ends this one
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            do, job = pipe.recv()
            pipe.send(None)  # the first time, all that the job needs has been imported
            try:
                said = _items(do(job, context), pipe)
            except Exception as error:
                error.add_note(traceback.format_exc())
                said = error
            pipe.send(said)


def _items(items: Iterable, pipe: multiprocessing.connection.Connection) -> list:
    found, told = [], time.monotonic()
    for item in items:
        found.append(item)
        if time.monotonic() - told > _BEAT:
            told = time.monotonic()
            pipe.send(None)
    return found


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
