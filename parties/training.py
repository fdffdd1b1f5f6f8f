"""How a firm fits its model: mini-batch SGD with momentum, fixed by the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final
from zlib import crc32

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from parties.exchange import Array, FedpactError


def random_seed(*parts: int | str) -> int:
    """One seed from numbers and names, stable across processes and machines.

    >>> random_seed(0, "lender_a") == random_seed(0, "lender_a") != random_seed(1, "lender_a")
    True
    """
    words = [crc32(p.encode()) if isinstance(p, str) else p for p in parts]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])


@final
@dataclass(frozen=True)
class Training:
    """Mini-batch SGD with momentum, a linearly falling learning rate and L2 weight decay.

    Args:
        epochs: passes over the data when a firm trains alone.
        batch_size: examples a step.
        learning_rate: the first step's rate; it falls linearly to zero over a fit.
        momentum: in [0, 1).
        weight_decay: L2 penalty on all parameters, a unit of loss.
        device: "cpu", "cuda", "cuda:1", ... or "auto" (a GPU if this process is given one).
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    device: str = "cpu"

    def __post_init__(self) -> None:
        def check(name: str, legal: bool, rule: str) -> None:
            if not legal:
                raise FedpactError(
                    f"training.{name} is {getattr(self, name)!r}; {rule}. "
                    f"Change it with training.{name}=..."
                )

        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            check(name, whole and value >= 1, "legal is a whole number >= 1")
        for name in ("learning_rate", "momentum", "weight_decay"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            check(name, number and np.isfinite(value) and value >= 0, "legal is a number >= 0")
        check("learning_rate", self.learning_rate > 0, "legal is a number > 0")
        check("momentum", self.momentum < 1, "legal is a number in [0, 1)")
        try:
            if self.device != "auto":
                torch.device(self.device)
        except (RuntimeError, TypeError):
            check("device", False, "legal are 'auto', 'cpu', 'cuda' and 'cuda:N'")

    @property
    def torch_device(self) -> torch.device:
        """Where the model is trained."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def fit(
        self, module: nn.Module, features: Array, labels: Array, seed: int, epochs: int = 0
    ) -> tuple[float, ...]:
        """Train `module` in place on features (n, d) and labels (n,).

        Returns:
            The mean training loss (cross-entropy, nats) of each epoch.
        """
        device = self.torch_device
        module.to(device).train()
        inputs = torch.from_numpy(features).to(device)
        targets = torch.from_numpy(labels).to(device)
        parameters = [p for p in module.parameters() if p.requires_grad]
        speeds = [torch.zeros_like(p) for p in parameters]
        shuffle = torch.Generator().manual_seed(seed)
        epochs = epochs or self.epochs
        count = len(inputs)
        steps = epochs * -(-count // self.batch_size)
        losses, step = [], 0
        for _ in range(epochs):
            total = torch.zeros((), device=device)
            order = torch.randperm(count, generator=shuffle).to(device)
            for batch in torch.split(order, self.batch_size):
                loss = functional.cross_entropy(module(inputs[batch]), targets[batch])
                gradients = torch.autograd.grad(loss, parameters)
                # The update is written out because importing torch.optim costs seconds of CPU a
                # process (it loads the compiler), more than a whole fit here.
                rate = self.learning_rate * (1 - step / steps)
                with torch.no_grad():
                    for p, g, v in zip(parameters, gradients, speeds, strict=True):
                        v.mul_(self.momentum).add_(g + self.weight_decay * p)
                        p.sub_(rate * v)
                total += loss.detach() * len(batch)
                step += 1
            losses.append(float(total) / count)
        return tuple(losses)

    def probabilities(self, module: nn.Module, features: Array) -> Array:
        """Class probabilities (n, classes), float64, rows summing to one."""
        device = self.torch_device
        module.to(device).eval()
        with torch.inference_mode():
            logits = module(torch.from_numpy(features).to(device)).double()
            probs: Array = torch.softmax(logits, dim=1).cpu().numpy()
        return probs


def weights_of(module: nn.Module) -> dict[str, Array]:
    """The module's state (parameters and buffers) as numpy arrays of its own."""
    return {k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def load_weights(module: nn.Module, arrays: Mapping[str, Array]) -> nn.Module:
    """Put a published state into `module`, and return it."""
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    return module
