"""Models and predictions are shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from server.contracts import SharingModels


@final
@dataclass(frozen=True)
class FullSharing(SharingModels):
    """Each firm knows both predictions and how the models err together."""

    name = "full_sharing"
    models = True
    predictions = True
