"""The images that backbones are judged on: who labels which, and which are held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from parties.datasets.digits import Digits
from parties.datasets.fashion_mnist import FashionMnist
from parties.exchange import Array, FedpactError
from simulations.backbones.store import arrays_of


@final
@dataclass(frozen=True)
class Images:
    """Images of one data set.

    Args:
        pixels: (n, height, width) gray or (n, height, width, 3) RGB, uint8.
        white: the value of white.
        labels: (n,) int64.
        tests: rows that may be tested on, where the data set says which; None for any.
    """

    pixels: Array
    white: float
    labels: Array
    tests: Array | None = None

    def shown(self, rows: Array) -> Array:
        """Pixels of some rows, float32 from 0 to 1."""
        found: Array = self.pixels[rows].astype(np.float32) / np.float32(self.white)
        return found


@final
@dataclass(frozen=True)
class Draws:
    """Which images are used.

    Args:
        labelled: rows of each draw, `shots` a class.
        tests: rows to test on, the same in every draw; no draw has one of them.
    """

    labelled: tuple[Array, ...]
    tests: Array

    @property
    def everything(self) -> Array:
        """All rows that are used, in order."""
        return np.unique(np.concatenate([self.tests, *self.labelled]))


def _digits(cache: Path, folder: str) -> Images:
    pool = Digits(0).pool()
    return Images(pool.pixels.reshape(-1, 8, 8), pool.white, pool.labels)


def _fashion(cache: Path, folder: str) -> Images:
    dataset = FashionMnist(0, folder=folder)
    if not dataset.installed:
        raise FedpactError(
            f"campaign.fashion is {folder}, and the four files of Fashion-MNIST are not there. "
            "Install Debian's (apt install dataset-fashion-mnist), name the folder where you have "
            "them, or leave fashion_mnist out of campaign.data."
        )
    pool = dataset.pool()
    tests = dataset.rows(0)[1]
    return Images(pool.pixels.reshape(-1, 28, 28), pool.white, pool.labels, tests)


def _emoji(vendor: str) -> Callable[[Path, str], Images]:
    def read(cache: Path, folder: str) -> Images:
        arrays = arrays_of(f"emoji_{vendor}", cache)
        return Images(arrays["pixels"], 255.0, arrays["labels"])

    return read


DATA: dict[str, Callable[[Path, str], Images]] = {
    "fashion_mnist": _fashion,
    "digits": _digits,
    "emoji_google": _emoji("google"),
    "emoji_twitter": _emoji("twitter"),
}


def images_of(name: str, cache: Path, fashion: str) -> Images:
    """A data set by its name.

    Args:
        cache: where emoji were fetched to; fashion: where Fashion-MNIST's files are.

    Raises:
        FedpactError: it is not there.
    """
    return DATA[name](cache, fashion)


def drawn(images: Images, name: str, shots: int, draws: int, tests: int, seed: int) -> Draws:
    """Deal a data set: `tests` rows to test on, and of the others `shots` a class for each draw.

    The two vendors' emoji are dealt alike, so that a code point is on the same side of both.

    Raises:
        FedpactError: there are too few images.
    """
    rng = np.random.default_rng([seed, len(images.labels), shots, tests])
    legal = np.arange(len(images.labels)) if images.tests is None else images.tests
    if not 0 < tests < len(legal) + (images.tests is not None):
        raise FedpactError(
            f"campaign.test is {tests}, and {name} has {len(legal)} images that may be tested on; "
            "legal is fewer. Lower campaign.test."
        )
    held_out = np.sort(rng.permutation(legal)[:tests])
    others = np.setdiff1d(
        np.arange(len(images.labels)), held_out if images.tests is None else images.tests
    )
    labelled = []
    for _ in range(draws):
        rows = []
        for label in np.unique(images.labels):
            members = others[images.labels[others] == label]
            if len(members) < shots:
                raise FedpactError(
                    f"campaign.shots is {shots}, and class {label} of {name} has {len(members)} "
                    "images that are not tested on; legal is at most that. Lower campaign.shots."
                )
            rows.append(rng.permutation(members)[:shots])
        labelled.append(np.sort(np.concatenate(rows)))
    return Draws(tuple(labelled), held_out)
