"""What becomes of an offered model at a firm that judges: used, turned to, tuned, or left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.canonicalize.backbone import CanonicalBackbone
from parties.canonicalize.offered import align, most_passes, put_behind, scoring_share
from parties.canonicalize.recipe import Canonicalization
from parties.datasets import Examples
from parties.energy import Spent
from parties.exchange import Array, FedpactError, ReuseReport, Weights
from parties.reuse import Target
from parties.reuse.features import MOST
from parties.reuse.history import History
from parties.reuse.judge import ABSTAIN, AS_IS, CANONICALIZE, FINE_TUNE, PROBE, Epoch, Judge, probed
from parties.reuse.profile import Profile, Source
from parties.training import Training, load_weights, random_seed

FREE = Epoch(Spent(0.0, 0.0, 0.0, 0.0))
"""The decision is by epochs, so that it does not depend on how busy the machine is."""
NAMES = {AS_IS: "published", CANONICALIZE: "canonical", FINE_TUNE: "tuned"}
"""What a firm calls the model that it uses after a decision; its own after the others."""


@final
@dataclass(frozen=True)
class Adopted:
    """The model a firm would use: "published", "canonical", "tuned" or "own" (then no module)."""

    name: str
    module: nn.Module | None
    report: ReuseReport


@final
@dataclass(frozen=True)
class Adopter:
    """Judges an offered model and, where it is to be tuned, tunes it.

    Args:
        judge: decides; training: how the firm trains; build: makes its module.
        fit: what it trains on; judging: what it keeps back to judge by.
        seed: fixes every draw.
        canonicalizer: how the firm would bring its images into a pose that the model knows; None,
            or one of a single pose: it would not.
    """

    judge: Judge
    training: Training
    build: Callable[[], nn.Module]
    fit: Examples
    judging: Examples
    seed: int
    canonicalizer: Canonicalization | None = None

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
        measures = {name: score.value for name, score in told.scores.items()}
        decision, found = told.decision, module if told.decision == AS_IS else None
        if decision != AS_IS:
            behind, took = self._canonicalized(module, forecast)
            trained += took
            if behind is not None:
                decision, found = CANONICALIZE, behind
                seen = Target(self._canonical(behind), self.fit.labels)
                again = self.judge.scores(module, source, seen, rng)
                measures |= {f"{name}_canonical": s.value for name, s in again.items()}
                looked += (len(again) + 1) * min(len(self.fit.ids), MOST) + len(self.fit.ids)
        probing = decision in (PROBE, ABSTAIN)
        if probing:  # three passes over what is kept back, and the stopping rule's
            decision = self._probe(module)
            trained += self._quarter
            looked += (3 + self._watched) * len(self.judging.ids)
        if decision == FINE_TUNE:
            found, epochs = module, self._tune(module, forecast)
            trained += epochs * len(self.fit.ids)
            looked += epochs * self._watched * len(self.judging.ids)
        # A forward pass is about a third of a training pass.
        passes = trained + math.ceil(looked / 3)
        report = ReuseReport(decision, measures, forecast, told.cases, probing, passes)
        return Adopted(NAMES.get(decision, "own"), found, report)

    def _canonicalized(
        self, module: nn.Module, forecast: tuple[float, float, float] | None
    ) -> tuple[CanonicalBackbone | None, int]:
        """The model behind a canonicalizer, if that serves; and the passes that finding out took.

        It is not tried where tuning is forecast to take no more than training a scorer; and given
        up where the model would fall short even if every image came in its best pose.
        """
        recipe, examples = self.canonicalizer, self.fit
        if recipe is None or recipe.idle:
            return None, 0
        inputs, count = examples.features.shape[1], len(examples.ids)
        share = scoring_share(recipe, module, inputs)
        most = most_passes(recipe, module, inputs, count)
        if forecast is not None and forecast[2] * count <= most:
            return None, 0
        aligned = align(recipe, module, examples.features, examples.labels)
        if aligned.accuracy < self.judge.required:
            return None, aligned.passes
        behind = put_behind(recipe, module, aligned, random_seed(self.seed, "canonicalize"))
        told = self.training.probabilities(behind.module, self.judging.features)
        accuracy = float(np.mean(told.argmax(1) == self.judging.labels))
        passes = behind.passes + math.ceil((1 + share) * len(self.judging.ids) / 3)
        return (behind.module if accuracy >= self.judge.required else None), passes

    def _canonical(self, behind: CanonicalBackbone) -> Array:
        """The firm's images in their canonical pose."""
        assert self.canonicalizer is not None
        return self.canonicalizer.upright(behind.canonicalizer, self.fit.features)

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

    def _tune(self, module: nn.Module, forecast: tuple[float, float, float] | None) -> int:
        """Train on from it, in place; the epochs that it took."""
        epochs = self.judge.tune_epochs
        if forecast is not None:
            epochs = min(max(1, math.ceil(forecast[2])), epochs)
        return self._fit(module, self.fit.features, self.fit.labels, epochs, "tune")

    def _fit(self, module: nn.Module, features: Array, labels: Array, epochs: int, why: str) -> int:
        """How many epochs were trained."""
        judging = (self.judging.features, self.judging.labels)
        seed = random_seed(self.seed, why)
        return len(self.training.fit(module, features, labels, seed, epochs, validation=judging))
