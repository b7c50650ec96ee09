"""Hematoma detection in brain CT: the paper's showcase (arXiv 2505.06890), on simulated slices.

  python -m repdiff.main --config=configs/hematoma.py           quick: minutes on a 2-core CPU
  python -m repdiff.main --config=configs/hematoma.py:smoke     seconds, to see that all works
  python -m repdiff.main --config=configs/hematoma.py:paper     the paper's sizes, on a GPU or TPU
  python -m repdiff.main --config=configs/hematoma.py:representation   what r leaks and leaves
  python -m repdiff.main --config=configs/hematoma.py:levers    rc_ldt with one thing changed a row
  python -m repdiff.main --config=configs/hematoma.py:compare   Table 4's rows, at quick's sizes
  python -m repdiff.main --config=configs/hematoma.py:paper_compare   the same at the paper's sizes
  python -m repdiff.main --config=configs/hematoma.py:xl        as many images through DiT-XL/2 and
                                                                its ViT, on 8 chips or more
  python -m repdiff.main --config=configs/hematoma.py:published --config.latents.weights=DIR \\
      --config.encoder.weights=DIR [--config.model.weights=DIR]

On 2 AMD EPYC cores `quick` takes 16 minutes with the set-up and `smoke` 70 seconds. Expect of
`quick` (3 seeds) the AUROC of rc_ldt 0.83 ± 0.03 (F1 0.60 ± 0.06), rc_ldt_paper 0.59 ± 0.08,
unconditional_ldt 0.84 ± 0.03, ldt_from_scratch 0.69 ± 0.07. `compare` takes 45 minutes on one of the
cores; expect (3 seeds) resnet 0.86 ± 0.02, rc_ldt 0.83 ± 0.03, dinov2 0.82 ± 0.04, vit 0.75 ± 0.06.
`levers` takes 70: all near rc_ldt's, but for tokens, unpaired and all_t, which are lower.
`representation` takes 25: expect (seed 0) a denoising error with r and without of 0.093 and 0.096
(pooled), 0.015 and 0.774 (tokens), AUROC 0.63 and 0.55, unconditional 0.73. No other preset has run
to its end at its full size yet.

`published` starts from published weights, in directories made by `python -m repdiff.convert`: the
Stable Diffusion VAE, DINOv2 and, where it is given, DiT-XL/2, whose sizes it has.

Real slices: add --config.data.source=DIRECTORY (pictures and a labels.csv).
"""

from repdiff import config
from repdiff.models.dit import SIZES

QUICK = {}  # the base config

SMOKE = {
    'xla_effort': 0,
    'data': {'image_size': 32, 'simulated': {
        'pretrain': 256, 'train': 96, 'valid': 64, 'test': 64, 'positive_rate': 0.3}},
    'latents': {'patch': 8, 'channels': 16, 'fit_images': 256},
    'model': {'width': 32, 'depth': 2, 'heads': 2, 'unroll': False},
    'pretrain': {'steps': 20, 'batch': 16, 'warmup_steps': 5, 'checkpoint_every': 10},
    'tune': {'steps': 20, 'batch': 16, 'warmup_steps': 5, 'checkpoint_every': 10},
    'backbone': {'width': 32, 'depth': 2},
    'distill': {'global_size': 32, 'local_size': 16, 'local_crops': 2, 'prototypes': 64,
                'hidden': 32, 'bottleneck': 16},
    'classify': {'t': (25, 75), 'draws': 1, 'budget': 32, 'min_draws': 8, 'batch': 32},
    'evidence': {'draws': 16, 'flips': 200, 'images': 16, 'smooth': 1.0},
    'eval': {'bootstrap': 200},
    'log_every': 5,
}

# The paper's Table 4: all methods on the same data.
COMPARE = {
    # Penalties are measured in one pass, and the training images cost each row as much as valid.
    'classify': {'kinds': ('l2', 'l1', 'huber'), 'train_images': 400},
    'rows': ('rc_ldt', 'rc_ldt_paper', 'unconditional_ldt', 'ldt_from_scratch', 'dinov2', 'vit',
             'resnet', 'rc_ldt_probe', 'ldt_probe', 'dinov2_probe'),
}

T_PAPER = (50, 100, 150, 200, 230, 300, 400, 450, 500)  # scanned on the validation split

# The paper's sizes, steps and rates. What is ours in rc_ldt stays as in quick, but for t: a simulated
# hematoma moves these latents 8.8 times as far as quick's (the median of 16), so that t = 475 hides it
# as t = 100 does there.
PAPER = {
    'data': {'image_size': 256, 'simulated': {'valid': 178, 'test': 179}},
    'latents': {'kind': 'haar', 'patch': 8},
    'model': {'width': 768, 'depth': 12, 'heads': 12, 'patch': 2, 'dtype': 'bfloat16',
              'unroll': False, 'remat': 'dots'},
    'pretrain': {'steps': 64500, 'batch': 16, 'learning_rate': 1e-4, 'warmup_steps': 0,
                 'decay': 'constant', 'ema_decay': 0.9999, 'checkpoint_every': 5000},
    'tune': {'steps': 8900, 'batch': 16, 'learning_rate': 1e-4, 'warmup_steps': 0,
             'decay': 'constant', 'ema_decay': 0.9999, 'checkpoint_every': 890,
             't_range': (0, 500)},
    'optim': {'b2': 0.999, 'weight_decay': 0.0},
    'classify': {'t': T_PAPER[:-1], 'draws': 8},
    'evidence': {'smooth': 4.0, 't': 400},
    'recipes': {'rc_ldt_paper': {'tune': {'balanced': False}, 'classify': {'t': T_PAPER}}},
}

# A usual schedule of classifiers, for the denoisers' constant rate; no run has compared them here.
SUPERVISED = {'learning_rate': 1e-4, 'warmup_steps': 445, 'decay': 'cosine', 'ema_decay': 0.999}

# The rows of Table 4 at the paper's sizes.
PAPER_COMPARE = PAPER | {
    'backbone': {'width': 768, 'depth': 12, 'heads': 12, 'patch': 16},
    # The published crops, weights of the losses and schedules, for which it is long enough, but
    # fewer prototypes and the base's little jitter.
    'distill': {'global_size': 224, 'local_size': 96, 'local_crops': 8, 'prototypes': 4096,
                'hidden': 2048, 'bottleneck': 256, 'global_scale': (0.32, 1.0),
                'local_scale': (0.05, 0.32), 'freeze_last': 0.02, 'momentum': (0.992, 1.0),
                'teacher_temperature': (0.04, 0.07), 'ibot_weight': 0.5, 'koleo_weight': 0.2},
    'rows': ('rc_ldt', 'rc_ldt_paper', 'unconditional_ldt', 'dinov2', 'vit', 'resnet'),
    'recipes': PAPER['recipes'] | {
        'dinov2': {'pretrain': {'learning_rate': 1e-4, 'warmup_steps': 1000, 'decay': 'cosine'},
                   'tune': SUPERVISED},
        'vit': {'tune': SUPERVISED},
        'resnet': {'backbone': {'kind': 'resnet50', 'width': 64}, 'tune': SUPERVISED},
    },
}

XL = PAPER | {
    'model': PAPER['model'] | SIZES['XL'] | {'remat': 'full'},
    'pretrain': PAPER['pretrain'] | {'steps': 4000, 'batch': 256, 'checkpoint_every': 500},
    'tune': PAPER['tune'] | {'steps': 560, 'batch': 256, 'checkpoint_every': 56},
    'mesh': {'fsdp': 8},
}

PUBLISHED = {
    'data': {'image_size': 256},
    # Cached latents can be mirrored, not moved or brightened.
    'augmentation': {'shift': 0, 'rotate': 0.0, 'zoom': 0.0, 'brightness': 0.0},
    'latents': {'kind': 'sd_vae'},
    'model': {**SIZES['XL'], 'patch': 2, 'dtype': 'bfloat16', 'unroll': False, 'remat': 'full'},
    'encoder': {'kind': 'dinov2_frozen'},
    'pretrain': {'steps': 20000, 'batch': 32, 'learning_rate': 1e-4, 'ema_decay': 0.999,
                 'checkpoint_every': 2000},
    # All t: what hides a hematoma in these latents was not measured, for want of the weights.
    'tune': {'steps': 4000, 'batch': 32, 'learning_rate': 1e-4, 'ema_decay': 0.999,
             'checkpoint_every': 400, 't_range': (0, 1000)},
    'classify': {'t': T_PAPER},
    'evidence': {'smooth': 4.0, 't': 400},
    'rows': ('rc_ldt', 'unconditional_ldt'),
}

# What r leaks in pre-training, and what the switch leaves of it: rows that differ in nothing else.
REPRESENTATION = {
    'data': {'simulated': {'pretrain': 4096}},
    'pretrain': {'steps': 600, 'checkpoint_every': 150},
    'tune': {'steps': 400, 'checkpoint_every': 100, 'label_start': 'null', 't_range': (0, 1000)},
    'classify': {'t': (10, 25, 50, 100, 200, 300, 400)},
    'evidence': {'t': 400},
    'log_every': 1,  # the first loss of tuning is that of the network as the switch leaves it
    'rows': ('pooled', 'tokens_half', 'tokens', 'tokens_paper', 'unconditional'),
    'recipes': {
        'pooled': {},
        'tokens_half': {'representation': {'kind': 'tokens', 'drop_rate': 0.5}},
        'tokens': {'representation': {'kind': 'tokens', 'drop_rate': 0.0}},
        'tokens_paper': {
            'representation': {'kind': 'tokens', 'drop_rate': 0.0},
            'pretrain': {'row': 'tokens'},
            'tune': {'switch': 'paper'},
        },
        'unconditional': {'pretrain': {'condition': 'none'}},
    },
}

# What carries r's benefit over to tuning: each row differs from rc_ldt in one thing alone, but for
# token r, which has no class means to start labels at.
LEVERS = {
    'rows': (
        'rc_ldt', 'tokens', 'narrow', 'noisy', 'never_dropped', 'half_dropped', 'longer',
        'switch_paper', 'labels_null', 'labels_random', 'unbalanced', 'unpaired', 'all_t',
        'unconditional_ldt', 'unconditional_longer',
    ),
    'recipes': {
        'tokens': {'representation': {'kind': 'tokens'}, 'tune': {'label_start': 'null'}},
        'narrow': {'representation': {'width': 8}},
        'noisy': {'representation': {'noise': 0.5}},
        'never_dropped': {'representation': {'drop_rate': 0.0}},
        'half_dropped': {'representation': {'drop_rate': 0.5}},
        'longer': {'pretrain': {'steps': 3600}},
        'switch_paper': {'pretrain': {'row': 'rc_ldt'}, 'tune': {'switch': 'paper'}},
        'labels_null': {'pretrain': {'row': 'rc_ldt'}, 'tune': {'label_start': 'null'}},
        'labels_random': {'pretrain': {'row': 'rc_ldt'}, 'tune': {'label_start': 'random'}},
        'unbalanced': {'pretrain': {'row': 'rc_ldt'}, 'tune': {'balanced': False}},
        'unconditional_longer': {
            'pretrain': {'condition': 'none', 'steps': 3600}, 'tune': {'label_start': 'null'},
        },
    },
}


PRESETS = {
    'quick': QUICK, 'smoke': SMOKE, 'paper': PAPER, 'xl': XL, 'representation': REPRESENTATION,
    'published': PUBLISHED, 'levers': LEVERS, 'compare': COMPARE,
    'paper_compare': PAPER_COMPARE,
}


def get_config(preset: str = ''):
    """`quick` (default) or another of `PRESETS`."""
    return config.preset(preset, PRESETS)
