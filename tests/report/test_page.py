"""The page and its figures, from a workdir of made-up numbers and from broken ones."""

import html.parser
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import synthetic_workdir
from PIL import Image

from repdiff import report
from repdiff.errors import UserError
from repdiff.report import figures, generated, page, style, workdir


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp('run')
    synthetic_workdir.make(path, images=300, size=24, pictures=3)
    report.write(path)
    return path


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'copy', ignore=shutil.ignore_patterns('figures'))


class Resources(html.parser.HTMLParser):
    """Collects what a browser would fetch, and the open tags that were never closed."""
    VOID = {'meta', 'img', 'br', 'link'}

    def __init__(self):
        super().__init__()
        self.fetched, self.open, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == 'script'
        for key, value in attrs:
            if key in ('src', 'srcset', 'data', 'poster') or (key == 'href' and tag == 'link'):
                self.fetched.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained_and_well_formed(written):
    text = (written / 'report' / 'index.html').read_text()
    parser = Resources()
    parser.feed(text)
    assert parser.open == [] and parser.scripts == 0
    assert len(parser.fetched) == len(figures.FIGURES) + 3  # two sets of samples and figure 9
    assert all(source.startswith('data:image/png;base64,') for source in parser.fetched)
    assert not re.search(r'url\(|@import', text)


def test_page_shows_every_row_verdict_and_warning(written):
    text = (written / 'report' / 'index.html').read_text()
    results = json.loads((written / 'results.json').read_text())
    for row in results['models']:
        assert row['title'] in text and f'{row["f1"]:.3f}' in text
        assert '{:.3f}–{:.3f}'.format(*row['ci95']['accuracy']) in text
    pairs, rows = results['comparisons'], len(results['models'])
    assert len(pairs) == rows * (rows - 1) / 2
    for number, pair in enumerate(pairs):
        shown = [verdict in text for verdict in pair['verdicts'].values()]
        assert shown == [number < rows - 1] * 3  # sentences are the first row's
    assert 'accuracy below majority class' in text and 'worse than logistic regression' in text
    assert 'not a medical device' in text and 'drawn by a program' in text
    assert '0.1.0+66ce41c' in text and '201.5' in text
    assert '60 test slices with a lesion, 41 show evidence' in ' '.join(text.split())


def test_every_pair_stands_in_the_matrix_both_ways(written):
    text = ' '.join((written / 'report' / 'index.html').read_text().split())
    pairs = json.loads((written / 'results.json').read_text())['comparisons']
    cells = page.versus(pairs)
    for pair in pairs:
        low, high = pair['ci95']['delta_f1']
        assert cells[pair['a']][pair['b']]['f1'] == (pair['delta_f1'], [low, high])
        assert cells[pair['b']][pair['a']]['f1'] == (-pair['delta_f1'], [-high, -low])
    scratch = next(pair for pair in pairs
                   if (pair['a'], pair['b']) == ('unconditional_ldt', 'ldt_from_scratch'))
    assert scratch['better']['auroc'] == 'unconditional_ldt'
    for a, b, sign, look in (('unconditional_ldt', 'ldt_from_scratch', 1, 'better'),
                             ('ldt_from_scratch', 'unconditional_ldt', -1, 'worse')):
        delta = page.signed(sign * scratch['delta_auroc'], 2)
        assert re.search(f'class="{look}" title="{a} − {b}: ΔAUROC [^"]*">{re.escape(delta)}<', text)


def test_budgets_are_in_readable_units(written):
    text = re.sub('<[^>]*>|\\s+', ' ', (written / 'report' / 'index.html').read_text())
    budgets = text[text.index('What each row took   Images'):]
    assert re.search(r'rc_ldt +2.91 M +38,400 +25,600 +6.91 T +459 G +5.21 min +21 s', budgets)
    assert re.search(r'ldt_from_scratch +2.91 M +– +25,600 +– +459 G .* 0.700 +0.650', budgets)
    assert [page.amount(value) for value in (None, 0, 33, 999.7, 1e18)] == [
        '–', '0', '33', '1 k', '1 E']


def test_generated_images_are_told_as_in_the_text(written):
    page = (written / 'report' / 'index.html').read_text()
    run = workdir.load(written)
    table = generated.text(run.generated)
    assert max(map(len, table.splitlines())) <= generated.WIDTH
    assert table.endswith('\nrc_ldt images: near-reconstruction\n')
    assert 'Against 1,000 test images.' in table and 'Against 1,000 test images.' in page
    rows = {row['name']: generated.cells(row) for row in run.generated['rows']}
    assert rows['real images (pretrain)'][0] == '10,313'
    assert rows['rc_ldt density'][-2:] == ['–', '51.2']
    assert rows['rc_ldt images'][-2:] == ['9.50', '51.2']
    assert all(f'<td class="num">{cell}</td>' in page for cells in rows.values() for cell in cells)
    assert page.count('<span class="warning">near-reconstruction</span>') == 1


def test_warnings_are_of_models_that_a_floor_beats():
    floor = {'name': 'logistic_pixels', 'floor': True, 'auroc': 0.7}
    good = {'name': 'a', 'auroc': 0.8, 'accuracy': 0.9,
            'confusion': {'tp': 10, 'fp': 5, 'tn': 80, 'fn': 5}}
    poor = good | {'name': 'b', 'auroc': 0.6, 'accuracy': 0.84}
    assert page.warnings(good, [good, poor, floor]) == []
    assert len(page.warnings(poor, [good, poor, floor])) == 2
    assert page.warnings(floor | {'accuracy': 0.1}, [good, floor]) == []
    assert page.majority_share([[3, 1, 0], [2, 2, 2], [0, 0, 5]]) == 6 / 15
    assert page.best([good, poor, floor], 'auroc') == {'a'}
    assert page.best([good | {'brier': 0.2}, poor | {'brier': 0.1}], 'brier') == {'b'}


def test_figures_are_pictures_that_follow_the_data(written, tmp_path):
    synthetic_workdir.make(tmp_path, seed=1, images=200, size=24, pictures=3)
    for figure in figures.draw(workdir.load(tmp_path)):
        other = (written / 'report' / 'figures' / f'{figure.name}.png').read_bytes()
        pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert('L'))
        assert min(pixels.shape) > 300 and pixels.std() > 5, figure.name
        assert figure.png != other, figure.name


def test_a_row_keeps_its_colour_when_floors_move(tmp_path):
    models = [{'name': 'a'}, {'name': 'b'}]
    floor = {'name': 'f', 'floor': True}
    expected = {'a': style.PALETTE[0], 'b': style.PALETTE[1], 'f': style.FLOOR_PALETTE[0]}
    for rows in ([*models, floor], [floor, *models]):
        (tmp_path / 'results.json').write_text(json.dumps({'models': rows}))
        assert style.colours(workdir.load(tmp_path)) == expected


def test_rows_have_colours_before_there_are_results(copy):
    before = style.colours(workdir.load(copy))
    (copy / 'results.json').unlink()
    during = style.colours(workdir.load(copy))
    assert during and during.items() <= before.items()


@pytest.mark.parametrize('missing, sentence', [
    ('predictions.csv', 'predictions.csv is missing'),
    ('metrics.jsonl', 'no pre-training of a denoiser'),
    ('card.json', 'card.json is missing'),
    ('results.json', 'the run has not reached its test'),
    ('report/samples.npz', 'no slices are shown'),
    ('report/z0_over_t.npz', 'predicted clean images are not shown'),
    ('report/evidence.npz', 'no counterfactuals are shown'),
    ('generate/table.json', 'python -m repdiff.generate --workdir=DIR makes it'),
    ('generate/rc_ldt-images.png', 'generate/rc_ldt-images.png is missing'),
])
def test_a_missing_file_leaves_its_section_out(copy, missing, sentence, monkeypatch):
    (copy / missing).unlink()
    run = workdir.load(copy)
    monkeypatch.setattr(style, 'png', lambda drawing: b'drawn')
    text = page.render(run, figures.draw(run))
    assert sentence in text
    assert set(re.findall('<a href="#(.*?)"', text)) == set(re.findall('<section id="(.*?)"', text))


def test_several_classes(tmp_path):
    synthetic_workdir.make(tmp_path, images=200, classes=4, size=24, pictures=3)
    text = report.write(tmp_path).read_text()
    assert 'kind 3' in text and 'data:image/png' in text


@pytest.mark.parametrize('name, content, message', [
    ('results.json', '{"models": [', 'results.json: not valid JSON'),
    ('card.json', '[]', 'card.json: must hold one JSON object'),
    ('metrics.jsonl', '{"phase"\n{}\n', 'metrics.jsonl: line 1 is not valid JSON'),
    ('predictions.csv', 'model,id\n', 'predictions.csv: needs the columns'),
    ('predictions.csv', 'model,id,label,prediction,score\na,b,c,d,e\n', 'not a number'),
    ('report/samples.npz', 'PK', 'samples.npz: not a whole npz file'),
])
def test_a_damaged_file_is_named_in_one_sentence(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(UserError, match=message):
        report.write(copy)


def test_a_torn_last_log_line_is_left_out(copy):
    path = copy / 'metrics.jsonl'
    whole = workdir.load(copy).log
    path.write_text(path.read_text() + '{"phase": "rc_')
    assert workdir.load(copy).log == whole


def test_the_command_refuses_what_is_no_workdir(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'repdiff.report', f'--workdir={tmp_path}'],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'not a workdir' in done.stderr
    with pytest.raises(UserError, match='no such workdir'):
        report.write(tmp_path / 'nowhere')
