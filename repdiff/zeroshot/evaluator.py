"""The evaluator as the other rooms call it: a sweep over t, and decisions with an early stop."""

import copy
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from repdiff import cluster, interrupt
from repdiff.diffusion.schedule import Schedule
from repdiff.errors import UserError
from repdiff.files import read_npz, write_npz
from repdiff.progress import Progress, note
from repdiff.zeroshot import sequential
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.score import ConditionalDenoiseFn, ErrorsFn, Scorer, all_errors

RECORDED = 4096  # passes, about, between two writes of what is known and two words of progress


class Evaluator:
    """Classifies images by the denoiser under each of K conditions.

    Args:
      denoise: (params, z_t, t, condition) -> predicted noise.
      key: of the noise. With the same key, an image of the same id has the same errors in any call.
      kinds: penalties to measure in a sweep (PENALTIES of `diffusion.loss`).
      passes: forward passes a call.
      settings: of the early stop.
    """

    def __init__(
        self, denoise: ConditionalDenoiseFn, schedule: Schedule, *, mesh: Mesh, key: jax.Array,
        kinds: Sequence[str], passes: int, settings: sequential.Settings,
    ):
        self.kinds, self.settings, self._key = tuple(kinds), settings, key
        self._piece = max(1, RECORDED // passes) * passes  # whole calls
        self._make = functools.cache(functools.partial(  # compiled once and kept
            Scorer, denoise, schedule, passes=passes, mesh=mesh
        ))

    def with_settings(self, **changes) -> 'Evaluator':
        """The same evaluator under other settings; what is compiled is shared."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, **changes)
        return other

    def sweep(
        self, params: Any, conditions: jax.Array, z0: np.ndarray, ids: np.ndarray, t: np.ndarray,
        what: str = '', record: Path | None = None,
    ) -> np.ndarray:
        """Errors (B, K, S, kinds) of every image, class and draw of steps t (S,); see `decide`."""
        classes = len(conditions)
        progress = Progress(len(z0) * classes * t.size, what, 'passes') if what else None
        errors = self._make(kinds=self.kinds, antithetic=False).on(
            params, conditions, jax.random.fold_in(self._key, 1), z0, ids
        )
        errors = in_pieces(errors, self._piece, record, progress.update if progress else None)
        return all_errors(errors, len(z0), classes, t)

    def plan(self, decision: Decision) -> sequential.Plan:
        """What `decide` draws for a decision, and when it looks."""
        return sequential.make_plan(decision.rule, self.settings, decision.offsets.size)

    def decide(
        self, params: Any, conditions: jax.Array, z0: np.ndarray, ids: np.ndarray,
        decision: Decision, what: str = '', record: Path | None = None,
    ) -> sequential.Outcome:
        """Draws until each image is decided or has spent its budget.

        Args:
          params: of the denoiser; conditions: (K, ...), one a class; z0: (B, H, W, C) float32;
            ids: (B, 2) uint32 of `pipeline.id_words`.
          what: shown with the progress; '' is silent.
          record: directory that keeps what is computed, so that a stopped evaluation goes on.
        """
        plan = self.plan(decision)
        errors = self._make(kinds=(decision.rule.kind,), antithetic=self.settings.antithetic).on(
            params, conditions, self._key, z0, ids
        )
        budget = plan.t.size
        progress = Progress(len(z0) * len(conditions) * budget, what, 'passes') if what else None

        def after_round(open_pairs: int, draws: int) -> None:
            if progress:  # what need not be drawn any more counts as done
                done = progress.total - open_pairs * (budget - draws)
                progress.update(done - progress.done, draws=draws, undecided=open_pairs)

        errors = in_pieces(errors, self._piece, record, progress.update if progress else None)
        return sequential.evaluate(
            errors, decision.rule, plan, decision.offsets, len(z0), after_round
        )


def in_pieces(
    errors: ErrorsFn, size: int, record: Path | None,
    progress: Callable[[int], Any] | None = None,
) -> ErrorsFn:
    """The same errors, `size` passes at a time; `progress` is called with the passes of each piece.

    Pieces are kept in the directory `record`, where there is one, and what is there already is read
    back, unless it is damaged. A piece is known by its number and a checksum of what was asked, so
    that it is never taken for another's answer. Of several processes the first alone looks there,
    and tells the others.
    """
    number = itertools.count()

    def one(*asked):
        mark = zlib.crc32(np.stack(asked).astype(np.int32).tobytes())
        path = record / f'{next(number):05}-{mark:08x}.npz'
        kept = _kept(path) if cluster.is_first() else None
        kinds = int(cluster.of_first(np.int32(0 if kept is None else kept.shape[1])))
        if kinds:
            shape = (len(asked[0]), kinds)
            return np.asarray(cluster.of_first(np.zeros(shape, np.float32) if kept is None else kept))
        found = errors(*asked)
        if cluster.is_first():
            write_npz(path, errors=found)
        return found

    def answer(*asked):
        parts = []
        for start in range(0, len(asked[0]), size):
            interrupt.check()
            part = [x[start : start + size] for x in asked]
            parts.append(errors(*part) if record is None else one(*part))
            if progress:
                progress(len(part[0]))
        return np.concatenate(parts)

    return answer


def _kept(path: Path) -> np.ndarray | None:
    """The errors of a piece, None where they are to be computed; a damaged one gets a warning."""
    if not path.exists():
        return None
    try:
        return read_npz(path, 'it is computed again')['errors']
    except UserError as damage:
        note(f'warning: {damage}')
        return None
