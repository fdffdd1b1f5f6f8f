"""Shifts: firms see the same things differently. One file each; `Shift` is the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod

from parties.exchange import Array


class Shift(ABC):
    """How one firm's features differ from the pool's; the same for training and for testing."""

    @abstractmethod
    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        """The features as this firm sees them; `features` itself is left alone.

        Args:
            features: (n, d) float32, pixels from 0 to 1.
            ids: (n,) which examples they are: an example looks the same in every call.
            client: the firm, 0 to clients - 1. Firm 0 sees them as they are, but under `style`.
            clients: firms.
            seed: decides what is left to chance.

        Returns:
            (n, d) float32.
        """
