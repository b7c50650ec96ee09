"""The simulated CT: what it promises of determinism, splits, tissues, hematomas and facilities."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from repdiff.data import phantom
from repdiff.data.phantom import Settings, slice_at, slices
from repdiff.data.phantom_brain import paint_brain
from repdiff.data.phantom_canvas import empty_canvas, smooth_field
from repdiff.data.phantom_facilities import FACILITIES, facility
from repdiff.data.phantom_head import draw_head
from repdiff.data.phantom_hematoma import MARKERS, cut, draw_hematoma, paint_hematoma
from repdiff.data.phantom_physics import scan
from repdiff.data.phantom_skull import paint_skull
from repdiff.errors import UserError

SMALL = Settings(image_size=64, pretrain=300, train=120, valid=50, test=70)


@pytest.fixture(scope='module')
def drawn():
    return {split: list(slices(SMALL, split)) for split in phantom.SPLITS}


def same(a, b):
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return all(np.array_equal(x, y) for x, y in pairs)


def test_a_slice_depends_on_settings_split_and_index_alone(drawn):
    for index in (37, 3, 36, 0):
        phantom._person.cache_clear()
        phantom._plan.cache_clear()
        assert same(slice_at(SMALL, 'train', index), drawn['train'][index])
    other = slice_at(dataclasses.replace(SMALL, seed=1), 'train', 3)
    assert not np.array_equal(other.pixels, drawn['train'][3].pixels)
    assert not np.array_equal(drawn['valid'][3].pixels, drawn['train'][3].pixels)


def test_the_range_of_slices_is_respected(drawn):
    assert [s.id for s in slices(SMALL, 'test', 5, 9)] == [s.id for s in drawn['test'][5:9]]


def test_splits_have_their_sizes_people_and_facilities(drawn):
    for split, found in drawn.items():
        assert len(found) == getattr(SMALL, split)
        assert {s.split for s in found} == {split}
        assert sum(s.label for s in found) == round(0.16 * len(found))
    people = {split: {s.patient for s in found} for split, found in drawn.items()}
    assert sum(map(len, people.values())) == len(set.union(*people.values()))
    assert {s.facility for split in ('train', 'valid', 'test') for s in drawn[split]} == {'01'}
    assert {s.facility for s in drawn['pretrain']} == set(FACILITIES) - {'01'}
    assert len({s.id for found in drawn.values() for s in found}) == 540
    for found in drawn.values():  # a person stays in one facility
        assert len({s.patient for s in found}) == len({(s.patient, s.facility) for s in found})


def test_several_slices_a_patient_share_one_head(drawn):
    plans = phantom._plan(SMALL, 'train')
    assert 5 < len(plans) / len({p.patient for p in plans}) < 11
    widths = {}
    for plan, s in zip(plans, drawn['train']):
        if 20 < plan.height < 40:
            widths.setdefault(plan.patient, []).append((s.pixels > 300).any(0).sum())
    spread = [np.ptp(w) for w in widths.values() if len(w) > 1]
    assert max(spread) <= 2 < np.ptp([w[0] for w in widths.values()])


def test_slices_are_as_the_interface_says(drawn):
    first = drawn['train'][0]
    assert first.id == 'sim-0-train-000000'
    assert first.patient.startswith('sim-0-f01-p')
    for s in drawn['train'] + drawn['pretrain']:
        assert s.pixels.shape == s.mask.shape == (64, 64)
        assert (s.pixels.dtype, s.mask.dtype, s.unit) == (np.float32, np.uint8, 'hu')
        assert np.isfinite(s.pixels).all() and s.pixels.min() >= -1024
        expected = facility(s.facility, 1.0)
        assert s.window == (expected.centre, expected.width)


@pytest.mark.parametrize('height', [-8, 6, 20, 34, 46, 60, 80, 92])
def test_tissues_have_plausible_hounsfield_units(height):
    canvas = empty_canvas(256, 232, (0, 0), 5)
    head = draw_head(np.random.default_rng(height + 50))
    to_cavity = paint_skull(canvas, head, height, None)
    brain = paint_brain(canvas, head, height, to_cavity, None)
    canvas.crop(brain.box).paint(brain.cavity, brain.canvas.hu)
    hu = canvas.hu
    assert hu[0, 0] == -1000
    wall = (to_cavity > 1) & (to_cavity < head.skull - 1.5) & (canvas.y > 30)
    assert 300 < np.median(hu[wall]) < 1500
    hu = hu[brain.box]
    assert 20 <= np.median(hu[brain.white > 0.99]) <= 33 or height < 0
    assert 30 <= np.median(hu[brain.grey > 0.99]) <= 45
    assert 0 <= np.median(hu[brain.csf > 0.99]) <= 15 or height < 10
    if 30 < height < 55:
        inside = brain.ventricles > 0.99
        assert inside.sum() * canvas.mm ** 2 > 80  # mm²
        assert 0 <= np.median(hu[inside]) <= 15
    if height > 90:  # the vertex's bone is cut obliquely
        row = canvas.hu[:, 128] > 300
        assert row.sum() * canvas.mm > 2.5 * head.skull


def test_mask_agrees_with_label_and_with_what_the_blood_changes(drawn):
    gains = []
    for index, s in enumerate(drawn['train']):
        assert bool(s.mask.any()) == bool(s.label)
        with_blood, mask, _ = phantom._render(SMALL, 'train', index, bleeding=True)
        without, empty, _ = phantom._render(SMALL, 'train', index, bleeding=False)
        change = with_blood - without
        assert not empty.any() and np.array_equal(mask, s.mask)
        reach = ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=3)
        away = np.abs(change[~reach])  # where less than half a pixel is blood
        assert away.max() < 3 and (away > 0.2).mean() < 0.01
        if s.label:
            gains.append(change[mask > 0].mean())
    assert min(gains) > 3 and np.median(gains) > 15


def test_contrast_size_and_shift_set_the_difficulty():
    def change(**values):
        settings = dataclasses.replace(SMALL, **values)
        index = [k for k, p in enumerate(phantom._plan(settings, 'train')) if p.label][0]
        a, mask, _ = phantom._render(settings, 'train', index, bleeding=True)
        return (a - phantom._render(settings, 'train', index, bleeding=False)[0])[mask > 0]
    assert change(contrast=2).mean() > 1.5 * change().mean()
    assert change(lesion_size=1.6).size > 1.5 * change().size
    assert facility('11', 0.0) == facility('01', 1.0)


def lesion_section(markers, seed, turn=0):
    """(HU of blood above brain inside the eroded cut, its down coordinate, cover, lesion)."""
    rng = np.random.default_rng(seed)
    head = draw_head(rng)
    lesion = draw_hematoma(rng, 60.0, 15.0, 1.0, 1.0)
    waves = tuple(w for w in lesion.waves if w[0] < 3)
    if markers[1]:
        waves += ((5, 0.2, 1.0), (8, 0.15, 2.0))
    lesion = dataclasses.replace(
        lesion, kind='intraparenchymal', markers=markers, density=40.0, long=20.0, short=15.0,
        reach=0.45, angle=1.2, waves=waves)
    canvas = empty_canvas(256, 232, (0, 0), turn)
    to_cavity = paint_skull(canvas, head, 60.0, None)
    brain = paint_brain(canvas, head, 60.0, to_cavity, None)
    cover = paint_hematoma(cut(lesion, 60.0, canvas, to_cavity), brain)
    inside = ndimage.binary_erosion(cover > 0.99, iterations=1)
    return brain.canvas.hu[inside], np.nonzero(inside)[0], cover, lesion


def test_hypodensities_are_dark_islands_in_the_blood():
    for seed in range(5):
        dark = (lesion_section((1, 0, 0, 0), seed)[0] < 33 + 0.3 * 40).mean()
        assert 0.02 < dark < 0.6
        assert (lesion_section((0, 0, 0, 0), seed)[0] < 33 + 0.3 * 40).mean() == 0


def test_margin_irregularity_lengthens_the_edge():
    def roughness(markers, seed):
        mask = lesion_section(markers, seed)[2] > 0.5
        edge = mask & ~ndimage.binary_erosion(mask)
        return edge.sum() ** 2 / mask.sum()
    for seed in range(5):
        assert roughness((0, 1, 0, 0), seed) > 1.25 * roughness((0, 0, 0, 0), seed)


def test_blend_sign_is_two_sharply_bounded_densities():
    for seed in range(5):
        hu = lesion_section((0, 0, 1, 0), seed)[0]
        low, high = np.percentile(hu, (5, 95))
        assert high - low >= 18
        between = (hu > low + 4) & (hu < high - 4)
        assert between.mean() < 0.12
        assert min((hu <= low + 4).mean(), (hu >= high - 4).mean()) > 0.1


@pytest.mark.parametrize('turn', [-25, 0, 25])
def test_fluid_level_is_denser_below_in_the_direction_of_gravity(turn):
    for seed in range(4):
        hu, rows, *_ = lesion_section((0, 0, 0, 1), seed, turn)
        low, high = np.percentile(rows, (12, 88))
        assert hu[rows >= high].mean() > hu[rows <= low].mean() + 18
        means = [hu[rows == row].mean() for row in range(rows.min(), rows.max() + 1)]
        steps = np.abs(np.diff(means))
        assert np.sort(steps)[-4:].sum() > 18  # a level, not a slope


def test_every_hematoma_has_a_marker_and_every_marker_and_kind_occurs():
    rng = np.random.default_rng(0)
    found = [draw_hematoma(rng, 40.0, 8.0, 1.0, 1.0) for _ in range(400)]
    markers = np.array([lesion.markers for lesion in found])
    assert (markers.sum(1) >= 1).all() and (markers.sum(1) >= 2).mean() > 0.2
    assert (markers.mean(0) > 0.1).all() and markers.shape[1] == len(MARKERS) == 4
    assert len({lesion.kind for lesion in found}) == 4


def test_markers_stand_on_positive_slices_only(drawn):
    for s in drawn['train']:
        assert any(s.markers) == bool(s.label) and len(s.markers) == 4


def test_negatives_carry_bright_confounders(drawn):
    bright = []
    for s in drawn['train']:
        skull = ndimage.binary_dilation(s.pixels > 300, iterations=3)
        inside = ndimage.binary_fill_holes(skull) & ~skull
        if not s.label and inside.any():
            bright.append(s.pixels[inside].max())
    assert (np.array(bright) > 60).mean() > 0.25


def test_facilities_differ_in_noise_and_sharpness_and_only_by_the_shift():
    step = np.full((256, 256), 30, np.float32)
    step[:, 128:] = 60

    def measure(name, shift):
        place = dataclasses.replace(facility(name, shift), offset=0, cupping=0)
        image = scan(step.copy(), 128, place, 0.0, np.random.default_rng(1))
        return image[:, :50].std(), np.diff(image.mean(0)).max()

    noise = {name: measure(name, 1.0)[0] for name in FACILITIES}
    edge = {name: measure(name, 1.0)[1] for name in FACILITIES}
    assert noise['11'] > 1.5 * noise['01'] > 1.5 * 1.2 * noise['10']
    assert edge['11'] > 1.1 * edge['01'] > 1.1 * 1.1 * edge['10']
    assert measure('11', 0.0) == measure('01', 1.0)


def test_smooth_fields_are_of_unit_variance_and_the_same_at_every_size():
    knots = np.random.default_rng(0).standard_normal((38, 38), dtype=np.float32)
    field = smooth_field(knots, 128, (slice(0, 128), slice(0, 128)))
    finer = smooth_field(knots, 256, (slice(0, 256), slice(0, 256)))
    assert 0.85 < field.std() < 1.15
    np.testing.assert_allclose(finer.reshape(128, 2, 128, 2).mean((1, 3)), field, atol=0.05)


@pytest.mark.parametrize('size', [16, 33, 256])
def test_any_size_shows_the_same_head(size):
    settings = dataclasses.replace(SMALL, image_size=size)
    for index in (0, 7):
        s = slice_at(settings, 'train', index)
        assert s.pixels.shape == (size, size)
        reference = slice_at(SMALL, 'train', index)
        zoom = ndimage.zoom(s.pixels > 0, 64 / size, order=0, grid_mode=True, mode='nearest')
        assert ((reference.pixels > 0) == zoom).mean() > 0.9
        assert bool(s.mask.any()) == bool(reference.mask.any())


@pytest.mark.parametrize('values, words', [
    ({'image_size': 8}, 'image_size'), ({'image_size': 64.0}, 'whole number'),
    ({'positive_rate': 0.9}, 'positive_rate'), ({'facility_shift': 2}, 'facility_shift'),
    ({'train': -1}, 'train'), ({'contrast': float('nan')}, 'contrast'), ({'seed': True}, 'seed'),
])
def test_bad_settings_are_one_clear_sentence(values, words):
    with pytest.raises(UserError, match=words) as caught:
        Settings(**values)
    assert str(caught.value).count('. ') == 0 and str(caught.value).endswith('.')


def test_an_unknown_split_is_one_clear_sentence():
    with pytest.raises(UserError, match="no split 'dev'"):
        slice_at(SMALL, 'dev', 0)
