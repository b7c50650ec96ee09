"""The notebooks: they run from top to bottom, call the package, define nothing, store no output."""

import ast
import os
import sys
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
TINY = ' '.join([
    '--config.data.image_size=32', '--config.data.simulated.pretrain=48',
    '--config.data.simulated.train=32', '--config.data.simulated.valid=32',
    '--config.data.simulated.test=32', '--config.data.simulated.positive_rate=0.4',
    '--config.model.width=32', '--config.model.depth=1', '--config.model.unroll=False',
    '--config.latents.patch=8', '--config.latents.channels=16',
    '--config.pretrain.batch=16', '--config.pretrain.steps=2', '--config.tune.batch=16',
    '--config.tune.steps=2', '--config.classify.t="(25, 75)"', '--config.classify.batch=16',
    '--config.classify.budget=16', '--config.classify.min_draws=8', '--config.evidence.draws=4',
    '--config.evidence.flips=50', '--config.evidence.images=4', '--config.eval.bootstrap=50',
])
ONE = """ --config.rows="('rc_ldt',)" """
SWITCHES = """ --config.rows="('tokens','tokens_paper','unconditional')" """
SETTINGS = {  # what replaces the parameters, and how many pictures are then shown
    'quickstart': ({'PRESET': 'smoke', 'OPTIONS': TINY + ONE}, 7),
    'hematoma_tpu': ({'PRESET': 'smoke', 'IMAGE_SIZE': 32, 'SLICES': 120, 'OPTIONS': TINY}, 4),
    'representation_study': ({'OPTIONS': TINY + SWITCHES}, 4),
}


def code(path):
    """(cell, its Python source with the lines that only IPython reads turned into calls)."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == 'code']
    return [(cell, TransformerManager().transform_cell(cell.source)) for cell in cells]


@pytest.fixture(scope='module')
def room(tmp_path_factory):
    return tmp_path_factory.mktemp('colabs')


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_define_nothing_and_store_no_output(path):
    nbformat.validate(nbformat.read(path, 4))
    for cell, source in code(path):
        assert not cell.outputs and cell.execution_count is None
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_outside_a_checkout_the_user_names_the_repository(path, tmp_path, monkeypatch):
    [install] = [source for cell, source in code(path) if '!git clone' in cell.source]
    [parameters] = [source for cell, source in code(path) if cell.metadata.get('tags')]
    monkeypatch.chdir(tmp_path)
    shell = mock.Mock()
    names = {'get_ipython': lambda: shell}
    exec(parameters, names)
    with pytest.raises(SystemExit, match='Set REPOSITORY'):
        exec(install, names)
    names['REPOSITORY'] = 'https://somewhere/repdiff'
    exec(install, names)
    assert shell.mock_calls[:2] == [
        mock.call.system('git clone --depth=1 {REPOSITORY} checkout'),
        mock.call.run_line_magic('cd', 'checkout')]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, room, monkeypatch):
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=0')
    monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    settings, pictures = SETTINGS[path.stem]
    settings = settings | {
        'ROOT': f'{room}/drive', 'SOURCE': f'{room}/drive/slices',
        'WORKDIR': f'{room}/{path.stem}',
        'OPTIONS': f'{settings["OPTIONS"]} --config.cache={room}/cache',
    }
    settings = '\n'.join(f'{name} = {value!r}' for name, value in settings.items())
    notebook = nbformat.read(path, 4)
    at = [cell.metadata.get('tags') for cell in notebook.cells].index(['parameters'])
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(settings))
    try:
        NotebookClient(notebook, timeout=600, kernel_name='python3',
                       resources={'metadata': {'path': str(ROOT / 'colabs')}}).execute()
    finally:
        keep = os.environ.get('REPDIFF_NOTEBOOKS')  # a directory to look at them in
        if keep:
            nbformat.write(notebook, Path(keep) / path.name)
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    data = [output.get('data', {}) for output in outputs]
    assert sum('image/png' in each for each in data) >= pictures
    assert any('AUROC' in each.get('text/markdown', '') for each in data)
    assert not any('Traceback' in output.get('text', '') for output in outputs)
