import jax
import jax.numpy as jnp
import pytest

torch = pytest.importorskip('torch')

from repdiff.benchmark import steps, torch_twin  # noqa: E402

Z_SHAPE = (2, 4, 6)


@pytest.mark.parametrize('case', steps.CASES)
def test_the_twin_has_as_many_parameters_and_runs(case):
    config = steps.config_of(case, 3, width=16, depth=2, heads=2)
    objective = steps.make_objective(config, case, Z_SHAPE)
    shapes = jax.eval_shape(objective.init, jax.random.key(0), jnp.zeros((1, *Z_SHAPE)))
    twin = torch_twin.Twin(objective, Z_SHAPE)
    assert sum(p.numel() for p in twin.parameters()) == sum(
        leaf.size for leaf in jax.tree.leaves(shapes))
    before = [p.detach().clone() for p in twin.parameters()]
    torch_twin.train_step(twin, 3, Z_SHAPE)()
    assert any(not torch.equal(old, new) for old, new in zip(before, twin.parameters()))
    if case == 'label':
        torch_twin.score_step(twin, 3, Z_SHAPE)()


def test_the_twin_runs_in_half_precision():
    config = steps.config_of('label', 3, width=16, depth=2, heads=2)
    objective = steps.make_objective(config, 'label', Z_SHAPE)
    twin = torch_twin.Twin(objective, Z_SHAPE)
    how = torch_twin.How('cpu', torch.bfloat16, compiled=False)
    seen = []
    twin.denoiser.blocks[0].mlp.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    torch_twin.train_step(twin, 3, Z_SHAPE, how)()
    torch_twin.score_step(twin, 3, Z_SHAPE, how)()
    assert seen == [torch.bfloat16] * 2
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float32}
