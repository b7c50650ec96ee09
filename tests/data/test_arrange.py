"""Folds, shares and other sources: every patient tested once and never trained on."""

import dataclasses

import numpy as np
import pytest

from repdiff.data import records
from repdiff.data.arrange import Arrangement, arrange, deal
from repdiff.data.splits import draw
from repdiff.errors import UserError

PLAIN = Arrangement(folds=0, fold=0, fold_splits=('train', 'valid', 'test'),
                    fractions={'pretrain': 0.4, 'train': 0.4, 'valid': 0.2, 'test': 0.2},
                    pretrain_on=('pretrain',), keep={'pretrain': 1.0, 'train': 1.0}, seed=0)
SIZES = {'pretrain': 12, 'train': 12, 'valid': 8, 'test': 10}  # patients


def write(path, name='set', salt='', size=8, seed=0, without=None):
    """Patients of three slices; every third patient has one positive slice."""
    rng = np.random.default_rng(seed)

    def split(split, people):
        for person in range(people):
            for number in range(3):
                yield {'image': rng.integers(0, 255, (size, size, 1)).astype(np.uint8),
                       'label': int(person % 3 == 0 and number == 1), 'facility': '',
                       'id': f'{salt}{name}-{split}-{person}-{number}',
                       'patient': f'{salt}{name}-{split}-{person}', 'markers': (), 'mask': None}

    info = {'name': name, 'simulated': False, 'classes': ['no', 'yes'], 'markers': [],
            'masks': False, 'image_size': size, 'channels': 1, 'fingerprint': name, 'skipped': []}
    sizes = {key: people for key, people in SIZES.items() if key != without}
    return records.write({key: split(key, people) for key, people in sizes.items()}, path, info)


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    return write(tmp_path_factory.mktemp('own') / 'set')


def folded(dataset, fold, **changes):
    return arrange(dataset, [], dataclasses.replace(PLAIN, folds=3, fold=fold, **changes))


def patients(dataset, split):
    return set(dataset.load(split)['patient'].tolist())


@pytest.mark.parametrize('dealt', [('train', 'valid', 'test'),
                                   ('pretrain', 'train', 'valid', 'test')])
def test_every_patient_is_tested_once_and_is_nowhere_else_in_that_fold(own, dealt):
    everyone = {patient for split in dealt for patient in patients(own, split)}
    tested = []
    for fold in range(3):
        made = folded(own, fold, fold_splits=dealt)
        where = {split: patients(made, split) for split in made.splits}
        assert sum(map(len, where.values())) == len(set().union(*where.values())) == 42
        assert all(made.load(split)['label'].any() for split in ('train', 'valid', 'test'))
        tested += where['test']
        if 'pretrain' not in dealt:
            assert where['pretrain'] == patients(own, 'pretrain')
    assert sorted(tested) == sorted(everyone)


def test_folds_are_even_in_size_and_in_each_class():
    stratum = {f'p{i}': int(i % 4 == 0) for i in range(58)}
    dealt = deal(stratum, {patient: draw(patient, 0) for patient in stratum}, 4)
    sizes = [list(dealt.values()).count(fold) for fold in range(4)]
    positives = [sum(stratum[patient] for patient in dealt if dealt[patient] == fold)
                 for fold in range(4)]
    assert max(sizes) - min(sizes) <= 1 and max(positives) - min(positives) <= 1
    with pytest.raises(UserError, match='only 15 patients are of class 1'):
        deal(stratum, {patient: 0.0 for patient in stratum}, 16)


def test_folds_hang_on_the_seed_but_not_on_hidden_names(own, tmp_path):
    hidden = write(tmp_path / 'other', salt='x7-')
    names = [folded(dataset, 1).load('test')['id'].tolist() for dataset in (own, hidden)]
    assert [name.removeprefix('x7-') for name in names[1]] == names[0]
    other = folded(own, 1, seed=1)
    assert other.load('test')['id'].tolist() != names[0]
    assert other.info['fingerprint'] != folded(own, 1).info['fingerprint']


def test_smaller_shares_are_parts_of_larger_ones_and_keep_every_class(own):
    sizes, before = [], set()
    for share in (0.01, 0.25, 0.5, 1.0):
        made = arrange(own, [], dataclasses.replace(
            PLAIN, keep={'pretrain': share, 'train': share}))
        people = patients(made, 'train') | patients(made, 'pretrain')
        assert before <= people and set(made.load('train')['label']) == {0, 1}
        assert patients(made, 'test') == patients(own, 'test')
        sizes.append((made.info['splits']['train']['patients'],
                      made.info['splits']['pretrain']['patients']))
        before = people
    assert sizes == [(2, 1), (3, 3), (6, 6), (12, 12)]


def test_pretraining_on_the_training_images_and_on_another_source(own, tmp_path):
    other = write(tmp_path / 'other', name='other', seed=1)
    made = arrange(own, [other], dataclasses.replace(
        PLAIN, pretrain_on=('train', '/other'), keep={'pretrain': 1.0, 'train': 0.5}))
    labels = made.load('pretrain')['label'].tolist()
    assert labels[36:] == [-1] * 36 and 1 in labels[:36]
    assert patients(made, 'pretrain') == patients(own, 'train') | patients(other, 'pretrain')
    assert made.info['splits']['train']['patients'] == 6
    image = made.split('pretrain')[40]['image']
    assert (image == other.split('pretrain')[4]['image']).all()
    assert 'train + /other' in ' '.join(made.info['arrangement'])


def test_what_is_tested_may_not_hide_in_another_source(own, tmp_path):
    places = dataclasses.replace(PLAIN, pretrain_on=('pretrain', '/other'))
    with pytest.raises(UserError, match='an image of pretrain is in valid or test'):
        # The same pictures under other names: one fold tests what is pre-trained on there.
        arrange(own, [write(tmp_path / 'copy', name='copy')], dataclasses.replace(
            places, folds=3, fold_splits=('pretrain', 'train', 'valid', 'test')))
    with pytest.raises(UserError, match='have image_size 16'):
        arrange(own, [write(tmp_path / 'large', name='large', size=16)], places)


def test_the_data_sets_own_splits_stand_as_they_are(own):
    assert arrange(own, [], PLAIN) is own


def test_data_without_a_pretrain_split_need_another_to_pretrain_on(tmp_path):
    labelled = write(tmp_path / 'set', without='pretrain')
    with pytest.raises(UserError, match=r"--config.data.pretrain_on=\"\('train',\)\""):
        arrange(labelled, [], PLAIN)
    made = arrange(labelled, [], dataclasses.replace(PLAIN, pretrain_on=('train',)))
    assert patients(made, 'pretrain') == patients(labelled, 'train')


@pytest.mark.parametrize('changes, words', [
    ({'folds': 1}, 'folds is 1'),
    ({'folds': 3, 'fold': 3}, 'choose 0 to 2'),
    ({'fold_splits': ('train', 'test')}, 'fold_splits'),
    ({'pretrain_on': ('pretrain', 'test')}, 'must be unseen'),
    ({'keep': {'train': 0.0}}, 'keep.train is 0.0'),
])
def test_bad_arrangements_are_one_sentence(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(PLAIN, **changes)
