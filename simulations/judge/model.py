"""A model to judge: its weights, and the backbone that they belong to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from torch import nn

from parties.backbones import Backbone
from parties.exchange import Array, FedpactError
from parties.training import load_weights
from simulations.build import build

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"


@final
@dataclass(frozen=True)
class Offered:
    """A model that has been read.

    Args:
        backbone: its recipe; weights: tensor name -> array.
        inputs: features a case; classes: how many it tells apart; names: theirs, or ().
    """

    backbone: Backbone
    weights: Mapping[str, Array]
    inputs: int
    classes: int
    names: tuple[str, ...] = ()

    def module(self) -> nn.Module:
        """The model."""
        return load_weights(self.fresh(0), self.weights)

    def fresh(self, seed: int) -> nn.Module:
        """An untrained copy."""
        return self.backbone.build(self.inputs, self.classes, seed)


def read_model(path: Path, backbone: Mapping[str, Any] | None, inputs: int = 0) -> Offered:
    """Read weights, and build what they belong to.

    Args:
        path: a folder with weights.safetensors (and a manifest.json that names the backbone), or a
            safetensors file.
        backbone: the configuration of the backbone, where there is no manifest.
        inputs: features a case; 0: as the manifest or the first linear layer says.

    Raises:
        FedpactError: the file is no safetensors file, or does not fit the backbone.
    """
    file = path / WEIGHTS if path.is_dir() else path
    try:
        weights = load_arrays(file.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as fault:
        raise FedpactError(
            f"model={path}: {file} cannot be read as safetensors ({fault}). Give a safetensors "
            f"file, or a folder with {WEIGHTS}; a run keeps its models in models/."
        ) from fault
    said = _manifest(path / MANIFEST) if path.is_dir() else {}
    names = tuple(str(c) for c in said.get("outputs", {}).get("classes", ()))
    if backbone is None:
        if "backbone" not in said:
            raise FedpactError(
                f"model={path} has no {MANIFEST} that names its backbone. Name it: backbone=mlp "
                "backbone.widths=[64]; conf/backbone has all."
            )
        backbone = {"_target_": said["backbone"]["class"], **said["backbone"]["fields"]}
    recipe = build(backbone)
    if not isinstance(recipe, Backbone):
        raise FedpactError(f"model={path}: {backbone['_target_']} is no backbone.")
    known, classes = _ends(weights, said)
    inputs = inputs or known
    found = Offered(recipe, weights, inputs, classes, names)
    try:
        found.module()
    except (FedpactError, RuntimeError, ValueError, TypeError) as fault:
        raise FedpactError(
            f"model={path} does not fit backbone {type(recipe).__name__} with {inputs} features "
            f"and {classes} classes: {str(fault).splitlines()[-1].strip()}. Name the backbone and "
            "its fields as the model was built (backbone=..., of a cnn also features=N)."
        ) from fault
    return found


def _manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as fault:
        raise FedpactError(f"{path} cannot be read as JSON ({fault}). Ask for it again.") from fault
    return said if isinstance(said, dict) else {}


def _ends(weights: Mapping[str, Array], said: Mapping[str, Any]) -> tuple[int, int]:
    """Features and classes: as the manifest says, else by the first and last weight matrices."""
    # A file of tensors has no order of its own; names have: 2.weight comes before 10.weight.
    ordered = sorted(weights, key=lambda name: [(len(w), w) for w in re.split(r"[._]", name)])
    matrices = [weights[name] for name in ordered if weights[name].ndim == 2]
    if not matrices:
        raise FedpactError("The model has no linear layer, so its classes cannot be counted.")
    classes = len(said.get("outputs", {}).get("classes", ())) or len(matrices[-1])
    shape = said.get("inputs", {}).get("shape")
    return int(np.prod(shape)) if shape else matrices[0].shape[1], classes
