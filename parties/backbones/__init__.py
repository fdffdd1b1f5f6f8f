"""Backbones: a firm's own choice of model. One file each; `Backbone` is the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Backbone(ABC):
    """A recipe for a torch classifier: features (n, inputs) -> logits (n, classes)."""

    @abstractmethod
    def layers(self, inputs: int, classes: int) -> nn.Module:
        """The untrained module for `inputs` columns and `classes` classes."""

    def build(self, inputs: int, classes: int, seed: int) -> nn.Module:
        """The untrained module, its parameters fixed by `seed` and nothing else."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.layers(inputs, classes)
