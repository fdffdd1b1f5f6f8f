"""Predictions are shared at inference time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from server.contracts import Contract


@final
@dataclass(frozen=True)
class InferSharing(Contract):
    """Each firm knows both predictions, and only a prior over how the models err together."""

    name = "infer_sharing"
    models = False
    predictions = True
