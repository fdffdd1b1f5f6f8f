"""Models and predictions are shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from server.contracts import Sharing


@final
@dataclass(frozen=True)
class FullSharing(Sharing):
    """Each firm knows both predictions and how the models err together."""

    name = "full_sharing"
    models = True
    predictions = True
