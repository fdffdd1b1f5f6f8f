"""The paper's form: how close is an image's vector to a fixed random one?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from parties.canonicalize.groups import Group, Moves
from parties.canonicalize.scorers import Recipe, Scorer, check_widths, network
from parties.exchange import FedpactError


@final
@dataclass(frozen=True)
class Cosine(Recipe):
    """temperature * cos(v, s(x)), v a random reference vector that is never trained.

    Without a temperature the cross-entropy has a floor, since a cosine is at most 1: .34 for four
    elements, .67 for eight (derived).

    Args:
        widths: channels of each block of the network.
        dimensions: length of the vectors.
        temperature: what the cosines are multiplied by.
        orthogonality: weight of the mean |inner product| of the vectors of an orbit, which keeps
            its best member unique.
        artifact: weight of the mean squared difference between s(x') and s of x' turned by an
            eighth and back, so that traces of interpolation tell nothing; 0 for none.

    References:
        Panigrahi, Mondal, arXiv 2405.14089.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    dimensions: int = 128
    temperature: float = 16.0
    orthogonality: float = 0.0
    artifact: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_widths(self.widths))
        size = self.dimensions
        if not isinstance(size, int) or isinstance(size, bool) or size < 2:
            raise FedpactError(f"scorer.dimensions is {size!r}; legal is a whole number >= 2.")
        for name in ("temperature", "orthogonality", "artifact"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise FedpactError(f"scorer.{name} is {value!r}; legal is a number >= 0.")
        if not self.temperature:
            raise FedpactError("scorer.temperature is 0; legal is a number > 0, such as 16.")

    def layers(self, channels: int, side: int, group: Moves) -> Scorer:
        return _Cosine(self, channels, side, group)


@final
class _Cosine(Scorer):
    reference: Tensor

    def __init__(self, recipe: Cosine, channels: int, side: int, group: Moves) -> None:
        super().__init__()
        self._recipe, self._group = recipe, group
        self.network = network(channels, side, recipe.widths, recipe.dimensions)
        self.register_buffer("reference", torch.randn(1, recipe.dimensions))

    def forward(self, images: Tensor) -> Tensor:
        told = functional.cosine_similarity(self.network(images), self.reference, dim=-1)
        return self._recipe.temperature * told

    def penalty(self, orbit: Tensor) -> Tensor:
        recipe, found = self._recipe, super().penalty(orbit)
        if recipe.orthogonality:
            vectors = self.network(orbit.flatten(0, 1)).view(*orbit.shape[:2], -1).transpose(0, 1)
            inner = vectors @ vectors.transpose(1, 2)
            apart = 1 - torch.eye(len(orbit), device=orbit.device)
            found = found + recipe.orthogonality * (inner * apart).abs().mean()
        if recipe.artifact:
            images, eighth = orbit[0], Group(8, padding=self._group.padding)
            one = torch.ones(len(images), dtype=torch.int64, device=images.device)
            worn = eighth.act(eighth.act(images, one), -one % 8)
            gap = functional.mse_loss(self.network(images), self.network(worn))
            found = found + recipe.artifact * gap
        return found
