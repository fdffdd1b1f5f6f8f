"""Offered models for the tests of the gate: a healthy world, in which faults are planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.exchange import Array
from parties.reuse.adoption import Adoption
from parties.reuse.artifact import Golden, collect, write_artifact
from parties.reuse.card import Card
from parties.reuse.checks import BLOCK, WARN, Receiver
from parties.reuse.checks.quality import turns
from parties.reuse.gate import Gate, built_from
from parties.reuse.ledger import Ledger
from parties.reuse.manifest import (
    Inputs,
    Manifest,
    Outputs,
    describe,
)
from parties.reuse.signing import make_keys
from parties.training import Training, load_weights, weights_of

CLASSES = tuple(str(digit) for digit in range(10))
BACKBONE = Mlp(widths=(24,))
TRAINING = Training(epochs=12, batch_size=64, learning_rate=0.1)
KINDS = {describe(Mlp())["class"]: Mlp, describe(Cnn())["class"]: Cnn}
PARENT = "a" * 64


# ------------------------------------------------------------------------------- a healthy world


def trained(features: Array, labels: Array, epochs: int = 12) -> nn.Module:
    module = BACKBONE.build(64, 10, 1)
    replace(TRAINING, epochs=epochs).fit(module, features, labels, 0)
    return module.eval()


@cache
def digits() -> tuple[Array, Array]:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (pixels[order] / 16).astype(np.float32), labels[order].astype(np.int64)


@cache
def peer(turned: bool = True) -> dict[str, Array]:
    """A rich firm's model; it has seen digits from all four sides."""
    features, labels = digits()
    features, labels = features[:1000], labels[:1000]
    views = [features, *(turn(features) for turn in turns(features).values() if turned)]
    return weights_of(trained(np.concatenate(views), np.tile(labels, len(views))))


@cache
def own_model() -> nn.Module:
    features, labels = digits()
    return trained(features[1000:1040], labels[1000:1040], epochs=40)


def receiver() -> Receiver:
    features, labels = digits()
    return Receiver(
        build=built_from(KINDS),
        inputs=Inputs(shape=(64,), low=0.0, high=1.0, channels="grey"),
        classes=CLASSES,
        features=features[1100:],
        labels=labels[1100:],
        own=own_model(),
        ledger=Ledger(),
        contract="c1",
    )


def outputs_of(weights: dict[str, Array], inputs: Array) -> Array:
    module = load_weights(BACKBONE.build(64, 10, 0), weights).eval()
    with torch.no_grad():
        made: Array = module(torch.from_numpy(inputs)).numpy()
    return made


MANIFEST_OF_PEER = Manifest(
    firm="alpha",
    model="digits_net",
    backbone=describe(BACKBONE),
    inputs=Inputs(shape=(64,), low=0.0, high=1.0, channels="grey"),
    outputs=Outputs(CLASSES),
    environment={"python": ">=3.11", "torch": ">=2.13,<3"},
    licence="Apache-2.0",
    round=3,
    contract="c1",
    parent=PARENT,
    epsilon=8.0,
    delta=1e-5,
    exports=("torch.export",),
)
CARD_OF_PEER = Card(
    {
        "licence": "Apache-2.0",
        "task": "handwritten digits",
        "data": "1,000 digits of UCI 80, each in four turns",
        "inputs": "8x8 grey pixels from 0 to 1",
        "outputs": "logits of 0 to 9",
        "metrics": "accuracy 0.95 (test, n=697)",
        "limits": "scanned digits only",
        "contact": "models@alpha.example",
        "parent": PARENT,
        "round": "3",
        "contract": "c1",
    },
    "# digits_net\n",
)


@dataclass(frozen=True)
class World:
    """An artifact about to be written, who judges it, and by which policy."""

    folder: Path
    keys: Path
    manifest: Manifest = MANIFEST_OF_PEER
    card: Card = CARD_OF_PEER
    weights: dict[str, Array] | None = None
    golden: Golden | None = None
    signer: str | None = "alpha"
    receiver: Receiver | None = None
    gate: dict[str, Any] | None = None
    after: Callable[[Path], None] = lambda folder: None

    def write(self) -> Path:
        weights = peer() if self.weights is None else self.weights
        inputs = digits()[0][:4]
        golden = self.golden or Golden(inputs, outputs_of(weights, inputs))
        secret = self.keys / f"{self.signer}.key" if self.signer else None
        write_artifact(self.folder, self.manifest, weights, self.card, golden, secret)
        self.after(self.folder)
        return self.folder

    def policy(self) -> Gate:
        settings = {"max_epsilon": 10.0, "latency_repeats": 3, "demanded": tuple(range(1, 21))}
        return Gate(**(settings | {"keys": public(self.keys)} | (self.gate or {})))

    def judge(self) -> Adoption:
        return self.policy().judge(self.write(), self.receiver or receiver())

    def of(self, **changes: Any) -> World:
        return replace(self, manifest=replace(self.manifest, **changes))

    def meets(self, **changes: Any) -> World:
        return replace(self, receiver=replace(receiver(), **changes))


def public(keys: Path) -> dict[str, str]:
    return {path.stem: str(path) for path in keys.glob("*.pub")}


def plain(manifest: Manifest) -> dict[str, Any]:
    kept = ("tensors", "files", "format")
    return {k: v for k, v in vars(manifest).items() if k not in kept}


def put(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, found in content.items():
        (folder / name).write_bytes(found)
    return folder


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def speaking(adoption: Adoption) -> dict[int, str]:
    """The checks that warn or block."""
    return {c.number: c.status for c in adoption.checks if c.status in (WARN, BLOCK)}


# -------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for firm in ("alpha", "beta"):
        make_keys(folder, firm)
    return folder


@pytest.fixture
def world(tmp_path: Path, keys: Path) -> World:
    return World(tmp_path / "artifact", keys)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> dict[str, bytes]:
    folder = World(tmp_path_factory.mktemp("healthy") / "artifact", keys).write()
    return dict(collect(folder).content)
