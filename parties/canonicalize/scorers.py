"""Scorers: how upright does an image look? One file each; `Scorer` is the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from parties.canonicalize.groups import Moves
from parties.exchange import FedpactError


class Scorer(nn.Module, ABC):
    """Scores every image as it stands: (m, channels, side, side) -> (m,), higher: more upright.

    The images of an orbit are scored as one batch, so that any network will do: an image moved by
    an element of the group has the same orbit, and the same best member of it.
    """

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Scores (m,), as log odds: their softmax over an orbit are probabilities."""

    def penalty(self, orbit: Tensor) -> Tensor:
        """What training adds to the cross-entropy, for an orbit (order, n, c, s, s); 0 here."""
        return torch.zeros((), device=orbit.device)


class OnePass(nn.Module, ABC):
    """Tells the pose of an image at one look: (n, channels, side, side) -> scores (n, order).

    Cheaper than a `Scorer` by the order of the group, and not exact: nothing makes it give the same
    canonical image for an image and the same image turned.
    """

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Score of each element, (n, order): that the image was moved by it."""


class Recipe(ABC):
    """How a scorer is made for images of a size and a group."""

    @abstractmethod
    def layers(self, channels: int, side: int, group: Moves) -> Scorer | OnePass:
        """The untrained scorer."""

    def build(self, channels: int, side: int, group: Moves, seed: int) -> Scorer | OnePass:
        """The untrained scorer, its parameters fixed by `seed` and nothing else."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.layers(channels, side, group)


def network(channels: int, side: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """A small convolutional network: images -> (m, outputs).

    Images of 32 pixels and more are first halved; then a block a width: a convolution of stride 2
    (5x5, then 3x3), batch normalization, ReLU; then one linear layer.
    """
    layers: list[nn.Module] = []
    if side >= 32:
        layers.append(nn.AvgPool2d(2))
        side //= 2
    before = channels
    for place, width in enumerate(widths):
        size = 3 if place or side < 16 else 5
        layers += [
            nn.Conv2d(before, width, size, 2, size // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        before, side = width, -(-side // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, outputs))


def check_widths(widths: object) -> tuple[int, ...]:
    """Widths of the blocks of `network`, as a tuple.

    Raises:
        FedpactError: they are no whole numbers >= 1.
    """
    listed = list(widths) if isinstance(widths, list | tuple) else []
    if not listed or any(not isinstance(w, int) or isinstance(w, bool) or w < 1 for w in listed):
        raise FedpactError(
            f"scorer.widths is {widths!r}; legal are whole numbers >= 1, one a block. Write "
            "scorer.widths=[16,32,64]."
        )
    return tuple(listed)
