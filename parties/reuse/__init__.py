"""Judging a model that somebody else trained: what would reusing it cost, and what would it give?

A *measure* reads one number off an offered model and a firm's own data, before any retraining. One
file each; `ReuseMeasure` is the interface.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse.profile import Source

COST, CEILING = "cost", "ceiling"


@final
@dataclass(frozen=True)
class Target:
    """A firm's own data, to judge a model by.

    Args:
        features: (n, ...) float32, as the model takes them.
        labels: (n,) int64, or None where the firm has none yet.
    """

    features: Array
    labels: Array | None = None

    def __post_init__(self) -> None:
        if len(self.features) == 0:
            raise FedpactError("A model cannot be judged on no data; give at least one example.")
        if self.labels is not None and len(self.labels) != len(self.features):
            raise FedpactError(
                f"{len(self.labels)} labels for {len(self.features)} examples; give one each."
            )


@final
@dataclass(frozen=True)
class ReuseScore:
    """What a measure says of a model on a firm's data.

    Args:
        measure: its name.
        value: the number.
        higher_is_better: whether a larger number speaks for reusing the model.
        needs_labels: whether the firm's labels were used.
        seconds: CPU seconds of this thread that it took.
        layers: layer -> value, where the measure is a mean over layers.
        floor: what the measure would say of data just like the source's, of this size (the
            finite-sample floor); None where it has none.
    """

    measure: str
    value: float
    higher_is_better: bool
    needs_labels: bool
    seconds: float
    layers: Mapping[str, float] = field(default_factory=dict)
    floor: float | None = None


@dataclass(frozen=True)
class ReuseMeasure(ABC):
    """One way to judge a model before it is retrained.

    Class attributes:
        forecasts: "cost" (what retraining would take) or "ceiling" (how good it could become).
        higher_is_better: whether a larger number speaks for reusing the model.
        needs_source: whether it compares with the data that the model was trained on.
    """

    forecasts: ClassVar[str]
    higher_is_better: ClassVar[bool]
    needs_source: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it; variants of one measure have names of their own."""

    @property
    @abstractmethod
    def needs_labels(self) -> bool:
        """Whether the firm's labels are used."""

    def score(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> ReuseScore:
        """Judge a model.

        Args:
            model: features -> logits (n, classes); it is left as it is (and in eval mode).
            source: what its maker says of the data it was trained on.
            target: the firm's own data.
            rng: decides which examples are looked at, where there are more than enough.

        Raises:
            FedpactError: the measure needs what the source or the target lacks, the model has no
                layer to look at, or its outputs or the measure are not finite.
        """
        if self.needs_labels and target.labels is None:
            raise FedpactError(
                f"{self.name} needs labels, and the target has none. Give labels, or use a measure "
                "without: arm, frechet, preindex with combined=false."
            )
        started = time.thread_time()
        value, layers, floor = self.measure(model, source, target, rng)
        if not math.isfinite(value):
            raise FedpactError(
                f"{self.name} is {value} for this model; legal is a finite number. Its outputs or "
                "its profile card are too large to be compared: leave it, or use another measure."
            )
        return ReuseScore(
            self.name,
            float(value),
            self.higher_is_better,
            self.needs_labels,
            time.thread_time() - started,
            layers,
            floor,
        )

    @abstractmethod
    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        """The value, its parts by layer ({} for none), and the finite-sample floor (or None)."""


def labels_of(target: Target, rows: Array, classes: int | None = None) -> Array:
    """The target's labels (n,) of the rows that were looked at.

    Args:
        classes: how many the model tells apart, where labels must be among them.

    Raises:
        FedpactError: there are none, or a label is none of the model's classes.
    """
    if target.labels is None:
        raise FedpactError("The target has no labels; this measure needs one an example.")
    labels = target.labels[rows]
    most = int(labels.max())
    if labels.min() < 0 or (classes is not None and most >= classes):
        legal = "0 or more" if classes is None else f"0 to {classes - 1}, the model's classes"
        raise FedpactError(
            f"Labels run from {labels.min()} to {most}; legal are {legal}. Use labels of the "
            "model's classes, or leep, which compares other ones."
        )
    return labels


def chosen_word(field_name: str, value: object, legal: Sequence[str]) -> None:
    """Refuse a field that is none of the legal words."""
    if value not in legal:
        raise FedpactError(
            f"measure.{field_name} is {value!r}; legal are {', '.join(legal)}. Set "
            f"measure.{field_name}={legal[0]}."
        )
