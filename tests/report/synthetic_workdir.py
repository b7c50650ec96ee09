"""A workdir as the main job leaves it, made of made-up numbers."""

import json
from itertools import combinations

import numpy as np
from PIL import Image

from repdiff.eval import intervals, select, trust
from repdiff.eval.answers import Answers, write_predictions

STEPS = [10, 25, 50, 100, 150, 200, 300]
MODELS = {  # name: (title, shift of the positive class, pre-trained)
    'rc_ldt': ('RC-LDT, pooled r with drop', 2.1, True),
    'rc_ldt_paper': ('RC-LDT, as in the paper', 0.35, True),
    'unconditional_ldt': ('Unconditional LDT', 1.9, True),
    'ldt_from_scratch': ('LDT from scratch', 1.0, False),
}
FLOORS = {
    'majority': ('Majority class', 0.0),
    'logistic_histogram': ('Logistic regression, 32-bin intensity histogram', 0.7),
    'logistic_pixels': ('Logistic regression, downsampled pixels', 0.5),
}


def make(path, seed=0, images=1000, classes=2, size=64, pictures=24):
    """Writes every file of a workdir that the report reads."""
    (path / 'report').mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    labels = (rng.random(images) < 0.16).astype(int)
    if classes > 2:
        labels = rng.integers(0, classes, images)
    rows = [_row(name, title, shift, labels, classes, rng, pretrained=pretrained, floor=False)
            for name, (title, shift, pretrained) in MODELS.items()]
    rows += [_row(name, title, shift, labels, classes, rng, pretrained=False, floor=True)
             for name, (title, shift) in FLOORS.items()]
    measured = [intervals.measure([row], resamples=200, seed=seed) for row in rows]
    names = ['no hematoma', 'hematoma'] if classes == 2 else [f'kind {k}' for k in range(classes)]
    write_json(path / 'results.json', {
        'dataset': {'name': 'hematoma', 'simulated': True, 'classes': names, 'splits': {
            'pretrain': {'images': 10313, 'patients': 2104},
            'train': {'images': 1424, 'patients': 290, 'positives': 228},
            'valid': {'images': 400, 'patients': 80, 'positives': 64},
            'test': {'images': images, 'patients': images // 5, 'positives': int(labels.sum())}}},
        'models': [intervals.entry(row) for row in measured],
        'evidence': _evidence(rng),
        'comparisons': [intervals.compare(a, b) for a, b in combinations(measured, 2)],
    })
    write_predictions(path / 'predictions.csv', rows)
    _write_notes(path, seed)
    _write_log(path, rng)
    _write_early_stop(path, rng)
    _write_generated(path, rng)
    _write_pictures(path, rng, size, pictures)


def _evidence(rng):
    measured = {figure: {arm: {'mean': float(value), 'ci95': [float(value) - 0.1, float(value) + 0.1]}
                         for arm, value in zip(('evidence', 'brightness', 'random'), rng.random(3))}
                for figure in ('pointing', 'dice', 'dice_at_lesion_size')}
    return {'row': 'rc_ldt', 'level': 0.05, 'draws': 96, 'images': 60, 'images_with_evidence': 41,
            'localisation': measured}


def write_json(path, value):
    path.write_text(json.dumps(value, allow_nan=False))


def _row(name, title, shift, labels, classes, rng, **facts):
    rows = len(labels)
    logits = rng.normal(size=(rows, classes)) + shift * np.eye(classes)[labels]
    if name == 'majority':
        logits = np.zeros((rows, classes))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    facts |= {'title': title, 'seed': 0, 'train_seconds': 312.4, 'eval_seconds': 21.0,
              'parameters': 2_914_112}
    cut = None
    if classes == 2:
        scores = 0.4 * scores[:, 1]
        cut = select.threshold(labels, scores) if name != 'majority' else 0.9
    facts['rule'] = {'name': 't=100', 't': [100], 'threshold': cut, 'valid_auroc': 0.8}
    if not facts['floor']:
        curve = 0.5 + 0.18 * shift * np.exp(-((np.log(STEPS) - np.log(100)) / 1.2) ** 2)
        facts['auroc_over_t'] = {'t': STEPS, 'valid': curve.tolist()}
        facts['images_seen'] = {'pretrain': 38_400, 'tune': 25_600}
        facts['train_flops'] = {'pretrain': 6.9056e12, 'tune': 4.59e11}
        if not facts['pretrained']:
            del facts['images_seen']['pretrain'], facts['train_flops']['pretrain']
            facts['neighbours'] = {'k': 20, 'valid_auroc': 0.7, 'test_auroc': 0.65}
        facts |= _decisions(labels, scores, select.classify(scores, cut), rng)
        facts['argmin'] = {'accuracy': 0.81, 'f1': 0.42, 'recall': 0.7, 'precision': 0.3,
                           'balanced_accuracy': 0.72,
                           'confusion': {'tp': 7, 'fp': 16, 'tn': 74, 'fn': 3}}
    return Answers(name, np.array([f'slice{i:04}' for i in range(rows)]),
                   np.array([f'patient{i // 5}' for i in range(rows)]), labels, scores,
                   select.classify(scores, cut), facts)


def _decisions(labels, scores, predictions, rng):
    """What a row says of its draws and its probabilities."""
    used = rng.choice([12, 15, 40, 512], labels.size)
    looks = [12, 15, 40, 512]
    confidence = scores.max(1) if scores.ndim == 2 else np.abs(scores - 0.2)
    return {
        'draws': {'budget': 512, 'alpha': 0.05, 'mean': float(used.mean()),
                  'images': np.bincount(used).tolist()},
        'auroc_over_draws': {'draws': looks, 'valid': [0.6, 0.65, 0.7, 0.72],
                             'test': (0.6 + 0.1 * rng.random(4)).tolist()},
        'trust': {'raw': trust.reliability(labels, scores**2),
                  'calibrated': trust.reliability(labels, scores),
                  'selective': trust.selective(labels, predictions, confidence)},
    }


def _write_notes(path, seed):
    write_json(path / 'config.json', {'name': 'hematoma', 'seed': seed,
                                      'model': {'width': 128, 'depth': 4}})
    write_json(path / 'card.json', {
        'code_version': '0.1.0+66ce41c', 'command': 'python -m repdiff.main '
        '--config=configs/hematoma.py', 'data_fingerprint': '9f2c' * 16, 'seeds': {'run': seed},
        'devices': ['cpu:0'], 'rules': {name: {'name': 't=100', 'threshold': 0.21}
                                        for name in MODELS},
        'phases': {f'{name}.{kind}': {'wall_seconds': 201.5, 'device_seconds': 201.5}
                   for name in MODELS for kind in ('pretrain', 'tune')}})


def _write_early_stop(path, rng):
    def points(key, values):
        cost, agreement = np.geomspace(0.02, 0.5, len(values)), 1 - 0.2 * rng.random(len(values))
        return [{key: value, 'cost': c, 'agreement': a}
                for value, c, a in zip(values, cost, agreement)]

    write_json(path / 'report' / 'early_stop.json', {'rc_ldt': {
        'images': 1000, 'budget': 512, 'alpha': 0.05, 'curves': {
            'sequential': points('alpha', (0.2, 0.05, 0.01)),
            'uncorrected': points('alpha', (0.2, 0.05, 0.01)),
            'fixed': points('draws', (8, 32, 128))}}})


def _write_generated(path, rng):
    """Two sets of samples, the second of copies; figure 9 alone was drawn."""
    figures = ('fid', 'sfid', 'precision', 'recall', 'kid', 'density', 'coverage')
    rows = [{'name': name, 'images': 512, 'inception_score': None, 'copies': {
        'training_distance': 51.25, 'source_distance': source, 'verdict': verdict,
    }, 'directory': name.replace(' ', '-')} | {key: float(rng.random()) for key in figures}
        for name, source, verdict in (('rc_ldt density', None, 'neither'),
                                      ('rc_ldt images', 9.5, 'near-reconstruction'))]
    rows.insert(0, rows[0] | {'name': 'real images (pretrain)', 'images': 10313, 'copies': None})
    del rows[0]['directory']
    (path / 'generate').mkdir(exist_ok=True)
    write_json(path / 'generate' / 'table.json', {
        'reference': {'split': 'test', 'images': 1000}, 'features': 'the joint ViT of rc_ldt',
        'real_training_distance': 25.5, 'rows': rows})
    for name in ('rc_ldt-density', 'rc_ldt-images', 'figure9'):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(
            path / 'generate' / f'{name}.png')


def _write_log(path, rng):
    lines = []
    for row in list(MODELS)[:3]:
        for step in range(50, 2501, 50):
            loss = 0.5 * np.exp(-step / 700) + 0.12 + 0.01 * rng.normal()
            lines.append({'phase': f'{row}.pretrain', 'step': step, 'loss': loss})
            if step % 500 == 0:
                kept = {} if row == 'unconditional_ldt' else {'loss_kept': loss / 8}
                lines.append({'phase': f'{row}.pretrain', 'step': step, 'loss_dropped': loss,
                              **kept})
    for step in range(50, 2501, 50):
        lines.append({'phase': 'ldt_from_scratch.pretrain', 'step': step, 'loss': 12.0, 'dino': 6.0,
                      'teacher_entropy': float(0.5 + 0.01 * rng.normal()), 'feature_std': 0.8})
    for i, row in enumerate(MODELS):
        for step in range(50, 1001, 50):
            lines.append({'phase': f'{row}.tune', 'step': step,
                          'loss': 0.3 * np.exp(-step / 400) + 0.1 + 0.01 * rng.normal()})
            if step % 200 == 0:
                lines.append({'phase': f'{row}.tune', 'step': step,
                              'valid_auroc': 0.85 - 0.08 * i - 0.2 * np.exp(-step / 300)})
    (path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def _write_pictures(path, rng, size, pictures):
    y, x = np.mgrid[-1:1:size * 1j, -1:1:size * 1j]

    def head(spot):
        image = np.where(x**2 / 0.55 + y**2 / 0.8 < 1, 95.0, 0) + rng.normal(0, 8, x.shape)
        image = np.where(abs(x**2 / 0.55 + y**2 / 0.8 - 1) < 0.12, 250, image)
        if spot:
            dx, dy = rng.uniform(-0.3, 0.3, 2)
            image = np.where((x - dx)**2 + (y - dy)**2 < 0.03, 170, image)
        return image.clip(0, 255).astype(np.uint8)

    labels = np.arange(pictures) % 3 == 0
    np.savez(path / 'report' / 'samples.npz', images=np.stack([head(spot) for spot in labels]),
             labels=labels.astype(int), split=np.full(pictures, 'train'),
             facilities=np.array([str(i % 12 + 1) for i in range(pictures)]),
             markers=np.array(['blend sign, fluid level' if spot else '' for spot in labels]))
    steps, image = np.array([50, 100, 200, 400, 600, 800, 950])[:pictures], head(True)

    def faded(scale):
        return np.stack([(image * np.exp(-step / scale) + rng.normal(60, 10, image.shape))
                         .clip(0, 255).astype(np.uint8) for step in steps])

    np.savez(path / 'report' / 'z0_over_t.npz', image=image, t=steps, rc_ldt=faded(4000),
             rc_ldt_dropped=faded(300), rc_ldt_paper=faded(9000), rc_ldt_paper_dropped=faded(200),
             unconditional_ldt=faded(400))
    outcomes = ['true positive', 'false negative', 'false positive', 'true negative'][:pictures]
    heads = np.stack([head(words.startswith(('true p', 'false n'))) for words in outcomes])
    means = rng.normal(size=heads.shape)
    np.savez(path / 'report' / 'evidence.npz', images=heads, outcomes=np.array(outcomes),
             pairs=np.tile([1, 0], (len(heads), 1)), means=means, shown=abs(means) > 2,
             errors=np.full_like(means, 0.4),
             masks=heads == 170, counterfactuals=np.stack([heads, heads // 2 + 30], 1),
             step=np.array(99))
