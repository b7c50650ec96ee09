"""What named chips can do by their makers' data sheets, and what this CPU does when it is asked."""

import time
from dataclasses import dataclass

import numpy as np

GB = 10**9


@dataclass(frozen=True)
class Chip:
    """Dense matrix products in TFLOP/s by the dtype computed in, and bytes of memory.

    float32 is what JAX's default precision gives: one pass in bfloat16 on a TPU, TF32 on a GPU.
    """

    name: str
    bfloat16: float
    float32: float
    memory: int

    def peak(self, dtype: str) -> float:
        """FLOP/s in a compute dtype of the config; float16 as bfloat16."""
        return 1e12 * (self.float32 if dtype == 'float32' else self.bfloat16)


# docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; NVIDIA's data sheets of the SXM versions, without
# sparsity. A TPU v4 or v5p chip has two cores, which JAX shows as one device.
CHIPS = (
    Chip('TPU v4', 275, 275, 32 * GB),
    Chip('TPU v5e', 197, 197, 16 * GB),
    Chip('TPU v5p', 459, 459, 95 * GB),
    Chip('TPU v6e', 918, 918, 32 * GB),
    Chip('A100', 312, 156, 80 * GB),
    Chip('H100', 989, 494, 80 * GB),
    Chip('H200', 989, 494, 141 * GB),
)


def this_cpu(size: int = 1024, repeats: int = 5) -> float:
    """FLOP/s of NumPy's float32 matrix product on all cores of this machine, the best of a few."""
    left = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
