"""What a maker declares of its model: the manifest, for machines to read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np

from parties.exchange import Array
from parties.reuse.bounded import (
    DTYPES,
    ArtifactError,
    exactly,
    is_digest,
    is_number,
    is_text,
    is_whole,
    only_declared,
    read_json,
)

FORMAT = 1
MOST_FIELDS = 10_000  # characters: a million layers take long to build
KINDS = ("logits", "probabilities")
NONE = "none"


def classes_hash(classes: tuple[str, ...]) -> str:
    """sha256 of the ordered class list.

    >>> classes_hash(("cat", "dog")) == classes_hash(("dog", "cat"))
    False
    """
    return hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()


def digest_of(weights: Mapping[str, Array]) -> str:
    """One name for these weights, whatever file or message they came in.

    sha256 over every tensor's name, type, shape and bytes, tensors in order of their names.

    >>> a, b = np.zeros(2, np.float32), np.ones(2, np.float32)
    >>> digest_of({"a": a, "b": b}) == digest_of({"b": b, "a": a}) != digest_of({"a": b, "b": a})
    True
    """
    sha = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        about = json.dumps([name, array.dtype.str, list(weights[name].shape)])
        sha.update(about.encode() + b"\n" + array.tobytes())
    return sha.hexdigest()


def _legal(legal: object, name: str, value: object, rule: str) -> None:
    if not legal:
        raise ArtifactError(f"manifest.{name} is {value!r:.200}; legal is {rule}. Mend it.")


@final
@dataclass(frozen=True)
class Inputs:
    """What the model takes.

    Args:
        shape: of one case, for example (64,) or (3, 224, 224).
        low, high: range of a feature, before mean and std are applied.
        channels: "none", "grey", "RGB", "BGR", ...
        mean, std: by which the maker had standardised features, one number a channel, or ().
        group: canonicalization group: what was turned upright before ("C4", ...), or "none".
        dtype: of a feature.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    channels: str = NONE
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    group: str = NONE
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("shape", "mean", "std"):
            value = getattr(self, name)
            _legal(isinstance(value, list | tuple), f"inputs.{name}", value, "a list")
            object.__setattr__(self, name, tuple(value))
        sizes = self.shape and all(is_whole(n, 1) for n in self.shape)
        _legal(sizes, "inputs.shape", self.shape, "whole numbers >= 1")
        for name in ("mean", "std"):
            value = getattr(self, name)
            _legal(all(is_number(v) for v in value), f"inputs.{name}", value, "finite numbers")
        ends = is_number(self.low) and is_number(self.high) and self.low < self.high
        _legal(ends, "inputs.low, high", (self.low, self.high), "two numbers, low < high")
        for name in ("channels", "group"):
            _legal(is_text(getattr(self, name)), f"inputs.{name}", getattr(self, name), "a word")
        _legal(self.dtype == "float32", "inputs.dtype", self.dtype, "float32")


@final
@dataclass(frozen=True)
class Outputs:
    """What the model gives: ordered class names, their hash, logits or probabilities."""

    classes: tuple[str, ...]
    kind: str = "logits"
    hash: str = ""

    def __post_init__(self) -> None:
        names = self.classes
        _legal(isinstance(names, list | tuple), "outputs.classes", names, "a list of names")
        object.__setattr__(self, "classes", tuple(names))
        named = all(is_text(c) for c in names) and len(set(names)) == len(names) >= 2
        _legal(named, "outputs.classes", names, "two or more different names")
        _legal(self.kind in KINDS, "outputs.kind", self.kind, " or ".join(KINDS))
        object.__setattr__(self, "hash", self.hash or classes_hash(self.classes))
        _legal(is_digest(self.hash), "outputs.hash", self.hash, "a sha256 in hex")


@final
@dataclass(frozen=True)
class Manifest:
    """What a maker declares of its model.

    Args:
        firm: who made it.
        model: its name; a name with another content is another round of it.
        backbone: {"class": path of the class, "fields": its fields}; see `describe`.
        inputs, outputs: the contracts of both ends.
        environment: package (or "python") -> version specifier, for example ">=2.13,<3".
        licence: SPDX expression.
        round: of the federation, from 0.
        contract: id of the contract it is offered under.
        parent: digest (`digest_of`) of the weights it was trained from, or None.
        epsilon, delta: of differential privacy, as its maker declares it, or None.
        exports: formats it promises to go into ("torch.export").
        tensors: name -> {"shape", "dtype"}; filled in when it is written.
        files: name -> {"sha256", "size"}; filled in when it is written.
    """

    firm: str
    model: str
    backbone: Mapping[str, Any]
    inputs: Inputs
    outputs: Outputs
    environment: Mapping[str, str]
    licence: str
    round: int
    contract: str
    parent: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    exports: tuple[str, ...] = ()
    tensors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        _legal(self.format == FORMAT, "format", self.format, str(FORMAT))
        for name in ("firm", "model", "licence", "contract"):
            _legal(is_text(getattr(self, name)), name, getattr(self, name), "one line of text")
        _legal(is_whole(self.round), "round", self.round, "a whole number >= 0")
        parent = self.parent is None or is_digest(self.parent)
        _legal(parent, "parent", self.parent, "a sha256 in hex, or null")
        for name in ("epsilon", "delta"):
            value = getattr(self, name)
            known = value is None or (is_number(value) and value >= 0)
            _legal(known, name, value, "a number >= 0, or null")
        exports = self.exports
        _legal(isinstance(exports, list | tuple), "exports", exports, "a list of formats")
        object.__setattr__(self, "exports", tuple(exports))
        _legal(all(is_text(e) for e in exports), "exports", exports, "a list of formats")
        exactly(self.backbone, ("class", "fields"), "manifest.backbone")
        _legal(is_text(self.backbone["class"]), "backbone.class", self.backbone, "a class path")
        given = self.backbone["fields"]
        fields = isinstance(given, Mapping) and len(json.dumps(given)) <= MOST_FIELDS
        _legal(fields, "backbone.fields", given, f"an object of {MOST_FIELDS} characters or less")
        _legal(isinstance(self.environment, Mapping), "environment", self.environment, "an object")
        for name, wanted in self.environment.items():
            said = is_text(name) and is_text(wanted)
            _legal(said, "environment", {name: wanted}, "package: version specifier")
        self._check_tables()

    def _check_tables(self) -> None:
        for name in ("tensors", "files"):
            _legal(isinstance(getattr(self, name), Mapping), name, getattr(self, name), "an object")
        for name, entry in self.tensors.items():
            exactly(entry, ("shape", "dtype"), f"manifest.tensors[{name!r}]")
            shape = entry["shape"]
            sizes = isinstance(shape, list | tuple) and all(is_whole(n) for n in shape)
            _legal(sizes, f"tensors[{name!r}].shape", shape, "whole numbers >= 0")
            legal = entry["dtype"] in tuple(DTYPES)
            _legal(legal, f"tensors[{name!r}].dtype", entry["dtype"], ", ".join(DTYPES))
        for name, entry in self.files.items():
            exactly(entry, ("sha256", "size"), f"manifest.files[{name!r}]")
            _legal(is_digest(entry["sha256"]), f"files[{name!r}].sha256", entry, "sha256 in hex")
            _legal(is_whole(entry["size"]), f"files[{name!r}].size", entry, "a count of bytes")

    def to_json(self) -> bytes:
        """The bytes that are signed."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False).encode()


def read_manifest(content: bytes) -> Manifest:
    """A manifest from its bytes; exactly its fields, each in its range.

    Raises:
        ArtifactError: it is anything else.
    """
    with only_declared("manifest.json"):
        return _manifest_of(read_json(content, "manifest.json"))


def _manifest_of(said: dict[str, Any]) -> Manifest:
    for kind, name in ((Manifest, ""), (Inputs, "inputs"), (Outputs, "outputs")):
        part = said[name] if name else said
        fields = tuple(f.name for f in dataclasses.fields(kind))
        exactly(part, fields, f"manifest.{name}" if name else "manifest.json")
    said["inputs"], said["outputs"] = Inputs(**said["inputs"]), Outputs(**said["outputs"])
    return Manifest(**said)


def describe(backbone: Any) -> dict[str, Any]:
    """A backbone (any dataclass) as a manifest names it."""
    kind = type(backbone)
    fields = json.loads(json.dumps(asdict(backbone)))
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "fields": fields}


def table_of(weights: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Tensor name -> {"shape", "dtype"}.

    Raises:
        ArtifactError: a tensor is not of numbers.
    """
    names = {np.dtype(numpy): name for name, numpy in DTYPES.items()}
    table = {}
    for name, array in weights.items():
        dtype = getattr(array, "dtype", None)
        kind = None if dtype is None else names.get(dtype.newbyteorder("<"))
        if kind is None:
            raise ArtifactError(
                f"tensor {name!r} is {type(array).__name__ if dtype is None else dtype}; legal are "
                f"arrays of {', '.join(DTYPES)}. Send plain numbers."
            )
        table[name] = {"shape": list(array.shape), "dtype": kind}
    return table
