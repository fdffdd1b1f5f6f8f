"""Data of a user's own: a csv table, an npz file, or a folder of images by class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd

from parties.exchange import Array, FedpactError
from parties.reuse import Target

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@final
@dataclass(frozen=True)
class Shape:
    """What the model takes and gives, as far as its data must fit.

    Args:
        inputs: features a case; classes: how many it tells apart.
        names: of the classes, in order; () where nobody knows them.
        other: the data's classes are not the model's. They are numbered after those, so that no
            answer of the model counts as right.
    """

    inputs: int
    classes: int
    names: tuple[str, ...] = ()
    other: bool = False


def read(path: Path, label: str | None, shape: Shape, key: str = "data") -> Target:
    """Read data that the model takes.

    Images are made grey, of the square of as many pixels as the model takes, from 0 to 1. Labels
    are numbered by the names of the model's classes where these are known. Where they are not,
    numbers are class numbers; words are taken in the order of the alphabet if there are as many as
    classes, and refused else: which class is absent, nobody could know.

    Args:
        path: .csv (a column a feature), .npz (`features`, and `labels` if there are any), or a
            folder with one folder of images a class.
        label: the csv's label column; None: "label" if there is one, else there are no labels.
        key: what errors call it.

    Returns:
        Features (n, inputs), and the labels if there are any.

    Raises:
        FedpactError: the data cannot be read, or are not what the model takes.
    """
    features: Array
    labels: Array | None
    said = f"{key}={path}"
    if not path.exists():
        raise FedpactError(
            f"{said} does not exist; legal is a .csv file, an .npz file or a folder of images by "
            "class. Correct the path."
        )
    kind = path.suffix.lower()
    if path.is_dir():
        features, labels = _images(path, shape.inputs, said)
    elif kind == ".csv":
        features, labels = _table(path, label, said)
    elif kind == ".npz":
        features, labels = _arrays(path, said)
    else:
        raise FedpactError(
            f"{said} is none of a .csv file, an .npz file and a folder of images by class, which "
            "are legal. Save it as one of them."
        )
    if len(features) == 0:
        raise FedpactError(f"{said} has no case; legal are one or more. Give some.")
    features = features.reshape(len(features), -1)
    if features.shape[1] != shape.inputs:
        raise FedpactError(
            f"{said} has {features.shape[1]} features a case; the model takes {shape.inputs}. "
            "Leave out columns that the model was not trained on (an id, another label)."
        )
    if not np.all(np.isfinite(features)):
        raise FedpactError(
            f"{said} has values that are missing or not finite; legal are finite ones. Fill them "
            "in, or leave those cases out."
        )
    return Target(features, None if labels is None else _numbered(labels, shape, said))


def _table(path: Path, label: str | None, said: str) -> tuple[Array, Array | None]:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise FedpactError(
            f"{said} cannot be read as a csv table ({str(fault).strip()}); legal is a line of "
            "column names and a line a case. Mend it, or save it as an .npz file."
        ) from fault
    name = label or ("label" if "label" in table else None)
    if name is not None and name not in table:
        raise FedpactError(
            f"label={name} is no column of {path}; its columns are "
            f"{', '.join(map(str, table.columns[:12]))}. Name one of them with label=..., or leave "
            "it out where there are no labels."
        )
    rest = table if name is None else table.drop(columns=name)
    words = [str(c) for c in rest.columns if not pd.api.types.is_numeric_dtype(rest[c])]
    if words:
        raise FedpactError(
            f"{said} has columns that are no numbers: {', '.join(words[:6])}. Code them as "
            "the model's training data were, name the label column with label=..., or leave them "
            "out."
        )
    features = rest.to_numpy(np.float32)
    return features, None if name is None else table[name].to_numpy()


def _arrays(path: Path, said: str) -> tuple[Array, Array | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            features = file["features"].astype(np.float32)
            labels = file.get("labels")
        cases = len(features) if features.ndim > 1 else None
    except Exception as fault:  # numpy raises many kinds for a file that is no npz
        raise FedpactError(
            f"{said} cannot be read ({type(fault).__name__}: {fault}); legal is an .npz file with "
            "the array `features` (n, ...) and, where there are any, `labels` (n,). Write it with "
            "numpy.savez."
        ) from fault
    if cases is None or (labels is not None and labels.shape != (cases,)):
        found = "no labels" if labels is None else f"labels of shape {labels.shape}"
        raise FedpactError(
            f"{said} has features of shape {features.shape} and {found}; legal are (n, ...) and "
            "(n,). Write a row a case, and a label each."
        )
    return features, labels


def _images(folder: Path, inputs: int, said: str) -> tuple[Array, Array]:
    side = math.isqrt(inputs)
    if side * side != inputs or not inputs:
        raise FedpactError(
            f"{said} is a folder of images; this model takes {inputs} features, which is no "
            "square image of one channel. Give the data as an .npz file."
        )
    try:
        from PIL import Image
    except ImportError as fault:
        raise FedpactError("Images are read with the package pillow: install it.") from fault
    features, labels = [], []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        for file in sorted(p for p in place.iterdir() if p.suffix.lower() in IMAGES):
            try:
                with Image.open(file) as image:
                    grey = image.convert("L").resize((side, side), Image.Resampling.BILINEAR)
            except (OSError, ValueError) as fault:
                raise FedpactError(
                    f"{file} cannot be read as an image ({fault}); legal are images of pillow's "
                    "formats. Save it anew, or take it out."
                ) from fault
            features.append(np.asarray(grey, np.float32).reshape(-1) / 255)
            labels.append(place.name)
    if not features:
        raise FedpactError(
            f"{said} has no images in folders below it; legal is a folder a class, with "
            f"files that end in {', '.join(IMAGES)}. Sort them so, or name another folder."
        )
    return np.stack(features), np.array(labels)


def _numbered(labels: Array, shape: Shape, said: str) -> Array:
    """Labels as the model's class numbers."""
    missing = int(pd.isna(labels).sum())
    if missing:
        raise FedpactError(
            f"{said} has no label for {missing} of its cases; legal is one each. Fill them in, or "
            "leave those cases out."
        )
    words = [_word(value) for value in labels.tolist()]
    there = sorted(set(words))
    if shape.other:
        order, after = there, shape.classes
    elif shape.names:
        order, after = list(shape.names), 0
    elif all(word.removeprefix("-").isdecimal() for word in there):
        return _in_range(np.array([int(word) for word in words], np.int64), shape, said)
    elif len(there) == shape.classes:
        order, after = there, 0
    else:
        raise FedpactError(
            f"{said} has {len(there)} classes ({', '.join(there[:12])}), the model has "
            f"{shape.classes}, and their names are not known: which are absent, nobody can tell. "
            "Name the model's classes in order, classes=[a,b,c], or give class numbers from 0."
        )
    strange = [word for word in there if word not in order]
    if strange:
        raise FedpactError(
            f"{said} has the labels {', '.join(strange[:6])}; the model's classes are "
            f"{', '.join(order[:12])}. Rename them, or say classes=other where they are others."
        )
    place = {word: number for number, word in enumerate(order, after)}
    return np.array([place[word] for word in words], np.int64)


def _in_range(numbers: Array, shape: Shape, said: str) -> Array:
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= shape.classes:
        raise FedpactError(
            f"{said} has the labels {low} to {high}; the model's classes are 0 to "
            f"{shape.classes - 1}. Number them so, name the classes in order (classes=[1,2,3]), or "
            "say classes=other where they are others."
        )
    return numbers


def _word(value: object) -> str:
    """A label as it is written; a table in which one label was missing has 3.0 for 3."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
