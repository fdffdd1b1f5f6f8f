"""What becomes of an offered model at a firm that judges: it is used, tuned, or left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.datasets import Examples
from parties.energy import Spent
from parties.exchange import Array, FedpactError, ReuseReport, Weights
from parties.reuse import Target
from parties.reuse.features import MOST
from parties.reuse.history import History
from parties.reuse.judge import ABSTAIN, AS_IS, FINE_TUNE, PROBE, Epoch, Judge, probed
from parties.reuse.profile import Profile, Source
from parties.training import Training, load_weights, random_seed, weights_of

FREE = Epoch(Spent(0.0, 0.0, 0.0, 0.0))
"""The decision is by epochs, so that it does not depend on how busy the machine is."""


@final
@dataclass(frozen=True)
class Adopted:
    """The model a firm would use: "published", "tuned" or "own" (then no arrays), and why."""

    name: str
    arrays: dict[str, Array] | None
    report: ReuseReport


@final
@dataclass(frozen=True)
class Adopter:
    """Judges an offered model and, where it is to be tuned, tunes it.

    Args:
        judge: decides; training: how the firm trains; build: makes its module.
        fit: what it trains on; judging: what it keeps back to judge by.
        seed: fixes every draw.
    """

    judge: Judge
    training: Training
    build: Callable[[], nn.Module]
    fit: Examples
    judging: Examples
    seed: int

    def adopt(self, offered: Weights) -> Adopted:
        """Judge one offered model.

        Raises:
            FedpactError: it came without the profile card of its data.
        """
        if offered.card is None:
            raise FedpactError(
                "A model without its profile card cannot be judged. Use strategy=donor, which "
                "sends one, or adopts=published or best."
            )
        rng = np.random.default_rng(random_seed(self.seed, "judge"))
        module = load_weights(self.build(), dict(offered.arrays)).to(self.training.torch_device)
        source = Source(Profile.from_arrays(offered.card))
        target = Target(self.fit.features, self.fit.labels)
        history = History.load(self.judge.history) if self.judge.history else History()
        told = self.judge.judge(module, source, target, history, FREE, rng)
        forecast = told.options[FINE_TUNE].epochs if FINE_TUNE in told.options else None
        trained, looked = 0, (len(told.scores) + 1) * min(len(self.fit.ids), MOST)
        decision, probing = told.decision, told.decision in (PROBE, ABSTAIN)
        if probing:  # three passes over what is kept back, and the stopping rule's
            decision = self._probe(module)
            trained += self._quarter
            looked += (3 + self._watched) * len(self.judging.ids)
        arrays = None
        if decision == AS_IS:
            arrays = dict(offered.arrays)
        if decision == FINE_TUNE:
            arrays, epochs = self._tune(module, forecast)
            trained += epochs * len(self.fit.ids)
            looked += epochs * self._watched * len(self.judging.ids)
        # A forward pass is about a third of a training pass.
        passes = trained + math.ceil(looked / 3)
        report = ReuseReport(
            decision,
            {name: score.value for name, score in told.scores.items()},
            forecast,
            told.cases,
            probing,
            passes,
        )
        names = {AS_IS: "published", FINE_TUNE: "tuned"}
        return Adopted(names.get(decision, "own"), arrays, report)

    @property
    def _quarter(self) -> int:
        return max(1, len(self.fit.ids) // 4)

    @property
    def _watched(self) -> int:
        """Times that the stopping rule looks at the examples kept back, an epoch."""
        return int(self.training.stopping.needs_validation)

    def _probe(self, module: nn.Module) -> str:
        """Train a quarter of an epoch in place, and say whether to go on."""
        judging = (self.judging.features, self.judging.labels)
        before = self.training.loss(module, *judging)
        rows = np.random.default_rng(random_seed(self.seed, "probe")).permutation(
            len(self.fit.ids)
        )[: self._quarter]
        self._fit(module, self.fit.features[rows], self.fit.labels[rows], 1, "probe")
        after = self.training.loss(module, *judging)
        probs = self.training.probabilities(module, judging[0])
        accuracy = float(np.mean(probs.argmax(1) == judging[1]))
        return probed(before, after, accuracy, self.judge.required, self.judge.least_gain)

    def _tune(
        self, module: nn.Module, forecast: tuple[float, float, float] | None
    ) -> tuple[dict[str, Array], int]:
        """Train on from it; its weights, and the epochs that it took."""
        epochs = self.judge.tune_epochs
        if forecast is not None:
            epochs = min(max(1, math.ceil(forecast[2])), epochs)
        losses = self._fit(module, self.fit.features, self.fit.labels, epochs, "tune")
        return weights_of(module), losses

    def _fit(self, module: nn.Module, features: Array, labels: Array, epochs: int, why: str) -> int:
        """How many epochs were trained."""
        judging = (self.judging.features, self.judging.labels)
        seed = random_seed(self.seed, why)
        return len(self.training.fit(module, features, labels, seed, epochs, validation=judging))
