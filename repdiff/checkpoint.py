"""Checkpoints of a phase: Orbax, state and data iterator together, the latest and the best kept."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies


class Checkpoints:
    """The checkpoints of one phase in `directory`.

    Keeps the `keep` newest, to resume from, and the one with the highest validation score. A
    checkpoint is written under a temporary name and renamed, so a kill leaves whole ones only.
    """

    def __init__(self, directory: Path, keep: int):
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(),
            item_names=('state', 'progress'),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([
                    policies.LatestN(keep),
                    policies.BestN(
                        get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
                    ),
                ]),
                best_fn=_score,
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, step: int, state: Any, progress: dict, score: float | None) -> None:
        """Saves after `step` steps; `progress` is JSON (iterator state, seconds), `score` ranks."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
            ),
            metrics=None if score is None else {'score': score},
        )

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict] | None:
        """(state, progress) of the newest checkpoint (or of `step`), placed as `like`; None if none."""
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore()
            ),
        )
        return restored['state'], restored['progress']

    def restore_ema(self, like: Any) -> Any:
        """The EMA parameters alone of the best checkpoint, placed as `like`; None where there is none.

        The optimizer's state, twice as large, is not read.
        """
        step = self.best_step()
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, {'ema': like})
        restored = self._manager.restore(step, args=ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                item=target, partial_restore=True,
                restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            )
        ))
        return restored['state']['ema']

    def best_step(self) -> int | None:
        """The step with the highest score, or the newest where none was scored."""
        best = self._manager.best_step()
        return self._manager.latest_step() if best is None else best

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _score(metrics: dict) -> float:
    return metrics['score']
