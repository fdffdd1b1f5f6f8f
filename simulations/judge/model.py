"""A model to judge: its weights, and the backbone that they belong to."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

import parties.backbones
from parties.backbones import Backbone
from parties.exchange import Array, FedpactError
from parties.reuse.artifact import MANIFEST, PICKLES, Artifact, collect
from parties.reuse.checks import Case, Receiver
from parties.reuse.checks.model import architecture
from parties.reuse.gate import Gate, backbone_of, built_from
from parties.training import load_weights
from simulations.build import build


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


def kinds() -> dict[str, type[Backbone]]:
    """Class path -> class, of every backbone of ours: a manifest may name no other code."""
    found = {}
    for module in pkgutil.iter_modules(parties.backbones.__path__, "parties.backbones."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Backbone) and value is not Backbone:
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def read_model(
    path: Path, backbone: Mapping[str, Any] | None, inputs: int, most_bytes: int
) -> Offered:
    """Read a model that no gate has looked at.

    Args:
        path: an artifact's folder, which names its own backbone, or a safetensors file.
        backbone: the configuration of a file's backbone.
        inputs: features a case; 0: as the first linear layer of the file has it.
        most_bytes: that a folder may have.

    Raises:
        FedpactError: it cannot be read, or does not fit the backbone.
    """
    if not path.is_dir():
        return _of_file(path, backbone, inputs)
    if backbone is not None or inputs:
        raise FedpactError(
            f"model={path} is a folder, whose {MANIFEST} names backbone and features; "
            "backbone=... and features=... are legal for a file alone. Leave them out, or give "
            "the file."
        )
    return of_artifact(collect(path, most_bytes).open(), path)


def of_artifact(artifact: Artifact, path: Path) -> Offered:
    """The model of an artifact, built by our own classes.

    Raises:
        FedpactError: the weights are not those of the backbone that the manifest names, which is
            seen before any memory is taken for it.
    """
    said = artifact.manifest
    firm = Receiver(built_from(kinds()), said.inputs, said.outputs.classes)
    objection = architecture(Case(artifact, firm, Gate(checks=()))).reason
    if objection:
        raise FedpactError(f"model={path}: {objection}")
    names = said.outputs.classes
    recipe = backbone_of(said, kinds())
    return Offered(recipe, artifact.weights, said.inputs.shape[0], len(names), names)


def _of_file(path: Path, backbone: Mapping[str, Any] | None, inputs: int) -> Offered:
    weights = _weights(path)
    if backbone is None:
        raise FedpactError(
            f"model={path} is a file of tensors, which does not say its backbone; legal are those "
            "in conf/backbone. Name it: backbone=mlp backbone.widths=[64]."
        )
    recipe = build(backbone)
    known, classes = _ends(weights, path)
    inputs = inputs or known
    found = Offered(recipe, weights, inputs, classes)
    try:
        found.module()
    except (FedpactError, RuntimeError, ValueError, TypeError) as fault:
        why = str(fault).splitlines()[-1].strip().rstrip(".")
        raise FedpactError(
            f"model={path} does not fit backbone {type(recipe).__name__} with {inputs} features "
            f"and {classes} classes: {why}. Name the backbone "
            "and its fields as the model was built (backbone=..., of a cnn also features=N)."
        ) from fault
    return found


def _weights(path: Path) -> dict[str, Array]:
    """A file's tensors; numbers that numpy has no type for (bfloat16) as float32."""
    if path.suffix.lower() in PICKLES:
        raise FedpactError(
            f"model={path} is of a kind that can run code when it is loaded; legal is a "
            "safetensors file. Convert it, where there is nothing to lose, with "
            "parties.reuse.artifact.convert(Path('in.pt'), Path('out.safetensors'))."
        )
    try:
        tensors = load_tensors(path.read_bytes())
        return {k: (v.float() if v.is_floating_point() else v).numpy() for k, v in tensors.items()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else fault
        raise FedpactError(
            f"model={path} cannot be read as safetensors ({why}); legal is a safetensors file or "
            "an artifact's folder. A run keeps its models in models/; a file of torch.save is "
            "converted by parties.reuse.artifact.convert."
        ) from fault


def _ends(weights: Mapping[str, Array], path: Path) -> tuple[int, int]:
    """Features and classes, by the first and last weight matrices."""
    # A file of tensors has no order of its own; names have: 2.weight comes before 10.weight.
    ordered = sorted(weights, key=lambda name: [(len(w), w) for w in re.split(r"[._]", name)])
    matrices = [weights[name] for name in ordered if weights[name].ndim == 2]
    if not matrices:
        raise FedpactError(
            f"model={path} has no linear layer among its tensors ({', '.join(ordered[:6])}), so "
            "its classes cannot be counted; legal is a classifier. Give the file of a whole model."
        )
    return matrices[0].shape[1], len(matrices[-1])
