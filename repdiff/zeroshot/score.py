"""The zero-shot evaluator's one measurement: how badly a class condition denoises an image.

arXiv 2505.06890, phase 3; Diffusion Classifier (Li et al. 2023, arXiv 2303.16203). Everything that
scores asks for errors of *triples* (image, class, draw). They are independent of each other, so a
call takes any of them, and a full batch of one compiled shape keeps the devices busy however few
images are still open.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from repdiff.diffusion.loss import denoising_losses
from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.schedule import Schedule
from repdiff.sharding import host_rows, on_mesh, replicated, to_all, to_devices

# (params, z_t (B, H, W, C), t (B,), condition (B, ...)) -> predicted noise
ConditionalDenoiseFn = Callable[..., jax.Array]
# (image, klass, draw, t), each (M,) int -> errors (M, kinds) float32
ErrorsFn = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Scorer:
    """Errors of (image, class, draw) triples, `passes` of them a call, split over the mesh.

    An error is a function of parameters, condition, image, its id and the draw's number alone: not
    of the number of passes or devices, or of what else is in the batch (up to rounding). All
    classes of a draw see the same (t, ε), which removes most of the noise from their difference
    (Clark and Jaini 2023, arXiv 2303.15233). `program` is the jitted call: (params, conditions, key,
    z0, rows) -> errors (passes, kinds), rows having id, class, draw and t.
    """

    def __init__(
        self, denoise: ConditionalDenoiseFn, schedule: Schedule, *, kinds: Sequence[str],
        passes: int, mesh: Mesh, antithetic: bool = False,
    ):
        self.kinds, self._mesh = tuple(kinds), mesh
        self._passes = -(-passes // mesh.size) * mesh.size  # every device gets equally many

        def errors(params, conditions, key, z0, rows):
            eps = draw_noise(image_keys(key, rows['id']), rows['draw'], z0.shape[1:], antithetic)
            condition = conditions[rows['class']]

            def denoise_fn(z_t, t):
                return denoise(params, z_t, t, condition)

            return denoising_losses(denoise_fn, schedule, z0, rows['t'], eps, self.kinds)

        self.program = jax.jit(on_mesh(errors, mesh), out_shardings=replicated(mesh))

    def on(
        self, params: Any, conditions: jax.Array, key: jax.Array, z0: np.ndarray, ids: np.ndarray,
    ) -> ErrorsFn:
        """The errors of images z0 (N, H, W, C), ids (N, 2) uint32, under conditions (K, ...)."""
        conditions, key = to_all((jnp.asarray(conditions), key), self._mesh)
        mine = host_rows(self._mesh, self._passes)

        def errors(image, klass, draw, t):
            found, waiting = [], []

            def fetch():
                rows, values = waiting.pop(0)
                found.append(np.asarray(values)[:rows])

            for start in range(0, len(image), self._passes):
                part = np.arange(start, start + self._passes)
                rows = int((part < len(image)).sum())
                part = np.minimum(part, len(image) - 1)[mine]  # the last batch is filled up
                of = image[part]
                columns = {'class': klass[part], 'draw': draw[part], 't': t[part]}
                columns = {name: np.asarray(x, np.int32) for name, x in columns.items()}
                given = to_devices((z0[of], columns | {'id': ids[of]}), self._mesh)
                waiting.append((rows, self.program(params, conditions, key, *given)))
                if len(waiting) > 1:  # the host prepares a batch while the devices compute one
                    fetch()
            while waiting:
                fetch()
            return np.concatenate(found) if found else np.zeros((0, len(self.kinds)), np.float32)

        return errors


def all_errors(errors: ErrorsFn, images: int, classes: int, t: np.ndarray) -> np.ndarray:
    """The errors of every image and class at draws of steps t (S,): (B, K, S, kinds) float32."""
    image, klass, draw = (
        axis.ravel() for axis in np.indices((images, classes, t.size), dtype=np.int32)
    )
    return errors(image, klass, draw, t[draw]).reshape(images, classes, t.size, -1)
