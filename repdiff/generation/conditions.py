"""What images are generated under: nothing, a label, r of images, between two, r of a density."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repdiff import phases
from repdiff.data import pipeline, records
from repdiff.errors import UserError
from repdiff.generation import brought, density
from repdiff.generation.trained import Conditioned, Trained

STEPS_BETWEEN = 8  # images from one r to the other, both ends included
GRAMMAR = {
    'none': 'no condition: the unconditional model, or r dropped',
    'label': 'labels as frequent as in training; label:CLASS for one class',
    'images': 'r of the validation images; images:SPLIT for those of another split',
    'files': 'r of your own files or folders, files:PATH,PATH; prepared as the run\'s own images',
    'between': 'r between two validation images, between:ID,ID for two of your choice',
    'density': 'r drawn from a density fitted on the r of the pre-training images',
}


@dataclass(frozen=True)
class Condition:
    """`kind` is a key of GRAMMAR; `of` what follows its colon, or ''.

    As text it has no paths, whose names may be a person's.
    """

    kind: str
    of: str = ''

    def __str__(self) -> str:
        return f'{self.kind}:{self.of}' if self.of and self.kind != 'files' else self.kind


@dataclass(frozen=True)
class Given:
    """A condition made ready.

    denoise: builds the denoiser. values: image numbers (B,) -> its conditions (B, ...), or None.
    sources: image numbers -> the uint8 images that gave their r, or None where none did. noise:
    image numbers -> the numbers that their noise depends on. about: what to write down of it.
    """

    denoise: Conditioned
    values: Callable[[np.ndarray], np.ndarray | None]
    sources: Callable[[np.ndarray], np.ndarray] | None
    noise: Callable[[np.ndarray], np.ndarray]
    about: dict


def parse(text: str) -> Condition:
    """'label:hematoma' -> Condition. Raises UserError on what is none."""
    kind, _, of = text.partition(':')
    if kind not in GRAMMAR or (of and kind in ('none', 'density')):
        raise UserError(f'--condition {text!r} is none of {", ".join(GRAMMAR)}; label:CLASS, '
                        'images:SPLIT, files:PATH,PATH and between:ID,ID are, too.')
    if kind == 'files' and not of:
        raise UserError('--condition files: name files or folders, files:PATH or files:PATH,PATH.')
    return Condition(kind, of)


def row_for(condition: Condition, recipes: dict) -> str:
    """The row that generates under the condition, where the user names none: the first that can.

    An unconditional row goes before one with r dropped; a density needs one vector r an image.
    """
    def pretrained(row):
        return recipes[row].pretrain.steps > 0

    fitting = {
        'none': [row for row in recipes if pretrained(row)
                 and recipes[row].pretrain.condition == 'none'] + [
                     row for row in recipes if pretrained(row)
                     and recipes[row].representation.drop_rate > 0],
        'label': [row for row in recipes if recipes[row].tune.steps],
    }
    with_r = [row for row in recipes if pretrained(row)
              and recipes[row].pretrain.condition == 'representation']
    fitting['density'] = [row for row in with_r if recipes[row].representation.kind != 'tokens']
    found = fitting.get(condition.kind, with_r)
    if not found:
        raise UserError(f'--condition {condition}: no row of this run can generate under it.')
    return found[0]


def prepare(
    condition: Condition, model: Trained, setting: phases.Setting, dataset: records.Dataset,
    *, scale: float, seed: int, reference: str, out: Path,
) -> Given:
    """The condition on a row.

    reference: the split that samples are measured against. out: the directory of samples, which
    the salt of hidden names must not lie in. Raises UserError where the row cannot have the
    condition, where guidance lacks its unconditional half, where a given file is none that can be
    read, or where r would come from the reference.
    """
    check(condition, model, scale)
    if condition.kind == 'none':
        return Given(model.free, lambda numbers: None, None, lambda numbers: numbers, {})
    if condition.kind == 'label':
        return _labels(condition, model, setting, scale)
    if condition.kind == 'files':
        return _files(condition, model, setting, dataset, scale, reference, out)
    given = {'images': _images, 'between': _between, 'density': _density}[condition.kind]
    return given(condition, model, setting, dataset, scale, seed, reference)


def check(condition: Condition, model: Trained, scale: float) -> None:
    """Raises UserError where the row cannot have the condition, or be guided by `scale`."""
    if condition.kind == 'none' and not model.learned_nothing_given:
        raise _cannot(condition, model, 'its denoiser never worked without r')
    if condition.kind != 'none' and scale != 1 and not model.learned_nothing_given:
        raise UserError(f'--guidance: {model.row} never learned to denoise without a condition; '
                        'use --guidance=1 or a row whose representation.drop_rate is above 0.')
    if condition.kind == 'label' and model.params['tune'] is None:
        raise _cannot(condition, model, 'it was not tuned on labels')
    if condition.kind not in ('none', 'label') and not model.learned_r:
        raise _cannot(condition, model, 'it was pre-trained without r')
    if condition.kind == 'density' and model.config.representation.kind == 'tokens':
        raise _cannot(condition, model, 'it does not have one vector r an image')


def representations(
    model: Trained, setting: phases.Setting, examples: pipeline.Examples, what: str
) -> np.ndarray:
    """r of every image, in order; `what` the images are, for the progress line."""
    import jax  # the device part of this room is small: one jitted map
    represent = jax.jit(model.represent)
    return phases.map_split(
        lambda batch: represent(model.params, model.frozen, batch), examples,
        model.config.classify.batch, setting.mesh, f'r of {what}',
    )


def _labels(condition: Condition, model: Trained, setting: phases.Setting, scale: float) -> Given:
    if not condition.of:
        frequent = setting.splits['train'].labels()
        return Given(
            model.given_label(scale), lambda numbers: frequent[numbers % len(frequent)], None,
            lambda numbers: numbers, {'labels': 'as frequent as in training'})
    names = [str(name) for name in setting.classes]
    if condition.of not in names and condition.of not in map(str, range(len(names))):
        raise UserError(f'--condition {condition}: the classes are {", ".join(names)}.')
    label = names.index(condition.of) if condition.of in names else int(condition.of)
    return Given(
        model.given_label(scale), lambda numbers: np.full(len(numbers), label, np.int32), None,
        lambda numbers: numbers, {'labels': names[label]})


def _images(condition, model, setting, dataset, scale, seed, reference) -> Given:
    split = condition.of or 'valid'
    if split not in dataset.splits:
        raise UserError(f'--condition {condition}: the splits are {", ".join(dataset.splits)}.')
    _refuse_reference(condition, split, reference, dataset)
    images = dataset.split(split)
    r = representations(model, setting, setting.splits[split], split)
    order = np.random.default_rng(seed).permutation(len(r))  # neighbouring slices look alike

    def chosen(numbers):
        return order[numbers % len(r)]

    return Given(
        model.given_r(scale), lambda numbers: r[chosen(numbers)],
        lambda numbers: np.stack([images[int(i)]['image'] for i in chosen(numbers)]),
        lambda numbers: numbers, {'r': f'of {len(r)} {split} images'})


def _files(condition, model, setting, dataset, scale, reference, out) -> Given:
    found = brought.read(condition.of.split(','), dataset, model.config, out)
    brought.refuse_of_split(found, dataset.split(reference), reference)
    r = representations(model, setting, pipeline.examples(found), 'files')
    return Given(
        model.given_r(scale), lambda numbers: r[numbers % len(r)],
        lambda numbers: np.stack([found[i % len(r)]['image'] for i in numbers]),
        lambda numbers: numbers,
        {'r': f'of {len(r)} slices of given files ({brought.digest(found)})',
         'slices': [record['id'] for record in found]})


def _between(condition, model, setting, dataset, scale, seed, reference) -> Given:
    _refuse_reference(condition, 'valid', reference, dataset)
    split = dataset.split('valid')
    ends = _pair(condition, split)
    r = representations(model, setting, setting.splits['valid'], 'valid')[ends]
    share = np.linspace(0, 1, STEPS_BETWEEN, dtype=np.float32)

    def values(numbers):
        at = share[numbers % STEPS_BETWEEN].reshape(-1, *[1] * (r.ndim - 1))
        return (1 - at) * r[0] + at * r[1]

    def sources(numbers):
        closer = (share[numbers % STEPS_BETWEEN] > 0.5).astype(int)
        return np.stack([split[ends[end]]['image'] for end in closer])

    # A line of images from end to end has one noise, so that only r changes along it.
    return Given(model.given_r(scale), values, sources, lambda numbers: numbers // STEPS_BETWEEN,
                 {'r': 'between the validation images '
                       + ' and '.join(split.stored(i)['id'] for i in ends)})


def _pair(condition: Condition, split: records.Split) -> list[int]:
    """The rows of the two images: those named, or the first of class 0 and of class 1."""
    if not condition.of:
        labels = split.column('label').tolist()
        return [labels.index(0), labels.index(1) if 1 in labels else len(labels) - 1]
    ids, wanted = split.column('id').tolist(), condition.of.split(',')
    if len(wanted) != 2 or not set(wanted) <= set(ids):
        raise UserError(f'--condition {condition}: name two ids of validation images, such as '
                        f'between:{ids[0]},{ids[-1]}.')
    return [ids.index(name) for name in wanted]


def _density(condition, model, setting, dataset, scale, seed, reference) -> Given:
    name = 'train' if reference == 'pretrain' else 'pretrain'
    _refuse_reference(condition, name, reference, dataset)
    groups = dataset.split(name).column('patient')
    r = representations(model, setting, setting.splits[name], name)
    found = density.fit(r, groups, seed)
    return Given(
        model.given_r(scale), lambda numbers: found.draw(seed, numbers), None,
        lambda numbers: numbers,
        {'r': f'drawn from a Gaussian mixture ({found.name}) of r of {len(groups)} {name} images',
         'held_out_log_likelihood': found.held_out})


def _refuse_reference(
    condition: Condition, split: str, reference: str, dataset: records.Dataset
) -> None:
    """Refuses r of images of the reference, which data.pretrain_on may put into two splits."""
    ids = (dataset.split(name).column('id') for name in (split, reference))
    if split == reference or np.intersect1d(*ids).size:
        raise UserError(
            f'--condition {condition}: r of {split} images, where samples are measured against '
            f'{reference} images, would make the measures copies; choose another split, or another '
            '--reference.')


def _cannot(condition: Condition, model: Trained, why: str) -> UserError:
    return UserError(f'--condition {condition}: {model.row} cannot generate so, for {why}; choose '
                     'another --row.')
