"""Evidence maps and counterfactuals of a trained row: of any images, and for the run's report."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from repdiff import cluster, finished, interrupt
from repdiff.data import pipeline, records
from repdiff.eval import localise
from repdiff.eval.answers import Answers
from repdiff.files import read_json, write_json, write_npz
from repdiff.finished import FinishedRow
from repdiff.latents.frontend import to_uint8
from repdiff.objectives.denoise import latent
from repdiff.progress import Progress
from repdiff.sharding import host_rows, to_devices, to_hosts
from repdiff.zeroshot import evidence
from repdiff.zeroshot.counterfactual import make_counterfactuals

_AT_ONCE = 4  # images a device maps at once; their draws by pixel are in memory
_NOISE = 4  # noise draws that a counterfactual is the mean of
_EACH = 2  # slices shown of each outcome
# Words of an outcome -> (class or None for any, whether rightly called).
_OUTCOMES = {
    'true positive': (1, True), 'false negative': (1, False),
    'false positive': (0, False), 'true negative': (0, True),
}
_OUTCOMES_OF_MORE = {'right': (None, True), 'wrong': (None, False)}


class Explainer:
    """Maps and counterfactuals of records (dicts with image (H, W, C) uint8 and id str).

    Both are functions of the image and its id alone, and use the rule's weights over t. A rule that
    does not weigh squared errors is explained by the squared errors all the same.
    """

    def __init__(self, row: FinishedRow):
        self._row, config, rule = row, row.config, row.decision.rule
        each = max(2, -(-config.evidence.draws // rule.t.size))  # draws of a step
        self._t, self._weights = np.tile(rule.t, each), np.tile(rule.weights / each, each)
        denoise, schedule = row.objective.denoise, row.objective.schedule
        front = row.setting.frontend
        chunk = max(1, config.classify.passes // (2 * _AT_ONCE * row.setting.mesh.size))
        mapper = evidence.make_mapper(denoise, schedule, self._t, chunk, front.pixel_energy)
        rebuild = make_counterfactuals(denoise, schedule, config.evidence.t, _NOISE)
        self._frozen, labels = {'frontend': front}, jnp.arange(len(row.setting.classes))
        encode = jax.jit(latent)

        def differences(batch):
            key = row.setting.purpose('evidence')
            z0 = encode(self._frozen, batch)
            return mapper(row.params, batch['pair'], z0, batch['id'], key)

        @jax.jit
        def shown(frozen, z0):
            decoded = frozen['frontend'].decode(z0.reshape(-1, *z0.shape[2:]))
            return to_uint8(decoded).reshape(*z0.shape[:2], *decoded.shape[1:])

        def rebuilt(batch):
            key, z0 = row.setting.purpose('counterfactual'), encode(self._frozen, batch)
            return shown(self._frozen, rebuild(row.params, labels, z0, batch['id'], key))

        self._differences, self._rebuilt = differences, rebuilt

    def maps(self, found: Sequence[dict], pairs: np.ndarray, what: str = '') -> list:
        """The evidence for class a against class b of each record's pair (a, b), (B, 2) int."""
        settings, progress = self._row.config.evidence, None
        if what:
            progress = Progress(len(found), what, 'images')
        made = []
        for part in self._map(self._differences, found, pairs):
            for each in part:
                made.append(evidence.weigh(
                    each, self._t, self._weights, settings.level, settings.flips, settings.smooth,
                    seed=[self._row.config.seed, *pipeline.id_words(found[len(made)]['id'])],
                ))
            if progress:
                progress.update(len(part))
        return made

    def counterfactuals(self, found: Sequence[dict]) -> np.ndarray:
        """Each record's slice re-denoised under every label: (B, K, H, W, C) uint8."""
        pairs = np.zeros((len(found), 2), np.int32)
        return np.concatenate(list(self._map(self._rebuilt, found, pairs)))

    def _map(self, function, found, pairs):
        """function(batch) over records, a few at once, without the padding."""
        mesh = self._row.setting.mesh
        size = _AT_ONCE * mesh.size
        for start in range(0, len(found), size):
            interrupt.check()
            chosen = np.minimum(np.arange(start, start + size), len(found) - 1)
            mine = chosen[host_rows(mesh, size)]
            host = {
                'image': np.stack([found[i]['image'] for i in mine]),
                'id': np.stack([pipeline.id_words(found[i]['id']) for i in mine]),
                'pair': np.asarray(pairs, np.int32)[mine],
            }
            yield to_hosts(function(to_devices(host, mesh)))[: len(found) - start]


def exhibit(workdir: Path, answers: Answers, dataset: records.Dataset, mesh: Mesh) -> dict:
    """Explains a row's answers: a few slices for the report, and maps measured on the true masks.

    Writes report/evidence.npz, then scores/ROW.evidence.json, whose presence says that all is done.
    Returns what that holds, results.json's "evidence": the row, its settings, and, where the data
    set has masks, `localise.summarise` over test slices with a lesion.
    """
    done = workdir / 'scores' / f'{answers.name}.evidence.json'
    if cluster.of_first(np.int32(done.exists())):
        return read_json(done, 'remove it and run again: it is measured anew')
    row = finished.load(workdir, answers.name, mesh)
    explainer, split = Explainer(row), dataset.split('test')
    chosen, outcomes = _chosen(answers)
    found = [split[i] for i in chosen]
    pairs = _pairs(answers, chosen)
    maps = explainer.maps(found, pairs)
    arrays = dict(
        images=np.stack([record['image'][..., 0] for record in found]),
        outcomes=np.array(outcomes), pairs=pairs,
        means=np.stack([each.mean for each in maps]),
        errors=np.stack([each.error for each in maps]),
        shown=np.stack([each.shown for each in maps]),
        masks=np.stack([np.zeros(record['image'].shape[:2], bool) if record['mask'] is None
                        else record['mask'] > 0 for record in found]),
        counterfactuals=explainer.counterfactuals(found)[..., 0],
        step=np.array(row.config.evidence.t),
    )
    settings = row.config.evidence
    facts = {'row': row.name, 'level': settings.level, 'draws': settings.draws}
    if dataset.info['masks']:
        facts |= _measured(explainer, answers, split, row)
    if cluster.is_first():
        write_npz(workdir / 'report' / 'evidence.npz', **arrays)
        write_json(done, facts)
    return facts


def _chosen(answers: Answers) -> tuple[list[int], list[str]]:
    """Indices of up to _EACH slices of every outcome, evenly spaced, and the outcomes' words."""
    right, indices, outcomes = answers.predictions == answers.labels, [], []
    kinds = _OUTCOMES if answers.scores.ndim == 1 else _OUTCOMES_OF_MORE
    for words, (label, hit) in kinds.items():
        members = np.flatnonzero((right == hit) & ((answers.labels == label) | (label is None)))
        for place in np.linspace(0, members.size - 1, min(_EACH, members.size)):
            indices.append(int(members[round(place)]))
            outcomes.append(words)
    return indices, outcomes


def pair_of(probabilities: Sequence[float]) -> tuple[int, int]:
    """The classes compared: of two 1 against 0, of more the most probable against the next."""
    if len(probabilities) == 2:
        return 1, 0
    first, second = np.argsort(-np.asarray(probabilities), kind='stable')[:2]
    return int(first), int(second)


def _pairs(answers: Answers, chosen: Sequence[int]) -> np.ndarray:
    """`pair_of` for some answers, (B, 2)."""
    scores = answers.scores if answers.scores.ndim == 2 else np.zeros((len(answers.ids), 2))
    return np.array([pair_of(scores[i]) for i in chosen])


def _measured(explainer: Explainer, answers: Answers, split, row: FinishedRow) -> dict:
    """How well the maps of slices with a lesion find it, beside random and brightness."""
    settings = row.config.evidence
    lesions = [i for i in np.flatnonzero(answers.labels > 0) if split[i]['mask'].any()]
    places = np.linspace(0, len(lesions) - 1, min(settings.images, len(lesions)))
    chosen = [int(lesions[round(place)]) for place in places]
    found = [split[i] for i in chosen]
    maps = explainer.maps(found, _pairs(answers, chosen), f'{row.name}.evidence')
    scored = [
        localise.one(
            each.mean, each.shown & (each.mean > 0), record['image'].max(-1), record['mask'] > 0,
            settings.smooth,
        ) for each, record in zip(maps, found, strict=True)
    ]
    return {
        'images': len(chosen),
        'images_with_evidence': sum(bool(e.shown.any()) for e in maps),
        'localisation': localise.summarise(
            scored, answers.patients[chosen], resamples=row.config.eval.bootstrap,
            seed=row.config.seed,
        ),
    }
