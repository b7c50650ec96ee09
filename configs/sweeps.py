"""Studies: one thing varied, all else as the config that `--config` gives.

  python -m repdiff.sweep --config=configs/hematoma.py --study=configs/sweeps.py:labels

`labels` and `unlabelled` fit any data set of enough patients (each class keeps one at least, so that
of few the smallest shares are the same); `contrast`, `lesion_size` and `facility_shift` are of
simulated CT; `image_size` is at equal numbers of tokens; `transfer` is of a real data set, such as
configs/ct_ich.py. `tune_rate` gives every row the same learning rates of tuning to choose from: by
the mean AUROC on validation, which the command prints and rings in sweep.png, not by the test
split's. Each of a study's points costs a run of the config for each of `--seeds`.
"""

from repdiff.errors import UserError


def _each(section: str, key: str, values: tuple[float, ...]) -> dict[str, dict]:
    return {str(value): {'data': {section: {key: value}}} for value in values}


def _pixels(size: int) -> dict:
    """The quick sizes on larger images: as many tokens, each of more pixels."""
    scale = size // 64
    return {
        'data': {'image_size': size},
        'augmentation': {'shift': 4 * scale},
        'latents': {'patch': 8 * scale, 'channels': 16 * scale**2},
        'backbone': {'patch': 8 * scale},
        'distill': {'global_size': size, 'local_size': size // 2},
    }


def _tune_rate(rate: float) -> dict:
    """The rate of all rows, also of those that have one of their own."""
    tune = {'tune': {'learning_rate': rate}}
    return tune | {'recipes': {row: tune for row in ('dinov2', 'vit', 'resnet')}}


# Name -> title, what the points are, and each point's overrides of the config.
STUDIES = {
    'labels': {
        'title': 'Label efficiency', 'axis': 'share of the training patients that are labelled',
        'points': _each('keep', 'train', (0.05, 0.1, 0.25, 0.5, 1.0)),
    },
    'unlabelled': {
        'title': 'Unlabelled images', 'axis': 'share of the unlabelled patients',
        'points': _each('keep', 'pretrain', (0.03, 0.1, 0.3, 1.0)),
    },
    'contrast': {
        'title': 'Simulated CT: contrast', 'axis': "scale of the hematoma's HU contrast",
        'points': _each('simulated', 'contrast', (0.5, 0.75, 1.0, 1.5)),
    },
    'lesion_size': {
        'title': 'Simulated CT: size of the lesion', 'axis': "scale of the hematoma's lengths",
        'points': _each('simulated', 'lesion_size', (0.5, 0.75, 1.0, 1.5)),
    },
    'facility_shift': {
        'title': 'Simulated CT: facility shift',
        'axis': 'how far the unlabelled facilities differ from the labelled one',
        'points': _each('simulated', 'facility_shift', (0.0, 0.5, 1.0)),
    },
    'image_size': {
        'title': 'Image size', 'axis': 'pixels a side',
        'points': {str(size): _pixels(size) for size in (64, 128, 256)},
    },
    'tune_rate': {
        'title': 'Learning rate of tuning', 'axis': 'learning rate',
        'points': {f'{rate:g}': _tune_rate(rate) for rate in (3e-4, 1e-3, 3e-3, 1e-2)},
    },
    'transfer': {
        'title': 'Transfer', 'axis': 'slices that are pre-trained on',
        'points': {
            'own': {},
            'simulated': {'data': {'pretrain_on': ('simulated',)}},
            'own + simulated': {'data': {'pretrain_on': ('pretrain', 'train', 'simulated')}},
        },
    },
}


def get_study(name: str) -> dict:
    """The study of this name, with it."""
    if name not in STUDIES:
        raise UserError(f'--study: no study {name!r}; choose one of {", ".join(STUDIES)}.')
    return {'name': name, **STUDIES[name]}
