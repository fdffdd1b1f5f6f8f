"""An artifact: a trained model as one firm hands it to another, in a folder or in a message.

A folder holds `weights.safetensors`, `manifest.json`, `CARD.md`, `golden.npz` (a few inputs and
what the model makes of them) and `manifest.sig` (the maker's signature of the manifest, which has
the hash of every other file). It is read as if its maker were an enemy.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import safetensors.numpy

from parties.exchange import Array
from parties.reuse.bounded import ArtifactError, read_arrays, read_folder, read_weights
from parties.reuse.card import Card, read_card
from parties.reuse.manifest import Manifest, digest_of, read_manifest, table_of
from parties.reuse.signing import sign

WEIGHTS, MANIFEST, CARD = "weights.safetensors", "manifest.json", "CARD.md"
GOLDEN, SIGNATURE = "golden.npz", "manifest.sig"
HASHED = (WEIGHTS, CARD, GOLDEN)
FILES = (*HASHED, MANIFEST, SIGNATURE)
MOST = {MANIFEST: 4 << 20, CARD: 1 << 18, GOLDEN: 1 << 26, SIGNATURE: 64}
"""Bytes that a file may have; the weights may have what the reader's own limit leaves."""
MOST_GOLDEN = 1 << 26  # bytes of the golden arrays, unpacked
MOST_BYTES = 1 << 30
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".h5", ".py")


@final
@dataclass(frozen=True)
class Golden:
    """A few cases and what the model makes of them: inputs (n, ...), logits (n, classes)."""

    inputs: Array
    logits: Array

    def __post_init__(self) -> None:
        rows = len(self.inputs) if self.inputs.ndim > 1 else 0
        if not rows or self.logits.ndim != 2 or len(self.logits) != rows:
            raise ArtifactError(
                f"golden has inputs {self.inputs.shape} and logits {self.logits.shape}; legal are "
                "(n, ...) and (n, classes), n >= 1. Write one row a case."
            )


@final
@dataclass(frozen=True)
class Artifact:
    """An offered model that has been read.

    Args:
        manifest: what its maker declares.
        weights: tensor name -> array.
        golden, card: None where it came in a message.
    """

    manifest: Manifest
    weights: Mapping[str, Array]
    golden: Golden | None = None
    card: Card | None = None

    @property
    def digest(self) -> str:
        """The name of these weights, in a folder and in a message alike."""
        return digest_of(self.weights)

    @staticmethod
    def from_weights(weights: Mapping[str, Array], **facts: Any) -> Artifact:
        """A model that came in a message: arrays, and the fields of its `Manifest`."""
        arrays = {name: np.asarray(array) for name, array in weights.items()}
        if not arrays:
            raise ArtifactError("the message holds no tensor; legal is one or more. Ask again.")
        return Artifact(Manifest(**facts, tensors=table_of(arrays)), arrays)


@final
@dataclass(frozen=True)
class Parcel:
    """A folder's files, read but not opened.

    Args:
        content: name -> bytes.
        strange: name -> why it was not read.
    """

    content: Mapping[str, bytes]
    strange: Mapping[str, str] = field(default_factory=dict)

    @property
    def pickles(self) -> list[str]:
        """Files of formats that can run code, or hide what they hold."""
        return sorted(n for n in {*self.content, *self.strange} if n.lower().endswith(PICKLES))

    def manifest(self) -> Manifest:
        """The manifest, whoever signed it."""
        if MANIFEST not in self.content:
            reason = self.strange.get(MANIFEST, "is missing")
            raise ArtifactError(f"{MANIFEST} {reason}; an artifact has one. Ask for it again.")
        return read_manifest(self.content[MANIFEST])

    @cached_property
    def objection(self) -> str:
        """Why these are not the files that the manifest names, or ""."""
        try:
            declared = self.manifest().files
        except ArtifactError as fault:
            return str(fault)
        if set(declared) != set(HASHED):
            return (
                f"the manifest names the files {sorted(declared)[:6]}; legal are exactly "
                f"{sorted(HASHED)}. Ask its maker to write it with write_artifact."
            )
        for name in sorted({*FILES, *self.content, *self.strange} - set(self.pickles)):
            if name in self.strange:
                return f"{name} {self.strange[name]}. Ask for plain files within the limit."
            if name not in FILES:
                return f"{name} does not belong to an artifact; its files are {sorted(FILES)}."
            if name not in self.content:
                if name == SIGNATURE:  # whether that is tolerated is another question
                    continue
                return f"{name} is missing; an artifact has {sorted(FILES)}. Ask for it again."
            found = self.content[name]
            if len(found) > MOST.get(name, len(found)):
                return (
                    f"{name} has {len(found)} bytes; legal are {MOST[name]}. Ask for a smaller one."
                )
            if name in HASHED and declared[name] != _about(found):
                return (
                    f"{name} is not the file that the manifest names (sha256 "
                    f"{_about(found)['sha256'][:12]}, not {declared[name]['sha256'][:12]}): it was "
                    "damaged or exchanged, and legal is that very file. Ask for the artifact again."
                )
        return ""

    def open(self) -> Artifact:
        """What the files hold.

        Raises:
            ArtifactError: a file is damaged, hides something, or is not what it should be.
        """
        if self.objection:
            raise ArtifactError(self.objection)
        if self.pickles:
            raise ArtifactError(
                f"{self.pickles[0]} is of a kind that can run code when it is loaded; legal is "
                f"{WEIGHTS} alone. Ask its maker for that, or convert it with `convert` on a "
                "machine that has nothing to lose."
            )
        golden = read_arrays(self.content[GOLDEN], ("inputs", "logits"), MOST_GOLDEN)
        return Artifact(
            self.manifest(),
            read_weights(self.content[WEIGHTS], WEIGHTS),
            Golden(golden["inputs"], golden["logits"]),
        )

    def card(self) -> Card:
        """The model card."""
        return read_card(self.content[CARD])


def collect(folder: Path, most_bytes: int = MOST_BYTES) -> Parcel:
    """Read a folder's files, and open none of them.

    Args:
        most_bytes: that all its files may have together.
    """
    return Parcel(*read_folder(Path(folder), most_bytes))


def read_artifact(folder: Path, most_bytes: int = MOST_BYTES) -> Artifact:
    """A whole and undamaged artifact. Who made it, and whether it is any good, the gate says.

    Raises:
        ArtifactError: anything is missing, strange, damaged or not as the manifest has it.
    """
    parcel = collect(folder, most_bytes)
    artifact = parcel.open()
    if objection := tables_differ(artifact):
        raise ArtifactError(objection)
    return replace(artifact, card=parcel.card())


def tables_differ(artifact: Artifact) -> str:
    """Why the tensors are not those that the manifest lists, or ""."""
    found, said = table_of(artifact.weights), artifact.manifest.tensors
    for name in sorted({*found, *said}):
        one, two = found.get(name), said.get(name)
        if one != two:
            return (
                f"tensor {name!r} is {one or 'missing'} in the weights and {two or 'missing'} in "
                "the manifest; both must say the same. Ask for the artifact again."
            )
    return ""


def write_artifact(
    folder: Path,
    manifest: Manifest,
    weights: Mapping[str, Array],
    card: Card,
    golden: Golden,
    secret: Path | None = None,
) -> Manifest:
    """Write an artifact: the whole folder or nothing.

    Args:
        folder: a new one; an artifact is never changed in place.
        manifest: its `tensors` and `files` are filled in.
        secret: the maker's private key (`make_keys`); None leaves it unsigned.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: the folder exists already, or a tensor is not of numbers.
    """
    if folder.exists() or folder.is_symlink():
        raise ArtifactError(f"{folder} exists; an artifact is never changed. Name another folder.")
    ordered = {name: _as_stored(weights[name]) for name in sorted(weights)}
    packed = io.BytesIO()
    rows = {"inputs": golden.inputs, "logits": golden.logits}
    np.savez(packed, **{k: np.ascontiguousarray(v, "<f4") for k, v in rows.items()})  # type: ignore[arg-type]
    content = {
        WEIGHTS: safetensors.numpy.save(ordered),
        CARD: card.to_text().encode(),
        GOLDEN: packed.getvalue(),
    }
    files = {name: _about(found) for name, found in content.items()}
    manifest = replace(manifest, tensors=table_of(ordered), files=files)
    content[MANIFEST] = manifest.to_json()
    if secret is not None:
        content[SIGNATURE] = sign(content[MANIFEST], secret)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, found in content.items():
            with (part / name).open("wb") as file:
                file.write(found)
                file.flush()
                os.fsync(file.fileno())
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


def convert(pickled: Path, weights: Path) -> None:
    """Turn a file of `torch.save` into safetensors, by torch's loader of weights alone.

    The gate never calls this: do it yourself, where there is nothing to lose.

    Raises:
        ArtifactError: torch refuses the file, or it holds anything but tensors by name.
    """
    import torch  # a firm can read artifacts without it

    try:
        state = torch.load(pickled, map_location="cpu", weights_only=True)
        arrays = {str(k): v.detach().contiguous().numpy() for k, v in state.items()}
        content = safetensors.numpy.save(arrays)
    except Exception as fault:
        raise ArtifactError(
            f"{pickled} holds more than tensors by name ({type(fault).__name__}); legal is a state "
            "dict. Ask its maker for safetensors."
        ) from fault
    weights.write_bytes(content)


def _as_stored(array: Array) -> Array:
    """Row by row, the lowest byte first."""
    return np.array(array, array.dtype.newbyteorder("<"), order="C")


def _about(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
