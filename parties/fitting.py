"""One training as a value: all that it depends on, and whoever does it.

A firm says what is to be fitted; whoever runs the firm may do many such fits at once
(`parties.batched`), one after the other, or not again where it knows the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import final

from parties.backbones import Backbone
from parties.exchange import Array
from parties.training import Training, load_weights, weights_of

Fitted = tuple[dict[str, Array], tuple[float, ...]]
"""The weights that a training ends with, by name, and the loss of each epoch."""


@final
@dataclass(frozen=True, eq=False)
class Fit:
    """One training, which nothing outside of it decides.

    Args:
        training: how it trains; backbone: what.
        classes: of the backbone.
        draw: seed of the parameters that it starts from, where `start` is None.
        start: the weights that it starts from, by name.
        features: (n, d); targets: (n,), what the module is to say of them.
        shuffle: seed of the order of the examples.
        epochs: passes over the examples; 0: the training's own.
        proximal: mu of the pull to the start; see `Training.fit`.
        validation: features and targets that a stopping rule may watch.
    """

    training: Training
    backbone: Backbone
    classes: int
    draw: int
    start: dict[str, Array] | None
    features: Array
    targets: Array
    shuffle: int
    epochs: int
    proximal: float = 0.0
    validation: tuple[Array, Array] | None = None

    @property
    def passes(self) -> int:
        """How many epochs it takes, unless its stopping rule ends it."""
        return self.epochs or self.training.epochs

    @cached_property
    def key(self) -> str:
        """A digest of all of it: fits of one key end alike."""
        told = blake2b(digest_size=20)
        parts = (type(self.backbone).__module__, self.backbone, self.training, self.classes)
        # With a start, nothing of the draw is left.
        draw = self.draw if self.start is None else None
        told.update(repr((*parts, draw, self.shuffle, self.passes, self.proximal)).encode())
        named = [("features", self.features), ("targets", self.targets)]
        named += [("watched", array) for array in self.validation or ()]
        named += sorted((self.start or {}).items())
        for name, array in named:
            told.update(repr((name, array.dtype.str, array.shape)).encode())
            told.update(array.tobytes())
        return told.hexdigest()


def fit_one(fit: Fit) -> Fitted:
    """Train by itself: what every other way of doing it must come to."""
    module = fit.backbone.build(fit.features.shape[1], fit.classes, fit.draw)
    if fit.start is not None:
        load_weights(module, fit.start)
    losses = fit.training.fit(
        module,
        fit.features,
        fit.targets,
        fit.shuffle,
        fit.epochs,
        fit.proximal,
        validation=fit.validation,
        objective=fit.backbone.objective,
    )
    return weights_of(module), losses


def fit_each(fits: Sequence[Fit]) -> list[Fitted]:
    """One after the other."""
    return [fit_one(fit) for fit in fits]


fitter: ContextVar[Callable[[Sequence[Fit]], list[Fitted]]] = ContextVar("fitter", default=fit_each)
"""Who does the fits that are asked for here; its answers are the asker's own, to write in."""
