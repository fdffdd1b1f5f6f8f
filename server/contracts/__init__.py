"""Contracts: what firms may let each other have. One file each; `Contract` is the interface."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from parties.exchange import Terms


class Contract(ABC):
    """A sharing contract of arXiv 2403.17515, Section 2: two switches.

    Attributes:
        name: its name in every file and message.
        models: trained models cross before the market opens; the firms learn the coupling.
        predictions: each firm sees the other's prediction for the client before it acts.
    """

    name: ClassVar[str]
    models: ClassVar[bool]
    predictions: ClassVar[bool]

    def terms(self, rounds: int) -> Terms:
        """What passes, where models (if they cross at all) cross in `rounds` rounds."""
        return Terms(self.name, self.models, self.predictions, rounds if self.models else 0)
