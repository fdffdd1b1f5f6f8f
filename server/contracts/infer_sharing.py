"""Predictions are shared at inference time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from server.contracts import Sharing


@final
@dataclass(frozen=True)
class InferSharing(Sharing):
    """Each firm knows both predictions, and only a prior over how the models err together."""

    name = "infer_sharing"
    models = False
    predictions = True
