"""Augmentation: against scipy's affine map, fair draws within bounds, nothing where it is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from repdiff.objectives import augment
from repdiff.objectives.augment import Augmentation

KEY = jax.random.key(7)


def batch_of(image, count):
    """`count` times the same image."""
    return {'image': np.broadcast_to(image, (count, *image.shape)), 'label': np.zeros(count, int)}


def augmented(image, count, **settings):
    """`count` draws (count, H, W, C) of an image."""
    return np.asarray(jax.jit(Augmentation(**settings))(KEY, batch_of(image, count))['image'])


@pytest.mark.parametrize('channels', [1, 3])
def test_turns_and_zooms_equal_a_bilinear_reference(channels):
    image = np.random.default_rng(0).uniform(0, 255, (12, 16, channels)).astype(np.float32)
    for angle, zoom, move in [(0.3, 1.2, (0, 0)), (-0.2, 0.8, (3, -2)), (0.0, 1.0, (-1, 2))]:
        made = augment.resample(image, *move, angle, zoom)
        c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
        turn, centre = np.array([[c, -s], [s, c]]), np.array([5.5, 7.5])  # rows, columns
        for channel in range(channels):
            wanted = affine_transform(
                image[..., channel], turn, centre - turn @ (centre + move), order=1, mode='nearest')
            np.testing.assert_allclose(made[..., channel], wanted, atol=1e-2)  # of 255


def test_draws_are_fair_and_stay_within_their_bounds(monkeypatch):
    """What `resample` is called with, told by its pixels: one draw of each for every image."""

    def told(image, down, right, angle, zoom):
        values = jnp.stack([down, right, jnp.rad2deg(angle), 100 * jnp.log2(zoom)]) + 128
        return jnp.broadcast_to(values, image.shape)

    monkeypatch.setattr(augment, 'resample', told)
    found = augmented(np.zeros((1, 1, 4), np.uint8), 2000, shift=4, rotate=10.0, zoom=1.0)
    down, right, angle, zoom = found[:, 0, 0].astype(int).T - 128
    for values, most in ((down, 4), (right, 4), (angle, 10), (zoom, 100)):
        assert values.min() == -most and values.max() == most
        assert abs(values.mean()) < 4 * most / np.sqrt(2 * len(values))
    # Each is drawn for itself, from image to image, too; 1 over the root of 2,000 is 0.022.
    columns = [down[1:], down[:-1], right[1:], angle[1:], zoom[1:]]
    assert np.abs(np.corrcoef(columns) - np.eye(5)).max() < 0.1


def test_shifts_reach_every_place_and_repeat_the_border():
    still = np.arange(36, dtype=np.uint8).reshape(6, 6, 1)
    padded = np.pad(still, ((2, 2), (2, 2), (0, 0)), 'edge')
    places = {padded[y:y + 6, x:x + 6].tobytes() for y in range(5) for x in range(5)}
    assert {image.tobytes() for image in augmented(still, 400, shift=2)} == places


def test_brightness_moves_all_pixels_alike_and_stops_at_black_and_white():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    drawn = augmented(image, 200, brightness=20.0)
    shifts = drawn[:, 8, 0, 0].astype(int) - 128
    wanted = np.clip(image.astype(int) + shifts[:, None, None, None], 0, 255)
    np.testing.assert_array_equal(drawn, wanted)
    assert drawn.dtype == np.uint8
    assert min(shifts) < -17 and max(shifts) > 17 and max(np.abs(shifts)) <= 20
    assert abs(np.mean(shifts)) < 4 * 20 / np.sqrt(3 * 200)  # four standard deviations


def test_flips_are_real_and_fair():
    image = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    ways = [drawn.tobytes() for drawn in augmented(image, 400, flip=True)]
    mirrored = ways.count(image[:, ::-1].tobytes())
    assert mirrored + ways.count(image.tobytes()) == 400
    assert abs(mirrored - 200) < 4 * 10  # four standard deviations


def test_what_is_off_is_left_out_of_the_program():
    batch = jax.tree.map(jnp.asarray, batch_of(np.zeros((4, 4, 1), np.uint8), 2))
    for kept, one in Augmentation()(KEY, batch).items():
        assert one is batch[kept]
    whole = {'flip': True, 'shift': 1, 'rotate': 1.0, 'zoom': 0.1, 'brightness': 1.0}
    made = {name: str(jax.make_jaxpr(Augmentation(**{name: most}))(KEY, batch))
            for name, most in whole.items()}
    assert [name for name in whole if 'gather' in made[name]] == ['shift', 'rotate', 'zoom']
    assert [name for name in whole if 'rev' in made[name]] == ['flip']


def test_cached_latents_are_drawn_anew_and_mirrored_with_their_pixels():
    mean, std = np.full((4, 4, 2), 3, np.float32), np.full((4, 4, 2), 0.5, np.float32)
    moments = np.array([[mean, std], [-mean, std]])
    image = np.array([0, 1], np.uint8).reshape(1, 2, 1)
    batch = batch_of(image, 500) | {'moments': np.broadcast_to(moments, (500, *moments.shape))}
    plain = Augmentation()(KEY, batch)
    assert plain['z0'].shape == (500, 4, 4, 2) and 'moments' not in plain
    np.testing.assert_allclose([plain['z0'].mean(), plain['z0'].std()], [3, 0.5], atol=0.02)
    assert len({z0.tobytes() for z0 in np.asarray(plain['z0'])}) == 500
    flipped = Augmentation(flip=True)(KEY, batch)
    mirrored = np.asarray(flipped['image'])[:, 0, 0, 0] == 1
    assert abs(mirrored.mean() - 0.5) < 0.09  # four standard deviations
    means = np.where(mirrored, -3, 3)
    np.testing.assert_allclose(flipped['z0'].mean((1, 2, 3)), means, atol=0.5)
