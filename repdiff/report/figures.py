"""Every figure of the page, in its order, with its caption."""

from collections.abc import Callable
from dataclasses import dataclass

from repdiff.report import curves, evidence, panels, style, trust
from repdiff.report.workdir import Run

Draw = Callable[[Run], bytes | None]
FIGURES: tuple[tuple[str, str, Draw, str, str], ...] = (
    ('samples', 'Slices of the data set', panels.samples,
     'Slices as the models see them, with class, facility and the markers drawn or noted.',
     'report/samples.npz is missing, so no slices are shown.'),
    ('intervals', 'Metrics with their intervals', panels.intervals,
     'Dot: the test figure; band: its 95% interval over resampled patients. Where bands overlap '
     'widely, look at the paired comparisons before believing an order.',
     'results.json has no intervals yet.'),
    ('roc', 'ROC curves', curves.roc,
     'Every trade-off between found positives and false alarms on the test split; the dot is the '
     'threshold chosen on validation, the figure in brackets the AUROC.',
     'predictions.csv is missing, so no ROC curve is drawn.'),
    ('confusion', 'Confusion matrices', panels.confusion,
     'Test counts at the threshold chosen on validation, shaded by the share of each true class.',
     'results.json has no confusion counts yet.'),
    ('reliability', 'Do the probabilities mean what they say?', trust.reliability,
     'Of the test images given a probability, the share that was positive (of several classes: that '
     'the top class was right on). On the diagonal a stated 30% comes true 30% of the time; a dot '
     'is as large as its share of the images. ECE is the mean gap, before → after calibration.',
     'No row has its reliability measured yet.'),
    ('abstain', 'If the model may pass', trust.abstain,
     'Accuracy on the images it is surest of. A curve that rises to the right knows when it does '
     'not know: the rest goes to a person.',
     'No row has an abstain curve yet.'),
    ('sweep', 'How much each noise level and each draw knows', trust.sweep,
     'Left: AUROC if a single diffusion step t decided; the legend names the rule chosen there, a '
     'ring marks its step, unless it weighs them all. Right: AUROC if no image had more draws. The '
     'dotted line is chance.',
     'No row has an AUROC over t yet.'),
    ('draws', 'How soon images are decided', trust.draws,
     'Test images whose class is not statistically clear after so many draws. Those left at the '
     'end have spent the whole budget.',
     'No row has its draws counted yet.'),
    ('early_stop', 'What the early stop saves', trust.early_stop,
     'Of the test images, the share decided otherwise than by the full budget, against the share of '
     'its forward passes; marked is the alpha of the run, the bottom is none. Grey: at most an '
     'eighth of the passes; dotted: one image in a hundred.',
     'report/early_stop.json is missing; python -m repdiff.early_stop --workdir=DIR makes it.'),
    ('pretraining', 'Pre-training loss', curves.pretraining,
     'Error of the predicted noise with the representation r and without it: the wider the gap, '
     'the more the denoiser reads the answer from r instead of working it out.',
     'metrics.jsonl has no pre-training of a denoiser.'),
    ('distillation', 'Self-distillation', curves.distillation,
     "The student's loss on whole images; entropy of a teacher's target, of which 1 is no opinion "
     'and 0 a single prototype; spread of the features, of which 0 is a collapse and 1 the most.',
     'No row is pre-trained by self-distillation.'),
    ('tuning', 'Tuning', curves.tuning,
     'Training loss on the labelled slices, and the validation AUROC by which the checkpoint was '
     'chosen.',
     'metrics.jsonl has no tuning phase.'),
    ('z0_over_t', 'What the denoiser believes the slice was', panels.z0_over_t,
     'The clean image predicted from ever noisier versions of one slice (as figure 9 of the '
     'paper): a picture that stays sharp at high t must come from r, not from the noisy input.',
     'report/z0_over_t.npz is missing, so predicted clean images are not shown.'),
    ('evidence', 'Where the evaluator sees its evidence', evidence.maps,
     'Test slices of each outcome, with the outline of the true lesion where it is known. Middle: '
     'the difference of denoising error between the classes, by pixel; red speaks for the second '
     'class, blue against it, the fuller the stronger on that slice. Coloured is only what stands '
     'out of the noise of the draws. Bottom: the standard error of that difference over the draws, '
     'black where it is largest; under it, its largest as a share of the strongest difference.',
     'report/evidence.npz is missing, so no evidence maps are shown.'),
    ('localisation', 'Do the maps find the lesion?', evidence.localisation,
     'Slices with a lesion, against the true masks. Brightness is that of the brain without bone, '
     'with as many pixels as the map shows; random is the expectation over the head.',
     'results.json has no evidence measured on true masks.'),
    ('counterfactuals', 'The same slice under the other label', evidence.counterfactuals,
     'Each slice is noised half-way and denoised again under each label, from the same noise: what '
     'differs is what the label stands for in the denoiser. Outlined: the true lesion.',
     'report/evidence.npz is missing, so no counterfactuals are shown.'),
)


@dataclass(frozen=True)
class Drawn:
    """A figure of the page: file name, caption, and PNG bytes; None with the reason if missing."""
    name: str
    title: str
    caption: str
    png: bytes | None
    missing: str


def draw(run: Run) -> list[Drawn]:
    """Every figure, in the page's order."""
    drawn = []
    for name, title, make, caption, missing in FIGURES:
        with style.context():
            drawn.append(Drawn(name, title, caption, make(run), missing))
    return drawn
