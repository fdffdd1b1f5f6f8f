"""Backbones: a firm's own choice of model. One file each; `Backbone` is the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from parties.descent import cross_entropy
from parties.exchange import Array
from parties.training import Training


class Backbone(ABC):
    """A recipe for a torch module, and how its outputs are read.

    A plain classifier, features (n, inputs) -> logits (n, classes), defines `layers` only. The
    other methods are for modules whose outputs are something else than classes.
    """

    @abstractmethod
    def layers(self, inputs: int, classes: int) -> nn.Module:
        """The untrained module for `inputs` columns and `classes` classes."""

    def build(self, inputs: int, classes: int, seed: int) -> nn.Module:
        """The untrained module, its parameters fixed by `seed` and nothing else."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: without a GPU it stacks up a call of CUDA's each time.
            torch.default_generator.manual_seed(seed)
            return self.layers(inputs, classes)

    # ----------------------------------------------------------------- how it is trained

    def targets(self, labels: Array) -> Array:
        """What the module is trained to say of examples of these classes, (n,)."""
        return labels

    def objective(self, module: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
        """The loss that training lowers."""
        return cross_entropy(module, features, targets)

    # -------------------------------------------------------------------- how it is read

    def probabilities(self, training: Training, module: nn.Module, features: Array) -> Array:
        """Class probabilities (n, classes), float64."""
        return training.probabilities(module, features)

    def opinion(self, training: Training, module: nn.Module, features: Array) -> Array:
        """What a firm tells others of a client, (n, k), rows summing to one: its class here."""
        return training.probabilities(module, features)

    def decide(self, training: Training, features: Array, opinions: Sequence[Array]) -> Array:
        """The class (n,) of each client, by one or more opinions (n, k) of it together.

        Opinions are pooled by the product of their probabilities.
        """
        chosen: Array = pooled(opinions).argmax(1)
        return chosen


def pooled(opinions: Sequence[Array]) -> Array:
    """Sum of log probabilities (n, k): what softmax scores add up to.

    >>> pooled([np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])]).argmax(1)
    array([0])
    """
    total: Array = np.sum([np.log(np.maximum(told, 1e-300)) for told in opinions], axis=0)
    return total
