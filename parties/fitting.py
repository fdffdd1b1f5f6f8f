"""One training as a value: all that it depends on, and whoever does it.

A firm says what is to be fitted; whoever runs the firm may do many such fits at once
(`parties.batched`), one after the other, or not again where it knows the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import final
from weakref import ref

import numpy as np
import torch
from torch import nn

from parties.backbones import Backbone
from parties.descent import Descent, Objective, cross_entropy, descent_of
from parties.exchange import Array
from parties.resident import sent
from parties.training import Training, load_weights, reduced, weights_of

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

    def key(self, seen: dict[int, str]) -> str:
        """A digest of all of it: fits of one key end alike.

        Args:
            seen: id -> digest of weights that others of these fits start from, too.
        """
        parts = (type(self.backbone).__module__, self.backbone, self.training, self.classes)
        # With a start, nothing of the draw is left.
        draw = self.draw if self.start is None else None
        told = [repr((*parts, draw, self.shuffle, self.passes, self.proximal))]
        told += [lasting_digest(array) for array in (self.features, self.targets)]
        told += [lasting_digest(array) for array in self.validation or ()]
        for name, array in sorted((self.start or {}).items()):
            if id(array) not in seen:
                seen[id(array)] = digest(array)
            told += name, seen[id(array)]
        return blake2b("\n".join(told).encode(), digest_size=20).hexdigest()


def digest(array: Array) -> str:
    """Of what an array holds."""
    told = blake2b(repr((array.dtype.str, array.shape)).encode(), digest_size=20)
    told.update(np.ascontiguousarray(array).data)
    return told.hexdigest()


def lasting_digest(array: Array) -> str:
    """The same of what a firm trains on, which never changes: it is read once in its life."""
    key = id(array)
    if key not in _DIGESTS:
        # It goes with its array, before another can have its number.
        _DIGESTS[key] = ref(array, lambda _: _DIGESTS.pop(key, None)), digest(array)
    return _DIGESTS[key][1]


_DIGESTS: dict[int, tuple[ref[Array], str]] = {}


def fit_one(fit: Fit) -> Fitted:
    """Train by itself: what every other way of doing it must come to."""
    training, inputs = fit.training, fit.features.shape[1]
    what = (fit.backbone, inputs, fit.classes, training.torch_device, training.mixed_precision)
    if fit.start is not None:
        used = _used(*what)
        if used is not None and used.takes(fit.start):
            used.load(fit.start)
            losses = _losses(fit, used.module, used.descent)
            return used.weights, losses
    module = fit.backbone.build(inputs, fit.classes, fit.draw)
    if fit.start is not None:
        load_weights(module, fit.start)
    losses = _losses(fit, module)
    return weights_of(module), losses


def _losses(fit: Fit, module: nn.Module, descent: Descent | None = None) -> tuple[float, ...]:
    """Train the module."""
    return fit.training.fit(
        module,
        fit.features,
        fit.targets,
        fit.shuffle,
        fit.epochs,
        fit.proximal,
        validation=fit.validation,
        objective=_objective(fit.backbone),
        descent=descent,
    )


def _objective(backbone: Backbone) -> Objective:
    """What training lowers: of a plain classifier, what everybody knows by its name."""
    plain = type(backbone).objective is Backbone.objective
    return cross_entropy if plain else backbone.objective


@final
class _Used:
    """A module that is trained again and again, each time from other weights.

    To build one takes longer than to train it for a few steps.
    """

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        self.module, self.descent = module, descent_of(module, objective)
        self._tensors = dict(module.state_dict())
        near = all(tensor.device.type == "cpu" for tensor in self._tensors.values())
        # Of a module on the CPU the same numbers, as numpy's arrays.
        self._arrays = {k: v.numpy() for k, v in self._tensors.items()} if near else {}

    def takes(self, start: Mapping[str, Array]) -> bool:
        """Whether these are weights of this module; else `load_weights` says what is wrong."""
        return start.keys() == self._tensors.keys() and all(
            array.shape == self._tensors[name].shape for name, array in start.items()
        )

    def load(self, start: Mapping[str, Array]) -> None:
        for name, array in self._arrays.items():
            np.copyto(array, start[name], casting="same_kind")
        if not self._arrays:
            for name, tensor in self._tensors.items():
                tensor.copy_(sent(torch.from_numpy(np.array(start[name])), tensor.device))

    @property
    def weights(self) -> dict[str, Array]:
        """What it has come to, arrays of the asker's own."""
        if self._arrays:
            return {k: v.copy() for k, v in self._arrays.items()}
        return {k: v.cpu().numpy() for k, v in self._tensors.items()}


def _forgets(part: nn.Module) -> bool:
    """Whether nothing but its tensors outlasts a call, as far as we can tell."""
    return type(part).__module__.startswith(("torch.nn.", "parties.layers"))


@lru_cache(maxsize=8)
def _used(
    backbone: Backbone, inputs: int, classes: int, device: torch.device, mixed_precision: str
) -> _Used | None:
    """The module of a backbone; None where it may remember more than its tensors say."""
    module = backbone.build(inputs, classes, 0).to(device)
    if not all(_forgets(part) for part in module.modules()):
        return None
    return _Used(module, reduced(_objective(backbone), mixed_precision, device))


def fit_each(fits: Sequence[Fit]) -> list[Fitted]:
    """One after the other."""
    return [fit_one(fit) for fit in fits]


fitter: ContextVar[Callable[[Sequence[Fit]], list[Fitted]]] = ContextVar("fitter", default=fit_each)
"""Who does the fits that are asked for here; its answers are the asker's own, to write in."""
