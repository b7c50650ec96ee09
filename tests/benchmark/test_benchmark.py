import subprocess
import sys

import jax
import numpy as np
import pytest

from repdiff.benchmark import __main__ as benchmark
from repdiff.benchmark import steps


def test_turns_are_interleaved_and_timed(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(steps.time, 'perf_counter', lambda: clock[0])
    monkeypatch.setattr(steps.time, 'process_time', lambda: clock[0] / 2)

    def side(name: str, seconds: float):
        def step():
            clock[0] += seconds
            order.append(name)
        return step

    costs = steps.take_turns({'a': side('a', 0.25), 'b': side('b', 0.5)}, 2, 1.0)
    np.testing.assert_allclose(costs['a'], [[0.25, 0.125]] * 2)
    np.testing.assert_allclose(costs['b'], [[0.5, 0.25]] * 2)
    assert ''.join(order) == 'ab' + 2 * ('aaaaa' + 'bbb')


@pytest.mark.parametrize(('arguments', 'words'), [
    (['walk'], "'walk'"),
    (['train', '--cases=none,pool'], "no 'pool'; choose among none, pooled"),
    (['train', '--tokens=3'], '--tokens=3'),
])
def test_bad_options_end_in_one_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert words in message and message.count('\n') == 1


def test_without_pytorch_it_says_what_to_install():
    program = "import sys; from repdiff.benchmark import __main__ as benchmark\n" \
        "assert 'torch' not in sys.modules  # nothing that all commands import waits for it\n" \
        "sys.modules['torch'] = None; benchmark.main(['train'])"
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('repdiff: PyTorch is missing')
    assert 'Traceback' not in done.stderr


def test_cases_build_the_objectives_they_name():
    shape = (2, 2, 8)
    kinds = {}
    for case in steps.CASES:
        config = steps.config_of(case, 4, width=8, depth=1)
        objective = steps.make_objective(config, case, shape)
        kinds[case] = (objective.denoiser.conditioning, getattr(objective, 'paired_weight', None))
        assert objective.denoiser.width == 8
    assert kinds == {
        'none': ('none', None), 'pooled': ('representation', None),
        'tokens': ('representation', None), 'label': ('label', 0.0), 'paired': ('label', 0.01),
    }


def test_our_steps_run():
    config = steps.config_of('label', 8, width=8, depth=1)
    with config.unlocked():
        config.mesh.data = -1
    objective = steps.make_objective(config, 'label', (2, 2, 4))
    step = steps.our_train_step(config, objective, (2, 2, 4))
    step()
    step()
    steps.our_score_step(config, objective, (2, 2, 4))()
    assert jax.device_count() == 8
