"""Every firm on its own: the baseline of every verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from server.contracts import Contract


@final
@dataclass(frozen=True)
class NoSharing(Contract):
    """Each firm knows its own prediction and a prior over how the models err together."""

    name = "no_sharing"
    models = False
    predictions = False
