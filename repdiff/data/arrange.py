"""Which records of prepared data sets a run uses as which split: folds, shares, pre-training.

An arrangement lists places in data sets on disk; nothing is prepared or stored anew. Patients are
drawn by the order in which the data set holds them, not by their hidden names, which another
machine's salt makes others: every machine gets the same folds.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from repdiff.data import records, splits
from repdiff.data.arranged import Arranged, Place
from repdiff.data.slices import SPLITS
from repdiff.errors import UserError

KEYS = ('pretrain_on', 'keep')  # of config.data: what is made of a data set once it is prepared


@dataclass(frozen=True)
class Arrangement:
    """What to make of a data set's splits.

    Attributes:
      folds: 0 keeps the data set's own splits; else patients are dealt into so many folds.
      fold: which of them is the test split.
      fold_splits: the splits whose patients are dealt out.
      fractions: split -> share, relative to the others', of the patients that the fold leaves.
      pretrain_on: own splits whose images are pre-trained on, and names of other sources.
      keep: split -> share of its patients that is used.
      seed: of the draws.
    """

    folds: int
    fold: int
    fold_splits: tuple[str, ...]
    fractions: Mapping[str, float]
    pretrain_on: tuple[str, ...]
    keep: Mapping[str, float]
    seed: int

    def __post_init__(self):
        if self.folds == 1 or self.folds < 0:
            raise UserError(f'config.eval.folds is {self.folds}; choose 0 for the data set\'s own '
                            'splits, or at least 2.')
        if self.folds and not 0 <= self.fold < self.folds:
            raise UserError(f'config.eval.fold is {self.fold}; of {self.folds} folds, choose 0 to '
                            f'{self.folds - 1}, or -1 for all of them in turn.')
        dealt = set(self.fold_splits)
        if not {*splits.LABELLED} <= dealt <= {*SPLITS}:
            raise UserError(f'config.eval.fold_splits is {self.fold_splits}; it holds train, valid '
                            'and test, and pretrain where its patients are labelled, too.')
        if not self.pretrain_on or {'valid', 'test'} & {*self.pretrain_on}:
            raise UserError(f'config.data.pretrain_on is {self.pretrain_on}; name pretrain, train '
                            "or other sources: what is chosen or tested on must be unseen.")
        for split, share in self.keep.items():
            if not 0 < share <= 1:
                raise UserError(f'config.data.keep.{split} is {share}; choose a share of the '
                                'patients above 0 and up to 1.')

    @property
    def others(self) -> tuple[str, ...]:
        """The other sources that are pre-trained on."""
        return tuple(name for name in self.pretrain_on if name not in SPLITS)

    @property
    def changes_nothing(self) -> bool:
        """Whether the data set's own splits stand as they are."""
        whole = all(share == 1 for share in self.keep.values())
        return whole and not self.folds and self.pretrain_on == ('pretrain',)


def arrange(own: records.Dataset, others: Sequence[records.Dataset],
            wanted: Arrangement) -> records.Dataset | Arranged:
    """The data set `own` as `wanted` arranges it; `others` are the sources of its `others`.

    Raises: UserError where there is nothing to pre-train on (which the front end needs even where no
    row does), a class has too few patients for the folds, a split lacks a class, other images have
    another size, or a patient or an image to be tested is in another source, too.
    """
    if wanted.changes_nothing and 'pretrain' in own.splits:
        return own
    datasets = [own, *others]
    known = _Known(datasets)
    places = {name: [(0, name, i) for i in range(len(own.split(name)))] for name in own.splits}
    if wanted.folds:
        places = _folded(places, known, wanted)
    pretrain = [place for name in wanted.pretrain_on if name in SPLITS
                for place in places.get(name, [])]
    for number, (name, other) in enumerate(zip(wanted.others, others, strict=True), 1):
        _check_alike(own, name, other)
        pretrain += [(number, 'pretrain', i) for i in range(len(other.split('pretrain')))]
    if not pretrain:
        raise UserError(
            f'config.data.pretrain_on is {wanted.pretrain_on}, of which there are no images; '
            'pre-train on the training images without their labels, --config.data.pretrain_on='
            """"('train',)", or give the pretrain split images.""")
    places['pretrain'] = pretrain
    for name, share in wanted.keep.items():
        places[name] = _kept(places[name], known, share, name, wanted.seed)
    _check(places, known, own.info['classes'], bool(others))
    made = {name: places[name] for name in SPLITS if name in places}
    facts = [asdict(wanted), [dataset.info['fingerprint'] for dataset in datasets]]
    info = own.info | {
        'splits': {name: _count(chosen, known, own.info) for name, chosen in made.items()},
        'fingerprint': hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        'arrangement': _words(wanted),
    }
    return Arranged(datasets, made, info)


class _Known:
    """Patient, label and stored image of places; labels of other data sets are none of ours."""

    def __init__(self, datasets: Sequence[records.Dataset]):
        self._splits: dict[tuple[int, str], records.Split] = {}
        self._datasets = datasets
        self._facts: dict[Place, tuple[str, int, bytes]] = {}

    def _fact(self, place: Place) -> tuple[str, int, bytes]:
        if place not in self._facts:
            number, split, at = place
            if (number, split) not in self._splits:
                self._splits[number, split] = self._datasets[number].split(split)
            record = self._splits[number, split].stored(at)
            label = int(record['label']) if number == 0 else -1
            content = hashlib.sha256(record['image']).digest()
            self._facts[place] = record['patient'], label, content
        return self._facts[place]

    def patient(self, place: Place) -> str:
        return self._fact(place)[0]

    def label(self, place: Place) -> int:
        return self._fact(place)[1]

    def content(self, place: Place) -> bytes:
        """sha256 of the stored image."""
        return self._fact(place)[2]

    def order(self, places: Sequence[Place], purpose: str, seed: int) -> dict[str, float]:
        """Patient -> place in a hash order that hangs on where the patient is first met alone."""
        first = dict.fromkeys(self.patient(place) for place in places)
        return {patient: splits.draw(f'{purpose} {rank}', seed)
                for rank, patient in enumerate(first)}


def _folded(places: dict[str, list[Place]], known: _Known,
            wanted: Arrangement) -> dict[str, list[Place]]:
    """Splits of one fold: its patients are the test split, the others are dealt to the rest.

    Patients without a label stay in `pretrain`.
    """
    dealt = [place for name in SPLITS if name in wanted.fold_splits
             for place in places.get(name, [])]
    stratum = splits.strata((known.patient(place), known.label(place)) for place in dealt)
    unlabelled = {patient for patient, label in stratum.items() if label < 0}
    stratum = {patient: label for patient, label in stratum.items() if label >= 0}
    order = known.order(dealt, 'fold', wanted.seed)
    fold = deal(stratum, order, wanted.folds)
    left = {patient: label for patient, label in stratum.items() if fold[patient] != wanted.fold}
    shares = {name: wanted.fractions.get(name, 0.0) for name in wanted.fold_splits
              if name != 'test'}
    total = sum(shares.values())
    if not total:
        raise UserError('config.data.fractions leave the patients outside of a fold no split; give '
                        'train and valid a share.')
    where = splits.assign(
        left, {name: share / total for name, share in shares.items()}, order, {})
    where |= dict.fromkeys(unlabelled, 'pretrain')
    result: dict[str, list[Place]] = defaultdict(list, {
        name: chosen for name, chosen in places.items() if name not in wanted.fold_splits})
    for place in dealt:
        result[where.get(known.patient(place), 'test')].append(place)
    return result


def deal(stratum: Mapping[str, int], order: Mapping[str, float], folds: int) -> dict[str, int]:
    """Patient -> fold: each stratum in turn, going on where the last one ended.

    So a stratum's share of a fold is even to one patient, and so are the folds themselves. Raises
    UserError where a stratum has fewer patients than there are folds.
    """
    members: dict[int, list[str]] = defaultdict(list)
    for patient in sorted(stratum, key=lambda patient: (order[patient], patient)):
        members[stratum[patient]].append(patient)
    for label, patients in members.items():
        if len(patients) < folds:
            raise UserError(f'config.eval.folds is {folds}, but only {len(patients)} patients are '
                            f'of class {label}; choose fewer folds.')
    dealt = (patient for label in sorted(members) for patient in members[label])
    return {patient: number % folds for number, patient in enumerate(dealt)}


def _kept(places: list[Place], known: _Known, share: float, name: str, seed: int) -> list[Place]:
    """The records of a share of the patients; smaller shares are parts of larger ones.

    In `train` a share of each stratum, rounded up, so that no class is lost; what is pre-trained on
    is drawn without a look at labels.
    """
    if share == 1:
        return places
    labelled = name != 'pretrain'
    stratum = splits.strata(
        (known.patient(place), known.label(place) if labelled else -1) for place in places)
    order, members = known.order(places, f'keep {name}', seed), defaultdict(list)
    for patient in sorted(stratum, key=order.__getitem__):
        members[stratum[patient]].append(patient)
    chosen = {patient for group in members.values()
              for patient in group[:math.ceil(share * len(group))]}
    return [place for place in places if known.patient(place) in chosen]


def _check_alike(own: records.Dataset, name: str, other: records.Dataset) -> None:
    for key in ('image_size', 'channels'):
        if own.info[key] != other.info[key]:
            raise UserError(f'config.data.pretrain_on: the images of {name!r} have {key} '
                            f'{other.info[key]}, those of the run {own.info[key]}; prepare both '
                            'alike.')
    if 'pretrain' not in other.splits:
        raise UserError(f'config.data.pretrain_on: {name!r} has no pretrain split; give it a '
                        'fraction there.')


def _check(places: Mapping[str, list[Place]], known: _Known, classes: Sequence[str],
           others: bool) -> None:
    """Every labelled split has every class; what is chosen or tested on is nowhere else."""
    splits.check_classes(((known.label(place), name) for name in splits.LABELLED
                          for place in places.get(name, [])), classes)
    unseen = [place for name in ('valid', 'test') for place in places[name]]
    patients = {known.patient(place) for place in unseen}
    images = {known.content(place) for place in unseen} if others else set()
    for name in ('pretrain', 'train'):
        for place in places[name]:
            if known.patient(place) in patients or images and known.content(place) in images:
                raise UserError(f'a patient or an image of {name} is in valid or test, too; '
                                'take it out of the other source.')


def _count(places: Sequence[Place], known: _Known, info: Mapping[str, Any]) -> dict[str, Any]:
    """A split's counts, as in `prepare.json`; images of another source have no class."""
    labels = [label for label in map(known.label, places) if label >= 0]
    per_class = np.bincount(labels, minlength=len(info['classes'])).tolist()
    return {'images': len(places), 'patients': len({known.patient(place) for place in places}),
            'positives': sum(per_class[1:]), 'per_class': per_class}


def _words(wanted: Arrangement) -> list[str]:
    """Sentences for the report."""
    said = []
    if wanted.folds:
        said.append(f'Fold {wanted.fold + 1} of {wanted.folds}, dealt by patient within classes; no '
                    "image of the fold's patients is trained on, with or without its label.")
    if wanted.pretrain_on != ('pretrain',):
        said.append(f'Pre-trained on {" + ".join(wanted.pretrain_on)}, labels unused.')
    said += [f'Of the patients of {name}, {share:.3g} are used.'
             for name, share in wanted.keep.items() if share < 1]
    return said

