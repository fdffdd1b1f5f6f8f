"""A model that a firm was offered, behind a canonicalizer that the firm makes for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from parties.canonicalize import Canonicalizer
from parties.canonicalize.backbone import CanonicalBackbone, as_images
from parties.canonicalize.recipe import Canonicalization, Poses
from parties.canonicalize.steady import Steady
from parties.exchange import Array

STEADY = 0.75  # of the accuracy in the best pose for each image, that one pose for all comes to


@final
@dataclass(frozen=True)
class Behind:
    """The offered model, untouched, and what it took to put it behind a canonicalizer.

    Args:
        module: takes flat images, as the offered model does.
        passes: training passes over one example *of the offered model* that it took, by count of
            multiplications: aligning and training the scorer.
    """

    module: CanonicalBackbone
    passes: int


@final
@dataclass(frozen=True)
class Aligned:
    """A firm's images, each in the pose in which an offered model is least surprised.

    Args:
        features: (n, d); accuracy: of the model on them. The poses were chosen by the labels, so it
            is the most that any canonicalizer can make of the model, not a forecast.
        steady: the one pose that suits all images best; steady_accuracy: of the model in it.
        passes: training passes of the model that this took.
    """

    features: Array
    accuracy: float
    steady: int
    steady_accuracy: float
    passes: int


def align(recipe: Canonicalization, model: nn.Module, features: Array, labels: Array) -> Aligned:
    """Bring a firm's labelled images (n, d) into the poses that an offered model knows.

    A firm whose images are not upright has nobody's upright ones; the frozen model and its own
    labels tell it which way they are.
    """
    loss = recipe.surprise(model, features, labels)
    steady = int(loss.mean(1).argmin())
    best, common = loss.argmin(0), np.full(len(features), steady)
    found = recipe.undone(features, best)
    right, together = (
        float((recipe.training.probabilities(model, seen).argmax(1) == labels).mean())
        for seen in (found, recipe.undone(features, common))
    )
    # A pass an element and two more; a forward pass is about a third of a training pass.
    looked = (recipe.group.order + 2) * len(features)
    return Aligned(found, right, steady, together, math.ceil(looked / 3))


def put_behind(recipe: Canonicalization, model: nn.Module, aligned: Aligned, seed: int) -> Behind:
    """Put the model behind a canonicalizer that suits a firm's images.

    Where one pose does nearly as well for all images as the best one for each, the camera was
    mounted the wrong way: all are undone by that, and nothing is trained. Else a scorer is trained
    on the aligned images.
    """
    if aligned.steady_accuracy >= STEADY * aligned.accuracy:
        group = recipe.group
        mounted = Canonicalizer(group, Steady(group.order, aligned.steady))
        return Behind(CanonicalBackbone(model, mounted, recipe.channels), aligned.passes)
    features = aligned.features
    canonicalizer = recipe.build(features.shape[1], seed)
    losses = recipe.fit(canonicalizer, features, seed)
    share = scoring_share(recipe, model, features.shape[1])
    # Every realignment looks at all images once, which is about a third of training on them.
    times = len(losses) + recipe.realign / 3
    trained = math.ceil(times * len(features) * share)
    return Behind(recipe.behind(model, canonicalizer), aligned.passes + trained)


def most_passes(recipe: Canonicalization, model: nn.Module, inputs: int, count: int) -> int:
    """Training passes of the model that aligning `count` images and training a scorer may take."""
    times = recipe.training.epochs * (1 + recipe.realign) + recipe.realign / 3
    share = scoring_share(recipe, model, inputs)
    return math.ceil((times * share + (recipe.group.order + 2) / 3) * count)


def scoring_share(recipe: Canonicalization, model: nn.Module, inputs: int) -> float:
    """Multiplications that scoring all poses of an image takes, over those of the model itself."""
    poses = Poses(recipe.build(inputs, 0), recipe.channels).eval()
    device = recipe.training.torch_device
    example = torch.zeros(1, inputs, device=device)
    as_images(example, recipe.channels)  # says what is wrong where it is no image
    training = model.training
    scorer, own = (_multiplications(m.to(device).eval(), example) for m in (poses, model))
    model.train(training)
    return scorer / max(own, 1)


def _multiplications(model: Callable[[Tensor], Tensor], example: Tensor) -> int:
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(example)
    return int(counted.get_total_flops())
