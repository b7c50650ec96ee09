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


def read(job, context):
    """Names of the files of a job of pictures, or of a DICOM series; it hangs or dies over some."""
    del context
    paths = job.work if job.kind == 'pictures' else [header.path for header in job.work.files]
    for path in paths:
        if path.name.startswith('hang'):
            time.sleep(600)
        if path.name.startswith('die'):
            os._exit(1)
        yield path.name


def kill(job, context):
    del job, context
    os._exit(1)
