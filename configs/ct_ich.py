"""Real brain CT with hemorrhage labels: the comparison on ct_ich, three patient-grouped folds.

  python -m repdiff.main --config=configs/ct_ich.py --config.data.source=DIRECTORY
  python -m repdiff.main --config=configs/ct_ich.py:levers --config.data.source=DIRECTORY
  python -m repdiff.main --config=configs/ct_ich.py:smoke --config.data.source=DIRECTORY

DIRECTORY holds the slices as pictures and a labels.csv with the columns file, patient and
hemorrhage (Hssayeni et al. 2020, doi 10.13026/w8q8-ky94, CC BY 4.0). For several seeds, one
command each (--config.seed=1 --workdir=DIR), then python -m repdiff.report --workdir=A,B,C.

A fold takes 18 minutes on one AMD EPYC core, the three rows that only `levers` has take 8. Expect
(3 folds, 3 seeds, 62 patients) AUROC between 0.68 and 0.73 of all rows and of the floors but the
majority: so few patients hardly tell two apart.
Learning rates of tuning are the base config's, chosen on simulated slices.

Every patient is tested once. Of a fold's other patients two fifths are unlabelled; pre-training
sees these and the training patients, without labels.
"""

from repdiff import config

ROWS = ('rc_ldt', 'rc_ldt_paper', 'unconditional_ldt', 'ldt_from_scratch', 'dinov2', 'vit',
        'resnet')

QUICK = {
    'name': 'ct_ich',
    'data': {
        'source': '',  # of the command line
        'label': 'hemorrhage',
        'fractions': {'pretrain': 0.3, 'train': 0.25, 'valid': 0.15, 'test': 0.3},
        'pretrain_on': ('pretrain', 'train'),
    },
    'pretrain': {'steps': 600, 'checkpoint_every': 200},
    'tune': {'steps': 400, 'checkpoint_every': 80, 't_range': (0, 400)},
    'classify': {'t': (25, 50, 100, 150, 200, 300)},
    'evidence': {'t': 300},
    'eval': {'folds': 3, 'fold_splits': ('pretrain', 'train', 'valid', 'test')},
    'rows': ROWS,
}

SMOKE = QUICK | {
    'xla_effort': 0,
    'data': QUICK['data'] | {'image_size': 32},
    'model': {'width': 32, 'depth': 1, 'unroll': False},
    'backbone': {'width': 32, 'depth': 2},
    'distill': {'global_size': 32, 'local_size': 16, 'local_crops': 2, 'prototypes': 64,
                'hidden': 32, 'bottleneck': 16},
    'pretrain': {'steps': 8, 'batch': 16, 'warmup_steps': 2, 'checkpoint_every': 8},
    'tune': {'steps': 8, 'batch': 16, 'warmup_steps': 2, 'checkpoint_every': 8},
    'classify': {'t': (25, 75), 'draws': 1, 'budget': 16, 'min_draws': 8},
    'evidence': {'draws': 8, 'flips': 100, 'images': 8, 't': 75},
    'eval': QUICK['eval'] | {'bootstrap': 200},
    'log_every': 4,
}

# Levers of hematoma's preset that moved something there, but for token r, which lost most.
LEVERS = QUICK | {
    'rows': ('rc_ldt', 'unpaired', 'all_t', 'unconditional_ldt', 'unconditional_longer'),
    'recipes': {
        'unconditional_longer': {
            'pretrain': {'condition': 'none', 'steps': 1800}, 'tune': {'label_start': 'null'},
        },
    },
}

PRESETS = {'quick': QUICK, 'smoke': SMOKE, 'levers': LEVERS}


def get_config(preset: str = ''):
    """`quick` (default) or another of `PRESETS`."""
    return config.preset(preset, PRESETS)
