"""A frozen model behind a canonicalizer: only the pose is learnt, and only that can be shared."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from parties.backbones import Backbone, pooled
from parties.canonicalize.recipe import Canonicalization, Poses
from parties.datasets import Dataset
from parties.exchange import Array, FedpactError
from parties.training import Training, load_weights, random_seed, weights_of

VARIABLE = "FEDPACT_FROZEN"


@final
@dataclass(frozen=True)
class Frozen:
    """A classifier that somebody else trained; nobody trains it further.

    Args:
        backbone: what it is.
        weights: a safetensors file with its tensors; None: it is trained on `dataset` when first
            needed, and kept in $FEDPACT_FROZEN (else ~/.cache/fedpact/frozen).
        dataset, training, seed: on what, how, and from which draw it was trained.
    """

    backbone: Backbone
    dataset: Dataset
    training: Training
    weights: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not whole or self.seed < 0:
            raise FedpactError(
                f"backbone.frozen.seed is {self.seed!r}; legal is a whole number >= 0."
            )
        if self.weights is not None and not Path(self.weights).is_file():
            raise FedpactError(
                f"backbone.frozen.weights is {self.weights!r}, and there is no such file; legal "
                "is a safetensors file, or null to train the model on backbone.frozen.dataset."
            )

    def hashes(self) -> dict[str, str]:
        """File name -> sha256 of what the model is made of."""
        if self.weights is None:
            return self.dataset.hashes()
        content = Path(self.weights).read_bytes()
        return {Path(self.weights).name: hashlib.sha256(content).hexdigest()}

    def module(self) -> nn.Module:
        """The trained module, in eval mode; the same object for every caller of this process."""
        return _module(self)


@lru_cache(maxsize=4)
def _module(frozen: Frozen) -> nn.Module:
    split = frozen.dataset.split(frozen.seed)
    features, labels = split.training.features, split.training.labels
    seed = random_seed(frozen.seed, "frozen")
    module = frozen.backbone.build(features.shape[1], frozen.dataset.classes, seed)
    path = Path(frozen.weights) if frozen.weights is not None else _kept(frozen, features, labels)
    if frozen.weights is None and not path.exists():
        frozen.training.fit(module, features, labels, seed)
        _keep(path, weights_of(module))
    try:
        load_weights(module, load_file(path))
    except (SafetensorError, RuntimeError, OSError) as fault:
        raise FedpactError(
            f"{path} does not hold the tensors of {frozen.backbone} ({fault}). Name another file "
            "with backbone.frozen.weights, or remove this one to have the model trained again."
        ) from fault
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def _kept(frozen: Frozen, features: Array, labels: Array) -> Path:
    """Where the trained model is kept: a file named after all that decides it."""
    what = hashlib.sha256(repr((frozen.backbone, frozen.training, frozen.seed)).encode())
    for array in (features, labels):
        what.update(np.ascontiguousarray(array).tobytes())
    folder = os.environ.get(VARIABLE) or "~/.cache/fedpact/frozen"
    return Path(folder).expanduser() / f"{what.hexdigest()[:32]}.safetensors"


def _keep(path: Path, arrays: dict[str, Array]) -> None:
    """Write it whole: another process may be about to do the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError as fault:
        raise FedpactError(
            f"The frozen model cannot be kept in {path.parent} ({fault.strerror}); legal is a "
            f"folder that may be written to. Name one with the environment's {VARIABLE}."
        ) from fault
    os.close(handle)
    try:
        save_file(arrays, name)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@final
@dataclass(frozen=True)
class Canonical(Backbone):
    """The frozen model's classes of images that were brought into their canonical pose.

    The module that is trained, shared and combined is the scorer of poses: it learns without
    labels, on images that are upright, as the firm trains (`parties.NAME.training`; the
    canonicalizer's own is not used). What a firm tells of a client is the probability of each pose;
    such opinions are pooled by adding scores. A pass over one example is one of the scorer, over
    all of its poses.

    Args:
        frozen: the model.
        canonicalizer: how poses are found.
    """

    frozen: Frozen
    canonicalizer: Canonicalization

    def __post_init__(self) -> None:
        for name in ("refine", "gate", "top", "realign"):
            value, plain = getattr(self.canonicalizer, name), int(name == "top")
            if value != plain:
                raise FedpactError(
                    f"backbone.canonicalizer.{name} is {value}; firms tell each other of the poses "
                    f"of the group and of no others, and legal is {plain}. Set "
                    f"canonicalizer.{name}={plain}."
                )
        if not self.canonicalizer.shareable:
            scorer, order = self.canonicalizer.scorer, self.canonicalizer.group.order
            raise FedpactError(
                f"backbone.canonicalizer scores {order} pose(s) by {type(scorer).__name__}; legal "
                "is a scorer that is trained and two poses or more, or there is nothing to share. "
                "Use canonicalizer=turns scorer=scalar."
            )

    def layers(self, inputs: int, classes: int) -> nn.Module:
        if classes != self.frozen.dataset.classes:
            raise FedpactError(
                f"backbone.frozen tells {self.frozen.dataset.classes} classes, and the firm's data "
                f"have {classes}. Freeze a model of the same classes."
            )
        seed = int(torch.randint(2**31, ()))  # of the generator that `build` has set
        return Poses(self.canonicalizer.build(inputs, seed), self.canonicalizer.channels)

    def targets(self, labels: Array) -> Array:
        return np.zeros_like(labels)  # every image is upright

    def objective(self, module: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
        return Poses.objective(module, features, targets)

    def probabilities(self, training: Training, module: nn.Module, features: Array) -> Array:
        assert isinstance(module, Poses)
        behind = self.canonicalizer.behind(self.frozen.module(), module.canonicalizer)
        return training.probabilities(behind, features)

    def decide(self, training: Training, features: Array, opinions: Sequence[Array]) -> Array:
        upright = self.canonicalizer.undone(features, pooled(opinions).argmax(1))
        chosen: Array = training.probabilities(self.frozen.module(), upright).argmax(1)
        return chosen
