"""The models that a campaign offers, and whose digits they are trained and judged on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import nn

from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.datasets.digits import Digits
from parties.exchange import Array, FedpactError
from parties.layers import Image

CLASSES = 10
SOURCE_SHARE, TARGET_SHARE = 0.4, 0.378  # of the digits; the rest is held out


def _deep(seed: int) -> nn.Module:
    """Four convolutions; `Cnn` would halve an 8x8 image four times."""

    def block(before: int, after: int) -> list[nn.Module]:
        two = [nn.Conv2d(a, after, 3, padding=1) for a in (before, after)]
        return [two[0], nn.ReLU(), two[1], nn.ReLU(), nn.MaxPool2d(2)]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [Image(8), *block(1, 16), *block(16, 32), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(32 * 4, CLASSES))


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "mlp": lambda seed: Mlp((64, 32)).build(64, CLASSES, seed),
    "cnn": lambda seed: Cnn((16, 32)).build(64, CLASSES, seed),
    "deep": _deep,
}


def check_offers(
    models: object, shifts: object, legal: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The models, architecture-seed each, and the shifts of a campaign, as tuples.

    Raises:
        FedpactError: they are no lists of different names, or hold one that there is not.
    """
    found = []
    for name, value in (("models", models), ("shifts", shifts)):
        listed = [str(v) for v in value] if isinstance(value, list | tuple) else []
        if not listed or len(set(listed)) != len(listed):
            raise FedpactError(
                f"campaign.{name} is {value!r}; legal is a list of different names. See the "
                "campaign's file in conf/campaign/ for all."
            )
        found.append(tuple(listed))
    for model in found[0]:
        architecture, _, seed = model.partition("-")
        if architecture not in ARCHITECTURES or not seed.isdecimal():
            raise FedpactError(
                f"campaign.models has {model!r}; legal are {', '.join(ARCHITECTURES)} with a "
                "seed, such as cnn-0."
            )
    for shift in found[1]:
        if shift not in legal:
            raise FedpactError(f"campaign.shifts has {shift!r}; legal are {', '.join(legal)}.")
    return found[0], found[1]


@final
@dataclass(frozen=True)
class Parts:
    """The digits of one seed: the source's, and a firm's for training and held out."""

    source: tuple[Array, Array]
    firm: tuple[Array, Array, Array]  # ids, features, labels
    held_out: tuple[Array, Array, Array]

    @staticmethod
    def of(seed: int) -> Parts:
        split = Digits(0, 1, test_share=1 - SOURCE_SHARE).split(seed)
        rest = split.held_out
        assert rest is not None
        order = np.random.default_rng([seed, 7]).permutation(len(rest.ids))
        cut = round(TARGET_SHARE / (1 - SOURCE_SHARE) * len(order))
        firm, held_out = (
            (rest.ids[rows], rest.features[rows], rest.labels[rows])
            for rows in (order[:cut], order[cut:])
        )
        return Parts((split.training.features, split.training.labels), firm, held_out)
