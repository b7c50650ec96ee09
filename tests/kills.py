"""A short training run in processes that are killed with SIGKILL, 20 times, at random moments.

Run as a script with a directory. It imports once and forks, for starting up is most of the cost;
JAX starts in each child. Children take a step for each byte that the parent sends, so that every
kill finds its run unfinished. Prints the number of kills that found their process alive.
"""

import dataclasses
import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from test_train import Batches, phase

from repdiff import sharding
from repdiff.train import train

STEPS, KILLS, STRIDE = 160, 20, 7


class Fed(Batches):
    """Batches, each of which costs one byte from `allowed` and gives one to `done`."""

    def __init__(self, allowed, done):
        super().__init__()
        self.allowed, self.done = allowed, done

    def __next__(self):
        os.read(self.allowed, 1)
        os.write(self.done, b'.')
        return super().__next__()


def evaluate(params):
    scale = np.asarray(params['scale'])
    return float(np.sin(1e3 * scale.sum())), {'valid': float(scale.max())}


def run(directory, iterator):
    """Trains to the end and writes the parameters."""
    jax.config.update('jax_compilation_cache_dir', str(directory.parent / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    wanted = dataclasses.replace(phase(STEPS, evaluate, keep=2), iterator=iterator)
    mesh = sharding.make_mesh(-1, 1, 1)
    found = train(wanted, workdir=directory, mesh=mesh, key=jax.random.key(0))
    np.savez(directory / 'final.npz', step=found.step, **found.params)


def child(directory, iterator):
    """The number of a forked process that runs."""
    number = os.fork()
    if number:
        return number
    try:
        os.dup2(os.open(directory / 'stderr', os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        run(directory, iterator)
    finally:
        os._exit(0 if (directory / 'final.npz').exists() else 1)


def killed(directory, rng):
    """Starts the run and kills it after a few steps; whether it was alive until then."""
    (allowed, allow), (done, tell) = os.pipe(), os.pipe()
    number = child(directory, Fed(allowed, tell))
    steps = rng.randrange(STRIDE)
    os.write(allow, b'.' * steps)
    for _ in range(steps):
        os.read(done, 1)
    time.sleep(rng.random() * (0.05 if steps else 1.0))  # while it writes, or while it starts
    os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    for end in (allowed, allow, done, tell):
        os.close(end)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main(root):
    rng = random.Random(0)
    for name in ('whole', 'killed'):
        (root / name).mkdir()
    kills = sum(killed(root / 'killed', rng) for _ in range(KILLS))
    for name in ('whole', 'killed'):
        _, status = os.waitpid(child(root / name, Batches()), 0)
        assert status == 0, (root / name / 'stderr').read_text()
    print(kills)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
