"""Which canonicalizer makes a frozen model read turned images, and what does it cost?

A small network is trained on upright images only, and frozen. Then it is shown the same test images
in every pose of a group of turns, alone and behind each method.

`rows.csv` has these columns; the rows of one training are written when it has ended:

    part            poses (the methods), angles (finer poses, one scorer), abstain (certain or not),
                    images (how many training images a scorer needs)
    seed            decides the training images, the frozen model and the scorer
    group, method   C4 for quarters, C8 for eighths; see `METHODS`
    images          training images that the method saw
    labels          whether it needs their labels
    upright         accuracy on the test images as they are
    turned          the same, mean over the poses of the group
    flips           share of test images whose class is not the same in all poses
    any_angle       accuracy on test images turned each by a random angle
    train_seconds   CPU seconds until the method can be used, the frozen model being there
    overhead        CPU seconds of a prediction, batches of 128, by those of the frozen model alone
    variant         which share of images is left out (abstain); which poses are looked at (angles)
    least, rest     accuracy of the least certain images, by the margin, and of the rest

CPU seconds are of one thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.canonicalize import Canonicalizer
from parties.canonicalize.abstain import threshold_for_share
from parties.canonicalize.backbone import CanonicalBackbone, as_images
from parties.canonicalize.classifier import Classifier
from parties.canonicalize.cosine import Cosine
from parties.canonicalize.groups import Group, turned
from parties.canonicalize.neighbours import Mahalanobis, Neighbours
from parties.canonicalize.recipe import Canonicalization
from parties.canonicalize.scalar import Scalar
from parties.canonicalize.scorers import OnePass, Recipe
from parties.datasets.digits import Digits
from parties.datasets.fashion_mnist import FOLDER, FashionMnist
from parties.datasets.pool import PoolPart
from parties.descent import cross_entropy
from parties.exchange import Array, FedpactError
from parties.files import write_whole
from parties.training import Training, load_weights, random_seed, weights_of
from simulations.campaigns import Campaign
from simulations.campaigns.canonical_table import write_report
from simulations.results import RunFolder

log = logging.getLogger("fedpact")

RECIPES: dict[str, Recipe] = {
    "scalar": Scalar(),
    "cosine": Cosine(),
    "classifier": Classifier(),
    "neighbours": Neighbours(),
    "mahalanobis": Mahalanobis(),
}
TUNED = {"tuned_1": 1, "tuned_4": 4, "tuned_12": 12}  # epochs
ALONE, SCALAR, AVERAGE = "alone", "scalar", "average"
METHODS = (ALONE, *RECIPES, *TUNED, AVERAGE)
COSTLY = ("neighbours", "mahalanobis", *TUNED, AVERAGE)
LABELLED = ("mahalanobis", *TUNED)
PADS = {"fashion": 6, "digits": 2}  # black pixels around an image, so that no corner is lost
UNIT = ["seed", "group", "method", "images"]
FINER = (24, 72)
SHARES = (0.05, 0.2)
BATCH = 128
REPEATS = 9
EXAMPLES = 5
COLUMNS = [
    *("part", *UNIT, "labels", "upright", "turned", "flips", "any_angle"),
    *("train_seconds", "overhead", "variant", "least", "rest"),
]


@final
@dataclass(frozen=True)
class Images:
    """What a seed trains and tests on: flat padded images (n, d) float32 and labels (n,)."""

    features: Array
    labels: Array
    tests: Array
    truth: Array


@final
@dataclass(frozen=True)
class CanonicalFashion(Campaign):
    """Measure every method on every group of turns.

    Args:
        data: fashion (28x28 pixels, padded to 40x40) or digits (8x8, padded to 12x12).
        folder: of Fashion-MNIST's four files.
        images: to train on; tests: to test on, the same for every seed.
        seeds: how many; costly_seeds: how many of them for the methods in `COSTLY`, which take most
            of the time.
        groups: turns a circle, one or more; the first is asked about certainty and numbers of
            images, the last about finer angles.
        methods: among `METHODS`: the frozen model alone; behind a scorer; fine-tuned for 1, 4 or 12
            epochs on labelled images turned at random; its probabilities averaged over all poses.
        counts: of training images that the scalar scorer is trained on besides, for as many
            passes over one image in all.
        backbone: the frozen model; learning: how it is trained, and how it is fine-tuned.
        training: how scorers are trained.
    """

    data: str = "fashion"
    folder: str = FOLDER
    images: int = 10240
    tests: int = 2000
    seeds: int = 3
    costly_seeds: int = 1
    groups: tuple[int, ...] = (4, 8)
    methods: tuple[str, ...] = METHODS
    counts: tuple[int, ...] = (64, 256, 1024)
    backbone: Backbone = field(default_factory=lambda: Cnn((16, 32, 64), "batch"))
    learning: Training = field(default_factory=lambda: Training(8, 64, 0.01, 0.9, 1e-4))
    training: Training = field(default_factory=lambda: Training(5, 128, 0.05, 0.9, 1e-4))

    def __post_init__(self) -> None:
        if self.data not in PADS:
            raise FedpactError(f"campaign.data is {self.data!r}; legal are {', '.join(PADS)}.")
        for name, least in (("images", 1), ("tests", 1), ("seeds", 1), ("costly_seeds", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise FedpactError(
                    f"campaign.{name} is {value!r}; legal is a whole number >= {least}. Leave it "
                    "out for the default."
                )
        for name, least in (("groups", 1), ("methods", 1), ("counts", 0)):
            value = getattr(self, name)
            listed = () if isinstance(value, str | int) else tuple(value)
            if len(listed) < least or len(set(listed)) < len(listed):
                raise FedpactError(
                    f"campaign.{name} is {value!r}; legal is a list of different ones. See "
                    "conf/campaign/canonical_fashion.yaml."
                )
            object.__setattr__(self, name, listed)
        for turns in self.groups:
            if turns == 1:
                raise FedpactError(
                    "campaign.groups has 1, which turns nothing; legal are 2 to 360."
                )
            Group(turns)  # refuses what is no group
        for method in self.methods:
            if method not in METHODS:
                raise FedpactError(
                    f"campaign.methods has {method!r}; legal are {', '.join(METHODS)}."
                )
        for count in self.counts:
            whole = isinstance(count, int) and not isinstance(count, bool)
            if not whole or not 2 <= count < self.images:
                raise FedpactError(
                    f"campaign.counts has {count!r}; legal are 2 to {self.images - 1}, fewer than "
                    "campaign.images."
                )

    # ------------------------------------------------------------------------------ the seam

    def plan(self) -> list[str]:
        self._images(0)
        units = sum(len(self._units(seed)) for seed in range(self.seeds))
        return [
            f"{self.images:,} images of {self.data} to train on, {self.tests:,} to test on; "
            f"{self.seeds} seeds, {min(self.costly_seeds, self.seeds)} for costly methods",
            f"{len(self.methods)} methods x C{', C'.join(map(str, self.groups))}, and "
            f"{len(self.counts)} numbers of images: {units} trainings",
        ]

    def run(self, folder: RunFolder) -> list[str]:
        path = folder.path / "rows.csv"
        rows = pd.read_csv(path) if path.exists() else pd.DataFrame()
        there = {tuple(unit) for unit in rows[UNIT].to_numpy()} if len(rows) else set()
        with one_thread():
            for seed in range(self.seeds):
                left = [
                    unit
                    for unit in self._units(seed)
                    if (seed, f"C{unit[0]}", *unit[1:]) not in there
                ]
                if not left:
                    continue
                images = self._images(seed)
                frozen = self._frozen(seed, images, folder)
                for turns, method, count in left:
                    measured = self._measured(seed, turns, method, count, images, frozen, folder)
                    new = pd.DataFrame(measured, columns=COLUMNS)
                    rows = pd.concat([rows, new]) if len(rows) else new
                    # Those of one unit are on disk together or not at all.
                    write_whole(path, rows.to_csv(index=False).encode())
        return write_report(folder)

    def _units(self, seed: int) -> list[tuple[int, str, int]]:
        """Group, method and number of training images of everything that is trained."""
        able = [m for m in self.methods if m not in COSTLY or seed < self.costly_seeds]
        units = [(turns, method, self.images) for turns in self.groups for method in able]
        if SCALAR in self.methods:
            units += [(self.groups[0], SCALAR, count) for count in self.counts]
        return units

    # ------------------------------------------------------------------------------ its parts

    def _images(self, seed: int) -> Images:
        part: PoolPart = Digits(0, 1)
        if self.data == "fashion":
            part = FashionMnist(0, 1, folder=self.folder)
        pool, (training, testing) = part.pool(), part.rows(0)
        for name, there in (("images", training), ("tests", testing)):
            if getattr(self, name) > len(there):
                raise FedpactError(
                    f"campaign.{name} is {getattr(self, name)}; {self.data} has {len(there)}. Set "
                    f"campaign.{name}={len(there)} or less."
                )
        own = np.random.default_rng([seed, 1]).permutation(training)[: self.images]
        common = np.random.default_rng(2).permutation(testing)[: self.tests]
        shown, told = (padded(pool.features(rows), PADS[self.data]) for rows in (own, common))
        return Images(shown, pool.labels[own], told, pool.labels[common])

    def _frozen(self, seed: int, images: Images, folder: RunFolder) -> nn.Module:
        module = self.backbone.build(images.features.shape[1], 10, random_seed(seed, "frozen"))

        def train() -> None:
            self.learning.fit(module, images.features, images.labels, random_seed(seed, "frozen"))

        trained_once(module, train, folder.models / f"frozen_{seed}.safetensors")
        return module

    def _measured(
        self,
        seed: int,
        turns: int,
        method: str,
        count: int,
        images: Images,
        frozen: nn.Module,
        folder: RunFolder,
    ) -> list[dict[str, Any]]:
        """Make one method ready, and try it: its rows."""
        group, tests = Group(turns), as_images(torch.from_numpy(images.tests), 1)
        draw = random_seed(seed, method, turns, count)
        started = time.thread_time()
        reader, canonicalizer = self._reader(group, method, count, images, frozen, draw)
        seconds = time.thread_time() - started
        told = np.stack([classes(reader, pose) for pose in group.orbit(tests)])
        unit = {
            "part": "poses" if count == self.images else "images",
            "seed": seed,
            "group": f"C{turns}",
            "method": method,
            "images": count,
            "labels": method in LABELLED,
        }
        angles = np.random.default_rng(3).uniform(0, 360, len(tests))
        askew = turned(tests, torch.from_numpy(angles), group.padding)
        rows = [
            {
                **unit,
                "upright": np.mean(told[0] == images.truth),
                "turned": np.mean(told == images.truth),
                "flips": np.mean((told != told[0]).any(0)),
                "any_angle": np.mean(classes(reader, askew) == images.truth),
                "train_seconds": round(seconds, 3),
                "overhead": overhead(reader, frozen, tests[:BATCH]),
            }
        ]
        log.info(
            "seed %d, C%d %s, %d images: %.4f turned, %.1f CPU s, x %.2f",
            *(seed, turns, method, count, rows[0]["turned"], seconds, rows[0]["overhead"]),
        )
        if canonicalizer is None or isinstance(canonicalizer.scorer, OnePass):
            return rows
        if method != SCALAR or count != self.images:
            return rows
        if turns == self.groups[0]:
            right = told[0] == images.truth
            rows += [{**unit, **row} for row in _certainty(canonicalizer, tests, right)]
        if turns == self.groups[-1]:
            for name, finer in _finer(canonicalizer).items():
                behind = _behind(frozen, finer)
                rows.append(
                    {
                        **unit,
                        "part": "angles",
                        "variant": name,
                        "upright": np.mean(classes(behind, tests) == images.truth),
                        "any_angle": np.mean(classes(behind, askew) == images.truth),
                        "overhead": overhead(behind, frozen, tests[:BATCH]),
                    }
                )
            if seed == 0:
                _keep_examples(canonicalizer, tests, images.truth, folder)
        return rows

    def _reader(
        self,
        group: Group,
        method: str,
        count: int,
        images: Images,
        frozen: nn.Module,
        draw: int,
    ) -> tuple[nn.Module, Canonicalizer | None]:
        """What reads images by this method, and its canonicalizer if it has one."""
        if method == ALONE:
            return frozen, None
        if method == AVERAGE:
            return Averaged(frozen, group), None
        features, labels = images.features[:count], images.labels[:count]
        if method in TUNED:
            tuned = deepcopy(frozen)

            def on_turned(module: nn.Module, flat: Tensor, truth: Tensor) -> Tensor:
                # Each image of a batch is moved by another element: the shuffling decides by which.
                element = torch.arange(len(flat)) % group.order
                return cross_entropy(
                    module, group.act(as_images(flat, 1), element).flatten(1), truth
                )

            self.learning.fit(tuned, features, labels, draw, TUNED[method], objective=on_turned)
            return tuned.eval(), None
        training = replace(self.training, epochs=self.training.epochs * self.images // count)
        recipe = Canonicalization(group, RECIPES[method], training)
        canonicalizer = recipe.build(features.shape[1], draw)
        recipe.fit(canonicalizer, features, draw, model=frozen, labels=labels)
        return _behind(frozen, canonicalizer), canonicalizer.eval()


@final
class Averaged(nn.Module):
    """The mean of a model's class probabilities over all poses of flat images, as logarithms."""

    def __init__(self, model: nn.Module, group: Group) -> None:
        super().__init__()
        self.model, self.group = model, group

    def forward(self, features: Tensor) -> Tensor:
        orbit = self.group.orbit(as_images(features, 1))
        told = self.model(orbit.flatten(0, 1).flatten(1)).softmax(-1)
        mean: Tensor = told.view(self.group.order, len(features), -1).mean(0)
        return mean.log()


def padded(features: Array, around: int) -> Array:
    """Flat square images (n, side * side) with black pixels around them.

    >>> padded(np.ones((1, 1), np.float32), 1).astype(int).tolist()
    [[0, 0, 0, 0, 1, 0, 0, 0, 0]]
    """
    side = round(features.shape[1] ** 0.5)
    images = features.reshape(-1, side, side)
    wider: Array = np.pad(images, ((0, 0), (around, around), (around, around)))
    return wider.reshape(len(features), -1)


def classes(reader: nn.Module, images: Tensor) -> Array:
    """What it takes images (n, 1, s, s) for, (n,)."""
    reader.eval()
    with torch.inference_mode():
        told = [reader(part.flatten(1)).argmax(1) for part in torch.split(images, BATCH)]
    found: Array = torch.cat(told).numpy()
    return found


def overhead(reader: nn.Module, alone: nn.Module, images: Tensor) -> float:
    """CPU seconds of a prediction by those of the model alone: median of alternated repeats."""
    if reader is alone:
        return 1.0
    flat, ratios = images.flatten(1), []
    with torch.inference_mode():
        for _ in range(REPEATS):
            times = []
            for module in (alone, reader):
                started = time.thread_time()
                module(flat)
                times.append(time.thread_time() - started)
            ratios.append(times[1] / times[0])
    return float(np.median(ratios))


def _behind(frozen: nn.Module, canonicalizer: Canonicalizer) -> nn.Module:
    return CanonicalBackbone(frozen, canonicalizer, 1).eval()


def _certainty(canonicalizer: Canonicalizer, tests: Tensor, right: Array) -> list[dict[str, Any]]:
    """Is a model more often wrong where the pose is uncertain?"""
    with torch.inference_mode():
        parts = [canonicalizer(part).margin for part in torch.split(tests, BATCH)]
    margins = torch.cat(parts).numpy()
    rows = []
    for share in SHARES:
        least = margins < threshold_for_share(margins, share)
        accuracies = {"least": right[least].mean(), "rest": right[~least].mean()}
        rows.append({"part": "abstain", "variant": f"{share:.0%}", **accuracies})
    return rows


def _finer(canonicalizer: Canonicalizer) -> dict[str, Canonicalizer]:
    """The same scorer with more poses to look at."""
    scorer, group = canonicalizer.scorer, canonicalizer.group
    return {
        "refine=3": Canonicalizer(group, scorer, refine=3),
        **{f"{turns} angles": Canonicalizer(Group(turns), scorer) for turns in FINER},
        f"{FINER[0]} angles, refine=2": Canonicalizer(Group(FINER[0]), scorer, refine=2),
    }


def _keep_examples(
    canonicalizer: Canonicalizer, tests: Tensor, truth: Array, folder: RunFolder
) -> None:
    """Some images in three poses each, their scores and canonical images, for the picture."""
    rows = [int(np.flatnonzero(truth == c)[0]) for c in np.unique(truth)[:EXAMPLES]]
    order = canonicalizer.group.order
    orbit = canonicalizer.group.orbit(tests[rows])
    shown = orbit[[0, order // 3, 2 * order // 3]].transpose(0, 1)  # (examples, 3, 1, s, s)
    with torch.inference_mode():
        found = canonicalizer(shown.flatten(0, 1))
    np.savez(
        folder.path / "examples.npz",
        shown=shown[:, :, 0].numpy(),
        scores=found.scores.softmax(1).view(*shown.shape[:2], order).numpy(),
        found=found.images.view(*shown.shape)[:, :, 0].numpy(),
    )


def trained_once(module: nn.Module, train: Callable[[], object], path: Path) -> None:
    """Train a module and keep its weights, or take those that are kept; in eval mode."""
    if path.exists():
        load_weights(module, load_file(path))
    else:
        started = time.thread_time()
        train()
        write_whole(path, save(weights_of(module)))
        log.info("%s: %.1f CPU s", path.stem, time.thread_time() - started)
    module.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread does all, so that its CPU seconds are all there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
