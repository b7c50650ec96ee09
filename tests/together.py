"""Several processes of one run: where they meet, and waiting for what they do."""

import socket
import time


def address():
    """HOST:PORT on this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return f'localhost:{free.getsockname()[1]}'


def wait_until(running, ready, patience_s):
    """Returns when `ready()` of processes that run; fails where one ends or it takes too long."""
    began = time.monotonic()
    while not ready():
        assert all(process.poll() is None for process in running), 'the run ended too early'
        assert time.monotonic() - began < patience_s
        time.sleep(0.02)
