"""The base config: every key, its unit and its reason. Experiments override; code has no defaults.

A row of the results is a *recipe*: the base config with the recipe's few keys replaced (`recipe`).
"""

from ml_collections import ConfigDict

from repdiff import allowed
from repdiff.errors import UserError

# The sections that pre-training depends on.
PRETRAINING = ('latents', 'diffusion', 'model', 'encoder', 'backbone', 'distill', 'representation',
               'pretrain')


def base() -> ConfigDict:
    """The base config at the `quick` sizes: 64-pixel simulated CT on a 2-core CPU."""
    config = ConfigDict()
    config.name = 'hematoma'  # names the dataset and the report
    config.seed = 0  # of data, splits, pre-training, tuning and scoring noise
    config.cache = '~/.cache/repdiff'  # prepared datasets, shared by workdirs
    config.xla_effort = 3  # 0 to 3, XLA's backend optimisation: 0 compiles fast, for runs of seconds

    # How a row is trained and answers, a room of repdiff/methods: 'denoise', 'distill' (DINOv2, then
    # tuned), 'classify' (supervised from scratch) or 'probe' (a linear rule on another row's features).
    config.method = 'denoise'

    config.data = ConfigDict(dict(
        source='simulated',  # 'simulated', a directory (files + CSV, or prepared), 'tfds:NAME'
        labels='',  # CSV of labels; '' is labels.csv in the source
        label_format='csv',  # 'csv', 'rsna', 'ct_ich' or 'cq500'
        label='auto',  # label column or rule; auto: first of label, class, hematoma, hemorrhage
        classes=(),  # class names in the order of ids; ('auto',) sorted values; () binary 0 and 1
        markers=(),  # CSV columns kept as multi-label
        key_column='auto',  # CSV column that names the file; auto: file or id
        patient_column='auto',  # groups slices of a person; auto: patient; '' each slice its own
        facility_column='auto',  # auto: facility, where there is one
        window_column='auto',  # HU window of a row; auto: window, where there is one
        split_column='',  # CSV column that names the split; '' splits by patient
        image_size=64,  # pixels; 256 in the paper
        channels=1,  # image channels: 1 grey, 3 colour or three windows
        window='brain',  # of HU where the source names none: preset or CENTRE/WIDTH
        head_mask=False,  # remove what lies outside the head
        crop=False,  # centre and crop to the head; needs head_mask
        pretrain_facilities=(),  # with downstream_facilities: split by facility
        downstream_facilities=(),
        deidentify=True,  # salted hashes for names of patients, facilities and files
        fractions=dict(pretrain=0.5, train=0.25, valid=0.1, test=0.15),  # of patients, by hash
        # What is pre-trained on, labels unused: own splits, 'pretrain' and 'train', and the pretrain
        # splits of other sources, 'simulated' or a directory.
        pretrain_on=('pretrain',),
        keep=dict(pretrain=1.0, train=1.0),  # share of their patients used; small within large ones
        simulated=dict(
            pretrain=10313,  # slices of facilities 2-12, labels unused: the paper's number
            train=1424,  # slices of facility 1: the paper's number
            valid=400,  # 178 in the paper; simulated slices cost nothing and intervals matter
            test=1000,  # 179 in the paper
            slices_per_patient=8.0,  # their mean
            positive_rate=0.16,  # share of slices with a hematoma
            contrast=2.0,  # scale of the hematoma's HU contrast: 1 is 19-43 HU above brain
            lesion_size=1.2,  # scale of the hematoma's lengths
            facility_shift=1.0,  # 0: all facilities image alike
        ),
    ))
    config.augmentation = ConfigDict(dict(  # of every image at every visit in training
        flip=True,  # left to right, with probability one half; the head is nearly symmetric
        shift=4,  # pixels: moves of up to half a latent position; 0 where latents are cached
        rotate=10.0,  # degrees either way, as heads lie; 0 where latents are cached
        zoom=0.1,  # factors from 1/1.1 to 1.1, as heads differ; 0 where latents are cached
        brightness=13.0,  # grey levels of 255, as CT numbers drift; 0 where latents are cached
    ))
    config.latents = ConfigDict(dict(
        kind='pca',  # 'pca' (patch components), 'haar' (invertible) or 'sd_vae' (the paper)
        weights='',  # of sd_vae: directory made by `python -m repdiff.convert sd_vae`
        encode_batch=8,  # images sd_vae encodes at once into the latent cache; memory bounds it
        # The rest is for pca and haar; sd_vae's latents are 8 times smaller, of 4 channels.
        patch=8,  # pixels of a side that make one latent position
        channels=16,  # components kept by pca; haar keeps all
        whiten=0.0,  # 0 natural spectrum .. 1 every component of unit variance
        fit_images=4096,  # pre-training images the basis is fitted on
    ))
    config.diffusion = ConfigDict(dict(
        steps=1000,  # T, linear β schedule (arXiv 2505.06890)
    ))
    config.model = ConfigDict(dict(
        weights='',  # the denoiser's start: directory made by `python -m repdiff.convert dit`
        width=64,  # D of denoiser and joint encoder; 768 in the paper
        depth=4,  # L blocks of each; 12 in the paper
        heads=2,  # attention heads; 12 in the paper
        patch=1,  # latent positions of a side in one token; 2 in the paper
        dtype='float32',  # compute dtype; parameters and losses are always float32
        unroll=True,  # repeat blocks in the program (faster on CPU) or compile one block
        # What of a block the backward pass computes again: 'none', 'dots' (all but the products with
        # weights: less memory traffic, faster on a GPU) or 'full' (least memory).
        remat='none',
    ))
    config.encoder = ConfigDict(dict(
        # 'joint': a ViT trained together with the denoiser on z0, as in the paper. On pixels, from
        # published weights: 'dinov2_frozen', or 'dinov2_tuned' together with the denoiser.
        kind='joint',
        weights='',  # of dinov2_*: directory made by `python -m repdiff.convert dinov2`
        image_size=224,  # pixels of a side that dinov2_* is shown; a multiple of its patch (14)
        layer_scale=0.1,  # joint: LayerScale's start; DINOv2's 1e-5 wakes too slowly in short runs
        registers=0,  # joint: register tokens of the ViT
    ))
    config.backbone = ConfigDict(dict(  # the network on pixels of rows that do not denoise
        kind='vit',  # or 'resnet18', 'resnet50'
        width=64,  # D of the ViT; channels of a ResNet's first stage, 64 in the paper
        depth=4,  # blocks of the ViT; 12 in the paper's ViT-B
        heads=2,  # of the ViT; 12 in the paper's
        patch=8,  # pixels of a side that make one token; 16 in the paper's
        layer_scale=0.1,  # LayerScale's start, as the joint encoder's
        registers=0,  # register tokens of the ViT
    ))
    config.distill = ConfigDict(dict(  # DINOv2's self-distillation (arXiv 2304.07193)
        global_size=64,  # pixels of a side of the two large crops; 224 there
        local_size=32,  # of the small crops; 98 there
        local_crops=4,  # 8 there
        # Shares of the image's area in a large crop and in a small one; (0.32, 1) and (0.05, 0.32)
        # there, where a twentieth is enough to tell an image: of 64 pixels it is not.
        global_scale=(0.6, 1.0),
        local_scale=(0.2, 0.6),
        # Of contrast and, on the scale [−1, 1], brightness; 0.4 there, but a CT number has a
        # meaning that the colours of a photograph lack, and small networks learn it first.
        jitter=0.05,
        blur=1.0,  # half of the crops are resized by a kernel up to 1 + this times as wide
        prototypes=512,  # K; 65,536 there, for millions of images
        hidden=128,  # width of the heads' layers; 2,048 there
        bottleneck=64,  # numbers that are compared with a prototype; 256 there
        student_temperature=0.1,
        # From the first to the second; to 0.07 there. DINO's constant 0.04 is sharper: the teacher
        # is sure sooner, and short runs have no time to wait.
        teacher_temperature=(0.04, 0.04),
        temperature_warmup=0.3,  # in this share of the steps; 30 of 100 epochs there
        # Share of the steps that the prototypes stand still; 1 of 100 epochs there, 1,250 steps.
        # At first all images get nearly one feature. Prototypes that may move turn away from it,
        # so that all are alike to every image: the loss stays at log K. They have to wait until
        # the features have parted, well after the learning rate's warm-up.
        freeze_last=0.5,
        # Of the teacher, by half a cosine; this phase's EMA. 0.992 there, over 125,000 steps.
        momentum=(0.9, 1.0),
        weight_decay=(0.04, 0.4),  # by half a cosine, in place of optim.weight_decay
        mask_ratio=(0.1, 0.5),  # share of the tokens hidden in half of the large crops
        ibot_weight=1.0,  # of the mean over the masked crops; in effect 0.5 there
        # Of the mean over both large crops; in effect 0.2 there. In a batch of 64 it parts the
        # features by what differs from crop to crop before the other losses have found what lasts.
        koleo_weight=0.01,
    ))
    config.probe = ConfigDict(dict(  # method 'probe' reads the pre-training of pretrain.row
        of='encoder',  # the joint ViT's representation, 'denoiser' or 'distilled'
        t=(10, 50, 100, 200, 400),  # steps of 'denoiser'; t and block are chosen on validation
    ))
    config.representation = ConfigDict(dict(
        kind='pooled',  # 'tokens' (the paper) or 'pooled' (one vector through adaLN)
        drop_rate=0.1,  # probability that the whole r is replaced by a learned null; 0: the paper
        width=0,  # numbers of r (of each token) that the denoiser is given; 0: all, the paper
        noise=0.0,  # standard deviation of the noise on r in pre-training; its tokens have 1
    ))
    config.pretrain = ConfigDict(dict(
        row='',  # another row whose pre-training is this one's, too; '' pre-trains anew
        condition='representation',  # or 'none': unconditional
        steps=1200,  # 0 skips pre-training: tuning starts from random weights
        batch=64,  # images
        learning_rate=6e-3,  # small networks and few steps: high, below 1.2e-2 where AUROC falls
        warmup_steps=100,
        decay='cosine',  # 'cosine' to 0 or 'constant'
        ema_decay=0.99,  # with warm-up; remembers 100 steps
        checkpoint_every=400,  # steps; losses on validation images are taken then, too
    ))
    config.tune = ConfigDict(dict(
        switch='null',  # 'null' keeps the function with r dropped; 'paper' drops r at once
        label_start='class_means',  # or 'null' or 'random': where label embeddings start
        shots=0,  # labelled images of each class that class_means averages; 0: all
        steps=700,  # 0 classifies with the start: each class's mean r is its condition
        batch=64,
        learning_rate=3e-3,
        warmup_steps=50,
        decay='cosine',
        ema_decay=0.99,
        checkpoint_every=175,  # steps; all are run, then that of best validation AUROC taken
        balanced=True,  # each class equally often; 16 % of slices are positive
        t_range=(0, 100),  # steps trained on, half open: where the classes of a small image differ
        paired_weight=1.0,  # our paired term, not in the paper; 0 is off
        # Per unit of squared error summed over z0. A high scale punishes the noise of single draws
        # before there is anything to see: at 2 nothing was learned for 300 steps, at 0.1-0.5 at once.
        paired_scale=0.3,
        label_smoothing=0.0,  # of classifiers; balancing and choosing the checkpoint do more here
    ))
    config.optim = ConfigDict(dict(
        b1=0.9,
        b2=0.99,  # short runs: the second moment must follow within 100 steps
        weight_decay=0.01,  # on kernels only
        clip_norm=1.0,  # global norm of the gradient
        accumulate=1,  # parts a batch is cut into to save memory
    ))
    config.classify = ConfigDict(dict(
        t=(5, 10, 25, 50, 75, 99),  # steps scored; the rule over them is chosen on valid
        draws=4,  # noise draws a step, of the sweep on valid that the rule is chosen from
        select_draws=1,  # the same, when choosing the tuning checkpoint
        kinds=('l2',),  # penalties of the error that the rule is chosen among: 'l2', 'l1', 'huber'
        train_images=0,  # labelled training images that learned weights are fitted on beside valid
        budget=512,  # draws an image and class at most
        alpha=0.05,  # probability that an image's early decision is not the budget's; 0: no stop
        min_draws=16,  # before the first look at the evidence: 8 pairs
        growth=1.25,  # of the draws from look to look
        stratified=True,  # the rule's steps in turn; False: in random order
        antithetic=True,  # draws in pairs of ε and -ε: what is linear in ε cancels
        batch=100,  # images encoded at once
        passes=200,  # forward passes (image, class, draw) at once; more use more memory
    ))
    config.evidence = ConfigDict(dict(
        draws=96,  # noise draws of a map, shared evenly by the steps of the chosen rule
        level=0.05,  # chance that the map of two classes that denoise alike shows anything
        flips=1000,  # random sign flips of the test; 1 / flips is the smallest level
        smooth=1.5,  # pixels: standard deviation of the Gaussian that maps are smoothed by
        images=100,  # test slices with a true mask that the maps are measured on, at most
        t=75,  # step that counterfactuals are denoised from, within tune.t_range
    ))
    config.eval = ConfigDict(dict(
        bootstrap=2000,  # resamples of patients for the 95 % intervals
        folds=0,  # folds that patients are dealt into; 0: the data set's own splits
        fold=-1,  # the one that is tested; -1: all in turn, then pooled
        fold_splits=('train', 'valid', 'test'),  # dealt out; with 'pretrain' if that is labelled, too
    ))
    config.mesh = ConfigDict(dict(
        cpu_devices=1,  # devices a CPU is cut into; each computes on its own thread
        data=-1,  # -1: all devices that fsdp and tensor leave
        fsdp=1,  # devices that share out parameters, EMA and optimizer state, beside the batch
        tensor=1,  # devices that share out each block's heads and hidden units
    ))
    config.log_every = 50  # steps
    config.keep_checkpoints = 2  # newest kept beside the best; 2 or more, should one be damaged

    # The trained rows of the results, in order, and what each changes in this config.
    config.rows = (
        'rc_ldt', 'rc_ldt_paper', 'unconditional_ldt', 'ldt_from_scratch', 'rc_ldt_prototypes',
    )
    config.recipes = ConfigDict(dict(
        rc_ldt=dict(),
        rc_ldt_paper=dict(
            representation=dict(kind='tokens', drop_rate=0.0),
            tune=dict(
                switch='paper', label_start='random', paired_weight=0.0, t_range=(0, 1000)
            ),
            classify=dict(t=(10, 25, 50, 100, 200, 300, 400)),  # as far up as it is tuned
        ),
        # rc_ldt without what carries it: the paired term, and tuning at low t alone.
        unpaired=dict(pretrain=dict(row='rc_ldt'), tune=dict(paired_weight=0.0)),
        all_t=dict(
            pretrain=dict(row='rc_ldt'),
            tune=dict(t_range=(0, 1000)),
            classify=dict(t=(10, 25, 50, 100, 200, 300, 400)),
        ),
        unconditional_ldt=dict(
            pretrain=dict(condition='none'),
            tune=dict(label_start='null'),
        ),
        ldt_from_scratch=dict(
            pretrain=dict(condition='none', steps=0),
            model=dict(weights=''),
            tune=dict(label_start='random'),
        ),
        rc_ldt_prototypes=dict(  # not in the paper: r of a few labelled images, no tuning
            pretrain=dict(row='rc_ldt'),
            tune=dict(shots=16, steps=0),
            classify=dict(t=(25, 50, 100, 200, 300, 400, 500)),  # as far up as it is pre-trained
        ),
        dinov2=dict(
            method='distill',
            pretrain=dict(learning_rate=4e-3),  # below the others', whose loss is another
            tune=dict(learning_rate=3e-3),  # as vit's
            optim=dict(weight_decay=0.05),
        ),
        dinov2_probe=dict(
            method='probe', pretrain=dict(row='dinov2'), probe=dict(of='distilled'),
        ),
        vit=dict(
            method='classify',
            tune=dict(learning_rate=3e-3),  # the best of four for its network: tune_rate, seed 0
            optim=dict(weight_decay=0.05),
        ),
        resnet=dict(
            method='classify',
            backbone=dict(kind='resnet18', width=16),
            tune=dict(learning_rate=1e-2),  # likewise
            optim=dict(weight_decay=0.05),
        ),
        rc_ldt_probe=dict(method='probe', pretrain=dict(row='rc_ldt')),
        ldt_probe=dict(
            method='probe', pretrain=dict(row='unconditional_ldt'), probe=dict(of='denoiser'),
        ),
    ))
    return config.lock()


def recipe(config: ConfigDict, row: str) -> ConfigDict:
    """The config that trains `row`: the base with that recipe's keys replaced.

    A row that takes over another's pre-training has what made it (`PRETRAINING`) from that row.
    Raises UserError when the recipe names a key that the base config does not have, and on a value
    that a row may not have (`repdiff.allowed`).
    """
    if row not in config.recipes:
        raise UserError(
            f'config.rows: no recipe {row!r}; choose from {", ".join(sorted(config.recipes))}.'
        )
    result = config.copy_and_resolve_references()
    source = config.recipes[row].get('pretrain', {}).get('row', '')
    if source:
        other = recipe(config, source)
        result.update({section: other[section].to_dict() for section in PRETRAINING})
    try:
        result.update(config.recipes[row].to_dict())
    except (KeyError, TypeError) as error:
        raise UserError(f'config.recipes.{row}: {error}; use keys of the base config.') from None
    _check_shared(config, row, result)
    allowed.check(result, row)
    return result.lock()


def _check_shared(config: ConfigDict, row: str, result: ConfigDict) -> None:
    """Raises UserError where a row that takes over another's pre-training would make another."""
    source = result.pretrain.row
    if not source:
        return
    other = recipe(config, source)
    for section in PRETRAINING:
        for key in other[section]:
            if key != 'row' and other[section][key] != result[section][key]:
                raise UserError(
                    f'config.recipes.{row}: pretrain.row is {source!r}, whose {section}.{key} is '
                    f'another; make them agree, or leave pretrain.row empty.'
                )


def preset(name: str, presets: dict[str, dict]) -> ConfigDict:
    """The base config with the overrides of one preset; '' is the first preset.

    Raises UserError on an unknown preset, naming those there are.
    """
    name = name or next(iter(presets))
    if name not in presets:
        raise UserError(f'config: no preset {name!r}; choose one of {", ".join(presets)}.')
    config = base()
    with config.recipes.unlocked():  # a preset may have rows of its own
        config.update(presets[name])
    return config
