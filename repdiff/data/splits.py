"""Splits by patient: in a stable hash order, stratified by label, checked for leaks.

No rule can be a pure function of the patient, so that added data move nobody, and also fill small
strata evenly: independent draws put 27 positive patients anywhere between 1 and 8 into a split that
should have 4. Here patients are dealt out in the order of a hash, always to the split that lacks
most, which is even; and patients of an earlier data set keep their split (`kept`), so adding data
never moves anybody. Memory, not luck, makes it stable.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from repdiff.data.slices import SPLITS
from repdiff.errors import UserError

LABELLED = ('train', 'valid', 'test')


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises UserError unless `fractions` are of known splits, positive, and sum to one."""
    unknown = set(fractions) - set(SPLITS)
    if unknown:
        raise UserError(f'fractions name the split {min(unknown)!r}; the splits are '
                        f'{", ".join(SPLITS)}.')
    if not fractions or min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        shown = ', '.join(f'{name} {value:g}' for name, value in fractions.items())
        raise UserError(f'fractions {shown or "are missing"} must be at least 0 and sum to 1.')


def draw(patient: str, seed: int) -> float:
    """A number in [0, 1) from sha256 of (seed, patient): the patient's place in the hash order."""
    digest = hashlib.sha256(f'{seed}\0{patient}'.encode()).digest()
    return int.from_bytes(digest[:8], 'big') / 2 ** 64


def strata(labels: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Patient -> the rarest class among their images, of equals the higher; -1 is no label at all.

    Args:
      labels: (patient, label) of each image; label -1 is unlabelled.
    """
    classes: dict[str, set[int]] = defaultdict(set)
    images: Counter[int] = Counter()
    for patient, label in labels:
        images[label] += 1
        classes[patient].add(label)
    return {patient: min(found - {-1}, key=lambda label: (images[label], -label), default=-1)
            for patient, found in classes.items()}


def assign(stratum: Mapping[str, Hashable], fractions: Mapping[str, float],
           order: Mapping[str, float], kept: Mapping[str, str]) -> dict[str, str]:
    """Deals patients out to splits, each stratum by itself.

    A stratum with at least as many patients as there are splits reaches every split, and ends
    within one patient of its share, unless `kept` says otherwise.

    Args:
      stratum: patient -> what to stratify by.
      fractions: split -> share of the patients; they sum to one.
      order: patient -> `draw` of the patient; the hash order.
      kept: patient -> split of an earlier data set, which the patient keeps.

    Returns: patient -> split.
    """
    check_fractions(fractions)
    names = [name for name in SPLITS if fractions.get(name)]
    members: dict[Hashable, list[str]] = defaultdict(list)
    for patient in sorted(stratum, key=lambda patient: (order[patient], patient)):
        members[stratum[patient]].append(patient)
    assigned = {}
    for group in members.values():
        counts = Counter(kept[patient] for patient in group if patient in kept)
        enough = len(group) >= len(names)
        for patient in group:
            if patient in kept:
                assigned[patient] = kept[patient]
                continue
            # An empty split first, then the one that lacks most; ties go to the earlier split.
            lacks = [fractions[name] * len(group) - counts[name] for name in names]
            reach = [enough and counts[name] == 0 for name in names]
            best = max(range(len(names)), key=lambda i: (reach[i], lacks[i], -i))
            counts[names[best]] += 1
            assigned[patient] = names[best]
    return assigned


def roles(present: Iterable[str], pretrain: Sequence[str],
          downstream: Sequence[str]) -> dict[str, str]:
    """Facility -> 'pretrain' or 'downstream': whom to pre-train on and whom to split (the paper's).

    Args:
      present: the facilities that have images.
      pretrain: facilities for pre-training; empty stands for all that are not downstream.
      downstream: facilities of the labelled splits.

    Raises: UserError on a facility that has no images, or that is in both lists or in neither.
    """
    present = sorted(set(present))
    for name in (*pretrain, *downstream):
        if name not in present:
            raise UserError(f'facility {name!r} has no images; the facilities are '
                            f'{", ".join(map(repr, present))}.')
        if name in pretrain and name in downstream:
            raise UserError(f'facility {name!r} is both for pre-training and downstream; list it '
                            'once.')
    lost = set(present) - {*pretrain, *downstream} if pretrain else set()
    if lost:
        raise UserError(f'facility {min(lost)!r} is neither for pre-training nor downstream; list '
                        'it in one of them.')
    return {name: 'downstream' if name in downstream else 'pretrain' for name in present}


def check_patients(images: Iterable[tuple[str, str, str]]) -> None:
    """Raises UserError where (patient, split, file) triples put one patient into two splits."""
    first: dict[str, tuple[str, str]] = {}
    for patient, split, name in images:
        place, other = first.setdefault(patient, (split, name))
        if place != split:
            raise UserError(f'patient {patient!r} is in two splits, {place} ({other!r}) and '
                            f'{split} ({name!r}); keep all images of a patient in one.')


def check_pixels(images: Iterable[tuple[str, str | None, str]]) -> None:
    """Raises UserError where (file, pixel hash, split) triples show one content in two splits."""
    first: dict[str, tuple[str, str]] = {}
    for name, content, split in images:
        if content is None:
            continue
        other, where = first.setdefault(content, (name, split))
        if where != split:
            raise UserError(f'images {other!r} ({where}) and {name!r} ({split}) have the same '
                            'pixels in two splits; remove one, or give both one patient.')


def check_classes(images: Iterable[tuple[int, str]], classes: Sequence[str]) -> None:
    """Raises UserError unless train, valid and test each hold an example of every class.

    Args:
      images: (label, split) pairs.
    """
    found: dict[str, set[int]] = {name: set() for name in LABELLED}
    for label, split in images:
        if split in found:
            found[split].add(label)
    for split, labels in found.items():
        for label, name in enumerate(classes):
            if label not in labels:
                raise UserError(f'split {split!r} has no example of class {name!r}; add patients '
                                'of that class, or change the fractions, seed or split column.')
