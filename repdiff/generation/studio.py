"""What all samples of a run share: its data and rows, features of real images, the yardstick."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repdiff import config as configs
from repdiff import card, experiment, phases, sharding
from repdiff.data import records
from repdiff.errors import UserError
from repdiff.eval import copies
from repdiff.eval.neighbours import nearest
from repdiff.generation import conditions, features, sampling, table, trained
from repdiff.generation.conditions import Condition, Given
from repdiff.generation.features import Features, Network
from repdiff.generation.trained import Trained

TRAINED_ON = ('pretrain', 'train')  # splits that a sample may have been copied from
HELD_OUT = 'valid'  # real images that tell how near real ones lie to training images


@dataclass(frozen=True)
class Order:
    """Images to draw: a condition made ready on a row, and how to sample."""

    condition: Condition
    model: Trained
    given: Given
    settings: sampling.Settings

    @property
    def name(self) -> str:
        return f'{self.model.row} {self.condition}'


@dataclass(frozen=True)
class Made:
    """A set of samples: its images in shards, and how near they lie to real images."""

    order: Order
    directory: Path
    shards: sampling.Shards
    copies: copies.Copies


class Studio:
    """Loads what is asked for once.

    Raises UserError where the workdir is no finished run, or of other data than are there now.

    reference: the split that samples are measured against. batch: images a call.
    """

    def __init__(self, workdir: Path, config: ConfigDict, reference: str, batch: int):
        self.workdir, self.config, self.batch = workdir, config, batch
        self.root = workdir / 'generate'
        found = {row: configs.recipe(config, row) for row in config.rows}
        self.recipes = {row: recipe for row, recipe in found.items() if recipe.method == 'denoise'}
        self.dataset: records.Dataset = experiment.prepared(config)
        card.check_data(workdir, self.dataset.info['fingerprint'])
        if reference not in self.dataset.splits:
            raise UserError(f'--reference is {reference!r}; the splits are '
                            f'{", ".join(self.dataset.splits)}.')
        self.reference_split = reference
        self.mesh = sharding.make_mesh(-1, 1, 1)
        self.setting: phases.Setting = experiment.make_setting(
            config, list(self.recipes.values()), self.dataset, self.mesh)

    @functools.cache
    def model(self, row: str) -> Trained:
        """A trained row."""
        return trained.load(self.workdir, self.config, row, self.setting)

    def row_for(self, condition: Condition) -> str:
        """The row that generates under a condition where the user names none."""
        return conditions.row_for(condition, self.recipes)

    def order(self, condition: Condition, row: str, settings: sampling.Settings) -> Order:
        """A condition made ready on a row ('': the first that can), before anything is drawn."""
        model = self.model(row or self.row_for(condition))
        given = conditions.prepare(
            condition, model, self.setting, self.dataset, scale=settings.guidance,
            seed=settings.seed, reference=self.reference_split, out=self.root)
        return Order(condition, model, given, settings)

    def make(self, order: Order, count: int) -> Made:
        """Draws `count` images, or reads those that a run has drawn before."""
        model, given, settings = order.model, order.given, order.settings
        directory = sampling.directory_of(
            self.root, model, str(order.condition), given, settings)
        shards = sampling.samples(given, model, settings, count, directory, self.setting,
                                  self.batch, order.name)
        sources = None
        if given.sources:
            sources = self._pixels(_Sources(given, count), count, directory / 'sources')
        found = copies.compare(
            self._pixels(shards, count, directory), sources, self._training, self.real_distances)
        return Made(order, directory, shards, found)

    def features(self, made: Made, network: Network) -> dict[str, Features]:
        """Features of samples."""
        return features.extract(made.shards, made.shards.count, network, made.directory, self.mesh,
                                self.batch, f'features of {made.order.name}')

    def real_features(self, split: str, network: Network) -> dict[str, Features]:
        """Features of the real images of a split."""
        shards = features.RealShards(self.dataset.split(split))
        return features.extract(shards, shards.count, network, self.root / 'real' / split,
                                self.mesh, self.batch, f'features of {split}')

    def reference(self, network: Network) -> table.Reference:
        """The reference's features and moments."""
        return table.reference(self.real_features(self.reference_split, network))

    def training_images(self, numbers: Sequence[int]) -> np.ndarray:
        """The training images that `Copies.number` speaks of."""
        splits = [self.dataset.split(name) for name in TRAINED_ON]
        first = len(splits[0])
        return np.stack([(splits[0][int(n)] if n < first else splits[1][int(n) - first])['image']
                         for n in numbers])

    def compare(self, images: np.ndarray, sources: np.ndarray) -> copies.Copies:
        """How near images (B, H, W, C) uint8 lie to what they were made of, and to training images."""
        network = self._pixel_network
        samples, sources = (
            [np.asarray(network.apply(network.params, shown)['pool'])] for shown in (images, sources))
        return copies.compare(samples, sources, self._training, self.real_distances)

    @functools.cached_property
    def real_distances(self) -> np.ndarray:
        """How far each held-out real image lies from its nearest training image."""
        return nearest(self.real_features(HELD_OUT, self._pixel_network)['pool'], self._training)[0]

    @functools.cached_property
    def _pixel_network(self) -> Network:
        return features.pixels(self.setting.frontend)

    @functools.cached_property
    def _training(self) -> list[np.ndarray]:
        """Pixels of all training images, a byte each: compared with every set of samples."""
        return [block for split in TRAINED_ON
                for block in self.real_features(split, self._pixel_network)['pool']]

    def _pixels(self, shards: Sequence[np.ndarray], count: int, directory: Path) -> Features:
        return features.extract(shards, count, self._pixel_network, directory, self.mesh,
                                self.batch, 'pixels')['pool']


class _Sources(Sequence):
    """The images that gave each sample's r, in shards as the samples are."""

    def __init__(self, given: Given, count: int):
        self._given, self._count = given, count

    def __len__(self) -> int:
        return -(-self._count // sampling.SHARD)

    def __getitem__(self, index: int) -> np.ndarray:
        start = range(len(self))[index] * sampling.SHARD
        return self._given.sources(np.arange(start, min(start + sampling.SHARD, self._count)))
