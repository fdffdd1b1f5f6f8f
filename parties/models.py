"""A firm's own models: what they are fitted on, how they start, what they say of cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
from torch import nn

from parties.backbones import Backbone
from parties.datasets import Dataset, Examples
from parties.exchange import Array
from parties.fitting import Fit, fitter
from parties.memory import Memory
from parties.reuse.profile import Profile
from parties.training import Training, load_weights, random_seed

Model = dict[str, Array] | nn.Module
"""Tensors of the firm's own backbone, or a module that was made of a published model."""
LOSSES = "losses"
LEAST_IN_SUM = 10  # cases of a class: a sum over fewer would tell too much of each
MOST_FISHER = 256  # examples of which a diagonal Fisher information is the mean


@final
@dataclass(frozen=True)
class Losses:
    """A model on held-out cases: a loss and an answer a case, (n,), which never leave the firm."""

    per_case: Array
    right: Array
    auc: float | None


@final
@dataclass(frozen=True)
class _Divided:
    """Examples, and what a firm fits on of them and keeps back."""

    of: Examples
    parts: tuple[Examples, Examples]


@final
@dataclass(frozen=True)
class Models:
    """How a firm makes and reads its models; everything is fixed by the seed and the firm's name.

    Args:
        name: the firm's; dataset, backbone, training, kept_back: see `Firm`.
    """

    name: str
    dataset: Dataset
    backbone: Backbone
    training: Training
    kept_back: float
    _divided: dict[int, _Divided] = field(default_factory=dict, compare=False, repr=False)

    def own(
        self, seed: int, memory: Memory, whole: bool = True
    ) -> tuple[dict[str, Array], tuple[float, ...]]:
        """The firm's own model of this seed, trained once and remembered.

        Args:
            memory: what it remembers; this one is added.
            whole: trained on all of its examples; else without those that it keeps back.
        """
        key = f"own/{seed}" if whole else f"own/{seed}/kept back"
        if key not in memory.models:
            arrays, losses = self.fit(seed, 0, self.training.epochs, None, whole=whole)
            memory.make_room(seed)
            memory.models[key] = {**arrays, LOSSES: np.asarray(losses)}
        kept = dict(memory.models[key])
        return kept, tuple(float(v) for v in kept.pop(LOSSES))

    def fit(
        self,
        seed: int,
        turn: int,
        epochs: int,
        start: dict[str, Array] | None,
        proximal: float = 0.0,
        whole: bool = False,
    ) -> tuple[dict[str, Array], tuple[float, ...]]:
        """Train from `start`, or from the common draw: the weights, and the loss of each epoch.

        Args:
            turn: the round; proximal: see `Training.fit`.
            whole: on all examples; else without those that are kept back.
        """
        training, back = self.parts(seed)
        if whole:
            training = self.whole(seed)
        told = self.backbone.targets
        fit = Fit(
            self.training,
            self.backbone,
            self.dataset.classes,
            random_seed(seed, "init"),
            start,
            training.features,
            told(training.labels),
            random_seed(seed, turn, self.name),
            epochs,
            proximal,
            validation=None if back is None else (back.features, told(back.labels)),
        )
        return fitter.get()([fit])[0]

    def precision(
        self, arrays: dict[str, Array], training: Examples, seed: int
    ) -> dict[str, Array]:
        """Diagonal Fisher information at these weights, mean over some of the examples."""
        module = self.backbone.build(training.features.shape[1], self.dataset.classes, 0)
        some = np.random.default_rng(random_seed(seed, "fisher", self.name)).permutation(
            len(training.ids)
        )[:MOST_FISHER]
        return self.training.precision(
            load_weights(module, arrays),
            training.features[some],
            self.backbone.targets(training.labels[some]),
        )

    def card(self, arrays: dict[str, Array], training: Examples, seed: int) -> dict[str, Array]:
        """The profile card of what these weights make of the examples; no sum over a few."""
        module = load_weights(self.module(training.features, seed), arrays)
        rng = np.random.default_rng(random_seed(seed, "card", self.name))
        module.to(self.training.torch_device)
        card = Profile.of(module, training.features, training.labels, rng).to_arrays()
        sums = card["class_sums"]
        few = np.bincount(training.labels, minlength=len(sums)) < LEAST_IN_SUM
        card["class_sums"] = np.where(few[:, None], 0.0, sums)
        return card

    def module(self, features: Array, seed: int) -> nn.Module:
        """Every firm starts from the same draw, so that models can be averaged."""
        return self.backbone.build(
            features.shape[1], self.dataset.classes, random_seed(seed, "init")
        )

    def whole(self, seed: int) -> Examples:
        """What the firm fits its own model on: everything, but for what its stopping watches."""
        if self.training.stopping.needs_validation:
            return self.parts(seed)[0]
        return self.dataset.split(seed).training

    def parts(self, seed: int) -> tuple[Examples, Examples | None]:
        """What the firm fits on, and what it keeps back to judge models by."""
        training = self.dataset.split(seed).training
        if not self.kept_back:
            return training, None
        # The same arrays each time: they are known again on a GPU, and by whoever remembers fits.
        if seed in self._divided and self._divided[seed].of is training:
            return self._divided[seed].parts
        rng = np.random.default_rng(random_seed(seed, "kept back", self.name))
        order = rng.permutation(len(training.ids))
        count = min(max(1, round(self.kept_back * len(order))), len(order) - 1)
        back, rest = np.sort(order[:count]), np.sort(order[count:])
        fit, judging = (
            Examples(training.ids[rows], training.features[rows], training.labels[rows])
            for rows in (rest, back)
        )
        self._divided.clear()
        self._divided[seed] = _Divided(training, (fit, judging))
        return fit, judging

    def probabilities(self, model: Model, features: Array, seed: int) -> Array:
        """Class probabilities (n, classes) of a model."""
        if isinstance(model, nn.Module):  # made of a published one: a classifier as it stands
            return self.training.probabilities(model, features)
        module = load_weights(self.module(features, seed), model)
        return self.backbone.probabilities(self.training, module, features)

    def opinion(self, arrays: dict[str, Array], features: Array, seed: int) -> Array:
        """What a model tells others of cases, (n, k) (`Backbone.opinion`)."""
        module = load_weights(self.module(features, seed), arrays)
        return self.backbone.opinion(self.training, module, features)

    def losses(self, model: Model, cases: Examples, seed: int) -> Losses:
        """How a model does on labelled cases."""
        probs = self.probabilities(model, cases.features, seed)
        true = np.clip(probs[np.arange(len(cases.labels)), cases.labels], 1e-12, 1.0)
        both = self.dataset.classes == len(np.unique(cases.labels)) == 2
        return Losses(
            per_case=-np.log(true),
            right=probs.argmax(1) == cases.labels,
            auc=auc(cases.labels, probs[:, 1]) if both else None,
        )


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve of scores (n,) of class 1; labels (n,) hold both classes."""
    from sklearn.metrics import roc_auc_score  # a process that never needs it is 80 MB smaller

    return float(roc_auc_score(labels, scores))
