"""What the workers of test_workers.py do; by itself, for a process that starts imports it."""

import os
import time

from repdiff.errors import UserError


def work(job, context):
    if job == 'die':
        os._exit(1)
    if job == 'hang':
        time.sleep(600)
    if job == 'complain':
        raise UserError('a sentence')
    if job == 'slow':
        for _ in range(4):
            time.sleep(0.8)
            yield job
        return
    yield job * context
