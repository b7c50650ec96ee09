"""Made-up pictures of patients with their labels.csv, and the prepare command over them."""

import numpy as np
from PIL import Image

from repdiff import prepare
from repdiff.data import records

FRACTIONS = '--fractions=train=0.5,valid=0.25,test=0.25'


def picture(path, seed, size=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)).save(path)


def make_source(root, patients=12, slices=2):
    """Pictures of patients, every second one positive in their first slice."""
    lines = ['file,patient,facility,label,a,b,split']
    for patient in range(patients):
        for k in range(slices):
            name = f'slices/{patient:02}_{k}.png'
            picture(root / name, 100 * patient + k)
            label = int(patient % 2 == 1 and k == 0)
            split = ('train', 'valid', 'test')[patient // 2 % 3]
            lines.append(f'{name},Secret{patient:02},Clinic{patient % 3},{label},{k},{label},'
                         f'{split}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
    return root


def run(tmp_path, *options, out='out'):
    prepare.main([f'--source={tmp_path / "source"}', f'--out={tmp_path / out}', '--image-size=16',
                  f'--salt-file={tmp_path / "salt"}', '--processes=1',
                  *([FRACTIONS] if not any('--frac' in each for each in options) else []),
                  *options])
    return records.open(tmp_path / out)


def patients_of(dataset):
    return {name: set(dataset.load(name)['patient'].tolist()) for name in dataset.splits}


def edit(source, change):
    path = source / 'labels.csv'
    path.write_text('\n'.join(change(path.read_text().splitlines())) + '\n')
