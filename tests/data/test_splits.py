"""Splits: stable for the patients that were there, even for the classes, and without leaks."""

from collections import Counter

import pytest

from repdiff.data import splits
from repdiff.errors import UserError

FRACTIONS = {'pretrain': 0.4, 'train': 0.3, 'valid': 0.15, 'test': 0.15}


def people(count, positives):
    """Patients as in CT-ICH: some with hemorrhage."""
    return {f'p{number:03}': int(number < positives) for number in range(count)}


def deal(stratum, fractions=FRACTIONS, seed=0, kept=None):
    order = {patient: splits.draw(patient, seed) for patient in stratum}
    return splits.assign(stratum, fractions, order, kept or {})


@pytest.mark.parametrize('seed', range(5))
def test_each_class_gets_its_share_within_one_patient(seed):
    stratum = people(62, 27)
    dealt = deal(stratum, seed=seed)
    for label, size in ((1, 27), (0, 35)):
        counts = Counter(dealt[patient] for patient in stratum if stratum[patient] == label)
        for name, share in FRACTIONS.items():
            assert abs(counts[name] - share * size) <= 1


def test_few_patients_still_reach_every_split():
    counts = Counter(deal(people(4, 4), {'train': 0.9, 'valid': 0.05, 'test': 0.05}).values())
    assert counts['train'] == 2 and counts['valid'] == counts['test'] == 1


def test_order_of_input_does_not_matter_and_seed_does():
    stratum = people(62, 27)
    assert deal(stratum) == deal(dict(reversed(stratum.items())))
    assert deal(stratum) != deal(stratum, seed=1)


def test_added_patients_move_nobody():
    stratum = people(62, 27)
    before = deal(stratum)
    more = stratum | {f'new{number}': number % 2 for number in range(40)}
    after = deal(more, kept=before)
    assert {patient: after[patient] for patient in stratum} == before
    for name, share in FRACTIONS.items():
        assert abs(Counter(after.values())[name] - share * 102) <= 2


def test_kept_patients_stay_when_they_change_class():
    stratum = people(30, 10)
    before = deal(stratum)
    after = deal({patient: 1 for patient in stratum}, kept=before)
    assert after == before


def test_draw_is_the_same_everywhere_and_even():
    assert splits.draw('a', 0) == 0.37150006202396163  # printf "0\0a" | sha256sum
    draws = [splits.draw(str(number), 7) for number in range(2000)]
    assert abs(sum(draws) / 2000 - 0.5) < 0.03 and 0 <= min(draws) and max(draws) < 1


def test_strata_take_the_rarest_class():
    labels = [('a', 0), ('a', 1), ('b', 0), ('c', -1), ('d', 2), ('d', 1), ('b', 0), ('e', 1),
              ('c', -1)]
    assert splits.strata(labels) == {'a': 1, 'b': 0, 'c': -1, 'd': 2, 'e': 1}


@pytest.mark.parametrize(('fractions', 'words'), [
    ({}, 'are missing'), ({'train': 0.5, 'test': 0.4}, 'sum to 1'),
    ({'train': 1.5, 'test': -0.5}, 'at least 0'), ({'training': 1.0}, "split 'training'")])
def test_bad_fractions(fractions, words):
    with pytest.raises(UserError, match=words):
        splits.check_fractions(fractions)


def test_roles_of_facilities():
    assert splits.roles(['1', '2', '3', '2'], (), ('1',)) == {
        '1': 'downstream', '2': 'pretrain', '3': 'pretrain'}
    for pretrain, downstream, words in [
            ((), ('9',), "'9' has no images"), (('1',), ('1',), 'is both'),
            (('2',), ('1',), "'3' is neither")]:
        with pytest.raises(UserError, match=words):
            splits.roles(['1', '2', '3'], pretrain, downstream)


def test_leaks_are_named():
    with pytest.raises(UserError, match="patient 'p' is in two splits, train .'a'. and test .'b'."):
        splits.check_patients([('p', 'train', 'a'), ('q', 'test', 'c'), ('p', 'test', 'b')])
    with pytest.raises(UserError, match="'a' .train. and 'c' .test. have the same pixels"):
        splits.check_pixels([('a', 'x', 'train'), ('b', 'x', 'train'), ('c', 'x', 'test')])
    splits.check_patients([('p', 'train', 'a'), ('p', 'train', 'b')])
    splits.check_pixels([('a', None, 'train'), ('b', None, 'test'), ('c', 'x', 'test')])


def test_a_class_without_examples_is_named():
    images = [(label, split) for split in splits.LABELLED for label in (0, 1)]
    splits.check_classes(images, ['no', 'yes'])
    with pytest.raises(UserError, match="split 'valid' has no example of class 'yes'"):
        splits.check_classes([each for each in images if each != (1, 'valid')], ['no', 'yes'])
