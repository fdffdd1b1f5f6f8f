"""Models are shared before the market opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from server.contracts import SharingModels


@final
@dataclass(frozen=True)
class TrainSharing(SharingModels):
    """Each firm knows its own prediction and how the models err together (the coupling)."""

    name = "train_sharing"
    models = True
    predictions = False
