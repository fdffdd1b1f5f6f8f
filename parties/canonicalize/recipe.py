"""How a firm makes its canonicalizer: which poses, which scorer, how it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from parties.canonicalize import Canonicalizer
from parties.canonicalize.backbone import CanonicalBackbone, as_images
from parties.canonicalize.groups import Moves
from parties.canonicalize.neighbours import Known
from parties.canonicalize.scorers import OnePass, Recipe
from parties.exchange import Array, FedpactError
from parties.training import Training, random_seed

BATCH = 512
Watch = Callable[[float, float], None]


@final
@dataclass(frozen=True)
class Canonicalization:
    """A recipe for a canonicalizer of flat images (n, channels * side * side).

    Args:
        group: the poses.
        scorer: what scores them.
        training: how the scorer is trained, without labels, on upright images.
        channels: of an image.
        refine, gate: see `Canonicalizer`; top: see `CanonicalBackbone`.
        realign: how often training is repeated on images that were brought into pose by what was
            trained before; for data that are not upright.
    """

    group: Moves
    scorer: Recipe
    training: Training
    channels: int = 1
    refine: int = 0
    gate: float = 0.0
    top: int = 1
    realign: int = 0

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("refine", 0), ("top", 1), ("realign", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise FedpactError(
                    f"canonicalizer.{name} is {value!r}; legal is a whole number >= {least}."
                )
        gate = self.gate
        if not isinstance(gate, int | float) or isinstance(gate, bool) or not 0 <= gate < math.inf:
            raise FedpactError(f"canonicalizer.gate is {gate!r}; legal is a number >= 0, log odds.")
        # A group and a refinement that do not go together are refused here, not after training.
        self.behind(nn.Identity(), self.build(self.channels * 16 * 16, 0))

    @property
    def idle(self) -> bool:
        """It leaves every image as it is: its group has one element."""
        return self.group.order == 1 and not self.refine

    @property
    def shareable(self) -> bool:
        """It has a scorer that is trained, whose tensors firms can share."""
        return not self.idle and not isinstance(self.build(self.channels * 256, 0).scorer, Known)

    def build(self, inputs: int, seed: int) -> Canonicalizer:
        """The untrained canonicalizer of images of so many numbers, fixed by the seed."""
        side = as_images(torch.empty(0, inputs), self.channels).shape[-1]
        scorer = self.scorer.build(self.channels, side, self.group, seed)
        return Canonicalizer(self.group, scorer, self.refine, float(self.gate))

    def behind(self, model: nn.Module, canonicalizer: Canonicalizer) -> CanonicalBackbone:
        """A model of flat images, seen through the canonicalizer."""
        return CanonicalBackbone(model, canonicalizer, self.channels, self.top)

    def fit(
        self,
        canonicalizer: Canonicalizer,
        features: Array,
        seed: int,
        epochs: int = 0,
        model: nn.Module | None = None,
        labels: Array | None = None,
        watch: Watch | None = None,
    ) -> tuple[float, ...]:
        """Train it in place, without labels, on images that are upright.

        Args:
            features: (n, d) float32.
            epochs: 0 for the training's own number.
            model, labels: the frozen model and the classes of the images, (n,); only scorers that
                are not trained need them.
            watch: as in `Training.fit`: GDEI and its companions can look on.

        Returns:
            Mean loss of each epoch, nats; none where nothing is trained.
        """
        scorer = canonicalizer.scorer
        if isinstance(scorer, Known):
            if model is None or labels is None:
                raise FedpactError(
                    f"{type(self.scorer).__name__} scores by a frozen model and labelled upright "
                    "images, and was given none. Use scorer=scalar, which needs neither."
                )
            device = self.training.torch_device
            images = as_images(torch.from_numpy(features), self.channels).to(device)
            scorer.learn(model.to(device).eval(), images, torch.from_numpy(labels).to(device), True)
            canonicalizer.to(device).eval()
            return ()
        losses = self._fit(canonicalizer, features, seed, epochs, watch)
        for again in range(self.realign):
            features = self.upright(canonicalizer, features)
            losses += self._fit(
                canonicalizer, features, random_seed(seed, "realign", again), epochs, watch
            )
        return losses

    def _fit(
        self,
        canonicalizer: Canonicalizer,
        features: Array,
        seed: int,
        epochs: int,
        watch: Watch | None,
    ) -> tuple[float, ...]:
        poses = Poses(canonicalizer, self.channels)
        upright = np.zeros(len(features), np.int64)
        return self.training.fit(
            poses, features, upright, seed, epochs, watch=watch, objective=Poses.objective
        )

    def upright(self, canonicalizer: Canonicalizer, features: Array) -> Array:
        """The features (n, d) in their canonical pose."""
        device = self.training.torch_device
        canonicalizer.to(device).eval()
        found = []
        with torch.inference_mode():
            for part in torch.split(torch.from_numpy(features), BATCH):
                images = as_images(part.to(device), self.channels)
                found.append(canonicalizer(images).images.flatten(1).cpu())
        return torch.cat(found).numpy() if found else features

    def surprise(self, model: nn.Module, features: Array, labels: Array) -> Array:
        """A frozen model's loss on every image undone by every element, (order, n), nats.

        Args:
            features: (n, d); labels: the firm's own classes, (n,).
        """
        device = self.training.torch_device
        model.to(device).eval()
        found = []
        with torch.inference_mode():
            for part, classes in zip(
                torch.split(torch.from_numpy(features), BATCH),
                torch.split(torch.from_numpy(labels), BATCH),
                strict=True,
            ):
                orbit = self.group.orbit(as_images(part.to(device), self.channels))
                told = model(orbit.flatten(0, 1).flatten(1))
                again = classes.to(device).repeat(self.group.order)
                loss = functional.cross_entropy(told, again, reduction="none")
                found.append(loss.view(self.group.order, -1).cpu())
        return torch.cat(found, 1).numpy() if found else np.empty((self.group.order, 0))

    def undone(self, features: Array, element: Array) -> Array:
        """Every image (n, d) undone by its own element, (n,)."""
        found = []
        for part, k in zip(
            torch.split(torch.from_numpy(features), BATCH),
            torch.split(torch.from_numpy(element), BATCH),
            strict=True,
        ):
            images = as_images(part, self.channels)
            found.append(self.group.act(images, self.group.inverse(k)).flatten(1))
        return torch.cat(found).numpy() if found else features


@final
class Poses(nn.Module):
    """A canonicalizer as a classifier of poses: flat images (n, d) -> scores (n, order).

    Only its scorer is trained, and only that has tensors to share.
    """

    def __init__(self, canonicalizer: Canonicalizer, channels: int) -> None:
        super().__init__()
        self.canonicalizer, self._channels = canonicalizer, channels

    def forward(self, features: Tensor) -> Tensor:
        """Scores (n, order), log odds."""
        return self.canonicalizer.scores(as_images(features, self._channels))

    @staticmethod
    def objective(poses: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of the scores of upright images against their pose, and penalties.

        Args:
            labels: the pose of each image, (n,): 0.
        """
        assert isinstance(poses, Poses)
        canonicalizer, images = poses.canonicalizer, as_images(features, poses._channels)
        group, scorer = canonicalizer.group, canonicalizer.scorer
        if isinstance(scorer, OnePass):
            if images.shape[0] < 2:  # batch normalization needs two
                images = images.repeat(group.order, 1, 1, 1)
            # Each is moved by another element; which image gets which, the shuffling decides, and
            # in batches too small for all elements the batch with which one to begin.
            few = images.shape[0] < group.order
            first = (1000 * images.double().abs().sum()).long() if few else 0
            moved = (torch.arange(images.shape[0], device=images.device) + first) % group.order
            return functional.cross_entropy(scorer(group.act(images, moved)), moved)
        orbit = group.orbit(images)
        scores = scorer(orbit.flatten(0, 1)).view(group.order, -1).T
        return functional.cross_entropy(scores, labels) + scorer.penalty(orbit)
