"""Simulated brain CT: the embedded data set, so that the method runs and is taught offline.

A slice is a function of (settings, split, index) alone: any process can draw any of them. People
are drawn in three dimensions (`phantom_head`, `phantom_skull`,
`phantom_brain`), so that the slices of one person agree; findings
are added (`phantom_hematoma`, `phantom_confounders`), and the facility's scanner shows the result
(`phantom_physics`). The setting is the paper's: facilities 02-12 unlabelled, facility 01 labelled
(arXiv 2505.06890, experiments).
"""

import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from repdiff.data.phantom_brain import Brain, paint_brain
from repdiff.data.phantom_canvas import empty_canvas
from repdiff.data.phantom_confounders import draw_confounders, paint_confounders
from repdiff.data.phantom_facilities import FACILITIES, Facility, facility
from repdiff.data.phantom_head import draw_head
from repdiff.data.phantom_hematoma import (
    MARKERS,
    Hematoma,
    cut,
    draw_hematoma,
    mass_effect,
    paint_edema,
    paint_hematoma,
)
from repdiff.data.phantom_physics import DRIFT, scan
from repdiff.data.phantom_skull import paint_skull
from repdiff.data.slices import Slice
from repdiff.errors import UserError

SPLITS = ('pretrain', 'train', 'valid', 'test')
LOWEST, HIGHEST = -12.0, 93.0  # mm above the orbitomeatal plane: the range of slices
HOME = '01'


@dataclass(frozen=True)
class Settings:
    """What to simulate.

    image_size: pixels a side, 16..512. pretrain, train, valid, test: slices in each split (the
    defaults are the paper's). slices_per_patient: their mean. positive_rate: share of slices with
    a hematoma, met exactly up to rounding in each split. Difficulty: contrast scales how much
    denser than brain a hematoma is (1: 19-43 HU), lesion_size scales its lengths, facility_shift
    how far facilities 02-12 differ from 01 (0: not at all, 1: as in `phantom_facilities`).
    """

    image_size: int = 256
    seed: int = 0
    pretrain: int = 10313
    train: int = 1424
    valid: int = 178
    test: int = 179
    slices_per_patient: float = 8.0
    positive_rate: float = 0.16
    contrast: float = 1.0
    lesion_size: float = 1.0
    facility_shift: float = 1.0

    def __post_init__(self):
        limits = {'image_size': (16, 512), 'seed': (0, 2 ** 32 - 1), 'slices_per_patient': (1, 20),
                  'positive_rate': (0, 0.6), 'contrast': (0, 3), 'lesion_size': (0.3, 2),
                  'facility_shift': (0, 1), **{split: (0, 10 ** 7) for split in SPLITS}}
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), limits[field.name]
            kind = int if field.type is int else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                words = 'a whole number' if field.type is int else 'a number'
                raise UserError(f'simulated CT: {field.name} is {value!r}; choose {words} from '
                                f'{low} to {high}.')


def code_hash() -> str:
    """sha256 of the simulation's source, so that slices of other code are not taken for its own."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob('phantom*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Plan:
    """One slice before it is drawn: whose, at which height, with which hematoma's extent.

    patient: number within the split; lesion: (height, half height) mm of the person's hematoma,
    None without one; label: whether this slice cuts it.
    """

    patient: int
    facility: str
    height: float
    lesion: tuple[float, float] | None
    label: int


def slice_at(settings: Settings, split: str, index: int) -> Slice:
    """Slice `index` of `split`: (S, S) float32 HU with its label, markers, mask and window."""
    plan = _plan(settings, split)[index]
    pixels, mask, lesion = _render(settings, split, index, bleeding=True)
    # The labelled splits share facility 01: every third number keeps their people apart.
    number = plan.patient if split == 'pretrain' else 3 * plan.patient + SPLITS.index(split) - 1
    place = facility(plan.facility, settings.facility_shift)
    return Slice(
        id=f'sim-{settings.seed}-{split}-{index:06d}',
        patient=f'sim-{settings.seed}-f{plan.facility}-p{number:04d}',
        facility=plan.facility, pixels=pixels, unit='hu', label=plan.label,
        markers=lesion.markers if plan.label else (0,) * len(MARKERS), mask=mask, split=split,
        window=(place.centre, place.width), source='simulated')


def slices(settings: Settings, split: str, start: int = 0,
           stop: int | None = None) -> Iterator[Slice]:
    """Slices start..stop-1 of `split`, in order; stop None means the split's end."""
    for index in range(start, getattr(settings, split) if stop is None else stop):
        yield slice_at(settings, split, index)


def _seed(settings: Settings, split: str, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, SPLITS.index(split), number, purpose])


@functools.lru_cache(maxsize=16)
def _plan(settings: Settings, split: str) -> tuple[Plan, ...]:
    """Every slice of `split`: exactly its size, and round(size * positive_rate) positives."""
    if split not in SPLITS:
        raise UserError(f'simulated CT: there is no split {split!r}; choose one of '
                        f'{", ".join(SPLITS)}.')
    total = getattr(settings, split)
    rng = _seed(settings, split, 0, 0)
    others = [name for name in FACILITIES if name != HOME]
    shares = rng.dirichlet(np.full(len(others), 6.0))
    people, left = [], total
    while left > 0:  # (slices, facility, heights)
        count = min(left, max(1, round(settings.slices_per_patient * rng.uniform(0.5, 1.5))))
        place = others[rng.choice(len(others), p=shares)] if split == 'pretrain' else HOME
        people.append((count, place, _heights(rng, count)))
        left -= count
    bleeds = _bleeds(rng, [count for count, _, _ in people],
                     round(total * settings.positive_rate))
    plans = []
    for patient, (count, place, heights) in enumerate(people):
        first, length = bleeds.get(patient, (0, 0))
        lesion = None
        if length:
            step = heights[1] - heights[0] if count > 1 else 10.0
            lesion = ((heights[first] + heights[first + length - 1]) / 2, 0.5 * step * length)
        plans += [Plan(patient, place, height, lesion, int(first <= k < first + length))
                  for k, height in enumerate(heights)]
    return tuple(plans)


def _heights(rng: np.random.Generator, count: int) -> list[float]:
    """Evenly spaced heights of one person's slices, from below, in mm."""
    step = min(rng.uniform(5, 11), (HIGHEST - LOWEST) / max(count - 1, 1))
    low = rng.uniform(LOWEST, HIGHEST - step * (count - 1))
    return [low + step * k for k in range(count)]


def _bleeds(rng: np.random.Generator, counts: list[int],
            positives: int) -> dict[int, tuple[int, int]]:
    """Who bleeds: for a patient, (first, number) of the positive slices; `positives` in all."""
    runs: dict[int, tuple[int, int]] = {}
    left = positives
    for patient in rng.permutation(len(counts)).tolist():
        if left == 0:
            break
        count = counts[patient]
        length = min(left, count, int(rng.integers(1, 6)))
        runs[patient] = (int(rng.integers(0, count - length + 1)), length)
        left -= length
    for patient, (_, length) in runs.items():  # a high rate in a small split: longer runs
        more = min(left, counts[patient] - length)
        if more:
            runs[patient] = (0, length + more)
            left -= more
    return runs


@functools.lru_cache(maxsize=8)
def _person(settings: Settings, split: str, patient: int,
            lesion: tuple[float, float] | None) -> tuple:
    """(head, confounders, hematoma or None, pose and drift: four standard normals).

    They are the head's rotation, row and column, and the examination's shift of CT numbers.
    """
    head = draw_head(_seed(settings, split, patient, 1))
    found = draw_confounders(_seed(settings, split, patient, 2))
    bleed = None if lesion is None else draw_hematoma(
        _seed(settings, split, patient, 3), *lesion, settings.contrast, settings.lesion_size)
    if bleed is not None and bleed.kind == 'intraventricular':  # blood dilates the ventricles
        head = replace(head, ventricle=max(head.ventricle, 1.25))
    pose = tuple(_seed(settings, split, patient, 4).normal(size=4).tolist())
    return head, found, bleed, pose


def _render(settings: Settings, split: str, index: int,
            bleeding: bool) -> tuple[np.ndarray, np.ndarray, Hematoma | None]:
    """(S, S) float32 HU, (S, S) uint8 mask, and the person's hematoma; with `bleeding` False the
    same slice, its edema and mass effect too, but without the blood itself."""
    plan = _plan(settings, split)[index]
    head, found, lesion, pose = _person(settings, split, plan.patient, plan.lesion)
    place = facility(plan.facility, settings.facility_shift)
    place = replace(place, offset=place.offset + DRIFT * pose[3])
    rng = _seed(settings, split, index, 5)
    size = settings.image_size
    factor = max(2, math.ceil(96 / size))
    turn = place.rotation + place.wobble * pose[0] + rng.normal(0, 0.4)
    centre = (-4 + 5 * pose[1], 4 * pose[2])
    canvas = empty_canvas(size * factor, place.field_of_view, centre, turn)
    _paint_rest(canvas.hu, place)
    to_cavity = paint_skull(canvas, head, plan.height, found.scalp)
    section = None if lesion is None else cut(lesion, plan.height, canvas, to_cavity)
    brain = paint_brain(canvas, head, plan.height, to_cavity,
                        None if section is None else mass_effect(section))
    paint_confounders(found, brain, plan.height)
    mask = np.zeros((size, size), np.uint8)
    if section is not None:
        paint_edema(section, brain)
        if bleeding:
            mask = _mask(paint_hematoma(section, brain), brain, canvas.hu.shape, size)
    canvas.crop(brain.box).paint(brain.cavity, brain.canvas.hu)
    base = min(max((22 - plan.height) / 30, 0.0), 1.0)
    return scan(canvas.hu, size, place, base, rng), mask, lesion


def _mask(blood: np.ndarray, brain: Brain, shape: tuple[int, int], size: int) -> np.ndarray:
    """(S, S) mask of the pixels that the hematoma mostly fills; blood: its cover of the brain's
    canvas. The mask of a hematoma smaller than a pixel is the pixel that has most of it."""
    cover = np.zeros(shape, np.float32)
    cover[brain.box] = blood
    factor = len(cover) // size
    share = cover.reshape(size, factor, size, factor).mean((1, 3))
    return ((share > 0) & (share >= min(0.5, float(share.max())))).astype(np.uint8)


def _paint_rest(hu: np.ndarray, place: Facility) -> None:
    """The head-rest: an arc of plastic and its foam; it does not turn with the head."""
    mm = place.field_of_view / len(hu)
    steps = ((np.arange(len(hu), dtype=np.float32) + 0.5) * np.float32(mm)
             - np.float32(place.field_of_view / 2))
    row, column = steps[:, None], steps[None, :]
    away = np.sqrt(row ** 2 + column ** 2) - place.rest_radius
    arc = np.abs(column) < row * np.float32(math.tan(math.radians(place.rest_span)))
    shell = np.clip(0.5 - (np.abs(away) - 1.2) / mm, 0, 1) * arc
    foam = np.clip(0.5 - (np.abs(away + 6) - 4.5) / mm, 0, 1) * arc
    hu += foam * (-920 - hu)
    hu += shell * (900 - hu)
