"""How a firm fits its model: mini-batch SGD with momentum, fixed by the seed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import final
from zlib import crc32

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from parties.descent import Descent, Objective, cross_entropy, descent_of
from parties.exchange import Array, FedpactError
from parties.resident import on_device, sent
from parties.stopping import Stopping
from parties.stopping.never import Never

SCHEDULES = ("linear", "constant")
PRECISIONS = ("none", "bf16")


def reduced(objective: Objective, mixed_precision: str, device: torch.device) -> Objective:
    """An objective whose forward pass and loss, and not its backward pass, are in bfloat16.

    References:
        PyTorch, automatic mixed precision examples.
    """
    if mixed_precision == "none":
        return objective

    def lowered(module: nn.Module, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return objective(module, features, targets)

    return lowered


def as_exact_as_a_cpu() -> None:
    """From now on in this process, GPUs convolve in float32, and to the same bits every time.

    (torch lets them take TensorFloat-32, with 10 bits after the point for 23, and add up in
    whatever order is the fastest. What else differs from run to run is told in PyTorch's notes.)

    References:
        PyTorch, Reproducibility; CUDA semantics: "TensorFloat-32 (TF32) on Ampere devices".
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


@lru_cache(maxsize=4096)
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
    """Mini-batch SGD with momentum and L2 weight decay.

    Args:
        epochs: passes over the data when a firm trains alone.
        batch_size: examples a step.
        learning_rate: the first step's rate.
        schedule: "linear": it falls to zero over a fit; "constant": it stays.
        momentum: in [0, 1).
        weight_decay: L2 penalty on all parameters, a unit of loss.
        device: "cpu", "cuda", "cuda:1", ... or "auto" (a GPU if this process is given one).
        mixed_precision: "none": all in float32; "bf16": the forward pass and the loss of a step in
            bfloat16 where torch deems it safe, the rest in float32: weights, gradients, steps, and
            whatever is measured of a model.
        stopping: when a fit ends before its last epoch.
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "linear"
    device: str = "cpu"
    mixed_precision: str = "none"
    stopping: Stopping = field(default_factory=Never)

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
        check("schedule", self.schedule in SCHEDULES, f"legal are {', '.join(SCHEDULES)}")
        legal = f"legal are {' and '.join(PRECISIONS)}"
        check("mixed_precision", self.mixed_precision in PRECISIONS, legal)
        named = isinstance(self.device, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)
        check("device", bool(named), "legal are 'auto', 'cpu', 'cuda' and 'cuda:N'")

    @property
    def torch_device(self) -> torch.device:
        """Where the model is trained.

        Raises:
            FedpactError: this process has no such device.
        """
        if self.device == "cpu":
            return torch.device("cpu")
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if there:
            as_exact_as_a_cpu()
        if self.device == "auto":
            return torch.device("cuda", 0) if there else torch.device("cpu")
        device = torch.device("cuda", torch.device(self.device).index or 0)  # by one name
        # Asked here and not above: who plans a training may be on a machine without a GPU.
        if device.index >= there:
            raise FedpactError(
                f"training.device is {self.device!r}, and torch finds {there} GPUs here; legal are "
                "cpu, auto and a GPU that is there (a Ray worker sees those of its num_gpus). Use "
                "training.device=auto."
            )
        return device

    def fit(
        self,
        module: nn.Module,
        features: Array,
        labels: Array,
        seed: int,
        epochs: int = 0,
        proximal: float = 0.0,
        validation: tuple[Array, Array] | None = None,
        watch: Callable[[float, float], None] | None = None,
        objective: Objective = cross_entropy,
        descent: Descent | None = None,
    ) -> tuple[float, ...]:
        """Train `module` in place on features (n, d) and labels (n,).

        Args:
            objective: what is lowered.
            validation: features and labels that a stopping rule may watch.
            watch: told of each step's loss and the CPU seconds since the step before (a device is
                waited for, so it costs time); see `parties.reuse.gdei.StepRecord`.
            descent: of this module and objective, where it is fitted again and again.
            proximal: mu of the penalty (mu/2) ||w - w_0||^2 that holds the parameters to those the
                module came with (FedProx, arXiv 1812.06127, equation 2).

        Returns:
            The mean training loss (the objective, without weight decay and pull) of each epoch;
            fewer than asked for where the stopping rule ended the fit.

        Raises:
            FedpactError: the stopping rule needs validation examples, and there are none.
        """
        if self.stopping.needs_validation and validation is None:
            raise FedpactError(
                f"stopping is {type(self.stopping).__name__}, which watches examples that are not "
                "trained on, and there are none. Keep some back (parties.NAME.kept_back=0.1) or "
                "use stopping=gdei, stopping=relative_gain or stopping=none."
            )
        device = self.torch_device
        if descent is None or not module.training:
            module.to(device).train()
        inputs, targets = on_device(features, device), on_device(labels, device)
        if descent is None:
            descent = descent_of(module, reduced(objective, self.mixed_precision, device))
        descent.begin(proximal)
        shuffle = torch.Generator().manual_seed(seed)
        epochs = epochs or self.epochs
        count = len(inputs)
        size = self.batch_size
        sizes = [min(size, count - begin) for begin in range(0, count, size)]
        steps = epochs * len(sizes)
        losses, judged, step = list[float](), list[float](), 0
        last = time.thread_time() if watch is not None else 0.0
        with torch.inference_mode(not descent.differentiates):
            for _ in range(epochs):
                total = torch.zeros((), device=device)
                order = sent(torch.randperm(count, generator=shuffle), device)
                for batch in order.split_with_sizes(sizes):
                    looked = inputs.index_select(0, batch), targets.index_select(0, batch)
                    lost = descent.look(*looked)
                    rate = self.learning_rate
                    if self.schedule == "linear":
                        rate *= 1 - step / steps
                    descent.step(rate, self.momentum, self.weight_decay)
                    total += lost
                    step += 1
                    if watch is not None:
                        value, now = float(lost) / len(batch), time.thread_time()
                        watch(value, now - last)
                        last = now
                losses.append(float(total) / count)
                if validation is not None and self.stopping.needs_validation:
                    judged.append(self.loss(module, *validation))
                    module.train()
                if self.stopping.stops(losses, judged):
                    break
        return tuple(losses)

    def loss(self, module: nn.Module, features: Array, labels: Array) -> float:
        """Mean cross-entropy on labelled examples, nats, in eval mode."""
        probs = self.probabilities(module, features)
        true = np.clip(probs[np.arange(len(labels)), labels], 1e-12, 1.0)
        return float(-np.log(true).mean())

    def precision(self, module: nn.Module, features: Array, labels: Array) -> dict[str, Array]:
        """Diagonal empirical Fisher information of one example, mean over the examples.

        F_i = mean_n (d log p(y_n | x_n) / d w_i)^2, by parameter name, in the parameters' shapes.
        """
        device = self.torch_device
        module.to(device).eval()
        inputs, targets = on_device(features, device), on_device(labels, device)
        named = {k: p for k, p in module.named_parameters() if p.requires_grad}
        sums = {k: torch.zeros_like(p, dtype=torch.float64) for k, p in named.items()}
        for x, y in zip(inputs, targets, strict=True):
            loss = functional.cross_entropy(module(x[None]), y[None])
            for k, g in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
                sums[k] += g.double() ** 2
        return {k: (v / len(inputs)).float().cpu().numpy() for k, v in sums.items()}

    def probabilities(self, module: nn.Module, features: Array) -> Array:
        """Class probabilities (n, classes), float64, rows summing to one."""
        device = self.torch_device
        module.to(device).eval()
        with torch.inference_mode():
            logits = module(on_device(features, device)).double()
            probs: Array = torch.softmax(logits, dim=1).cpu().numpy()
        return probs


def weights_of(module: nn.Module) -> dict[str, Array]:
    """The module's state (parameters and buffers) as numpy arrays of its own."""
    return {k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def load_weights(module: nn.Module, arrays: Mapping[str, Array]) -> nn.Module:
    """Put a published state into `module`, and return it."""
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    return module
