"""Changes of size: things that may be nearer or farther than a model knows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from parties.canonicalize.groups import PADDINGS, Moves
from parties.exchange import FedpactError

MOST_STEPS = 16


@final
@dataclass(frozen=True)
class Scales(Moves):
    """Sizes 1, f, 1/f, f^2, 1/f^2, ... about the centre of square images.

    Sizes are a group only without an end: an image beyond the largest one is brought as near to
    its canonical size as the steps go, and what was cut off at its edge does not come back.

    Args:
        factor: f, between one size and the next.
        steps: larger sizes, and as many smaller ones.
        padding: what comes in from outside, see `Group`.
    """

    factor: float = 1.25
    steps: int = 2
    padding: str = "zeros"

    def __post_init__(self) -> None:
        number = isinstance(self.factor, int | float) and not isinstance(self.factor, bool)
        if not number or not 1 < self.factor <= 4:
            raise FedpactError(
                f"canonicalizer.group.factor is {self.factor!r}; legal is a number above 1, up "
                "to 4. Set canonicalizer.group.factor=1.25."
            )
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        if not whole or not 1 <= self.steps <= MOST_STEPS:
            raise FedpactError(
                f"canonicalizer.group.steps is {self.steps!r}; legal is a whole number from 1 "
                f"to {MOST_STEPS}."
            )
        if self.padding not in PADDINGS:
            raise FedpactError(
                f"canonicalizer.group.padding is {self.padding!r}; legal are {', '.join(PADDINGS)}."
            )

    @property
    def order(self) -> int:
        return 2 * self.steps + 1

    def sizes(self, element: Tensor) -> Tensor:
        """By how much each magnifies, (n,).

        >>> Scales(2.0, 1).sizes(torch.arange(3)).tolist()
        [1.0, 2.0, 0.5]
        """
        step = torch.div(element + 1, 2, rounding_mode="floor")
        signed = torch.where(element % 2 == 1, step, -step)
        return torch.exp(signed * math.log(self.factor))

    def inverse(self, element: Tensor) -> Tensor:
        other = torch.where(element % 2 == 1, element + 1, element - 1)
        return torch.where(element == 0, element, other)

    def orbit(self, images: Tensor) -> Tensor:
        every = torch.arange(self.order, device=images.device)
        sizes = self.sizes(self.inverse(every))
        # All by one size: as channels of one image, so that one grid serves them all.
        flat = images.flatten(0, 1)[None]
        seen = [images, *(self._sized(flat, size[None]).view_as(images) for size in sizes[1:])]
        return torch.stack(seen)

    def act(self, images: Tensor, element: Tensor, extra: Tensor | None = None) -> Tensor:
        self._no_turns(extra)
        moved = self._sized(images, self.sizes(element))
        return torch.where((element == 0)[:, None, None, None], images, moved)

    def act_on_masks(self, masks: Tensor, element: Tensor, extra: Tensor | None = None) -> Tensor:
        self._no_turns(extra)
        moved = self._sized(masks[:, None], self.sizes(element), "nearest")[:, 0]
        return torch.where((element == 0)[:, None, None], masks, moved)

    def act_on_vectors(
        self, vectors: Tensor, element: Tensor, extra: Tensor | None = None
    ) -> Tensor:
        self._no_turns(extra)
        return vectors * self.sizes(element).to(vectors)[:, None, None]

    def _sized(self, images: Tensor, sizes: Tensor, mode: str = "bilinear") -> Tensor:
        side = images.shape[-1]
        if images.ndim != 4 or images.shape[-2] != side:
            raise FedpactError(
                f"images have the shape {tuple(images.shape)}; legal is (n, channels, side, side). "
                "Pad the shorter side."
            )
        at = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # centres of pixels
        plain = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)
        grid = plain / sizes.float()[:, None, None, None]
        found = functional.grid_sample(
            images.float(), grid, mode=mode, padding_mode=self.padding, align_corners=False
        )
        return found.to(images.dtype)

    @staticmethod
    def _no_turns(extra: Tensor | None) -> None:
        if extra is not None:
            raise FedpactError("Sizes were asked to turn; legal is refine=0 with them.")
