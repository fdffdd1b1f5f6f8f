"""Firms, their examples in the order in which they take them, and a model to start from.

Each peer reads the same file, so that all compute the same rounds of federated averaging: in a
round every firm takes SGD steps from the common model, and the models' mean, weighted by examples,
is the next one. Nothing but torch and numpy is imported.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
START = "start."  # of the names of the model's arrays in the file


@final
@dataclass(frozen=True)
class Workload:
    """All that the firms of a run have and do.

    Args:
        features: (n, d) float32; labels: (n,) int64; firm: (n,), whose example it is, from 0 on.
        order: (rounds, n), examples in the order in which they are taken in a round, firm by firm.
        batch: examples a step; learning_rate: constant; momentum: zero at the start of each fit.
        model: "mlp:WIDTH", or of square images "cnn", or "cnn:channels_last", which is the same
            network with images laid out on a CPU as those of Fedpact's backbone=cnn.
        start: name -> array, the model's first state.
    """

    features: Tensor
    labels: Tensor
    firm: Tensor
    order: Tensor
    batch: int
    learning_rate: float
    momentum: float
    model: str
    start: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path, device: str = "cpu", model: str = "") -> Workload:
        """From the .npz file of that name; examples and the model's first state on a device.

        Args:
            model: in place of the one that is named there.
        """
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file}
        start = {k.removeprefix(START): v for k, v in found.items() if k.startswith(START)}
        return cls(
            torch.from_numpy(found["features"]).to(device),
            torch.from_numpy(found["labels"]).to(device),
            torch.from_numpy(found["firm"]),
            torch.from_numpy(found["order"]),
            batch=int(found["batch"]),
            learning_rate=float(found["learning_rate"]),
            momentum=float(found["momentum"]),
            model=model or str(found["model"]),
            start={name: torch.from_numpy(array).to(device) for name, array in start.items()},
        )

    @property
    def rounds(self) -> int:
        return len(self.order)

    @property
    def firms(self) -> int:
        return int(self.firm.max()) + 1

    @property
    def sizes(self) -> list[int]:
        """Examples of each firm."""
        return torch.bincount(self.firm, minlength=self.firms).tolist()

    def rows(self, round_: int) -> Sequence[Tensor]:
        """Each firm's examples, in the order in which it takes them in a round, from 0 on."""
        return torch.split(self.order[round_], self.sizes)

    def steps(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and labels of each step of a fit on these examples."""
        there = rows.to(self.features.device)
        features, labels = self.features[there], self.labels[there]
        return zip(torch.split(features, self.batch), torch.split(labels, self.batch), strict=True)

    def build(self) -> nn.Sequential:
        """The model as it starts."""
        module = layers(self.model, self.features.shape[1]).to(self.features.device)
        module.load_state_dict(dict(self.start))
        return module

    @torch.inference_mode()
    def loss(self, module: nn.Module) -> float:
        """Mean cross-entropy on the examples of all firms, nats."""
        module.eval()
        return float(functional.cross_entropy(module(self.features), self.labels))


@final
class ChannelsLast(nn.Module):
    """What nn.Unflatten does with features (n, side**2), in torch's channels-last layout."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        """Images (n, 1, side, side)."""
        return features.view(len(features), self.side, self.side, 1).permute(0, 3, 1, 2)


def layers(model: str, inputs: int) -> nn.Sequential:
    """The untrained module: that of backbone=mlp or cnn, with the same names of its arrays."""
    kind, _, width = model.partition(":")
    if kind == "mlp" and width.isdecimal():
        hidden = int(width)
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
    if model not in ("cnn", "cnn:channels_last"):
        raise ValueError(f"The model is {model!r}; legal are mlp:WIDTH, cnn and cnn:channels_last.")
    side = math.isqrt(inputs)
    return nn.Sequential(
        ChannelsLast(side) if model != "cnn" else nn.Unflatten(1, (1, side, side)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(8 * (side // 4) ** 2, CLASSES),
    )


def tell(
    cpu: Sequence[float], wall: Sequence[float], loss: float, trainings: int, **versions: str
) -> None:
    """Print what came of it, as the last line.

    Args:
        cpu, wall: seconds of every round; the first is for warming up, and is left out.
        versions: of what was measured, beside torch.
    """
    found = {
        "cpu_s": list(cpu)[1:],
        "wall_s": list(wall)[1:],
        "loss": loss,
        "trainings": trainings,
        "versions": {"torch": torch.__version__, **versions},
    }
    print(json.dumps(found), flush=True)


def done(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def one_thread() -> None:
    """In this process, and in those that it starts."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
