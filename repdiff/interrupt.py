"""Stopping at a signal: at one step on all hosts, with an exit code that asks to be run again."""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_calls = 0
_deferring = False
_asked = False
_agreed = False


class Interrupted(SystemExit):
    """The run was asked to stop; the same command resumes it. Its exit code is EX_TEMPFAIL, 75."""

    def __init__(self):
        super().__init__(os.EX_TEMPFAIL)


def listen() -> None:
    """From now on SIGTERM and SIGINT raise `Interrupted`; within `deferred`, they only ask for it.

    With several processes JAX itself hears SIGTERM in each and tells the others.
    """
    alone = jax.process_count() == 1
    signal.signal(signal.SIGINT, _stop if alone else _tell)
    if alone:
        signal.signal(signal.SIGTERM, _stop)


def _stop(number, frame) -> None:
    global _asked
    again, _asked = _asked, True
    if again or not _deferring:
        raise Interrupted
    # A signal may come in the middle of a print, which another print would break.
    os.write(2, b'\nrepdiff: stopping after this step; once more stops at once\n')


def _tell(number, frame) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """In here a signal waits for the code to ask `requested`, which then writes a checkpoint."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


def requested() -> bool:
    """Whether to stop here, the same in all processes: each must call this at the same places, but
    for parts that end with `rejoin`."""
    global _agreed, _calls
    if jax.process_count() == 1:
        return _asked
    if not _agreed and jax.distributed.is_initialized():
        _calls += 1
        _agreed = multihost_utils.reached_preemption_sync_point(_calls)
    return _agreed


def check() -> None:
    """Raises `Interrupted` where `requested`."""
    if requested():
        raise Interrupted


def rejoin() -> None:
    """After a part in which each of several processes called `requested` as often as it liked.

    Raises `Interrupted` in all where one was to stop; else their counts are one again.
    JAX lets all stop one call after the most calls that any has made, so none has passed that.
    """
    global _agreed, _calls
    calls, agreed = multihost_utils.process_allgather(np.int32([_calls, _agreed])).max(0)
    _calls, _agreed = int(calls), bool(agreed)
    check()
