"""CIFAR-10, the other domain: ten classes of colour photographs, 32 pixels, TFDS's own test split.

  python -m repdiff.main --config=configs/cifar10.py
  python -m repdiff.main --config=configs/cifar10.py:smoke

TFDS must hold it: tfds.builder('cifar10', file_format='array_record').download_and_prepare().
Four fifths of its training images are pre-trained on without labels; the others are the labelled
ones, half of them for validation. Learning rates of tuning are those of the base config, which were
chosen on simulated CT.
"""

from repdiff import config

QUICK = {
    'name': 'cifar10',
    'data': {
        'source': 'tfds:cifar10', 'image_size': 32, 'channels': 3, 'deidentify': False,
        'fractions': {'pretrain': 0.8, 'train': 0.1, 'valid': 0.1, 'test': 0.0},
    },
    'augmentation': {'shift': 2, 'rotate': 0.0, 'zoom': 0.0},
    'latents': {'patch': 4, 'channels': 32},
    'backbone': {'patch': 4},
    'distill': {'global_size': 32, 'local_size': 16},
    'tune': {'t_range': (0, 400)},
    'classify': {'t': (25, 50, 100, 200, 300), 'budget': 64},
    'evidence': {'t': 300},
    'rows': ('rc_ldt', 'unconditional_ldt', 'ldt_from_scratch', 'dinov2', 'vit', 'resnet'),
}

SMOKE = QUICK | {
    'xla_effort': 0,
    'model': {'width': 32, 'depth': 1, 'unroll': False},
    'backbone': QUICK['backbone'] | {'width': 32, 'depth': 2},
    'distill': QUICK['distill'] | {
        'local_crops': 2, 'prototypes': 64, 'hidden': 32, 'bottleneck': 16},
    'pretrain': {'steps': 8, 'batch': 16, 'warmup_steps': 2, 'checkpoint_every': 8},
    'tune': QUICK['tune'] | {'steps': 8, 'batch': 16, 'warmup_steps': 2, 'checkpoint_every': 8},
    'classify': QUICK['classify'] | {'draws': 1, 'budget': 16, 'min_draws': 8},
    'evidence': QUICK['evidence'] | {'draws': 8, 'flips': 100, 'images': 8},
    'eval': {'bootstrap': 100},
    'log_every': 4,
}

PRESETS = {'quick': QUICK, 'smoke': SMOKE}


def get_config(preset: str = ''):
    """`quick` (default) or `smoke`."""
    return config.preset(preset, PRESETS)
