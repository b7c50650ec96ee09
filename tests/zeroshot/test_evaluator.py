"""The evaluator on Gaussian classes with the exact denoiser: posterior and decisions in closed form.

With z0 | c normal of mean μ_c and covariance σ² I, the best noise prediction is
ε' = δ (z_t − γ μ_c) / v, v = γ²σ² + δ². The difference of two classes' squared errors, averaged over
ε, is then (δγ/v)² (|z0 − μ_0|² − |z0 − μ_1|²), and the log odds of the classes is that of the squares
over 2σ²: the score's slope is D/(2σ²) (v/δγ)² and its bias the log prior.
"""

import os
import signal

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from scipy.special import softmax
from scipy.stats import multivariate_normal

from repdiff import cluster, interrupt
from repdiff.diffusion.schedule import linear
from repdiff.sharding import AXES
from repdiff.zeroshot.calibrate import Calibration
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.evaluator import Evaluator, in_pieces
from repdiff.zeroshot.rules import Rule
from repdiff.zeroshot.sequential import Settings

SCHEDULE, STEP, SD, SHAPE = linear(1000), 300, 0.7, (1, 2, 2)
PRIOR = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[0.4, 0, 0, 0], [-0.4, 0, 0, 0], [0, 0.6, 0.2, 0]]).reshape(3, *SHAPE)


def exact(params, z_t, t, mean):
    gamma, delta = (a[t][:, None, None, None] for a in (SCHEDULE.gamma, SCHEDULE.delta))
    return delta * (z_t - gamma * mean) / (gamma**2 * SD**2 + delta**2)


def evaluator(passes=8192, **changes):
    given = {'alpha': 0.05, 'budget': 64, 'min_draws': 8, 'growth': 1.5, 'stratified': True,
             'antithetic': False}
    mesh = Mesh(np.asarray(jax.devices()[:2]).reshape(2, 1, 1), AXES)
    return Evaluator(exact, SCHEDULE, mesh=mesh, key=jax.random.key(0), kinds=('l2',),
                     passes=passes, settings=Settings(**given | changes))


def decision(classes):
    """The one whose probabilities are the posterior; two classes are cut at one half."""
    gamma, delta = (float(a[STEP]) for a in (SCHEDULE.gamma, SCHEDULE.delta))
    v = gamma**2 * SD**2 + delta**2
    slope = np.prod(SHAPE) / (2 * SD**2) * (v / (delta * gamma)) ** 2
    rule = Rule('t', 'l2', False, np.array([STEP]), np.ones(1), np.ones(1))
    bias = np.log(PRIOR[:classes])
    return Decision(rule, Calibration(slope, bias), 0.5 if classes == 2 else None)


def images(count, classes, seed=0):
    """z0 (B, H, W, C), labels and ids of draws from the prior and the class-conditional Gaussians."""
    rng = np.random.default_rng(seed)
    prior = PRIOR[:classes] / PRIOR[:classes].sum()
    labels = rng.choice(classes, count, p=prior)
    z0 = MEANS[labels] + SD * rng.normal(size=(count, *SHAPE))
    return z0.astype(np.float32), labels, rng.integers(0, 2**32, (count, 2), dtype=np.uint32)


def posterior(z0, classes):
    density = [multivariate_normal(mean.ravel(), SD**2).logpdf(z0.reshape(len(z0), -1))
               for mean in MEANS[:classes]]
    return softmax(np.stack(density, 1) + np.log(PRIOR[:classes]), axis=1)


def decide(made, z0, ids, chosen, **options):
    conditions = MEANS[: chosen.offsets.size].astype(np.float32)
    return made.decide({}, conditions, z0, ids, chosen, **options)


@pytest.mark.parametrize('classes', [2, 3])
def test_posterior_and_decisions_equal_the_analytic_ones(classes):
    # What noise adds to a difference is linear in ε here, so that a pair ±ε has none.
    z0, _, ids = images(300, classes)
    made, chosen = evaluator(alpha=0.0, budget=2, antithetic=True), decision(classes)
    found, expected = decide(made, z0, ids, chosen), posterior(z0, classes)
    np.testing.assert_allclose(chosen.calibration.probabilities(found.scores), expected, atol=2e-5)
    np.testing.assert_array_equal(chosen.classify(found.scores), expected.argmax(1))


@pytest.mark.parametrize('classes', [2, 3])
def test_early_decisions_are_the_full_budgets_but_for_alpha(classes):
    z0, labels, ids = images(1500, classes)
    chosen = decision(classes)
    full = decide(evaluator(alpha=0.0), z0, ids, chosen)
    early = decide(evaluator(alpha=0.05), z0, ids, chosen)
    wrong = np.mean(chosen.classify(full.scores) != chosen.classify(early.scores))
    assert wrong < 0.05 and early.draws.mean() < 0.7 * full.draws.mean()
    best = posterior(z0, classes).argmax(1)
    assert np.mean(chosen.classify(full.scores) == best) > 0.9
    errors = np.where(np.isnan(early.errors), 0, full.errors[..., : early.errors.shape[2]])
    np.testing.assert_allclose(np.nan_to_num(early.errors), errors, atol=1e-5)


def test_images_on_the_border_err_no_more_often_than_alpha():
    """z0 at exactly the log odds of the cut: only chance says which side the full budget takes."""
    count, alpha, chosen = 1500, 0.1, decision(2)
    z0, _, ids = images(count, 2, seed=1)
    along, prior = 0.8, PRIOR[:2]  # the two means differ along the first coordinate
    z0[:, 0, 0, 0] = np.log(prior[0] / prior[1]) * SD**2 / -along
    assert np.ptp(posterior(z0, 2)[:, 0]) < 1e-4
    full = decide(evaluator(alpha=0.0), z0, ids, chosen)
    early = decide(evaluator(alpha=alpha), z0, ids, chosen)
    wrong = np.mean(chosen.classify(full.scores) != chosen.classify(early.scores))
    assert 0.3 * alpha < wrong < alpha + 3 * np.sqrt(alpha * (1 - alpha) / count)


def test_a_stopped_evaluation_goes_on_with_what_it_has(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('repdiff.zeroshot.evaluator.RECORDED', 100)
    z0, _, ids = images(40, 2)
    made, chosen = evaluator(passes=64), decision(2)
    whole = decide(made, z0, ids, chosen)
    record = tmp_path / 'part'
    decide(made, z0, ids, chosen, record=record)
    kept = sorted(record.iterdir())
    assert len(kept) > 5
    for path in kept[len(kept) // 2 :]:
        path.unlink()  # as a kill half-way leaves it
    torn = kept[1].read_bytes()
    kept[1].write_bytes(torn[:-9])  # as a failing disk does
    again = decide(made, z0, ids, chosen, record=record)
    np.testing.assert_array_equal(again.errors, whole.errors)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert sorted(record.iterdir()) == kept and kept[1].read_bytes() == torn
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 1 and f'{kept[1]} is damaged' in warned[0]


def test_what_was_recorded_is_never_anothers_answer(tmp_path):
    asked, seen = (np.arange(3), np.zeros(3, int), np.zeros(3, int), np.full(3, 50)), []

    def of(value):
        return in_pieces(lambda *x: np.full((x[0].size, 1), value, np.float32), 2, tmp_path,
                         seen.append)

    assert of(1)(*asked).tolist() == of(2)(*asked).tolist() == [[1.0]] * 3
    assert seen == [2, 1, 2, 1]  # what is read back counts as done
    assert of(3)(asked[0] + 1, *asked[1:]).tolist() == [[3.0]] * 3


def test_a_signal_stops_between_pieces_and_what_was_done_is_not_done_again(tmp_path, listening):
    asked, calls = [np.arange(10)] * 4, []

    def errors(*x):
        calls.append(x[0].tolist())
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)  # several processes do not see it of themselves
        return np.ones((x[0].size, 1), np.float32)

    with interrupt.deferred(), pytest.raises(interrupt.Interrupted):
        in_pieces(errors, 2, tmp_path)(*asked)
    assert calls == [[0, 1], [2, 3], [4, 5]]
    interrupt._asked = False
    assert in_pieces(errors, 2, tmp_path)(*asked).tolist() == [[1.0]] * 10
    assert calls[3:] == [[6, 7], [8, 9]]


def test_of_several_processes_the_first_alone_reads_and_writes_what_is_kept(tmp_path, monkeypatch):
    asked, told, computed = [np.arange(5)] * 4, [], []

    def run(record):
        def errors(*x):
            computed.append(record.name)
            return np.stack([x[0], x[0] / 7], 1).astype(np.float32)

        return in_pieces(errors, 2, record)(*asked)

    monkeypatch.setattr(cluster, 'of_first', lambda value: told.append(value) or value)
    firsts = [run(tmp_path / 'seen') for _ in range(2)]
    assert computed == ['seen'] * 3
    # The second sees a file system that shows nothing yet.
    monkeypatch.setattr(cluster, 'is_first', lambda: False)
    monkeypatch.setattr(cluster, 'of_first', lambda value: told.pop(0))
    seconds = [run(tmp_path / 'unseen') for _ in range(2)]
    assert computed == ['seen'] * 3 + ['unseen'] * 3 and not told
    assert not (tmp_path / 'unseen').exists()
    for found in firsts + seconds:
        np.testing.assert_array_equal(found, firsts[0])
