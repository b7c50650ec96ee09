"""What a process asks of its host."""

import ctypes

# glibc's malloc.h: parameters of mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes malloc keep freed memory instead of giving it back; False where there is no glibc.

    XLA's CPU backend frees a step's buffers after each step, and glibc returns them to the kernel:
    16,000 page faults a step of the quick denoiser, a quarter of its time. Call it before JAX
    allocates. The process then never shrinks: for training on a CPU, not for a shared notebook.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(parameter, value) for parameter, value in settings.items())
