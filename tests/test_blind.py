"""No row can see the test split before everything about it is chosen."""

import types

import jax
import pytest

from repdiff import experiment, methods, phases, scores


def test_a_row_is_trained_and_chosen_with_a_setting_that_has_no_test_split(monkeypatch, tmp_path):
    splits = {'pretrain': 'p', 'train': 't', 'valid': 'v', 'test': 'secret'}
    setting = phases.Setting(
        types.SimpleNamespace(size=1), splits, ('a', 'b'), None, (1, 1, 1), jax.random.key(0), None)
    seen = []

    def look(config, row, setting, *rest):
        seen.append(sorted(setting.splits))
        with pytest.raises(KeyError):
            setting.splits['test']
        return made[len(seen) - 1]

    def answer(setting):
        seen.append(sorted(setting.splits))
        return {}, {}

    trained = types.SimpleNamespace(facts=lambda: {}, figures={})
    chosen = types.SimpleNamespace(arrays={}, facts={}, decision=None, answer=answer)
    made = [trained, chosen]
    room = types.SimpleNamespace(train=look, choose=look)
    monkeypatch.setattr(methods, 'room', lambda config: room)
    monkeypatch.setattr(scores, 'write', lambda *args: None)
    monkeypatch.setattr(scores, 'read_facts', lambda *args: {'eval_seconds': 0.0})
    bench = types.SimpleNamespace(
        workdir=tmp_path, card=types.SimpleNamespace(phase=lambda *args: None))
    experiment._row(None, 'row', setting, None, bench)
    assert seen == [['pretrain', 'train', 'valid']] * 2 + [sorted(splits)]
