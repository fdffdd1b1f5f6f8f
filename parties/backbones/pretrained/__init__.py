"""Networks that others trained on ImageNet, with stages whose outputs can be taken. One file each.

Their weights are not part of this package; a network is built untrained and given them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from parties.exchange import Array, FedpactError

CLASSES = 1000  # of ImageNet-1k
LEAST = 32  # pixels a side; each of these networks halves a side five times at most
BATCH = 64


class Pretrained(nn.Module, ABC):
    """A convolutional network for RGB images, and how it wants them.

    Class attributes:
        name: what tables and the cache call it.
        stages: names of the places whose output can be taken, in the order in which they run.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def walk(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Each stage's name and output (n, channels, height, width), as they are computed."""

    @abstractmethod
    def classify(self, last: torch.Tensor) -> torch.Tensor:
        """ImageNet's logits (n, 1000) from the output of the last stage."""

    @abstractmethod
    def scaled(self, rgb: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, side, side), RGB from 0 to 255, as the network was trained on them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *_, (_, last) = self.walk(x)
        return self.classify(last)

    def embed(self, x: torch.Tensor, stage: str) -> torch.Tensor:
        """The output of a stage, averaged over its places: (n, channels).

        Raises:
            FedpactError: there is no such stage.
        """
        self._check((stage,))
        return next(found.mean((2, 3)) for name, found in self.walk(x) if name == stage)

    def prepare(self, pixels: Array, side: int) -> torch.Tensor:
        """Images as the network takes them.

        Args:
            pixels: (n, height, width) gray or (n, height, width, 3) RGB, from 0 to 1.
            side: pixels a side of what the network sees (bilinear, antialiased where it shrinks).

        Raises:
            FedpactError: these are no such images, or the side is too short.
        """
        check_side(side)
        if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
            raise FedpactError(
                f"The images have the shape {pixels.shape}; legal are (n, height, width) gray and "
                "(n, height, width, 3) RGB. Reshape them."
            )
        found = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
        found = found[:, None] if pixels.ndim == 3 else found.permute(0, 3, 1, 2)
        found = found.to(next(self.parameters()).device)
        size = (side, side)
        found = functional.interpolate(
            found, size, mode="bilinear", align_corners=False, antialias=True
        )
        return self.scaled(255 * found.expand(-1, 3, -1, -1))

    def _check(self, stages: Sequence[str]) -> None:
        unknown = [name for name in stages if name not in self.stages]
        if unknown:
            raise FedpactError(
                f"{self.name} has no stage {', '.join(unknown)}; legal are "
                f"{', '.join(self.stages)}. Choose among these."
            )


def check_side(side: object) -> None:
    """Refuse a side that the networks cannot halve five times."""
    if not isinstance(side, int) or isinstance(side, bool) or not LEAST <= side <= 512:
        raise FedpactError(
            f"side is {side!r}; legal is a whole number of pixels from {LEAST} to 512. 224 is what "
            "the networks were trained on, and 64 to 96 is faster."
        )


def embeddings(
    network: Pretrained, pixels: Array, side: int, batch: int = BATCH
) -> tuple[dict[str, Array], Array]:
    """What every stage makes of images, in one pass, on the device that the network is on.

    Args:
        pixels: see `Pretrained.prepare`.

    Returns:
        Stage -> (n, channels) float32, averaged over places; ImageNet's probabilities (n, 1000).
    """
    kept: dict[str, list[Array]] = {name: [] for name in network.stages}
    said = []
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(pixels), batch):
                for name, found in network.walk(
                    network.prepare(pixels[first : first + batch], side)
                ):
                    kept[name].append(found.mean((2, 3)).cpu().numpy())
                    last = found
                said.append(network.classify(last).softmax(1).cpu().numpy())
    finally:
        network.train(training)
    return {name: np.concatenate(parts) for name, parts in kept.items()}, np.concatenate(said)


def untrained(network: Pretrained, images: torch.Tensor, seed: int) -> Pretrained:
    """Make of a network a random copy: what its architecture is worth without its training.

    Weights are He's (normal, variance 2 / inputs), biases zero, and a batch normalization takes its
    statistics from the images, so that no signal dies or explodes on the way.

    Args:
        images: (n, 3, side, side), as `prepare` leaves them.

    References:
        He, Zhang, Ren, Sun, arXiv 1502.01852.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                inputs = module.weight[0].numel()
                drawn = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(drawn * (2 / inputs) ** 0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for norm in norms:
            norm.reset_parameters()
            norm.momentum, norm.training = 1.0, True  # the statistics of these very images
        for _ in network.walk(images):
            pass
    return network.eval()
