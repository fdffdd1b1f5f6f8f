"""What a model's layers say of data: one forward pass, batch by batch, a number a filter and case.

Looked at are the outputs of Conv and Linear modules, before normalization and activation. The last
one that runs is the classifier and is left out. The output of a convolution is averaged over its
places (height and width, or length), that of a Linear on a sequence over the sequence, so that of n
cases (n, filters) numbers remain; nothing larger than a batch is ever kept. What the classifier
takes in is the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import nn

from parties.exchange import Array, FedpactError

BATCH = 256
MOST = 4096  # cases that are looked at; more change a quantile by less than its own error
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


@final
@dataclass(frozen=True)
class Seen:
    """What a model made of n cases.

    Args:
        layers: layer -> (n, filters) float32, in the order in which they ran; {} where not noted.
        embedding: (n, d) float64, what the classifier takes in; d is 0 where not noted.
        logits: (n, classes) float64.
        rows: (n,) which of the given cases these are.
    """

    layers: Mapping[str, Array]
    embedding: Array
    logits: Array
    rows: Array

    @property
    def probabilities(self) -> Array:
        """Softmax of the logits, (n, classes)."""
        shifted = np.exp(self.logits - self.logits.max(1, keepdims=True))
        probs: Array = shifted / shifted.sum(1, keepdims=True)
        return probs


def chosen(count: int, rng: np.random.Generator, most: int = MOST) -> Array:
    """Rows to look at: all, or `most` of them drawn without replacement, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))


def look(
    model: nn.Module,
    features: Array,
    rng: np.random.Generator,
    most: int = MOST,
    batch: int = BATCH,
    hidden: bool = True,
) -> Seen:
    """Run a model over cases in eval mode, on the device it is on, and leave it as it was.

    Args:
        features: (n, ...) float32, as the model takes them.
        hidden: note what the layers put out; false: the logits are enough.

    Raises:
        FedpactError: the model has no Conv or Linear layer before its classifier, or one whose
            first dimension is not the cases, or puts out values that are not finite.
    """
    rows = chosen(len(features), rng, most)
    device = _device(model)
    kept: dict[str, list[Array]] = {}
    entered: list[Array] = []
    logits = []
    with _evaluated(model), torch.inference_mode(), _hooked(model, kept, hidden) as ran:
        for part in np.split(rows, range(batch, len(rows), batch)):
            ran.begin(len(part))
            inputs = torch.from_numpy(np.ascontiguousarray(features[part])).to(device)
            logits.append(model(inputs).double().cpu().numpy())
            entered.append(ran.embedding())
    names = list(kept)[:-1] if hidden else []
    if hidden and not names:
        raise FedpactError(
            "The model has no Conv or Linear layer before its classifier, so there is nothing to "
            "look at. Judge it by zero_shot or leep, or give a model with hidden layers."
        )
    layers = {name: np.concatenate(kept[name]) for name in names}
    seen = Seen(layers, np.concatenate(entered), np.concatenate(logits), rows)
    for name, values in {**layers, "the classifier": seen.logits}.items():
        wrong = int(np.sum(~np.isfinite(values).all(axis=1)))
        if wrong:
            raise FedpactError(
                f"What the model puts out at {name} is not finite in {wrong} of {len(rows)} cases; "
                "legal are numbers. Its weights are broken, or the cases are not what it was "
                "trained on: leave it, or correct the data."
            )
    return seen


@final
class _Pass:
    """Notes what every layer puts out; a layer that runs again in a pass is another one: name#2."""

    def __init__(self, kept: dict[str, list[Array]]) -> None:
        self._kept = kept
        self._times: dict[str, int] = {}
        self._cases = 0
        self._last: tuple[nn.Module, torch.Tensor] | None = None

    def begin(self, cases: int) -> None:
        """A batch comes."""
        self._times, self._cases, self._last = {}, cases, None

    def note(self, name: str, module: nn.Module, entered: torch.Tensor, out: torch.Tensor) -> None:
        """A layer has run."""
        if len(out) != self._cases:
            raise FedpactError(
                f"The layer {name!r} puts out {len(out)} rows for {self._cases} cases; legal is "
                "one a case. Keep the cases in the first dimension of every layer."
            )
        times = self._times[name] = self._times.get(name, 0) + 1
        key = name if times == 1 else f"{name}#{times}"
        self._kept.setdefault(key, []).append(_filters(out, module).float().cpu().numpy())
        self._last = module, entered

    def embedding(self) -> Array:
        """What the last layer that ran took in, (cases, d)."""
        if self._last is None:
            return np.zeros((self._cases, 0))
        module, entered = self._last
        values: Array = _filters(entered, module).double().cpu().numpy()
        return values


@contextmanager
def _hooked(model: nn.Module, kept: dict[str, list[Array]], hidden: bool) -> Iterator[_Pass]:
    ran = _Pass(kept)

    def hook(name: str) -> Callable[[nn.Module, Any, Any, torch.Tensor], None]:
        def noted(module: nn.Module, args: Any, named: Any, out: torch.Tensor) -> None:
            ran.note(name, module, args[0] if args else named["input"], out)

        return noted

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
        if hidden and isinstance(module, LAYERS)
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _filters(values: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """One number a case and filter, (n, filters), of what a layer puts out or takes in."""
    if values.dim() == 2:
        return values
    places = tuple(range(1, values.dim() - 1))
    if not isinstance(module, nn.Linear):
        places = tuple(range(2, values.dim()))
    return values.mean(dim=places)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """In eval mode, each module as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
