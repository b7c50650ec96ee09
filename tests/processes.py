"""One process of a small run over eight devices: training, evaluating and scoring.

Parameters are split over all eight. Arguments: directory, coordinator, processes, process, seconds
that a batch takes (so that a test can stop the run in time).
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from repdiff import cluster, interrupt, optim, phases, sharding
from repdiff.data import pipeline
from repdiff.diffusion.schedule import linear
from repdiff.objectives.augment import Augmentation
from repdiff.train import Phase, train
from repdiff.zeroshot.score import Scorer, all_errors

STEPS, BATCH, SIDE, WIDTH = 24, 16, 4, 32


class Images:
    """Random images whose label is whether they are bright."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 1), np.uint8)
        return {'image': image, 'label': np.int32(image.mean() > 128), 'id': str(index)}


class Slow:
    """An iterator whose batches take their time."""

    def __init__(self, iterator, seconds):
        self.iterator, self.seconds = iterator, seconds
        self.get_state, self.set_state = iterator.get_state, iterator.set_state

    def __next__(self):
        time.sleep(self.seconds)
        return next(self.iterator)


def errors(params, batch):
    """Squared errors of the labels (B,)."""
    x = batch['image'].reshape(len(batch['image']), -1) / 255 - 0.5
    hidden = jnp.tanh(x @ params['t_embed']['fc1']['kernel'])
    found = hidden @ params['t_embed']['fc2']['kernel']
    return jnp.square(found.mean(-1) - batch['label'])


def denoise(params, z_t, t, klass):
    """Noise that depends on all that a denoiser's does."""
    x = z_t.reshape(len(z_t), -1)
    found = jnp.tanh(x @ params['t_embed']['fc1']['kernel']) @ params['t_embed']['fc2']['kernel']
    return z_t * (found.mean(-1) + klass + t / 1000)[:, None, None, None]


def loss_fn(params, frozen, batch, key):
    noise = 0.1 * jax.random.normal(key, batch['label'].shape)  # the same whatever the devices
    loss = jnp.mean(errors(params, batch) * (1 + noise)) * frozen['one']
    return loss, {'loss': loss}


def main(directory, coordinator, processes, process, seconds):
    jax.config.update('jax_num_cpu_devices', 8 // processes)
    cluster.start(coordinator if processes > 1 else '', processes, process)
    interrupt.listen()
    cluster.check_shared(directory, '--workdir')
    mesh, split = sharding.make_mesh(1, 8, 1), pipeline.examples(Images(50))
    cluster.connect(mesh)
    print('connected', flush=True)
    keys = jax.random.split(jax.random.key(0))
    params = {'t_embed': {
        'fc1': {'kernel': jax.random.normal(keys[0], (SIDE * SIDE, WIDTH)) / 4},
        'fc2': {'kernel': jax.random.normal(keys[1], (WIDTH, 8)) / 4},
    }}
    score = jax.jit(errors)

    def evaluate(params):
        found = phases.map_split(lambda batch: score(params, batch), split, BATCH, mesh)
        return -float(found.mean()), {'valid': float(found.mean())}

    rows = sharding.host_rows(mesh, BATCH)
    assert len(rows) == BATCH // processes
    schedule = optim.learning_rate(0.03, 0, STEPS, 'constant')
    trained = train(Phase(
        name='p', loss_fn=loss_fn, params=params, frozen={'one': jnp.ones(())}, steps=STEPS,
        tx=optim.adamw(schedule, b1=0.9, b2=0.99, weight_decay=0.01, clip_norm=1.0),
        iterator=Slow(pipeline.train_iterator(
            split, batch=BATCH, rows=rows, seed=0, balanced=False), seconds),
        augment=Augmentation(flip=True, shift=1),
        evaluate=evaluate, batch=BATCH, accumulate=1, ema_decay=0.9, log_every=1,
        checkpoint_every=4, keep=2,
    ), workdir=directory, mesh=mesh, key=jax.random.key(1))
    kernel = trained.params['t_embed']['fc1']['kernel']
    assert kernel.addressable_shards[0].data.size == kernel.size // 8
    found = phases.map_split(lambda batch: score(trained.params, batch), split, BATCH, mesh)
    scorer = Scorer(denoise, linear(1000), kinds=('l2',), passes=BATCH, mesh=mesh)
    images = [split[index] for index in range(len(split))]
    scores = all_errors(
        scorer.on(trained.params, np.arange(2), keys[0],
                  np.stack([image['image'] / np.float32(255) for image in images]),
                  np.stack([image['id'] for image in images])),
        len(split), 2, np.array([100, 500]))
    np.savez(directory / f'final-{process}.npz', errors=found, scores=scores, step=trained.step, **{
        name: sharding.to_hosts(layer['kernel'])
        for name, layer in trained.params['t_embed'].items()
    })
    cluster.wait_for_all('end')


if __name__ == '__main__':
    with cluster.leave_together():
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
