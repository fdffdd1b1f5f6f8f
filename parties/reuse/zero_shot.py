"""The plain baseline: how wrong the model is on the firm's data as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.reuse import COST, ReuseMeasure, Target, chosen_word, labels_of
from parties.reuse.features import look
from parties.reuse.profile import Source

LOSSES = ("error", "cross_entropy")


@final
@dataclass(frozen=True)
class ZeroShot(ReuseMeasure):
    """Share of wrong answers, or mean -log p(label) in nats; smaller means cheaper retraining.

    Args:
        loss: error or cross_entropy.

    Raises:
        FedpactError: a label is none of the model's classes.
    """

    loss: str = "error"

    forecasts = COST
    higher_is_better = False
    needs_labels = True

    def __post_init__(self) -> None:
        chosen_word("loss", self.loss, LOSSES)

    @property
    def name(self) -> str:
        return f"zero_shot_{self.loss}"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng, hidden=False)
        logits = seen.logits
        labels = labels_of(target, seen.rows, logits.shape[1])
        if self.loss == "error":
            return float(np.mean(logits.argmax(1) != labels)), {}, None
        shifted = logits - logits.max(1, keepdims=True)
        normalizers = np.log(np.exp(shifted).sum(1))
        return float(np.mean(normalizers - shifted[np.arange(len(labels)), labels])), {}, None
