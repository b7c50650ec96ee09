"""What a room makes of a row: trained, then with everything chosen on validation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.card import Card
from repdiff.phases import Setting
from repdiff.train import Phase, Trained, train
from repdiff.zeroshot.decision import Decision


@dataclass(frozen=True)
class Bench:
    """Where a run's phases are worked off; `shown` is the uint8 image (H, W, C) of its figures."""

    workdir: Path
    card: Card
    shown: np.ndarray

    def run(self, phase: Phase, setting: Setting) -> Trained:
        """The phase, run to its end or read back."""
        trained = train(
            phase, workdir=self.workdir, mesh=setting.mesh, key=setting.purpose(phase.name)
        )
        self.card.phase(phase.name, trained.seconds, setting.mesh.size)
        return trained


@dataclass(frozen=True)
class TrainedRow:
    """A row after its phases.

    objective, params: what answers. phases: 'pretrain', where there was one, and 'tune'.
    parameters: how many the answering network has. pretrained: whether it began with anything but
    random weights. figures: arrays of the z0' figure by name.
    """

    objective: Any
    params: Any
    phases: dict[str, Trained]
    parameters: int
    pretrained: bool
    figures: dict[str, np.ndarray] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What results.json says of the row's budget, another row's pre-training included."""
        spent = self.phases.items()
        return {
            'pretrained': self.pretrained,
            'parameters': self.parameters,
            'tune_step': self.phases['tune'].step if 'tune' in self.phases else None,
            'train_seconds': sum(phase.seconds for phase in self.phases.values()),
            'images_seen': {name: phase.images for name, phase in spent},
            'train_flops': {name: phase.flops for name, phase in spent},
        }


@dataclass(frozen=True)
class Chosen:
    """A trained row with everything chosen on validation.

    decision: what turns scores into answers. arrays: what is kept of validation, `valid_scores`
    (B, K) among it. facts: further facts of the row. answer: setting with the test split -> (arrays
    of it, `test_scores` (B, K) among them, and facts).
    """

    decision: Decision
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    answer: Callable[[Setting], tuple[dict[str, np.ndarray], dict[str, Any]]]
