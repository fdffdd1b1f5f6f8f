"""Training-free scorers: an image is upright if a frozen model makes of it what it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from parties.canonicalize.groups import Moves
from parties.canonicalize.scorers import Recipe, Scorer
from parties.exchange import FedpactError

BATCH = 512
RIDGE = 1e-2  # of the covariance's mean variance: features are fewer than cases, but not by much


class Known(Scorer):
    """A scorer that is not trained: it is shown upright images and the frozen model once.

    What it remembers is made of single images, or of few: it is not for sharing, and not among its
    tensors. It serves one caller at a time.
    """

    def learn(self, model: nn.Module, images: Tensor, labels: Tensor, flat: bool) -> None:
        """Remember what the model makes of upright images (m, c, s, s) of some classes (m,).

        Args:
            flat: whether the model takes them as (m, c s s).
        """
        self.body = Body(model, flat)
        with torch.inference_mode():
            seen = torch.cat([self.body(part) for part in torch.split(images, BATCH)])
        self.remember(seen.clone(), labels)

    def remember(self, seen: Tensor, labels: Tensor) -> None:
        """Keep what is needed of features (m, d) and classes (m,)."""
        raise NotImplementedError


@final
class Body(nn.Module):
    """What the last linear layer of a model takes in: (n, c, s, s) -> (n, d)."""

    def __init__(self, model: nn.Module, flat: bool) -> None:
        super().__init__()
        heads = [m for m in model.modules() if isinstance(m, nn.Linear)]
        if not heads:
            raise FedpactError(
                "The model has no linear layer, so that nobody knows its features. Use "
                "scorer=scalar, which needs none."
            )
        self.model, self._head, self._flat = model, heads[-1], flat

    def forward(self, images: Tensor) -> Tensor:
        taken: list[Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
        try:
            self.model(images.flatten(1) if self._flat else images)
        finally:
            hook.remove()
        return taken[0].flatten(1)


@final
@dataclass(frozen=True)
class Neighbours(Recipe):
    """Mean cosine of a frozen model's features with the nearest upright ones.

    Args:
        nearest: how many.
        temperature: what the mean is multiplied by.
    """

    nearest: int = 5
    temperature: float = 50.0

    def __post_init__(self) -> None:
        if not isinstance(self.nearest, int) or isinstance(self.nearest, bool) or self.nearest < 1:
            raise FedpactError(f"scorer.nearest is {self.nearest!r}; legal is a whole number >= 1.")
        value = self.temperature
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
            raise FedpactError(f"scorer.temperature is {value!r}; legal is a number > 0.")

    def layers(self, channels: int, side: int, group: Moves) -> Scorer:
        return _Neighbours(self)


@final
class _Neighbours(Known):
    def __init__(self, recipe: Neighbours) -> None:
        super().__init__()
        self._recipe = recipe
        self.register_buffer("upright", torch.empty(0, 0), persistent=False)

    def remember(self, seen: Tensor, labels: Tensor) -> None:
        self.upright = functional.normalize(seen, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        cosines = functional.normalize(self.body(images), dim=1) @ self.upright.T
        nearest = min(self._recipe.nearest, len(self.upright))
        return self._recipe.temperature * cosines.topk(nearest, dim=1).values.mean(1)


@final
@dataclass(frozen=True)
class Mahalanobis(Recipe):
    """Log density of a frozen model's features at the nearest class: -d^2 / 2.

    d is the Mahalanobis distance to a class's mean, by the covariance within classes.

    References:
        Lee, Lee, Lee, Shin, arXiv 1807.03888, equation 2.
    """

    def layers(self, channels: int, side: int, group: Moves) -> Scorer:
        return _Mahalanobis()


@final
class _Mahalanobis(Known):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0, 0), persistent=False)
        self.register_buffer("whitening", torch.empty(0, 0), persistent=False)

    def remember(self, seen: Tensor, labels: Tensor) -> None:
        classes, places = torch.unique(labels, return_inverse=True)
        means = torch.stack([seen[labels == c].mean(0) for c in classes])
        apart = (seen - means[places]).double()
        spread = apart.T @ apart / max(1, len(seen) - len(means))
        ridge = RIDGE * spread.diagonal().mean() + torch.finfo(torch.float32).tiny
        spread += ridge * torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
        # spread = L L', so that |L^-1 x| is the distance.
        root = torch.linalg.cholesky(spread)
        eye = torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
        self.whitening = torch.linalg.solve_triangular(root, eye, upper=False).to(seen.dtype)
        self.means = means @ self.whitening.T

    def forward(self, images: Tensor) -> Tensor:
        white = self.body(images) @ self.whitening.T
        return -torch.cdist(white, self.means).square().amin(1) / 2
