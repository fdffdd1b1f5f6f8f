"""The three federations that engines and their peers are timed on: small, middling, convolutional.

Every one of them is FedAvg with so many firms a round and one pass over a firm's examples. What a
workload says is the same for all: who holds which examples, in which order they are taken in which
round, and the model that all start from. So one loss at the end is due from all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

from parties.datasets.fashion_mnist import FashionMnist
from parties.exchange import FedpactError
from parties.training import random_seed, weights_of
from simulations.build import build

SEED = 0
COMMON = (
    *("compare=none", "partition=iid", "study=model_sharing", "study.seeds=1", "gate=off"),
    *("market=own_cases", "progress=none", "strategy=fedavg", "strategy.local_epochs=1"),
    *("training.epochs=1", "training.schedule=constant", "training.weight_decay=0"),
    *("training.momentum=0.9", "partition.least=1"),
)

RAYS = ("ray", "ray, one actor", "ray, batched")  # as `simulations.bench.clients` calls them


@final
@dataclass(frozen=True)
class Workload:
    """A federation.

    Args:
        name: of the row; model: as peers call it.
        ours: what peers call a model with the very layers of ours, where those are not torch's
            usual ones; "" where they are.
        words: overrides of the configuration.
        firms: that train in a round, each.
        rounds: that are timed; there is one more before them.
        bars: engine -> what its CPU time may be of the plain loop's.
        less_than_flower: how many times less than Flower's own simulation it must be.
    """

    name: str
    model: str
    words: tuple[str, ...]
    rounds: int
    bars: Mapping[str, float]
    less_than_flower: float
    ours: str = ""
    firms: int = 100

    @property
    def missing(self) -> str:
        """What is not installed that it needs, and how to get it; "" where all is there."""
        fashion = "parties=ten_fashion" in self.words
        if not fashion or FashionMnist(client=0, clients=1).installed:
            return ""
        return "Fashion-MNIST is not installed: apt install dataset-fashion-mnist"

    def config(self, engine: str, device: str = "cpu") -> dict[str, Any]:
        """The whole configuration."""
        words: tuple[str, ...] = (f"engine={engine}", f"strategy.rounds={1 + self.rounds}")
        words += (f"training.device={device}",)
        return dealt((*COMMON, *self.words, *words), self.firms)

    def write(self, path: Path) -> None:
        """All that a peer needs, as .npz: examples, who has which, in which order, the start."""
        config = self.config("inline")
        firms = [build(party) for _, party in sorted(config["parties"].items())]
        parts = [firm.dataset.split(SEED).training for firm in firms]
        training, rounds = firms[0].training, 1 + self.rounds
        sizes = np.array([len(part.ids) for part in parts])
        first = np.cumsum([0, *sizes[:-1]])
        order = np.empty((rounds, sizes.sum()), np.int64)
        for turn in range(rounds):
            for firm, begin, size in zip(firms, first, sizes, strict=True):
                shuffle = torch.Generator().manual_seed(random_seed(SEED, turn, firm.name))
                drawn = torch.randperm(int(size), generator=shuffle).numpy()
                order[turn, begin : begin + size] = begin + drawn
        inputs = parts[0].features.shape[1]
        module = firms[0].backbone.build(
            inputs, firms[0].dataset.classes, random_seed(SEED, "init")
        )
        start: dict[str, Any] = {f"start.{k}": v for k, v in weights_of(module).items()}
        np.savez(
            path,
            **start,
            features=np.concatenate([part.features for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            firm=np.repeat(np.arange(len(firms)), sizes),
            order=order,
            batch=training.batch_size,
            learning_rate=training.learning_rate,
            momentum=training.momentum,
            rounds=rounds,
            model=self.model,
        )


def dealt(words: Sequence[str], firms: int) -> dict[str, Any]:
    """A configuration of ten firms who divide a pool, dealt to as many as are wanted."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        found: Any = OmegaConf.to_container(hydra.compose("config", list(words)), resolve=True)
    one = json.dumps(found["parties"]["firm_1"])
    found["parties"] = {}
    for client in range(firms):
        party = json.loads(one)
        party["name"] = f"firm_{client:04}"
        party["dataset"] |= {"client": client, "clients": firms}
        found["parties"][party["name"]] = party
    return dict(found)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "digits",
            "mlp:32",
            ("parties=ten_digits", "backbone=mlp", "backbone.widths=[32]", "training.batch_size=5"),
            rounds=20,
            bars={"inline": 1.5} | dict.fromkeys(RAYS, 1.3),
            less_than_flower=7,
        ),
        Workload(
            "fashion",
            "mlp:128",
            (
                *("parties=ten_fashion", "parties.firm_0.dataset.limit=12000"),
                *("backbone=mlp", "backbone.widths=[128]", "training.batch_size=32"),
                "training.learning_rate=0.05",
            ),
            rounds=8,
            bars={"inline": 1.2} | dict.fromkeys(RAYS, 1.3),
            less_than_flower=7,
        ),
        Workload(
            "cnn",
            "cnn",
            (
                *("parties=ten_fashion", "parties.firm_0.dataset.limit=6000"),
                *("backbone=cnn", "training.batch_size=32", "training.learning_rate=0.05"),
            ),
            rounds=5,
            bars={"inline": 1.1} | dict.fromkeys(RAYS, 1.3),
            less_than_flower=2.5,
            ours="cnn:channels_last",
        ),
    )
}


def find_workload(name: str) -> Workload:
    """The workload of this name.

    Raises:
        FedpactError: there is none.
    """
    if name not in WORKLOADS:
        raise FedpactError(
            f"there is no workload {name!r}; legal are {', '.join(WORKLOADS)}. Choose one of them."
        )
    return WORKLOADS[name]
