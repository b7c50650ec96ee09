"""The paper's figures 7 and 9: images regenerated from z_t, and z0' over t.

Both of validation images, which no row was trained on.
"""

import jax
import jax.numpy as jnp
import numpy as np

from repdiff import exhibits
from repdiff.errors import UserError
from repdiff.eval.copies import Copies
from repdiff.generation import conditions, figures
from repdiff.generation.conditions import Condition
from repdiff.generation.sampling import Settings, make_sampler, noised
from repdiff.generation.studio import Studio
from repdiff.generation.trained import Trained
from repdiff.latents.frontend import to_uint8
from repdiff.objectives.denoise import latent

IMAGES = 6  # columns of figure 7
SPLIT = 'valid'


def figure7(studio: Studio, settings: Settings, t: int, row: str) -> tuple[bytes, dict]:
    """PNG of images regenerated from z_t by each kind of model (arXiv 2505.06890, figure 7).

    Also how far they lie from their image and from their nearest training image, and what that
    makes them: {words: {'image', 'training': mean distance in grey levels, 'verdict'}}, as
    `Copies.verdict`. `row` is the one that regenerates, where it can; '' is the first that can.
    """
    batch = _positives(studio)
    images, front = np.asarray(batch['image']), studio.setting.frontend
    z0 = latent({'frontend': front}, batch)
    numbers = np.arange(len(images), dtype=np.int32)
    lines, distances = [('the image', images, None)], {}
    for words, model, denoise, condition in _models(studio, settings, batch, row):
        sampler = make_sampler(denoise, model, settings, studio.setting.z_shape, t)
        found = np.asarray(sampler(model.params, model.frozen, condition, numbers, z0))
        near = studio.compare(found, images)
        lines.append((words if near.verdict == 'neither' else f'{words}, {near.verdict}', found,
                      _words(near)))
        distances[words] = {'image': float(near.source.mean()),
                            'training': float(near.nearest.mean()), 'verdict': near.verdict}
    noisy = noised(z0, t, model.pretrain.schedule, settings.seed, numbers)
    lines.insert(1, (f'z_{t}', _shown(front, noisy), None))
    title = f'Regenerated from z_{t} (as figure 7 of the paper)\n{_numbers(near)}'
    return figures.pictures(lines, title), distances


def figure9(studio: Studio, settings: Settings, t: tuple[int, ...]) -> bytes:
    """PNG of z0' over t of one validation image under each pre-trained row, r kept and dropped.

    arXiv 2505.06890, eq. 3 and figure 9. Under each z0' stands how far it lies from the image and
    from its nearest training image.
    """
    image = np.asarray(_positives(studio)['image'][:1])
    lines = []
    for row, recipe in studio.recipes.items():
        if not recipe.pretrain.steps or recipe.pretrain.row in studio.recipes:
            continue  # another row's pre-training is shown there
        model = studio.model(row)
        found = exhibits.z0_over_t(
            model.pretrain, model.params['pretrain'], model.frozen, image[0], np.array(t),
            jax.random.key(settings.seed))
        for kind, predicted in found.items():
            words = f'{row}, r {kind}' if 'kept' in found else row
            near = studio.compare(predicted, image.repeat(len(t), 0))
            lines.append((words, np.concatenate([image, predicted]), ['', *_words(near)]))
    heads = ['the image', *(f't = {step}' for step in t)]
    title = f'The clean image predicted at t (as figure 9 of the paper)\n{_numbers(near)}'
    return figures.pictures(lines, title, heads)


def _words(near: Copies) -> list[str]:
    """What stands under each image."""
    return [f'{a:.1f} · {b:.1f}' for a, b in zip(near.source, near.nearest)]


def _numbers(near: Copies) -> str:
    """What the words under the images are."""
    return ('numbers: distance from the image · from the nearest training image, in grey levels;\n'
            f'real images lie {near.yardstick:.1f} from theirs')


def _positives(studio: Studio) -> dict:
    """A batch of validation images of class 1, as many as figure 7 has columns."""
    split = studio.dataset.split(SPLIT)
    rows = [i for i in range(len(split)) if split.stored(i)['label'] == 1][:IMAGES]
    if not rows:
        raise UserError(f'the {SPLIT} split has no image of class 1 to draw figures 7 and 9 with.')
    return {'image': jnp.stack([split[i]['image'] for i in rows]),
            'label': jnp.ones(len(rows), jnp.int32)}


def _models(studio: Studio, settings: Settings, batch: dict, row: str):
    """(words, row, denoiser, condition) of each kind of model that this run, or `row`, has."""
    kinds = {'none': 'unconditional', 'label': 'its class', 'images': 'its r'}
    for condition, kind in kinds.items():
        try:
            model: Trained = studio.model(row or studio.row_for(Condition(condition)))
            conditions.check(Condition(condition), model, settings.guidance)
        except UserError:
            continue  # there is none
        words = f'{kind}, {model.row}'
        if condition == 'none':
            yield words, model, model.free, None
        elif condition == 'label':
            yield words, model, model.given_label(settings.guidance), batch['label']
        else:
            r = model.represent(model.params, model.frozen, batch)
            yield words, model, model.given_r(settings.guidance), r


def _shown(front, z0: jax.Array) -> np.ndarray:
    """Latents as uint8 images."""
    return np.asarray(to_uint8(front.decode(z0)))
