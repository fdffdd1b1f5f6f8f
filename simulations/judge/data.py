"""Data of a user's own: a csv table, an npz file, or a folder of images by class."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from parties.exchange import Array, FedpactError
from parties.reuse import Target

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read(path: Path, label: str | None, inputs: int, classes: tuple[str, ...]) -> Target:
    """Read data that the model takes.

    Args:
        path: .csv (a column a feature), .npz (`features`, and `labels` if there are any), or a
            folder with one folder of images a class.
        label: the csv's label column; None: "label" if there is one, else there are no labels.
        inputs: features a case that the model takes; images are made grey, of the square of as
            many pixels, from 0 to 1.
        classes: names of the model's classes, in order; () for numbers, or for names in the order
            of the alphabet.

    Raises:
        FedpactError: the data cannot be read, or are not what the model takes.
    """
    features: Array
    labels: Array | None
    if path.is_dir():
        features, labels = _images(path, inputs)
    elif path.suffix == ".csv":
        features, labels = _table(path, label)
    elif path.suffix == ".npz":
        features, labels = _arrays(path)
    else:
        raise FedpactError(
            f"data={path} is none of a .csv file, an .npz file and a folder of images by class."
            if path.exists()
            else f"data={path} does not exist. Name a .csv or .npz file, or a folder of images."
        )
    if len(features) == 0:
        raise FedpactError(f"data={path} has no case; a model is judged on one or more.")
    width = int(np.prod(features.shape[1:]))
    if inputs and width != inputs:
        raise FedpactError(
            f"data={path} has {width} features a case; the model takes {inputs}. Leave out "
            "columns that the model was not trained on (an id, another label)."
        )
    if not np.all(np.isfinite(features)):
        raise FedpactError(
            f"data={path} has values that are missing or not finite. Fill them in, or leave those "
            "cases out."
        )
    return Target(features, None if labels is None else _numbered(labels, classes, path))


def _table(path: Path, label: str | None) -> tuple[Array, Array | None]:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError, UnicodeDecodeError) as fault:
        raise FedpactError(f"data={path} cannot be read as a csv table: {fault}") from fault
    name = label or ("label" if "label" in table else None)
    if name is not None and name not in table:
        raise FedpactError(
            f"label={name} is no column of {path}; its columns are "
            f"{', '.join(map(str, table.columns[:12]))}."
        )
    rest = table if name is None else table.drop(columns=name)
    words = [str(c) for c in rest.columns if not pd.api.types.is_numeric_dtype(rest[c])]
    if words:
        raise FedpactError(
            f"data={path} has columns that are no numbers: {', '.join(words[:6])}. Code them as "
            "the model's training data were, name the label column with label=..., or leave them "
            "out."
        )
    features = rest.to_numpy(np.float32)
    return features, None if name is None else table[name].to_numpy()


def _arrays(path: Path) -> tuple[Array, Array | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            features = file["features"].astype(np.float32)
            labels = file.get("labels")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as fault:
        raise FedpactError(
            f"data={path} cannot be read ({fault}); legal is an .npz file with the array "
            "`features` (n, ...) and, where there are any, `labels` (n,)."
        ) from fault
    return features, labels


def _images(folder: Path, inputs: int) -> tuple[Array, Array]:
    side = math.isqrt(inputs)
    if side * side != inputs or not inputs:
        raise FedpactError(
            f"data={folder} is a folder of images; this model takes {inputs} features, which is no "
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
                raise FedpactError(f"{file} cannot be read as an image: {fault}") from fault
            features.append(np.asarray(grey, np.float32).reshape(-1) / 255)
            labels.append(place.name)
    if not features:
        raise FedpactError(
            f"data={folder} has no images in folders below it; legal is a folder a class, with "
            f"files that end in {', '.join(IMAGES)}."
        )
    return np.stack(features), np.array(labels)


def _numbered(labels: Array, classes: tuple[str, ...], path: Path) -> Array:
    """Labels as the model's class numbers."""
    if labels.ndim != 1:
        raise FedpactError(f"data={path} has labels of shape {labels.shape}; legal is one a case.")
    if labels.dtype.kind in "iu" and not classes:
        return labels.astype(np.int64)
    words = [str(v) for v in labels.tolist()]
    order = list(classes) or sorted(set(words))
    strange = sorted(set(words) - set(order))
    if strange:
        raise FedpactError(
            f"data={path} has the labels {', '.join(strange[:6])}; the model's classes are "
            f"{', '.join(order[:12])}."
        )
    place = {word: number for number, word in enumerate(order)}
    return np.array([place[word] for word in words], np.int64)
